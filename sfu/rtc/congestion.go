package rtc

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/bandwidth"
	"callserver/sfu/egress"
	"callserver/sfu/forward"
)

const (
	tellEvery  = 100 * time.Millisecond // the bitrate is told while there is a limit
	maxRepeats = 32                     // requests of which the answers are repeated with one tick; those of more are not
)

// congestion is how much of what the client is to receive fits through a connection. docs/bandwidth.md says how that is found out. What is not
// marked otherwise belongs to the turn of the leg's worker.
type congestion struct {
	connection *connection
	following  atomic.Bool  // there is an estimator
	wanted     atomic.Int64 // as Want said
	ended      bool         // guarded by limited.mu

	estimator *bandwidth.Estimator // nil until video is sent
	limited   bool                 // as told last
	bitrate   int64                // the same
	told      time.Duration        // when that was
	wait      time.Duration        // as the sinks know

	repeats   []repeat
	repeating atomic.Bool // there are some
}

// repeat is packets that a receiver was just sent again.
type repeat struct {
	sink *forward.Sink
	seqs []uint16
}

// follow begins to count what is sent on the leg, if that was not done before. Not in the worker's turn.
func (g *congestion) follow(l *egress.Leg) {
	if g.following.Swap(true) {
		return
	}
	l.Turn(func() {
		g.estimator = &bandwidth.Estimator{}
		l.Count(&g.estimator.Sent)
	})
}

// feedback takes a packet of transport-wide feedback. Safe for concurrent use.
func (g *congestion) feedback(packet []byte) {
	if g.following.Load() {
		g.do(func(now time.Duration) { g.estimator.Feedback(packet, now) })
	}
}

// capacity takes the client's own estimate, in bits/s.
func (g *congestion) capacity(bitrate int64) {
	if g.estimator != nil {
		g.estimator.REMB(bitrate, g.connection.leg.Now())
		g.settle()
	}
}

// watch looks whether the client has fallen silent. It is to be called every second or so. Safe for concurrent use.
func (g *congestion) watch() {
	if g.following.Load() {
		g.do(func(now time.Duration) { g.estimator.Tick(now) })
	}
}

// do has f called in the worker's turn, and acts upon what came of it.
func (g *congestion) do(f func(now time.Duration)) {
	c := g.connection
	c.leg.Do(func() {
		defer c.peer.recover("congestion")
		if g.estimator != nil {
			f(c.leg.Now())
			g.settle()
		}
	})
}

// settle paces what is sent by the estimate, and tells what changed.
func (g *congestion) settle() {
	c := g.connection
	bitrate, limited := g.estimator.Budget()
	now := c.leg.Now()
	if wait := g.estimator.Waits(now); wait != g.wait {
		g.wait = wait
		for _, d := range *c.peer.downlinks.Load() {
			if k := d.sink.Load(); k != nil {
				k.SetWait(wait)
			}
		}
	}
	if !limited {
		bitrate = 0
	}
	switch {
	case limited != g.limited, bitrate < g.bitrate:
	case !limited || now-g.told < tellEvery:
		return
	}
	if limited != g.limited {
		c.leg.Limit(0)
		c.peer.engine.limited.set(c, limited)
	}
	g.limited, g.bitrate, g.told = limited, bitrate, now
	c.peer.emit(BitrateChanged{Bitrate: bitrate, Limited: limited})
}

// tick sends what has waited long enough, and probes. Safe for concurrent use; while there is a limit it is to be called every 10 ms.
func (g *congestion) tick() {
	g.do(func(now time.Duration) {
		g.estimator.Want(g.wanted.Load())
		padding := g.estimator.Tick(now)
		l := g.connection.leg
		l.Limit(g.estimator.Pace())
		l.Release()
		g.pad(padding)
	})
}

// repeat has packets that were just sent again sent once more with the next tick, if the line loses packets by its nature. A client asks for what was lost twice
// only when its picture has nearly stopped, and what is lost together goes within a few milliseconds. It keeps seqs.
func (g *congestion) repeat(k *forward.Sink, seqs []uint16) {
	if len(seqs) == 0 || g.estimator == nil || len(g.repeats) == maxRepeats || !g.estimator.Lossy(g.connection.leg.Now()) {
		return
	}
	g.repeats = append(g.repeats, repeat{k, seqs})
	g.repeating.Store(true)
	g.connection.peer.wake()
}

// repeatDue sends what repeat was told of. Safe for concurrent use; it is to be called with the tick for which repeat woke the peer.
func (g *congestion) repeatDue(now time.Time) {
	if !g.repeating.Load() {
		return
	}
	g.do(func(at time.Duration) {
		if g.estimator.Lossy(at) {
			for _, r := range g.repeats {
				r.sink.Repeat(r.seqs, now)
			}
		}
		clear(g.repeats)
		g.repeats = g.repeats[:0]
		g.repeating.Store(false)
	})
}

// pad sends at least so many bytes of padding on the first downlink that can.
func (g *congestion) pad(bytes int) {
	for _, d := range *g.connection.peer.downlinks.Load() {
		for bytes > 0 {
			n := d.pad()
			if n == 0 {
				break
			}
			bytes -= n
		}
	}
}

// Want says how many bits/s the client would be sent if nothing were withheld for want of bandwidth.
func (p *Peer) Want(bitrate int64) {
	if c := p.sender(); c != nil {
		c.congestion.wanted.Store(bitrate)
	}
}

// limited are the connections whose congestion has to be looked at every pacedInterval. Mostly there is none. Safe for concurrent use.
type limited struct {
	mu   sync.Mutex
	list []*connection // copied on write
}

func (l *limited) set(c *connection, on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	on = on && !c.congestion.ended
	list := slices.DeleteFunc(slices.Clone(l.list), func(other *connection) bool { return other == c })
	if on {
		list = append(list, c)
	}
	l.list = list
}

// remove takes the connection off for good.
func (l *limited) remove(c *connection) {
	l.mu.Lock()
	c.congestion.ended = true
	l.mu.Unlock()
	l.set(c, false)
}

// tick looks at them, and reports whether there are any.
func (l *limited) tick() bool {
	l.mu.Lock()
	list := l.list
	l.mu.Unlock()
	for _, c := range list {
		c.congestion.tick()
	}
	return len(list) > 0
}
