package packet

// Hot path: see ARCHITECTURE.md#packet

import "time"

const (
	smallestHistory = 16
	expiredPerAdd   = 2 // packets: more than come, or what was kept for longer would stay
)

// A History is a ring of the packets of one stream that can be sent again. It starts empty, grows only while packets younger than its
// age would fall out, up to its limit, and holds one reference to each packet. Not safe for concurrent use. Times are since any fixed
// origin.
type History struct {
	limit int
	age   time.Duration
	slots []remembered // length zero or a power of two

	lowest, highest uint64 // nothing is held outside of this
}

type remembered struct {
	seq    uint64
	at     time.Duration
	packet *Packet // nil if the slot is free
}

// NewHistory returns an empty history of at most limit packets (rounded up to a power of two), each kept for at least age if the limit allows.
func NewHistory(limit int, age time.Duration) *History {
	size := smallestHistory
	for size < limit {
		size *= 2
	}
	return &History{limit: size, age: age}
}

// SetAge changes for how long packets are kept, those that are there included.
func (h *History) SetAge(age time.Duration) { h.age = age }

// Add remembers p, with a reference of its own, under its extended sequence number. It forgets a few that are too old: as many as come, so that those
// who receive packets get the ones that they have just let go of, which the processor has at hand.
func (h *History) Add(seq uint64, p *Packet, now time.Duration) {
	if len(h.slots) == 0 {
		h.slots = make([]remembered, smallestHistory)
		h.lowest, h.highest = seq, seq
	}
	slot := h.slot(seq)
	for slot.packet != nil && slot.seq < seq && now-slot.at < h.age && len(h.slots) < h.limit {
		h.grow()
		slot = h.slot(seq)
	}
	if slot.packet != nil {
		if slot.seq >= seq { // what the ring holds is newer
			return
		}
		slot.packet.Release()
	}
	*slot = remembered{seq: seq, at: now, packet: p.Retain()}
	h.lowest, h.highest = min(h.lowest, seq), max(h.highest, seq)
	h.expire(now, expiredPerAdd)
}

// Get returns the packet with a reference for the caller, or nil.
func (h *History) Get(seq uint64) *Packet {
	if len(h.slots) == 0 {
		return nil
	}
	if slot := h.slot(seq); slot.packet != nil && slot.seq == seq {
		return slot.packet.Retain()
	}
	return nil
}

// Expire lets go of packets that are older than the age; an empty history gives its memory back.
func (h *History) Expire(now time.Duration) {
	if len(h.slots) > 0 && h.expire(now, len(h.slots)) {
		h.Clear() // what is left was overtaken by a jump
	}
}

// expire lets go of at most n packets that are too old, and reports whether it came past the newest.
func (h *History) expire(now time.Duration, n int) bool {
	if size := uint64(len(h.slots)); h.highest-h.lowest >= size {
		h.lowest = h.highest - size + 1
	}
	for ; h.lowest <= h.highest; h.lowest++ {
		slot := h.slot(h.lowest)
		if slot.packet == nil || slot.seq != h.lowest {
			continue
		}
		if now-slot.at < h.age || n == 0 {
			return false
		}
		n--
		slot.packet.Release()
		*slot = remembered{}
	}
	return true
}

// Clear lets go of everything.
func (h *History) Clear() {
	for i := range h.slots {
		if p := h.slots[i].packet; p != nil {
			p.Release()
		}
	}
	h.slots, h.lowest, h.highest = nil, 0, 0
}

func (h *History) slot(seq uint64) *remembered { return &h.slots[seq&uint64(len(h.slots)-1)] }

func (h *History) grow() {
	old := h.slots
	h.slots = make([]remembered, 2*len(old))
	for _, r := range old {
		if r.packet != nil {
			*h.slot(r.seq) = r // two of the old ring never meet in the larger one
		}
	}
}
