package bandwidth

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// What browsers do, and sfu/forward and sfu/egress.
const (
	lookEvery = 20 * time.Millisecond
	askEvery  = 100 * time.Millisecond // for the same packet, whether it is lost or waits in the queue
	mostAsks  = 10

	mostAnswers = 8
	answerTime  = 30 * time.Millisecond // for which no other request is answered, besides the queue
	repairs     = 4                     // a quarter of the rate is for answers

	keptWait, maxKept = 150 * time.Millisecond, 900 * time.Millisecond // when the key frame after a cut is asked for
)

// viewer is a receiver that asks for what is lost and decodes what is whole, and the server's answers: with them a queue that overflows stays full. The sender's frames
// are of all sizes and come in bursts, as those of a busy browser do.
type viewer struct {
	c      *call
	random *rand.Rand
	flows  [2]flow // of video and of sound
	asks   []ask   // on their way to the server
	layers bool    // there are three temporal layers, of which the lowest has large frames

	due  time.Duration // of the next frame
	slip time.Duration // by so much it comes later
	turn int           // of the frame in the pattern of temporal layers

	frames  []picture
	next    int           // frame to decode
	from    time.Duration // what follows is since then
	decoded time.Duration // when the last frame was
	still   time.Duration // the longest time without one
	lower   time.Duration // when the lowest layer came; 0 = it has not
}

// flow is a stream of packets as the server remembers it and as the receiver misses it, by sequence number.
type flow struct {
	sent    []answered
	from    int // lowest number that is sent again
	highest int // that arrived
	missing map[int]*missed
}

type answered struct {
	size    int
	arrived bool
	times   int
	until   time.Duration // requests before that have crossed the answer
}

type missed struct {
	asked time.Duration
	times int
}

type ask struct {
	at        time.Duration
	flow, seq int
}

// picture is a frame: the sequence numbers of its packets.
type picture struct {
	first, last int
	layer       int
	key         bool
}

const (
	videoFlow = iota
	voiceFlow
)

func newViewer(c *call, seed uint64) *viewer {
	v := &viewer{c: c, random: rand.New(rand.NewPCG(seed, 5)), due: c.now}
	for i := range v.flows {
		v.flows[i] = flow{highest: -1, missing: map[int]*missed{}}
	}
	return v
}

// add sends a new packet and returns its number.
func (v *viewer) add(flow, size int) (seq int) {
	f := &v.flows[flow]
	f.sent = append(f.sent, answered{size: size})
	seq = len(f.sent) - 1
	v.send(flow, seq)
	return seq
}

// send puts a packet into the line, for the first time or again.
func (v *viewer) send(flow, seq int) {
	c, size := v.c, v.flows[flow].sent[seq].size
	p := parcel{number: -1, bits: int64(size) * 8, flow: flow, seq: seq + 1}
	if flow == videoFlow {
		p.number = c.count
		c.count++
		c.e.Sent.Add(size, c.now)
	}
	c.line.send(p)
}

// media sends what is due.
func (v *viewer) media() {
	c, s := v.c, &v.c.video
	if c.now%(20*time.Millisecond) == 0 {
		v.add(voiceFlow, voiceSize)
	}
	if c.now < v.due+v.slip {
		return
	}
	v.due += time.Second / fps
	if v.slip = 0; v.random.Float64() < 0.15 {
		v.slip = time.Duration(v.random.Int64N(int64(70 * time.Millisecond)))
	}
	if s.keyAt > 0 && c.now >= s.keyAt {
		s.layer, s.key, s.keyAt = s.target, true, 0
	}
	if s.layer < 0 {
		return
	}
	mean := float64(layers[s.layer] / 8 / fps)
	size := mean * (0.6 + 0.8*v.random.Float64())
	if v.turn = (v.turn + 1) % 4; s.key {
		v.turn = 0
	}
	switch {
	case s.key:
		size = mean * keySize
	case v.layers && v.turn > 0:
		size *= 0.8
	case v.layers:
		size *= 1.6
	}
	p := picture{layer: s.layer, key: s.key}
	s.key = false
	parts := int(size)/1100 + 1
	for i := range parts {
		if p.last = v.add(videoFlow, int(size)/parts+headers); i == 0 {
			p.first = p.last
		}
	}
	v.frames = append(v.frames, p)
}

// cut forgets what was sent of a layer that ended, and returns how much later the key frame of the other one is asked for.
func (v *viewer) cut() time.Duration {
	v.flows[videoFlow].from = len(v.flows[videoFlow].sent)
	return min(max(v.c.e.Waits(v.c.now)-keptWait, 0), maxKept)
}

// take is a packet that arrives.
func (v *viewer) take(p parcel) {
	if p.seq == 0 {
		return
	}
	f, seq := &v.flows[p.flow], p.seq-1
	f.sent[seq].arrived = true
	delete(f.missing, seq)
	for ; f.highest < seq; f.highest++ {
		if s := f.highest + 1; s < seq {
			f.missing[s] = &missed{}
		}
	}
	if p.flow == videoFlow {
		v.decode()
	}
}

// decode decodes what is whole: the frame after the last one, or a key frame.
func (v *viewer) decode() {
	f := &v.flows[videoFlow]
	for i := v.next; i < len(v.frames); i++ {
		p := &v.frames[i]
		if i > v.next && !p.key || slices.ContainsFunc(f.sent[p.first:p.last+1], func(s answered) bool { return !s.arrived }) {
			continue
		}
		for s := range f.missing {
			if s < p.first {
				delete(f.missing, s)
			}
		}
		v.next = i + 1
		v.still = max(v.still, v.c.now-max(v.decoded, v.from))
		v.decoded = v.c.now
		if p.layer == 0 && v.lower == 0 {
			v.lower = v.c.now
		}
	}
}

// step is a millisecond of requests and answers.
func (v *viewer) step() {
	c := v.c
	if c.now%lookEvery == 0 {
		for i := range v.flows {
			v.ask(i)
		}
	}
	if second := smoothing * float64(c.e.estimate) / 8 / repairs; c.e.limited {
		c.repair = min(c.repair+second/1000, second)
	} else {
		c.repair = 1 << 20
	}
	for len(v.asks) > 0 && v.asks[0].at <= c.now {
		v.answer(v.asks[0])
		v.asks = v.asks[1:]
	}
}

func (v *viewer) ask(flow int) {
	missing := v.flows[flow].missing
	seqs := make([]int, 0, len(missing))
	for seq := range missing {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	for _, seq := range seqs {
		if m := missing[seq]; m.times == 0 || m.times < mostAsks && v.c.now-m.asked >= askEvery {
			m.times++
			m.asked = v.c.now
			v.asks = append(v.asks, ask{v.c.now + v.c.back, flow, seq})
		}
	}
}

func (v *viewer) answer(a ask) {
	c, f := v.c, &v.flows[a.flow]
	s := &f.sent[a.seq]
	if a.seq < f.from || s.times == mostAnswers || c.now < s.until {
		return
	}
	if a.flow == videoFlow {
		if c.repair < float64(s.size) {
			return
		}
		c.repair -= float64(s.size)
	}
	s.times++
	s.until = c.now + answerTime + c.e.Waits(c.now)
	v.send(a.flow, a.seq)
}

// TestQueueDrains is a line that becomes narrow at any moment of what is sent, so that its queue overflows: it is short again two seconds later, the lower layer is there, and
// the picture has not stood still for long.
func TestQueueDrains(t *testing.T) {
	seeds := uint64(120)
	if testing.Short() {
		seeds = 20
	}
	for _, tc := range []struct {
		name   string
		layers bool
		queue  int // packets
		lower  time.Duration
		still  time.Duration
	}{
		{"one temporal layer", false, 50, 2 * time.Second, 600 * time.Millisecond},
		{"three temporal layers", true, 50, 3 * time.Second, 1500 * time.Millisecond}, // a large frame may wait before the line is narrow: too much is measured first, and there are two cuts
		{"a short queue", false, 25, 2 * time.Second, time.Second},
		{"a long queue", false, 200, 2 * time.Second, 600 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var queue, lower, still time.Duration
			for seed := range seeds {
				c := newCall(t, with(func(l *line) { l.queue = tc.queue }))
				c.line.random = rand.New(rand.NewPCG(seed, 9))
				c.now += time.Duration(seed%50) * time.Millisecond // after the receiver's last report
				c.viewer = newViewer(c, seed)
				c.viewer.layers = tc.layers
				c.run(8*time.Second + time.Duration(c.line.random.Int64N(300))*time.Millisecond)
				c.line.rate = narrow
				down := c.now
				c.viewer.from, c.viewer.still = down, 0
				c.run(15 * time.Second)
				w := waits(c.since(down + 2*time.Second))
				if l := c.viewer.lower - down; c.viewer.lower == 0 || l > tc.lower || w > 200*time.Millisecond || c.viewer.still > tc.still {
					t.Errorf("seed %d: the lower layer after %v, packets wait for %v, the picture stood still for %v: %s", seed, l, w, c.viewer.still, c.history(down))
				}
				queue, lower, still = max(queue, w), max(lower, c.viewer.lower-down), max(still, c.viewer.still)
			}
			t.Logf("at most: the lower layer after %v, packets wait for %v, the picture stood still for %v", lower, queue, still)
		})
	}
}
