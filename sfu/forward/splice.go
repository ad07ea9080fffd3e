package forward

// Hot path: see ARCHITECTURE.md#packet

import (
	"time"

	"callserver/sfu/packet"
)

const (
	maxCuts = 64 // changes of offset that late packets can still be mapped through

	// Guards for the timestamp where another stream takes over.
	maxBehind = 50 * time.Millisecond // further back than what was sent last is a wrong clock
	maxAhead  = time.Second           // so is further ahead of the time that went by
)

// splice joins runs of packets, each from one stream, into one continuous stream for one receiver: held back packets leave no gap, lost
// ones do, and time goes on at its pace. The numbers of a run are the publisher's less an offset that grows with each packet held back.
type splice struct {
	started bool
	out     uint16 // highest sequence number sent
	cuts    []cut  // of this run, oldest first; never empty once started
	one     [1]cut // room for the first of them, which mostly is the only one

	shift     uint32        // input timestamp - output timestamp
	timestamp uint32        // highest sent
	at        time.Duration // when that was
	fresh     bool          // nothing was sent yet in this run
}

// cut says which offsets hold from one input number on, until the next cut.
type cut struct {
	from    uint64
	offset  uint16 // input sequence number - output
	picture uint16 // input VP8 picture id - output
}

// begin starts a run at input number seq, directly after what was sent so far.
func (s *splice) begin(seq uint64, timestamp uint32, mapped uint32, picture uint16) {
	if !s.started {
		s.out = uint16(seq)&0x7fff - 1 // no wrap soon: a receiver that loses the first packets would miscount the roll-over (RFC 3711 §3.3.1)
	}
	if s.cuts == nil {
		s.cuts = s.one[:0]
	}
	s.started, s.fresh = true, true
	s.cuts = append(s.cuts[:0], cut{from: seq, offset: uint16(seq) - (s.out + 1), picture: picture})
	s.shift = timestamp - mapped
}

// forward notes that the newest packet is sent, and returns its output sequence number and timestamp.
func (s *splice) forward(seq uint64, timestamp uint32, at time.Duration) (uint16, uint32) {
	return s.emit(seq, s.cuts[len(s.cuts)-1].offset, timestamp, at)
}

// late does the same for a packet that is older than the newest: its number was kept free. It is false if the packet is from before the run
// or too old.
func (s *splice) late(seq uint64, timestamp uint32, at time.Duration) (number uint16, shifted uint32, ok bool) {
	c := s.cutAt(seq)
	if c == nil {
		return 0, 0, false
	}
	number, shifted = s.emit(seq, c.offset, timestamp, at)
	return number, shifted, true
}

func (s *splice) emit(seq uint64, offset uint16, timestamp uint32, at time.Duration) (number uint16, shifted uint32) {
	number, shifted = uint16(seq)-offset, timestamp-s.shift
	// A late packet may be the highest as well, where all that came after it was held back.
	if packet.Newer(number, s.out) {
		s.out = number
	}
	if int32(shifted-s.timestamp) > 0 || s.fresh {
		s.timestamp, s.at, s.fresh = shifted, at, false
	}
	return number, shifted
}

// hold notes that the newest packet is held back, and with it as many pictures (none or one).
func (s *splice) hold(seq uint64, pictures uint16) {
	last := &s.cuts[len(s.cuts)-1]
	if last.from == seq { // nothing was sent through the last cut, and nothing can be: seq itself is gone
		last.from, last.offset, last.picture = seq+1, last.offset+1, last.picture+pictures
		return
	}
	next := cut{from: seq + 1, offset: last.offset + 1, picture: last.picture + pictures}
	if len(s.cuts) == maxCuts {
		copy(s.cuts, s.cuts[1:])
		s.cuts[maxCuts-1] = next
		return
	}
	s.cuts = append(s.cuts, next)
}

// cutAt returns what holds for an input number, nil if nobody remembers.
func (s *splice) cutAt(seq uint64) *cut {
	for i := len(s.cuts) - 1; i >= 0; i-- {
		if s.cuts[i].from <= seq {
			return &s.cuts[i]
		}
	}
	return nil
}

// source returns the input number of one that was sent in this run, and false for others.
func (s *splice) source(number uint16) (seq uint64, ok bool) {
	if !s.started || packet.Newer(number, s.out) {
		return 0, false
	}
	for i := len(s.cuts) - 1; i >= 0; i-- {
		if after := number - (uint16(s.cuts[i].from) - s.cuts[i].offset); after < 1<<15 {
			return s.cuts[i].from + uint64(after), true
		}
	}
	return 0, false
}

// resume returns the output timestamp for the first packet of a new run. mapped is where the clocks say it belongs, if they are known.
func (s *splice) resume(timestamp uint32, mapped uint32, known bool, rate uint32, at time.Duration) uint32 {
	if !s.started {
		return timestamp
	}
	next := s.timestamp + 1
	expected := s.timestamp + uint32(ticks(at-s.at, rate))
	if int32(expected-next) < 0 {
		expected = next
	}
	if !known {
		return expected
	}
	behind, ahead := int64(int32(s.timestamp-mapped)), int64(int32(mapped-expected))
	switch {
	case behind < 0 && ahead <= ticks(maxAhead, rate):
		return mapped
	case behind >= 0 && behind <= ticks(maxBehind, rate):
		return next // the same moment, seen by two encoders
	default:
		return expected
	}
}
