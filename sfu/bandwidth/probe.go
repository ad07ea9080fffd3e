package bandwidth

import "time"

const (
	probeFor     = 80 * time.Millisecond
	probeEvery   = 10 * time.Millisecond  // between two calls of Tick
	probeAnswer  = 600 * time.Millisecond // the receiver has to report within
	firstProbe   = time.Second            // after too much was sent
	seldomProbe  = 4 * time.Second        // at most between two that failed: somebody waits for a better picture
	probeSpacing = 200 * time.Millisecond // after one that did not
	probeCarried = 0.85                   // of what was sent must have arrived in the same time
)

// probe is a short burst of more than the estimate, filled up with padding, that shows whether the line carries more.
type probe struct {
	next    time.Duration // when the next one may begin
	backoff time.Duration // after another that fails

	phase        probePhase
	rate         int64 // bits/s
	began, ended time.Duration
	bytes        uint64 // Sent.bytes when it began
	first, last  uint16 // transport-wide numbers
	result       train
}

type probePhase uint8

const (
	noProbe probePhase = iota
	sendingProbe
	awaitingProbe
)

// train is what arrived of a probe.
type train struct {
	packets, bytes int
	firstSent      time.Duration
	lastSent       time.Duration
	burst          int // bytes sent at lastSent
	firstArrived   time.Duration
	lastArrived    time.Duration
	firstSize      int
}

func (p *probe) start(rate int64, s *Sent, now time.Duration) {
	p.phase, p.rate, p.began, p.bytes, p.first, p.result = sendingProbe, rate, now, s.bytes, s.next, train{}
}

// due is how many bytes of padding belong to the probe now. After its end none do.
func (p *probe) due(s *Sent, now time.Duration) int {
	if p.phase != sendingProbe {
		return 0
	}
	if now-p.began >= probeFor {
		p.phase, p.ended, p.last = awaitingProbe, now, s.next-1
		return 0
	}
	wanted := p.rate / 8 * int64(now-p.began+probeEvery) / int64(time.Second)
	return int(max(wanted-int64(s.bytes-p.bytes), 0))
}

// note takes a packet that arrived.
func (p *probe) note(number uint16, size int, sentAt, arrived time.Duration) {
	if p.phase == noProbe || number-p.first >= 1<<15 || p.phase == awaitingProbe && p.last-number >= 1<<15 {
		return
	}
	t := &p.result
	if t.packets == 0 {
		t.firstSent, t.firstArrived, t.lastArrived, t.firstSize = sentAt, arrived, arrived, size
	}
	if sentAt > t.lastSent || t.packets == 0 {
		t.lastSent, t.burst = sentAt, 0
	}
	if sentAt == t.lastSent {
		t.burst += size
	}
	t.packets++
	t.bytes += size
	t.lastArrived = max(t.lastArrived, arrived)
}

// finish returns the rate that was sent and the one that arrived, once all is known. The share that the line always loses does not count.
func (p *probe) finish(newest uint16, lost float64, now time.Duration) (rate, carried int64, done bool) {
	if p.phase != awaitingProbe || newest-p.last >= 1<<15 && now-p.ended < probeAnswer {
		return 0, 0, false
	}
	p.phase = noProbe
	t := &p.result
	sending, arriving := t.lastSent-t.firstSent, t.lastArrived-t.firstArrived
	if t.packets < 5 || sending < probeFor/3 {
		return p.rate, 0, true
	}
	rate = int64(float64(t.bytes-t.burst) * 8 * float64(time.Second) / float64(sending))
	carried = rate
	if arriving > sending/2 {
		carried = int64(float64(t.bytes-t.firstSize) * 8 * float64(time.Second) / float64(arriving))
	}
	if missing := 1 - lost; missing > 0.5 { // both are of what arrived, so nothing is added for what is always lost but to what it may carry
		rate, carried = int64(float64(rate)/missing), int64(float64(carried)/missing)
	}
	return rate, carried, true
}

// failed and passed say when to try again.
func (p *probe) failed(now time.Duration) {
	p.backoff = min(max(p.backoff*3/2, firstProbe), seldomProbe)
	p.next = now + p.backoff
}

func (p *probe) passed(now time.Duration) { p.backoff, p.next = 0, now+probeSpacing }
