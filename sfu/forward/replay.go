package forward

// Hot path: see ARCHITECTURE.md#packet

import (
	"sync"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/packet"
)

const (
	smallestSent = 32
	videoSent    = videoHistory
	audioSent    = audioHistory                          // of those that were asked for again
	sentAge      = uint32(historyAge / time.Millisecond) // a packet is remembered for if the limit allows

	// A tenth of what is lost is lost again: with three answers one packet in ten thousand stays away, and stops the picture for seconds.
	maxResends   = 8
	maxResendGap = 400 * time.Millisecond
)

// sent is all it takes, with the publisher's packet, to build a receiver's packet, the first time and again.
type sent struct {
	source    uint64 // extended sequence number in its stream
	timestamp uint32
	first     uint32 // ms, when it was sent first
	until     uint32 // ms; a request before that has crossed the answer, if resends > 0
	seq       uint16
	picture   uint16 // VP8 picture id, or dependency descriptor frame number
	tl0       uint8
	key       uint8 // VP8 KEYIDX
	stream    int8
	flags     uint8
	spatial   int8 // layers that were being forwarded
	temporal  int8
	resends   uint8
}

const (
	flagUsed    = 1 << iota
	flagEnd     // the last of its frame that is forwarded: marked, whatever the publisher says
	flagPadding // nothing of the publisher's packet but its place
	flagWide    // 15-bit picture id
	flagLimited // layers are held back: the dependency descriptor says so
)

// journal remembers what was sent to one receiver, by its sequence number; of sound only what was asked for again. It grows while packets younger
// than sentAge would fall out.
type journal struct {
	limit int
	slots []sent // length zero or a power of two
}

func (j *journal) add(e *sent) {
	if len(j.slots) == 0 {
		j.slots = make([]sent, smallestSent)
	}
	slot := j.slot(e.seq)
	for slot.flags != 0 && packet.Newer(e.seq, slot.seq) && e.first-slot.first < sentAge && len(j.slots) < j.limit {
		j.grow()
		slot = j.slot(e.seq)
	}
	if slot.flags == 0 || packet.Newer(e.seq, slot.seq) {
		*slot = *e
	}
}

func (j *journal) find(seq uint16) *sent {
	if len(j.slots) == 0 {
		return nil
	}
	if e := j.slot(seq); e.flags != 0 && e.seq == seq {
		return e
	}
	return nil
}

// had reports whether it remembers a packet or one that took its place.
func (j *journal) had(seq uint16) bool {
	if len(j.slots) == 0 {
		return false
	}
	e := j.slot(seq)
	return e.flags != 0 && !packet.Newer(seq, e.seq)
}

func (j *journal) slot(seq uint16) *sent { return &j.slots[int(seq)&(len(j.slots)-1)] }

func (j *journal) grow() {
	old := j.slots
	j.slots = make([]sent, 2*len(old))
	for i := range old {
		if old[i].flags != 0 {
			*j.slot(old[i].seq) = old[i]
		}
	}
}

// resendable reports whether to answer the receiver's request at this time, and takes it as answered. One that comes within gap of the last answer was sent
// before that arrived.
func (e *sent) resendable(ms uint32, gap time.Duration) bool {
	if e.resends >= maxResends || e.resends > 0 && int32(ms-e.until) < 0 {
		return false
	}
	e.resends++
	e.until = ms + uint32(gap/time.Millisecond)
	return true
}

// scratch is what building one packet needs: pooled, because what passes through an interface call would be allocated otherwise.
type scratch struct {
	out        Outgoing
	head       [codec.MaxVP8Size]byte
	descriptor [256]byte
	structure  codec.Dependency

	bundles []bundle // of Deliver
	turns   []turn
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (w *scratch) put() {
	w.out = Outgoing{} // hold no packet
	scratches.Put(w)
}

// build makes the receiver's packet out of the publisher's. vp8 is p's descriptor, for VP8.
func (w *scratch) build(e *sent, p *packet.Packet, c codec.Codec, vp8 *codec.VP8Descriptor) *Outgoing {
	o := &w.out
	*o = Outgoing{SequenceNumber: e.seq, Timestamp: e.timestamp}
	if e.flags&flagPadding != 0 {
		o.Padding = 1
		return o
	}
	o.Marker = p.Marker || e.flags&flagEnd != 0
	o.Payload, o.AbsCaptureTime = p.Payload, p.AbsCaptureTime
	o.AudioLevel, o.Voice, o.HasAudioLevel = p.AudioLevel, p.Voice, p.HasAudioLevel
	switch c {
	case codec.VP8:
		d := *vp8
		d.PictureID, d.Wide, d.TL0, d.KeyIndex = e.picture, e.flags&flagWide != 0, e.tl0, e.key
		o.Head, o.Payload = d.Append(w.head[:0]), p.Payload[d.Size:]
	case codec.VP9, codec.AV1:
		if p.DependencyDescriptor != nil {
			limit := codec.NoLimit
			if e.flags&flagLimited != 0 {
				limit = codec.Limit{Spatial: e.spatial, Temporal: e.temporal}
			}
			o.DependencyDescriptor = w.structure.Rewrite(w.descriptor[:0], p.DependencyDescriptor, e.picture, limit)
		}
	}
	return o
}
