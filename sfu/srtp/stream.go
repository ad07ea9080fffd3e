package srtp

// Hot path: see ARCHITECTURE.md#packet

import (
	"errors"
	"hash/crc32"
	"unsafe"

	"callserver/sfu/prefetch"
)

// ErrReuse refuses a packet whose number was used before, or is too old to tell: protecting another packet under it would give the key of
// the authentication away (RFC 7714 §9.1 of the nonce), and the XOR of both.
var ErrReuse = errors.New("srtp: sequence number used before")

// window is how many sequence numbers back a Stream remembers which were used. Packets that come late to us are sent late.
const window = 512

// A Stream is one RTP stream that we send: it turns sequence numbers into indexes (RFC 3711 §3.3.1) and lets each be used for one packet only. The
// zero value is ready. One goroutine at a time.
type Stream struct {
	highest uint64   // index of the newest packet, 0 before the first
	prints  []uint32 // of the packets sent lately, for those that may be repeated; a power of two long
	used    [window / 64]uint64
}

// first is the index that a sequence number of 0 would have had at the start: above 0, so that a packet of the round before stays positive.
// The receiver starts counting at 0; what is sent is the index less this.
const first = 1 << 16

// Next returns the index of a packet that was not sent before, and marks its number as used.
func (s *Stream) Next(seq uint16) (uint64, error) {
	if s.highest == 0 {
		s.highest = first | uint64(seq)
		s.mark(s.highest)
		return uint64(seq), nil
	}
	index := s.guess(seq)
	switch {
	case index > s.highest:
		s.advance(index)
	case s.highest-index >= window || s.marked(index) || index < first:
		return 0, ErrReuse
	}
	s.mark(index)
	return index - first, nil
}

// guess is the index nearest to the newest.
func (s *Stream) guess(seq uint16) uint64 {
	return s.highest + uint64(int64(int16(seq-uint16(s.highest))))
}

// advance makes index the newest; the numbers between are free.
func (s *Stream) advance(index uint64) {
	if index-s.highest >= window {
		clear(s.used[:])
	} else {
		for i := s.highest + 1; i < index; i++ {
			s.used[i%window/64] &^= 1 << (i % 64)
		}
	}
	s.highest = index
}

func (s *Stream) mark(i uint64)        { s.used[i%window/64] |= 1 << (i % 64) }
func (s *Stream) marked(i uint64) bool { return s.used[i%window/64]&(1<<(i%64)) != 0 }

// Remember has the stream keep in mind what each of the last n packets was, n a power of two, so that Again can tell.
func (s *Stream) Remember(n int) {
	if len(s.prints) != n {
		s.prints = make([]uint32, n)
	}
}

// Print notes what the packet of an index is, header and payload, if the stream is to remember.
func (s *Stream) Print(index uint64, parts ...[]byte) {
	if len(s.prints) > 0 {
		s.prints[s.slot(index)] = fingerprint(parts)
	}
}

// Fetch has the processor fetch where the next packet will be noted.
func (s *Stream) Fetch() {
	if len(s.prints) > 0 {
		prefetch.Lines(unsafe.Pointer(&s.prints[s.slot(s.highest+1-first)]), 1)
	}
}

// Again returns the index of a packet that is sent a second time with its old number: only if it is, byte for byte, what was sent
// the first time.
func (s *Stream) Again(seq uint16, parts ...[]byte) (uint64, error) {
	index := s.guess(seq)
	if s.highest == 0 || len(s.prints) == 0 || index > s.highest || index < first || s.highest-index >= window ||
		s.highest-index >= uint64(len(s.prints)) || !s.marked(index) {
		return 0, ErrReuse
	}
	if s.prints[s.slot(index-first)] != fingerprint(parts) {
		return 0, ErrReuse
	}
	return index - first, nil
}

func (s *Stream) slot(index uint64) int { return int(index & uint64(len(s.prints)-1)) }

var table = crc32.MakeTable(crc32.Castagnoli)

func fingerprint(parts [][]byte) uint32 {
	var sum uint32
	for _, p := range parts {
		sum = crc32.Update(sum, table, p)
	}
	return sum
}

// A Rollover follows the sequence numbers of a stream that we receive. The zero value is ready.
type Rollover struct {
	highest uint64 // index + first of the newest authentic packet, 0 before the first
}

// Index guesses the index of a sequence number; Accept takes it over once the packet proved authentic.
func (r *Rollover) Index(seq uint16) uint64 {
	if r.highest == 0 {
		return uint64(seq)
	}
	index := r.highest + uint64(int64(int16(seq-uint16(r.highest))))
	if index < first {
		return uint64(seq)
	}
	return index - first
}

// Accept notes an authentic packet.
func (r *Rollover) Accept(index uint64) { r.highest = max(r.highest, index+first) }

// arrived is which of the latest 64 SRTCP indexes of one sender came.
type arrived struct {
	highest uint32
	seen    uint64 // bit i: highest - i
}

// note reports whether index is new, and not older than what is remembered.
func (a *arrived) note(index uint32) bool {
	if index > a.highest {
		a.seen <<= index - a.highest
		a.highest = index
	}
	bit := uint64(1) << (a.highest - index) // 0 from 64 on
	if bit == 0 || a.seen&bit != 0 {
		return false
	}
	a.seen |= bit
	return true
}
