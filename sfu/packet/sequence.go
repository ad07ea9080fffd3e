package packet

// Hot path: see ARCHITECTURE.md#packet

// Newer reports whether sequence number a follows b, in the arithmetic modulo 2^16 of RFC 3550 §A.1.
func Newer(a, b uint16) bool { return a != b && a-b < 1<<15 }

// An Unwrapper extends 16-bit sequence numbers to 64 bits that never wrap. The low 16 bits stay. The zero value is ready; not safe for
// concurrent use.
type Unwrapper struct {
	highest uint64 // 0 before the first
}

// Unwrap returns the extended number that is nearest to the highest so far. The first one is seq + 65536, so that packets
// from before it stay positive.
func (u *Unwrapper) Unwrap(seq uint16) uint64 {
	if u.highest == 0 {
		u.highest = 1<<16 | uint64(seq)
		return u.highest
	}
	extended := u.highest + uint64(int64(int16(seq-uint16(u.highest))))
	u.highest = max(u.highest, extended)
	return extended
}

// Restart returns the extended number of seq after the sender began anew at a number of its own: far ahead of everything before.
func (u *Unwrapper) Restart(seq uint16) uint64 {
	if u.highest == 0 {
		return u.Unwrap(seq)
	}
	extended := u.highest&^0xffff | uint64(seq)
	for extended < u.highest+1<<15 {
		extended += 1 << 16
	}
	u.highest = extended
	return extended
}

// windowSize is how many sequence numbers back a LossBitmap remembers. A Firefox that probes by sending old packets again reaches back
// about a second; this is more than that at any video bitrate.
const windowSize = 2048

// A LossBitmap remembers which of the last 2048 packets arrived. The zero value is ready; not safe for concurrent use.
type LossBitmap struct {
	highest uint64 // 0 before the first
	bits    [windowSize / 64]uint64
}

// An Arrival says how a packet fits in with those before it.
type Arrival uint8

// The kinds of Arrival.
const (
	Newest    Arrival = iota // follows all others, maybe after a gap
	Late                     // fills a gap
	Duplicate                // was there already
	Ancient                  // older than anyone remembers
)

// Receive notes the extended sequence number and returns how it arrived; gap is the number of packets missing directly before a Newest one.
func (b *LossBitmap) Receive(seq uint64) (a Arrival, gap uint64) {
	switch {
	case b.highest == 0:
		b.highest = seq
		b.set(seq)
		return Newest, 0
	case seq > b.highest:
		gap = seq - b.highest - 1
		if gap >= windowSize {
			clear(b.bits[:])
		} else {
			for missing := b.highest + 1; missing < seq; missing++ {
				b.bits[missing/64%uint64(len(b.bits))] &^= 1 << (missing % 64)
			}
		}
		b.highest = seq
		b.set(seq)
		return Newest, gap
	case b.highest-seq >= windowSize:
		return Ancient, 0
	case b.has(seq):
		return Duplicate, 0
	default:
		b.set(seq)
		return Late, 0
	}
}

func (b *LossBitmap) set(seq uint64) { b.bits[seq/64%uint64(len(b.bits))] |= 1 << (seq % 64) }
func (b *LossBitmap) has(seq uint64) bool {
	return b.bits[seq/64%uint64(len(b.bits))]&(1<<(seq%64)) != 0
}
