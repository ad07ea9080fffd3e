package bench

import (
	"math"
	"time"
)

// A window is the time of the measurement: packets count by when they left.
type window struct{ from, until time.Duration }

// never is the window before there is one.
var never = window{math.MaxInt64, math.MaxInt64}

func (w window) holds(t time.Duration) bool { return t >= w.from && t < w.until }

// A flow is one track as one participant receives it. Its loop's goroutine only, until that ended.
type flow struct {
	track    *track
	firstAt  time.Duration // arrival of the first packet, 0 = none
	keyAt    time.Duration // arrival of the first whole key frame
	keyFrame uint32        // frame number of the one that is arriving
	keyParts int           // packets of it

	// Within the measurement:
	begun      bool
	layer      uint8
	firstLayer uint8
	first      uint32 // counter of the first packet
	next       uint32 // counter that should come next
	seen       uint64 // bit i: counter next-1-i came
	lastSent   time.Duration
	received   int64
	lost       int64
	reordered  int64
	duplicates int64
	layers     [len(vp8Shapes)]int64 // packets received by layer
}

// note takes one packet in.
func (f *flow) note(s stamp, arrival time.Duration, w window) {
	if f.firstAt == 0 {
		f.firstAt = arrival
	}
	if f.keyAt == 0 && s.flags&flagKey != 0 {
		f.noteKey(s, arrival)
	}
	if !w.holds(s.sent) || int(s.layer) >= len(f.layers) {
		return
	}
	switch {
	case !f.begun:
		f.begun, f.first, f.firstLayer = true, s.counter, s.layer
		f.start(s)
	case s.layer != f.layer && s.sent < f.lastSent: // a straggler of the layer before
		f.reordered++
		f.received++
		f.layers[s.layer]++
		return
	case s.layer != f.layer: // what is missing between the layers is counted at the new layer's rate
		shape := f.track.shape(int(s.layer))
		if gap := s.sent - f.lastSent - 2*vp8Shapes[0].interval; gap > 0 {
			f.lost += int64(gap/shape.interval) * int64(shape.packets)
		}
		f.start(s)
	case s.counter >= f.next:
		missed := s.counter - f.next
		f.lost += int64(missed)
		f.seen = f.seen<<min(missed+1, 64) | 1
		f.next = s.counter + 1
	default:
		back := f.next - 1 - s.counter
		if back >= 64 || f.seen&(1<<back) != 0 {
			f.duplicates++
			return
		}
		f.seen |= 1 << back
		f.lost--
		f.reordered++
	}
	f.received++
	f.layers[s.layer]++
	f.lastSent = max(f.lastSent, s.sent)
}

// start begins a run of one layer.
func (f *flow) start(s stamp) {
	f.layer, f.next, f.seen = s.layer, s.counter+1, 1
}

func (f *flow) noteKey(s stamp, arrival time.Duration) {
	if s.flags&flagFirst != 0 {
		f.keyFrame, f.keyParts = s.frame, 0
	}
	if s.frame != f.keyFrame {
		return
	}
	if f.keyParts++; f.keyParts == f.track.shape(int(s.layer)).packets {
		f.keyAt = arrival
	}
}

// missing is how many packets of the measurement did not come, once the track's loop has ended too. A participant that
// received nothing misses all of the layer that it should have had.
func (f *flow) missing() int64 {
	if !f.begun {
		return int64(f.track.layers[f.track.top()].measured)
	}
	head := int64(f.first) - int64(f.track.layers[f.firstLayer].first)
	l := f.track.layers[f.layer]
	tail := int64(l.first) + int64(l.measured) - int64(f.next)
	return max(f.lost, 0) + max(head, 0) + max(tail, 0)
}
