package turn

import (
	"sync/atomic"
	"time"
)

// byteBurst is how much of a bit rate may pass at once.
const byteBurst = 250 * time.Millisecond

// A meter lets things pass at a rate, and some at once: a leaky bucket, known by the time at which it is empty. The zero value lets everything pass.
// set comes before it is used; pass is safe for concurrent use.
type meter struct {
	cost  int64 // of one, in 1/1024 ns
	burst int64 // ns
	empty atomic.Int64
}

// set gives the rate, in things a second, and how long it takes to empty a full bucket. A rate of 0 is none.
func (m *meter) set(rate int64, burst time.Duration) {
	m.cost, m.burst = 0, int64(burst)
	if rate > 0 {
		m.cost = max(1, int64(time.Second)<<10/rate)
	}
}

// pass reports whether n things may pass, and counts them if so.
func (m *meter) pass(n int, now time.Time) bool {
	if m.cost == 0 {
		return true
	}
	at, cost := now.UnixNano(), int64(n)*m.cost>>10
	for {
		empty := m.empty.Load()
		if empty > at+m.burst {
			return false
		}
		if m.empty.CompareAndSwap(empty, max(empty, at)+cost) {
			return true
		}
	}
}

// spend counts n things that have passed, and reports whether more may.
func (m *meter) spend(n int, now time.Time) bool {
	if m.cost == 0 {
		return true
	}
	at, cost := now.UnixNano(), int64(n)*m.cost>>10
	for {
		empty := m.empty.Load()
		next := max(empty, at) + cost
		if n == 0 || m.empty.CompareAndSwap(empty, next) {
			return next <= at+m.burst
		}
	}
}
