package bandwidth

import (
	"cmp"
	"slices"
	"time"
)

const (
	probeFor     = 80 * time.Millisecond  // or longer, for
	probeBytes   = 3000                   // ten packets of padding
	probeEvery   = 10 * time.Millisecond  // between two calls of Tick
	probeAnswer  = 600 * time.Millisecond // the receiver has to report within
	firstProbe   = time.Second            // after too much was sent
	seldomProbe  = 4 * time.Second        // at most between two that failed: somebody waits for a better picture
	probeSpacing = 200 * time.Millisecond // after one that did not
	probeCarried = 0.85                   // of what was sent must have arrived in the same time
	probeGain    = 1.25                   // times the estimate is progress, though not all arrived in time
	misled       = 5 * time.Second        // after one that did not: too much is sent again, and what it said was wrong
	rareProbe    = 30 * time.Second       // at most between two after that

	maxArrivals = 512 // packets of a probe that are looked at
)

// probe is a short burst of more than the estimate, filled up with padding, that shows whether the line carries more.
type probe struct {
	next    time.Duration // when the next one may begin
	backoff time.Duration // after another that fails
	good    time.Duration // when one did not, last; 0 = never

	phase        probePhase
	rate         int64 // bits/s
	length       time.Duration
	began, ended time.Duration
	bytes        uint64    // Sent.bytes when it began, then what was sent
	first, last  uint16    // transport-wide numbers
	arrivals     []arrival // of its packets, in no order
}

type probePhase uint8

const (
	noProbe probePhase = iota
	sendingProbe
	awaitingProbe
)

// arrival is a packet of a probe that arrived, by the receiver's clock.
type arrival struct {
	at   time.Duration
	size int
}

func (p *probe) start(rate int64, s *Sent, now time.Duration) {
	p.phase, p.rate, p.began, p.bytes, p.first, p.arrivals = sendingProbe, rate, now, s.bytes, s.next, p.arrivals[:0]
	p.length = max(probeFor, time.Duration(probeBytes*8*int64(time.Second)/rate))
}

// due is how many bytes of padding belong to the probe now. After its end none do.
func (p *probe) due(s *Sent, now time.Duration) int {
	if p.phase != sendingProbe {
		return 0
	}
	if now-p.began >= p.length {
		p.phase, p.ended, p.last, p.bytes = awaitingProbe, now, s.next-1, s.bytes-p.bytes
		return 0
	}
	wanted := p.rate / 8 * int64(now-p.began+probeEvery) / int64(time.Second)
	return int(max(wanted-int64(s.bytes-p.bytes), 0))
}

// note takes a packet that arrived.
func (p *probe) note(number uint16, size int, arrived time.Duration) {
	if p.phase == noProbe || number-p.first >= 1<<15 || p.phase == awaitingProbe && p.last-number >= 1<<15 {
		return
	}
	if len(p.arrivals) < maxArrivals {
		p.arrivals = append(p.arrivals, arrival{arrived, size})
	}
}

// finish returns the rate that was sent and the one that arrived, once all is known. The share that the line always loses does not count.
func (p *probe) finish(newest uint16, lost float64, now time.Duration) (rate, carried int64, done bool) {
	if p.phase != awaitingProbe || newest-p.last >= 1<<15 && now-p.ended < probeAnswer {
		return 0, 0, false
	}
	p.phase = noProbe
	rate = int64(p.bytes) * 8 * int64(time.Second) / int64(p.ended-p.began)
	carried = min(p.arriving(), 2*rate)
	if share := 1 - lost; share > 0.5 {
		carried = int64(float64(carried) / share)
	}
	return rate, carried, true
}

// arriving is how fast the middle of the probe arrived, in bits/s: jitter moves the ends of it.
func (p *probe) arriving() int64 {
	const ends = 0.15
	if len(p.arrivals) < 6 {
		return 0
	}
	slices.SortFunc(p.arrivals, func(a, b arrival) int { return cmp.Compare(a.at, b.at) })
	total := 0
	for _, a := range p.arrivals {
		total += a.size
	}
	var from, to time.Duration
	sum, middle := 0, 0
	for _, a := range p.arrivals {
		before := sum
		sum += a.size
		if float64(before) < ends*float64(total) {
			from, middle = a.at, 0
			continue
		}
		to = a.at
		middle += a.size
		if float64(sum) >= (1-ends)*float64(total) {
			break
		}
	}
	return int64(middle) * 8 * int64(time.Second) / int64(max(to-from, time.Millisecond))
}

// failed, passed and refuted say when to try again.
func (p *probe) failed(now time.Duration) {
	p.backoff = min(max(p.backoff*3/2, firstProbe), seldomProbe)
	p.next = now + p.backoff
}

func (p *probe) passed(now time.Duration) { p.good, p.next = now, now+probeSpacing }

// refuted is that too much was sent: by what the last probe said, perhaps.
func (p *probe) refuted(now time.Duration) {
	p.phase = noProbe
	if p.good == 0 || now-p.good > misled {
		p.backoff = firstProbe
	} else {
		p.backoff = min(max(2*p.backoff, seldomProbe), rareProbe)
	}
	p.good, p.next = 0, now+p.backoff
}
