package rtc

import (
	"slices"
	"sync"
)

// shareTicks is after how many ticks a peer's routine comes round.
const shareTicks = 5

// wheel says which peers the tick loop looks at. Each has its routine every shareTicks, a share of them with each tick. What cannot wait for that wakes the peer, and then it is
// attended to with the next tick, and with each that follows for as long as something is outstanding. A peer of whom neither is true costs nothing: the memory of thousands of them is in no
// cache, and each look at one waits for it.
//
// Who wakes a peer: a negotiation that is to be made (schedule), something outstanding of what the client sends (uplink), packets that are to be repeated (congestion), and a line that is narrow,
// or wide again (ingress.Arrivals).
//
// The zero value is ready. Safe for concurrent use; its lock is a leaf.
type wheel struct {
	mu     sync.Mutex
	closed bool
	shares [shareTicks][]*Peer // copied on write
	count  int                 // of all of them
	at     int                 // the share that had its routine last
	awake  []*Peer             // woken since the last tick
	taken  []*Peer             // before that
}

// add puts the peer into the smallest share. False means that the wheel is closed.
func (w *wheel) add(p *Peer) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	for i := range w.shares {
		if len(w.shares[i]) < len(w.shares[p.share]) {
			p.share = i
		}
	}
	w.shares[p.share] = append(slices.Clip(w.shares[p.share]), p)
	w.count++
	return true
}

// remove takes the peer off for good. One that is not there is fine.
func (w *wheel) remove(p *Peer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	share := w.shares[p.share]
	if i := slices.Index(share, p); i >= 0 {
		w.shares[p.share] = slices.Delete(slices.Clone(share), i, i+1)
		w.count--
	}
}

// wake has the peer attended to with the next tick.
func (w *wheel) wake(p *Peer) {
	if p.awake.Load() || p.awake.Swap(true) {
		return
	}
	w.mu.Lock()
	w.awake = append(w.awake, p)
	w.mu.Unlock()
}

// turn is a tick: it returns the peers that were woken, until the next tick, and those whose routine it is, which are not to be written to. Whoever attends to
// one that was woken lets it fall asleep first, so that what comes meanwhile wakes it again.
func (w *wheel) turn() (awake, share []*Peer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.taken)
	w.awake, w.taken = w.taken[:0], w.awake
	w.at = (w.at + 1) % shareTicks
	return w.taken, w.shares[w.at]
}

// close has no more peers added, and returns those that are there.
func (w *wheel) close() []*Peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return slices.Concat(w.shares[:]...)
}

func (w *wheel) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}
