package bandwidth

// Hot path: see ARCHITECTURE.md#packet

import "time"

const (
	smallestSent = 64        // packets
	largestSent  = 8192      // packets: a second of 90 Mbit/s
	sentFor      = 1_000_000 // µs a packet is remembered for if the limit allows
)

// Sent remembers the packets that one receiver was sent with transport-wide sequence numbers: when, and how large. It grows while packets of the
// last second would fall out. The zero value is ready; not safe for concurrent use. Times are since any fixed origin.
type Sent struct {
	slots []sent // length zero or a power of two
	next  uint16 // number of the next packet
	bytes uint64 // of all so far
}

type sent struct {
	at     uint32 // µs, going round
	number uint16
	size   uint16 // bytes and flags
}

const (
	sizeMask  = 1<<13 - 1
	flagUsed  = 1 << 13
	flagLost  = 1 << 14 // reported missing
	flagFound = 1 << 15 // reported as arrived
)

// Next is the number that the next packet has.
func (s *Sent) Next() uint16 { return s.next }

// Add notes that the next packet was sent; size is in bytes, with all headers.
func (s *Sent) Add(size int, at time.Duration) {
	if len(s.slots) == 0 {
		s.slots = make([]sent, smallestSent)
	}
	stamp := uint32(at / time.Microsecond)
	slot := s.slot(s.next)
	for slot.size != 0 && stamp-slot.at < sentFor && len(s.slots) < largestSent {
		s.grow()
		slot = s.slot(s.next)
	}
	*slot = sent{at: stamp, number: s.next, size: uint16(min(size, sizeMask)) | flagUsed}
	s.next++
	s.bytes += uint64(size)
}

// Count notes that something was sent that carries no number.
func (s *Sent) Count(size int) { s.bytes += uint64(size) }

func (s *Sent) slot(number uint16) *sent { return &s.slots[int(number)&(len(s.slots)-1)] }

// find returns the packet of a number, nil if it is not remembered.
func (s *Sent) find(number uint16) *sent {
	if len(s.slots) == 0 {
		return nil
	}
	if slot := s.slot(number); slot.size != 0 && slot.number == number {
		return slot
	}
	return nil
}

func (s *Sent) grow() {
	old := s.slots
	s.slots = make([]sent, 2*len(old))
	for _, p := range old {
		if p.size != 0 {
			*s.slot(p.number) = p
		}
	}
}

// when is the time at which the packet was sent, at most an hour before now.
func (p *sent) when(now time.Duration) time.Duration {
	return now - time.Duration(uint32(now/time.Microsecond)-p.at)*time.Microsecond
}

func (p *sent) length() int { return int(p.size & sizeMask) }

// after is how many bytes were sent in packets with numbers after that one, as far as they are remembered.
func (s *Sent) after(number uint16) (bytes int) {
	for n := min(int(s.next-number-1), len(s.slots)); n > 0; n-- {
		if p := s.find(s.next - uint16(n)); p != nil {
			bytes += p.length()
		}
	}
	return bytes
}
