package bandwidth

import "time"

const (
	lossWindow   = 600 * time.Millisecond // of packets sent, at least
	lossPackets  = 40
	muchLoss     = 0.2  // above what the line always loses, in two windows: a burst may have been too long for a short queue
	mostLoss     = 0.4  // in one
	proportional = 0.85 // what arrives became less by so much when less was sent: the line loses a share, not what it cannot carry
	likely       = 0.6  // of the loss before remains where that is so
	forgetting   = 0.3  // of a loss that is less now
	lossy        = 0.02 // of what is sent: what is sent again is lost again too often
	recent       = 0.25 // weight of a window
	outage       = 400 * time.Millisecond
)

// losses tells packets that a line loses whatever is sent from those that are too many for it. The former are a share of what is sent; of the
// latter there are fewer as soon as less is sent. Where nothing at all arrived of what was sent in the time of an outage there was no line, which says
// neither: the narrowest one carries some of what is too much.
type losses struct {
	from          time.Duration // the window takes packets sent since then
	newest        time.Duration // when the last one noted was sent
	arrived, lost int
	reached       time.Duration // when the last one that arrived was sent
	run           int           // of lost, since then
	bytes         int           // that arrived
	usual         float64       // share that the line always loses
	lately        float64       // share, smoothed
	again         bool          // the window before was bad
	suspect       window        // what made us send less, rate 0 = nothing did
}

// window is what came of the packets of some time.
type window struct {
	share   float64 // lost
	sending int64   // bits/s
	rate    int64   // bits/s that arrived
}

// note takes a packet, arrived or not.
func (l *losses) note(p *sent, arrived bool, at time.Duration) {
	if arrived {
		if at-l.reached >= outage {
			l.lost -= l.run
		}
		l.reached, l.run = max(l.reached, at), 0
	}
	if at < l.from {
		return
	}
	l.newest = max(l.newest, at)
	switch {
	case arrived:
		l.arrived++
		l.bytes += p.length()
		if p.size&flagLost != 0 { // it was only late
			l.lost--
		}
	case p.size&flagLost == 0:
		l.lost++
		l.run++
	}
}

// verdict is what a window of losses says.
type verdict uint8

const (
	unclear   verdict = iota
	tooMuch           // is sent: send less
	unrelated         // to how much is sent: what was taken back for it may be sent again
)

// judge looks at the window once it is full, and begins the next. sending is what was sent lately.
func (l *losses) judge(sending int64) (verdict, window) {
	span, packets := l.newest-l.from, l.arrived+max(l.lost, 0)
	if span < lossWindow || packets < lossPackets {
		return unclear, window{}
	}
	w := window{share: float64(max(l.lost, 0)) / float64(packets), sending: sending, rate: int64(l.bytes) * 8 * int64(time.Second) / int64(span)}
	l.restart(l.newest)
	l.lately += recent * (w.share - l.lately)
	before, again := l.suspect, l.again
	l.again = w.share > l.usual+muchLoss
	switch {
	case before.rate > 0 && float64(w.sending) < proportional*float64(before.sending):
		l.suspect = window{}
		if w.share > likely*before.share && float64(w.rate) < proportional*float64(before.rate) {
			l.usual = max(l.usual, min(w.share, before.share))
			return unrelated, before
		}
	case l.again && again, w.share > l.usual+mostLoss:
		l.suspect = w
		return tooMuch, w
	case w.share < l.usual:
		l.usual -= forgetting * (l.usual - w.share)
	}
	return unclear, w
}

// restart begins a window with the packets sent from now on.
func (l *losses) restart(at time.Duration) {
	l.from, l.newest, l.arrived, l.lost, l.run, l.bytes = at, at, 0, 0, 0, 0
}
