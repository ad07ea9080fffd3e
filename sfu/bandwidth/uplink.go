package bandwidth

import "time"

const (
	sendFraction  = 18               // bits of an absolute send time that are less than a second
	sendRound     = 64 * time.Second // after which it begins anew
	forgotten     = 10 * time.Second // without a packet: what was known of the line says nothing any more
	obeyedAfter   = 100 * time.Millisecond
	longestRelief = 3 * time.Second
)

// An Uplink finds out that a client sends more than its line carries, and how much that is, from when packets say that they left (absolute send
// time) and when they came. The client's own congestion control finds out, too, but some reports later, when the queue is full. So what it is told is for the time
// until the queue is empty again, and no longer. The zero value is ready; not safe for concurrent use. Times are since any fixed origin.
type Uplink struct {
	delays delays
	rates  rates
	clock  clock
	noted  time.Duration // when a packet came last
	bytes  uint64
	limit  int64         // bits/s, 0 = none
	since  time.Duration // when the limit began
	fresh  time.Duration // by the client's clock: what left before knew nothing of the limit
}

// Note takes a packet: when it left, as its header extension has it, how many bytes it has, and when it came.
func (u *Uplink) Note(left uint32, size int, now time.Duration) {
	if now-u.noted > forgotten {
		*u = Uplink{}
	}
	u.noted = now
	at := u.clock.extend(time.Duration(left)*time.Second>>sendFraction, sendRound)
	u.bytes += uint64(size)
	u.rates.sample(u.bytes, now)
	u.delays.note(at, now, size, u.fresh, now)
	rate, over := u.delays.overuse(u.rates.rate(), now)
	if !over {
		return
	}
	rate = max(int64(kept*float64(rate)), lowest)
	if u.limit == 0 {
		u.limit, u.since = rate, now
	}
	u.limit = min(u.limit, rate)
	u.fresh = at + u.delays.latest + obeyedAfter
}

// Limit is how many bits/s the client may send at present; false means that there is no limit.
func (u *Uplink) Limit(now time.Duration) (bitrate int64, limited bool) {
	if u.limit != 0 && (!u.delays.waiting(now) || now-u.since > longestRelief) {
		u.limit = 0
	}
	return u.limit, u.limit != 0
}
