package bandwidth

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// line is a network path in virtual time: a queue in front of a rate, then delay, jitter and loss.
type line struct {
	rate   int64 // bits/s
	queue  int   // packets
	delay  time.Duration
	jitter time.Duration // up to so much more, packets overtake each other
	loss   float64
	other  int64 // bits/s that somebody else sends into the queue

	longer time.Duration // by so much the way becomes after ten seconds

	random  *rand.Rand
	waiting []parcel
	credit  int64 // bits
	onward  []parcel
}

type parcel struct {
	number int // -1 = carries none
	bits   int64
	at     time.Duration // of arrival

	flow, seq int // for a viewer; seq counts from 1, 0 = it has none
}

// send reports whether the packet gets through.
func (l *line) send(p parcel) bool {
	if len(l.waiting) >= l.queue || l.random.Float64() < l.loss {
		return false
	}
	l.waiting = append(l.waiting, p)
	return true
}

// pass lets a millisecond go by and returns what arrives in it.
func (l *line) pass(now time.Duration) (arrived []parcel) {
	if l.other > 0 && now%(4*time.Millisecond) == 0 {
		l.send(parcel{number: -1, bits: l.other / 250})
	}
	l.credit = min(l.credit+l.rate/1000, l.rate/1000+12000)
	if len(l.waiting) == 0 {
		l.credit = min(l.credit, l.rate/1000)
	}
	for len(l.waiting) > 0 && l.waiting[0].bits <= l.credit {
		p := l.waiting[0]
		l.credit -= p.bits
		l.waiting = l.waiting[1:]
		if p.at = now + l.delay; now > 10*time.Second {
			p.at += l.longer
		}
		p.at += time.Duration(l.random.Int64N(int64(l.jitter) + 1))
		l.onward = append(l.onward, p)
	}
	l.onward = slices.DeleteFunc(l.onward, func(p parcel) bool {
		if p.at <= now {
			arrived = append(arrived, p)
		}
		return p.at <= now
	})
	return arrived
}

// backlog is how long a packet that is sent now will wait.
func (l *line) backlog() time.Duration {
	var bits int64
	for _, p := range l.waiting {
		bits += p.bits
	}
	return time.Duration(bits * int64(time.Second) / l.rate)
}

// report is what a receiver has to report: arrivals by extended number.
type report struct {
	arrivals map[int]time.Duration
	highest  int
	told     int // highest number reported
	fresh    int // lowest number that arrived since then; -1 = none
}

func (r *report) take(p parcel) {
	if p.number < 0 {
		return
	}
	r.arrivals[p.number] = p.at
	r.highest = max(r.highest, p.number)
	if r.fresh < 0 || p.number < r.fresh {
		r.fresh = p.number
	}
}

// feedback writes the report as browsers do, two bits a packet; nil if there is nothing new.
func (r *report) feedback() []byte {
	if r.fresh < 0 {
		return nil
	}
	first, n := r.fresh, r.highest-r.fresh+1
	if r.told > 0 && first > r.told+1 {
		first, n = r.told+1, r.highest-r.told
	}
	r.fresh, r.told = -1, r.highest
	return writeFeedback(first, n, func(number int) (time.Duration, bool) { at, ok := r.arrivals[number]; return at, ok })
}

func writeFeedback(first, n int, arrival func(number int) (time.Duration, bool)) []byte {
	b := make([]byte, feedbackHeader)
	b[0], b[1] = 0x8f, 205
	binary.BigEndian.PutUint16(b[12:], uint16(first))
	binary.BigEndian.PutUint16(b[14:], uint16(n))
	var at time.Duration
	var deltas []byte
	var chunk uint16
	for i := range n {
		arrived, ok := arrival(first + i)
		symbol := uint16(0)
		if ok {
			if at == 0 {
				reference := arrived / referenceUnit
				binary.BigEndian.PutUint32(b[16:], uint32(reference&0xffffff)<<8)
				at = reference * referenceUnit
			}
			delta := (arrived - at) / deltaUnit
			at += delta * deltaUnit
			if symbol = 1; delta < 0 || delta > 255 {
				symbol = 2
				deltas = binary.BigEndian.AppendUint16(deltas, uint16(delta))
			} else {
				deltas = append(deltas, byte(delta))
			}
		}
		chunk |= symbol << (12 - 2*(i%7))
		if i%7 == 6 || i == n-1 {
			b = binary.BigEndian.AppendUint16(b, 0xc000|chunk)
			chunk = 0
		}
	}
	b = append(b, deltas...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)/4-1))
	return b
}

// Sizes of what the call below sends: a camera of three layers and a voice.
const (
	fps         = 15
	headers     = 28 + 12 + 8 + 16 // bytes of a packet that are no payload
	voiceSize   = 80 + headers
	keySize     = 4                     // frames
	keyPatience = 90 * time.Millisecond // until a key frame that was asked for comes
	tell        = 50 * time.Millisecond // between two reports
)

var layers = [Layers]int64{160_000, 450_000, 900_000}

// call is a camera and a voice sent over a line by the estimator's word, in virtual time: the whole loop.
type call struct {
	t     *testing.T
	line  *line
	back  time.Duration // delay of reports
	deaf  float64       // share of them that is lost
	firm  bool          // the camera must not be paused
	now   time.Duration
	e     Estimator
	count int // packets with a number so far
	video struct {
		layer  int // -1 = nothing
		target int // -1 = paused
		keyAt  time.Duration
		key    bool // the next frame is one
	}
	report  report
	reports []parcelOfReport

	resends bool // what is lost is sent again, and where the line loses packets by its nature once more
	again   []resend
	repair  float64 // bytes that may be sent again while there is a limit
	counts  struct{ lost, again, twice int }

	viewer *viewer // nil = nobody looks at what arrives

	log []moment
}

// resend is a packet to be sent again.
type resend struct {
	at   time.Duration
	size int
	copy bool // it was just sent again
}

type parcelOfReport struct {
	at time.Duration
	b  []byte
}

// moment is how the call is.
type moment struct {
	at      time.Duration
	layer   int
	backlog time.Duration
	budget  int64 // 0 = no limit
	lossy   bool
}

func newCall(t *testing.T, l line) *call {
	c := &call{t: t, line: &l, firm: true, now: time.Second, back: l.delay}
	l.random = rand.New(rand.NewPCG(7, 9))
	c.line = &l
	c.report = report{arrivals: map[int]time.Duration{}, fresh: -1}
	c.video.layer, c.video.target, c.video.key = Layers-1, Layers-1, true
	return c
}

func (c *call) run(d time.Duration) {
	for end := c.now + d; c.now < end; c.now += time.Millisecond {
		c.step()
	}
}

func (c *call) step() {
	c.media()
	if c.now%(10*time.Millisecond) == 0 {
		for left := c.e.Tick(c.now); left > 0; left -= 255 + headers {
			c.numbered(255 + headers)
		}
	}
	for _, p := range c.line.pass(c.now) {
		p.at += 1000 * time.Hour // the receiver's clock
		c.report.take(p)
		if c.viewer != nil {
			c.viewer.take(p)
		}
	}
	if c.now%tell == 0 {
		if b := c.report.feedback(); b != nil && c.line.random.Float64() >= c.deaf {
			c.reports = append(c.reports, parcelOfReport{c.now + c.back, b})
		}
	}
	for len(c.reports) > 0 && c.reports[0].at <= c.now {
		c.e.Feedback(c.reports[0].b, c.now)
		c.reports = c.reports[1:]
	}
	if c.resends {
		c.resend()
	}
	if c.viewer != nil {
		c.viewer.step()
	}
	c.allocate()
	budget, limited := c.e.Budget()
	if !limited {
		budget = 0
	}
	c.log = append(c.log, moment{at: c.now, layer: c.video.layer, backlog: c.line.backlog(), budget: budget, lossy: c.e.Lossy(c.now)})
}

// resend does what the way out does with what a receiver asks for.
func (c *call) resend() {
	if budget, limited := c.e.Budget(); limited {
		c.repair = min(c.repair+float64(budget)/8/4/1000, float64(budget)/8/4)
	} else {
		c.repair = 1 << 20
	}
	due := c.again
	c.again = nil
	for _, r := range due {
		switch {
		case r.at > c.now:
			c.again = append(c.again, r)
		case r.copy && !c.e.Lossy(c.now), c.repair < float64(r.size):
		default:
			c.repair -= float64(r.size)
			if r.copy {
				c.counts.twice++
				c.numberedOnce(r.size)
				continue
			}
			c.counts.again++
			c.numbered(r.size)
			c.again = append(c.again, resend{c.now + 10*time.Millisecond, r.size, true})
		}
	}
}

// numbered sends a packet that has a transport-wide number.
func (c *call) numbered(size int) {
	if !c.numberedOnce(size) {
		c.counts.lost++
		c.again = append(c.again, resend{c.now + 2*c.line.delay + 30*time.Millisecond, size, false})
	}
}

// numberedOnce sends one that is not sent again.
func (c *call) numberedOnce(size int) bool {
	arrives := c.line.send(parcel{number: c.count, bits: int64(size) * 8})
	c.count++
	c.e.Sent.Add(size, c.now)
	return arrives
}

func (c *call) media() {
	if c.viewer != nil {
		c.viewer.media()
		return
	}
	if c.now%(20*time.Millisecond) == 0 {
		c.line.send(parcel{number: -1, bits: voiceSize * 8})
	}
	v := &c.video
	if v.keyAt > 0 && c.now >= v.keyAt {
		v.layer, v.key, v.keyAt = v.target, true, 0
	}
	if c.now%(time.Second/fps).Round(time.Millisecond) != 0 || v.layer < 0 {
		return
	}
	size := layers[v.layer] / 8 / fps
	if v.key {
		size, v.key = size*keySize, false
	}
	for ; size > 0; size -= 1100 {
		c.numbered(int(min(size, 1100)) + headers)
	}
}

// allocate does what the room does with the budget: layers above it stop at once, others begin with a key frame.
func (c *call) allocate() {
	target := Layers - 1
	if budget, limited := c.e.Budget(); limited {
		load := Load{0, layers[0] * 108 / 100, layers[1] * 108 / 100, layers[2] * 108 / 100}
		if c.firm {
			load = firm(load)
		}
		target = Allocate(budget, []Want{{Load: load, Present: c.video.target + 1}})[0] - 1
		c.e.Want(load[All])
	}
	v := &c.video
	if target == v.target {
		return
	}
	v.target, v.keyAt = target, c.now+keyPatience
	if target < v.layer && c.viewer != nil {
		v.keyAt += c.viewer.cut()
	}
	if target < v.layer {
		v.layer = -1
	}
	if target < 0 {
		v.keyAt = 0
	}
}

// since returns the log from a time on.
func (c *call) since(at time.Duration) []moment {
	for i, m := range c.log {
		if m.at >= at {
			return c.log[i:]
		}
	}
	return nil
}

// settled returns how long after at the layer was reached and kept, but for a twentieth of the time.
func (c *call) settled(at time.Duration, layer int) time.Duration {
	log := c.since(at)
	wrong := 0
	for _, m := range log {
		if m.layer != layer {
			wrong++
		}
	}
	for i, m := range log {
		if m.layer == layer && wrong <= (len(log)-i)/20 {
			return m.at - at
		}
		if m.layer != layer {
			wrong--
		}
	}
	return time.Hour
}

// share is the part of the log with at least that layer.
func share(log []moment, layer int) float64 {
	n := 0
	for _, m := range log {
		if m.layer >= layer {
			n++
		}
	}
	return float64(n) / float64(max(len(log), 1))
}

// waits is the 95th percentile of how long packets waited.
func waits(log []moment) time.Duration {
	var all []time.Duration
	for _, m := range log {
		all = append(all, m.backlog)
	}
	slices.Sort(all)
	return all[len(all)*95/100]
}
