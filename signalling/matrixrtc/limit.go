package matrixrtc

import (
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Requests bound how many token requests are answered, a minute each. Zero means no limit.
type Requests struct {
	Address int // of one client address; IPv6: of one /64
	User    int // of one user
	Server  int // of the users of one homeserver together
}

// limitKeys is how many addresses, users or servers are remembered.
const limitKeys = 10_000

// limits are the three in the order in which a request meets them. The server's comes before a question to a server that
// the operator does not know, and otherwise after the proof of the user: nobody uses up what belongs to others.
type limits struct {
	address *limiter[netip.Addr]
	server  *limiter[string]
	user    *limiter[string]
}

func newLimits(r Requests) limits {
	return limits{newLimiter[netip.Addr](r.Address), newLimiter[string](r.Server), newLimiter[string](r.User)}
}

// ofAddress counts a request of a client. Loopback is never limited: it is the operator's own proxy, behind which
// everybody is.
func (l *limits) ofAddress(a netip.Addr, now time.Time) error {
	if !a.IsValid() || a.IsLoopback() {
		return nil
	}
	if a.Is6() { // one customer has a /64
		p, _ := a.WithZone("").Prefix(64)
		a = p.Addr()
	}
	return limited(l.address.take(a, now), reasonAddress, "Too many requests from your network")
}

func (l *limits) ofServer(name string, now time.Time) error {
	return limited(l.server.take(name, now), reasonServer, "Too many requests of users of your homeserver")
}

func (l *limits) ofUser(user string, now time.Time) error {
	return limited(l.user.take(user, now), reasonUser, "Too many requests")
}

func limited(wait time.Duration, why reason, text string) error {
	if wait == 0 {
		return nil
	}
	return &refusal{status: http.StatusTooManyRequests, code: "M_LIMIT_EXCEEDED", reason: why, text: text, retry: wait}
}

// A limiter is a token bucket per key, which holds the requests of a minute. Safe for concurrent use.
type limiter[K comparable] struct {
	size float64 // requests a minute, and at once; 0 means no limit

	mu      sync.Mutex
	buckets map[K]bucket
}

type bucket struct {
	left float64 // requests
	at   time.Time
}

func newLimiter[K comparable](perMinute int) *limiter[K] {
	return &limiter[K]{size: float64(perMinute), buckets: make(map[K]bucket)}
}

// take counts a request and returns 0, or how long its sender should wait.
func (l *limiter[K]) take(key K, now time.Time) time.Duration {
	if l.size == 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.buckets[key]
	if !known {
		l.makeRoomLocked(now)
		b = bucket{left: l.size, at: now}
	}
	b.left, b.at = l.refilled(b, now), now
	wait := time.Duration(0)
	if b.left < 1 {
		wait = max(time.Duration((1-b.left)/l.size*float64(time.Minute)), time.Millisecond)
	} else {
		b.left--
	}
	l.buckets[key] = b
	return wait
}

func (l *limiter[K]) refilled(b bucket, now time.Time) float64 {
	return min(l.size, b.left+max(0, now.Sub(b.at).Minutes())*l.size)
}

// makeRoomLocked forgets keys when there are too many: those whose bucket is full again lose nothing by it, and if
// there are none, arbitrary ones get a new start.
func (l *limiter[K]) makeRoomLocked(now time.Time) {
	if len(l.buckets) < limitKeys {
		return
	}
	for k, b := range l.buckets {
		if l.refilled(b, now) >= l.size {
			delete(l.buckets, k)
		}
	}
	if len(l.buckets) < limitKeys {
		return
	}
	for k := range l.buckets {
		if len(l.buckets) <= limitKeys*3/4 { // far enough not to sweep for every newcomer
			return
		}
		delete(l.buckets, k)
	}
}
