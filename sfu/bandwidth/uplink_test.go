package bandwidth

import (
	"math/rand/v2"
	"testing"
	"time"
)

// publisher is a camera of three layers and a voice sent over a line into an Uplink, in virtual time. Of a limit it hears when the next report has
// come back, and then it sends the layers that fit, and goes on so: by then its own congestion control has found out.
type publisher struct {
	line  *line
	now   time.Duration
	u     Uplink
	left  []time.Duration // by number
	sizes []int
	obeys []parcel // limits on their way: bits/s, 0 = none
	limit int64
	said  int64
	held  time.Duration // until then the line lets nothing pass
	muted bool

	began, ended time.Duration // of the first limit that was found; 0 = none
	lowest       int64         // limit so far
	widened      []time.Duration
	overflown    int
	news         bool // from Note
}

const passOn = 300 * time.Millisecond // after that receivers are told

func newPublisher(l line) *publisher {
	l.random = rand.New(rand.NewPCG(7, 9))
	return &publisher{line: &l, now: time.Second}
}

func (p *publisher) send(size int, numbered bool) {
	if len(p.line.waiting) >= p.line.queue {
		p.overflown++
	}
	n := -1
	if numbered {
		n = len(p.left)
		p.left, p.sizes = append(p.left, p.now), append(p.sizes, size)
	}
	p.line.send(parcel{number: n, bits: int64(size) * 8})
}

func (p *publisher) run(d time.Duration) {
	for end := p.now + d; p.now < end; p.now += time.Millisecond {
		p.step()
	}
}

func (p *publisher) step() {
	if p.now%(20*time.Millisecond) == 0 && !p.muted {
		p.send(voiceSize, false)
	}
	if p.now%(time.Second/fps).Round(time.Millisecond) == 0 && !p.muted {
		sum := int64(0)
		for i, bitrate := range layers {
			if sum += bitrate; i > 0 && p.limit > 0 && sum > p.limit {
				break
			}
			for size := bitrate / 8 / fps; size > 0; size -= 1100 {
				p.send(int(min(size, 1100))+headers, true)
			}
		}
	}
	if p.now >= p.held {
		for _, a := range p.line.pass(p.now) {
			if a.number >= 0 {
				news := p.u.Note(uint32(p.left[a.number]<<sendFraction/time.Second)&0xffffff, p.sizes[a.number], p.now)
				p.news = p.news || news
			}
		}
	}
	if p.now%(20*time.Millisecond) == 0 && (p.news || p.said != 0) { // who is told of no news does not look
		p.news = false
		p.tell()
	}
	for len(p.obeys) > 0 && p.obeys[0].at <= p.now {
		if bits := p.obeys[0].bits; bits > 0 {
			p.limit = bits
		}
		p.obeys = p.obeys[1:]
	}
}

func (p *publisher) tell() {
	limit, limited := p.u.Limit(p.now)
	if p.u.Widened() {
		p.widened = append(p.widened, p.now)
	}
	if limit != p.said {
		p.said = limit
		p.obeys = append(p.obeys, parcel{bits: limit, at: p.now + p.line.delay})
	}
	switch {
	case limited && p.began == 0:
		p.began, p.lowest = p.now, limit
	case limited:
		p.lowest = min(p.lowest, limit)
	case p.began > 0 && p.ended == 0:
		p.ended = p.now
	}
}

// TestUplinkBecomesNarrow: a client whose line no longer carries what it sends is told how much that does carry, at once, and until its queue is
// empty.
func TestUplinkBecomesNarrow(t *testing.T) {
	for _, tc := range []struct {
		name string
		line line
		rate int64
	}{
		{"2 Mbit/s to 300 kbit/s", plain, narrow},
		{"to 700 kbit/s", plain, 700_000},
		{"with 200 ms round trip", with(func(l *line) { l.delay = 100 * time.Millisecond; l.queue = 100 }), narrow},
		{"with 30 ms jitter", with(func(l *line) { l.jitter = 30 * time.Millisecond }), narrow},
		{"with 5 % loss", with(func(l *line) { l.loss = 0.05 }), narrow},
		{"from what was hardly enough", with(func(l *line) { l.rate = 1_750_000 }), narrow},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPublisher(tc.line)
			p.run(100 * time.Second) // the send times have begun anew by then
			if p.began != 0 {
				t.Fatalf("limited to %d bits/s on the wide line", p.lowest)
			}
			p.line.rate = tc.rate
			turned := p.now
			p.run(10 * time.Second)
			if p.began == 0 || p.began-turned > 250*time.Millisecond+p.line.delay {
				t.Fatalf("limited %v after the line became narrow, want it within 250 ms and its delay of %v", p.began-turned, p.line.delay)
			}
			if p.lowest > tc.rate || p.lowest < tc.rate/3 {
				t.Errorf("limited to %d bits/s on a line of %d", p.lowest, tc.rate)
			}
			if p.overflown > 40 { // half a second of what it sent before
				t.Errorf("%d packets did not fit into its queue, want at most 40", p.overflown)
			}
			if length := p.ended - p.began; p.ended == 0 || length > longestRelief+20*time.Millisecond {
				t.Errorf("limited for %v, want at most %v", length, longestRelief)
			}
		})
	}
}

// TestUplinkIsLeftAlone: whoever sends no more than the line carries is told nothing.
func TestUplinkIsLeftAlone(t *testing.T) {
	for _, tc := range []struct {
		name string
		line line
	}{
		{"wide", plain},
		{"with 30 ms jitter", with(func(l *line) { l.jitter = 30 * time.Millisecond })},
		{"with 60 ms jitter", with(func(l *line) { l.jitter = 60 * time.Millisecond })},
		{"with 20 % loss", with(func(l *line) { l.loss = 0.2 })},
		{"longer after ten seconds", with(func(l *line) { l.longer = 80 * time.Millisecond })},
		{"with little of it to spare", with(func(l *line) { l.rate = 1_900_000 })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPublisher(tc.line)
			for range 30 {
				p.run(time.Second)
			}
			if p.began != 0 {
				t.Errorf("limited to %d bits/s after %v", p.lowest, p.began)
			}
		})
	}
	t.Run("with pauses of 300 ms", func(t *testing.T) {
		p := newPublisher(with(func(l *line) { l.rate = 20_000_000; l.queue = 500 }))
		for range 30 {
			p.run(time.Second)
			p.held = p.now + 300*time.Millisecond
		}
		if p.began != 0 {
			t.Errorf("limited to %d bits/s after %v", p.lowest, p.began)
		}
	})
}

// TestUplinkAfterSilence: the send times go round while nothing is sent, which says nothing about the line.
func TestUplinkAfterSilence(t *testing.T) {
	p := newPublisher(plain)
	p.run(10 * time.Second)
	p.muted = true
	p.run(50 * time.Second)
	p.muted = false
	p.run(10 * time.Second)
	if p.began != 0 {
		t.Errorf("limited to %d bits/s", p.lowest)
	}
}

// TestUplinkBecomesWide: large packets pass faster then, which is told once, and not before.
func TestUplinkBecomesWide(t *testing.T) {
	for _, tc := range []struct {
		name   string
		line   line
		narrow time.Duration
		tried  time.Duration // before it becomes wide the client sent all layers again; 0 = it did not
	}{
		{"after 20 s", plain, 20 * time.Second, 0},
		{"after two minutes", plain, 2 * time.Minute, 0},
		{"with 10 ms jitter", with(func(l *line) { l.jitter = 10 * time.Millisecond }), 20 * time.Second, 0},
		{"with 10 % loss", with(func(l *line) { l.loss = 0.1 }), 20 * time.Second, 0},
		{"after a try in vain", plain, 9 * time.Second, 2 * time.Second},
		{"long after a try in vain", plain, 9 * time.Second, 10 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPublisher(tc.line)
			p.run(10 * time.Second)
			p.line.rate = narrow
			p.run(tc.narrow)
			if tc.tried > 0 {
				p.limit = 0
				p.run(tc.tried)
			}
			if p.began == 0 || len(p.widened) > 0 {
				t.Fatalf("limit found after %v, the line found wide after %v", p.began, p.widened)
			}
			p.line.rate = wide
			turned := p.now
			p.run(20 * time.Second)
			if len(p.widened) != 1 || p.widened[0]-turned > 3*time.Second {
				t.Errorf("found wide at %v, want it once, within 3 s of %v", p.widened, turned)
			}
		})
	}
}

// TestUplinkLimitsAreRight: whenever the line becomes narrow, what the client is told soon fits.
func TestUplinkLimitsAreRight(t *testing.T) {
	const steps = 300
	large := 0
	for i := range steps {
		p := newPublisher(with(func(l *line) { l.jitter = time.Duration(i%3) * 5 * time.Millisecond }))
		p.run(3*time.Second + time.Duration(i)*time.Millisecond)
		p.line.rate = narrow
		for turned := p.now; p.began == 0 && p.now-turned < time.Second; {
			p.run(time.Millisecond)
		}
		p.run(passOn - 20*time.Millisecond)
		if p.said == 0 || p.said > narrow {
			large++
		}
	}
	t.Logf("of %d limits %d are too large", steps, large)
	if large > steps/100 {
		t.Errorf("of %d limits %d are too large after %v", steps, large, passOn)
	}
}
