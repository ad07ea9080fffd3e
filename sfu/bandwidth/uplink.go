package bandwidth

import "time"

const (
	sendFraction  = 18               // bits of an absolute send time that are less than a second
	sendRound     = 64 * time.Second // after which it begins anew
	forgotten     = 10 * time.Second // without a packet: what was known of the line says nothing any more
	obeyedAfter   = 100 * time.Millisecond
	longestRelief = 3 * time.Second

	largeSize  = 500 // bytes: it takes its time to leave, all the more on a narrow line
	average    = time.Second
	averages   = 3   // so many of them show what is usual on a narrow line
	halved     = 0.5 // of the usual wait is a line that is wide again
	noticeable = 8 * time.Millisecond
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
	second span          // packets that waited right after the limit began; packets is 0 once that is known

	narrow  bool // a limit was found, and nothing says yet that the line is wide
	widened bool // that was found and not told yet
	large   passing
}

// passing is how long large packets wait on their way over a narrow line, on average.
type passing struct {
	least  time.Duration // delay when the line was wide: what is least on a narrow one is more
	since  time.Duration // when this average began
	sum    time.Duration
	n      int
	usual  time.Duration
	counts int // averages that usual is of
}

// Note takes a packet: when it left, as its header extension has it, how many bytes it has, and when it came. It reports whether Limit or Widened may say something new.
func (u *Uplink) Note(left uint32, size int, now time.Duration) bool {
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
		u.confirm(size, now)
		u.look(size, now)
		return u.widened
	}
	if !u.narrow {
		u.large = passing{least: u.delays.base()}
	}
	u.narrow, u.widened = true, false
	u.large.pause()
	rate = toldOf(rate)
	if u.limit == 0 {
		u.limit, u.since = rate, now
		u.second = span{packets: 1, from: now}
	}
	u.limit = min(u.limit, rate)
	u.fresh = at + u.delays.latest + obeyedAfter
	return true
}

// toldOf is what a client is told of a line that carries so many bits/s.
func toldOf(rate int64) int64 { return max(int64(kept*float64(rate)), lowest) }

// Limit is how many bits/s the client may send at present; false means that there is no limit.
func (u *Uplink) Limit(now time.Duration) (bitrate int64, limited bool) {
	if u.limit != 0 && (!u.delays.waiting(now) || now-u.since > longestRelief) {
		u.limit = 0
	}
	return u.limit, u.limit != 0
}

// confirm lowers a limit that was measured partly from before the line became narrow: what comes next from its queue comes as fast as it is now.
func (u *Uplink) confirm(size int, now time.Duration) {
	p := &u.second
	if p.packets == 0 {
		return
	}
	if u.limit == 0 || u.delays.latest <= tolerated {
		p.packets = 0
		return
	}
	p.packets++
	p.bytes += size
	if length := now - p.from; length >= quickPeriod && p.packets > quickPackets {
		rate := int64(p.bytes) * 8 * int64(time.Second) / int64(length)
		u.limit = min(u.limit, toldOf(rate))
		p.packets = 0
	}
}

// look follows how a narrow line is, with a packet that just came.
func (u *Uplink) look(size int, now time.Duration) {
	if !u.narrow || u.limit != 0 || size < largeSize {
		return
	}
	u.large.least = min(u.large.least, u.delays.base())
	if u.large.halved(u.delays.base()+u.delays.latest-u.large.least, now) {
		u.narrow, u.widened = false, true
	}
}

// Widened reports, once, that the line seems to carry more than when the limit was found: large packets pass faster.
func (u *Uplink) Widened() bool {
	widened := u.widened
	u.widened = false
	return widened
}

// pause leaves out a time in which more is sent than the line carries. What is usual without that is still known.
func (w *passing) pause() { w.since, w.sum, w.n = 0, 0, 0 }

// halved takes how long a large packet waited, and reports whether they do not wait half as long as before.
func (w *passing) halved(wait, now time.Duration) bool {
	if w.since == 0 {
		w.since = now
	}
	w.sum += wait
	w.n++
	if now-w.since < average || w.n < quickPackets {
		return false
	}
	mean := w.sum / time.Duration(w.n)
	w.since, w.sum, w.n = now, 0, 0
	if w.counts >= averages && mean < time.Duration(halved*float64(w.usual)) && w.usual-mean >= noticeable {
		return true
	}
	w.counts++
	w.usual += (mean - w.usual) / time.Duration(min(w.counts, 8))
	return false
}
