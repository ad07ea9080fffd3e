package matrixrtc

import (
	"net/netip"
	"sync"
	"time"
)

// A join takes up to eight requests, and an office of 200 people may be behind one address and start at nine o'clock.
const (
	limitBurst = 2000.0
	limitRate  = 50.0  // requests/s
	limitAddrs = 10000 // addresses remembered
)

// A limiter is a token bucket per client address. Safe for concurrent use.
type limiter struct {
	mu      sync.Mutex
	buckets map[netip.Addr]bucket
}

type bucket struct {
	left float64 // requests
	at   time.Time
}

func newLimiter() *limiter { return &limiter{buckets: make(map[netip.Addr]bucket)} }

// take counts a request and returns 0, or how long its sender should wait. Loopback is never limited: it is the
// operator's own proxy, behind which everybody is.
func (l *limiter) take(a netip.Addr, now time.Time) time.Duration {
	if !a.IsValid() || a.IsLoopback() {
		return 0
	}
	if a.Is6() { // one customer has a /64
		p, _ := a.WithZone("").Prefix(64)
		a = p.Addr()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.buckets[a]
	if !known {
		l.makeRoomLocked(now)
		b = bucket{left: limitBurst, at: now}
	}
	b.left = b.refilled(now)
	b.at = now
	if b.left < 1 {
		l.buckets[a] = b
		return time.Duration((1 - b.left) / limitRate * float64(time.Second))
	}
	b.left--
	l.buckets[a] = b
	return 0
}

func (b bucket) refilled(now time.Time) float64 {
	return min(limitBurst, b.left+max(0, now.Sub(b.at).Seconds())*limitRate)
}

// makeRoomLocked forgets addresses when there are too many: those whose bucket is full again lose nothing by it, and
// if there are none, arbitrary ones get a new start.
func (l *limiter) makeRoomLocked(now time.Time) {
	if len(l.buckets) < limitAddrs {
		return
	}
	for a, b := range l.buckets {
		if b.refilled(now) >= limitBurst {
			delete(l.buckets, a)
		}
	}
	if len(l.buckets) < limitAddrs {
		return
	}
	for a := range l.buckets {
		if len(l.buckets) <= limitAddrs*3/4 { // far enough not to sweep for every newcomer
			return
		}
		delete(l.buckets, a)
	}
}
