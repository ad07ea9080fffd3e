// Hot path: see ARCHITECTURE.md#packet

package udp

import (
	"errors"
	"runtime"
	"time"
)

const (
	paceBatches = 64 // after so many the pace of a socket is looked at anew
	dense       = time.Millisecond
	crowded     = 0.4 // of its time that a loop works: from there on it trades as much delay for it as it may
	leastGather = 2   // a loop that has nearly nothing to do trades half of that
)

// gatherer receives from one socket in batches that are worth their while: where datagrams come thick it lets them gather. Each batch costs a wake-up, and
// each receiver of what it brought at least one run, however short.
type gatherer struct {
	socket *Socket
	poll   *Poll[struct{}]
	pace   pace
	ready  []struct{}
	more   bool      // the socket may have something
	began  time.Time // when it had last, after a wait
}

// gatherFrom has what is received from a bare socket gather for so long at most. It returns an error where the system cannot wait like that.
func gatherFrom(s *Socket, longest time.Duration) (*gatherer, error) {
	poll, err := NewPoll[struct{}]()
	if err != nil {
		return nil, err
	}
	if err := poll.Add(s, struct{}{}); err != nil {
		_ = poll.Close()
		return nil, err
	}
	now := time.Now()
	return &gatherer{socket: s, poll: poll, pace: pace{longest: longest, began: now}, began: now}, nil
}

// receive is Socket.Receive.
func (g *gatherer) receive(b *Inbox, idle func()) error {
	for {
		if g.more {
			err := g.socket.receiveBatch(b, nil)
			if err == nil {
				g.more = b.full()
				g.pace.batch(b.n, g.began)
				return nil
			}
			g.more = false
			if !errors.Is(err, ErrEmpty) {
				return err
			}
		}
		if err := g.wait(idle); err != nil {
			return err
		}
	}
}

// wait waits until the socket has something. What gathers is let to do so from when the last wait ended: the longer that took to deal with the less.
func (g *gatherer) wait(idle func()) (err error) {
	if g.pace.gather > 0 {
		if idle != nil {
			idle()
		}
		idle = nil
		worked := time.Since(g.began)
		g.pace.worked += worked
		rest := g.pace.gather - worked
		g.poll.Rest(rest)
		if rest <= 0 {
			runtime.Gosched() // the others, where there is one core: it might go on like this
		}
	}
	g.ready, err = g.poll.Wait(g.ready[:0], idle)
	g.more, g.began = true, time.Now()
	return err
}

// pace says how long datagrams should be let to gather, by how they have come lately.
type pace struct {
	longest   time.Duration
	gather    time.Duration // since the last look; 0 = they are received when they come
	began     time.Time     // when that was
	batches   int           // since then
	datagrams int           // or runs of them
	worked    time.Duration // on what was received
}

// batch notes a batch, and looks at the pace when it is time to.
func (p *pace) batch(datagrams int, now time.Time) {
	p.batches++
	p.datagrams += datagrams
	if p.batches >= paceBatches {
		p.look(now)
	}
}

// look decides how long datagrams gather from now on: not at all while less than one comes in a millisecond, or fewer batches than that; else until a batch
// is full, but no longer than the longest, and less where the loop has time to spare.
func (p *pace) look(now time.Time) {
	passed, datagrams := now.Sub(p.began), time.Duration(p.datagrams)
	if passed > dense*datagrams || p.gather == 0 && passed > dense*paceBatches {
		p.gather = 0
	} else {
		worth := time.Duration(float64(p.longest) * float64(p.worked) / (crowded * float64(max(passed, 1))))
		p.gather = min(BatchSize*passed/datagrams, max(worth, p.longest/leastGather), p.longest)
	}
	p.began, p.batches, p.datagrams, p.worked = now, 0, 0, 0
}
