package frame

import (
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/packet"
)

const (
	window   = 1024                   // packets that wait, or are of one frame: more than a megabyte
	patience = 400 * time.Millisecond // how long a missing packet is waited for: some rounds of asking for it again
)

// A Builder puts the packets of one stream, which come in any order, together to frames. What is missing is waited for a while; then the
// frame that it was of is given up as a whole. The stream must begin with a key frame. Caller's goroutine only.
type Builder struct {
	codec codec.Codec
	slots [window]waiting
	order packet.Unwrapper

	begun   bool
	next    uint64 // number of the first packet of the next frame
	highest uint64
	lost    bool // what next is of may be damaged: skip to where a frame begins
	gap     bool // something was given up since the last frame
	origin  time.Time

	frame Frame
	head  [maxHead]byte
	data  []byte
	time  [16]byte
	given uint64
}

// waiting is a packet of a frame that is not complete.
type waiting struct {
	packet *packet.Packet // nil: none
	at     time.Duration  // when it came
}

// maxHead bounds a payload descriptor: a VP9 one may carry a scalability structure.
const maxHead = 128

// NewBuilder returns a Builder for one of the codecs that Splits names.
func NewBuilder(c codec.Codec) *Builder { return &Builder{codec: c} }

// GivenUp is how often frames were given up for what was missing or broken.
func (b *Builder) GivenUp() uint64 { return b.given }

// Add takes a packet, and the caller's reference to it. Ones that come twice or too late are dropped.
func (b *Builder) Add(p *packet.Packet, now time.Time) {
	seq := b.order.Unwrap(p.SequenceNumber)
	if !b.begun {
		b.begun, b.next, b.highest, b.origin = true, seq, seq, now
	}
	if seq < b.next {
		p.Release()
		return
	}
	if seq-b.next >= window { // a gap that nobody fills any more
		b.skip(seq - window + 1)
	}
	slot := &b.slots[seq%window]
	if slot.packet != nil {
		p.Release()
		return
	}
	*slot = waiting{packet: p, at: now.Sub(b.origin)}
	b.highest = max(b.highest, seq)
}

// skip gives up everything before a number.
func (b *Builder) skip(to uint64) {
	for n := 0; b.next < to && n < window; n++ {
		b.drop(b.next)
		b.next++
	}
	b.next = to
	b.surrender()
}

func (b *Builder) drop(seq uint64) {
	if p := b.at(seq); p != nil {
		p.Release()
		b.slots[seq%window].packet = nil
	}
}

func (b *Builder) at(seq uint64) *packet.Packet { return b.slots[seq%window].packet }

func (b *Builder) surrender() {
	b.lost, b.gap = true, true
	b.given++
}

// Close lets go of all packets.
func (b *Builder) Close() {
	for i := range b.slots {
		b.drop(uint64(i))
	}
}

// Next returns the next frame, nil while it is not complete. It is good until the next call of any method.
func (b *Builder) Next(now time.Time) *Frame {
	for b.begun {
		end, whole := b.find()
		switch {
		case whole:
			if f := b.take(end); f != nil {
				return f
			}
		case end-b.next >= window-1: // a frame beyond all bounds
			b.skip(end)
		case end > b.highest: // not here yet
			return nil
		default:
			for b.at(end) == nil { // up to highest, which is here
				end++
			}
			if now.Sub(b.origin)-b.slots[end%window].at < patience {
				return nil
			}
			b.skip(end) // what is missing, and what came of the frame before it
		}
	}
	return nil
}

// find returns where the frame at next ends, or the first number that is missing of it. After a loss it skips to where a frame begins.
func (b *Builder) find() (end uint64, whole bool) {
	for seq := b.next; ; seq++ {
		p := b.at(seq)
		if p == nil || seq-b.next >= window-1 {
			return seq, false
		}
		if seq > b.next && p.Timestamp != b.at(b.next).Timestamp { // nobody marked the end
			return seq - 1, true
		}
		if b.lost && seq == b.next && !b.begins(p) {
			b.lost = !p.Marker || b.codec != codec.H264 // what follows a marker begins
			b.drop(seq)
			b.next++
			continue
		}
		if b.ends(p) {
			return seq, true
		}
	}
}

// begins reports whether a frame is certain to begin with the packet.
func (b *Builder) begins(p *packet.Packet) bool {
	switch b.codec {
	case codec.VP8:
		d, err := codec.ParseVP8(p.Payload)
		return err == nil && d.Start
	case codec.VP9:
		return len(p.Payload) > 0 && p.Payload[0]&vp9Begin != 0
	}
	return beginsUnit(p.Payload)
}

func (b *Builder) ends(p *packet.Packet) bool {
	return p.Marker || b.codec == codec.VP9 && len(p.Payload) > 0 && p.Payload[0]&vp9End != 0
}

// take makes the frame that ends with the packet end, nil if it is broken.
func (b *Builder) take(end uint64) *Frame {
	first := b.at(b.next)
	b.frame = Frame{Timestamp: first.Timestamp, Ends: b.at(end).Marker}
	if n := len(first.AbsCaptureTime); n > 0 && n <= len(b.time) {
		b.frame.AbsCaptureTime = b.time[:copy(b.time[:], first.AbsCaptureTime)]
	}
	b.data = b.data[:0]
	fine := true
	for seq := b.next; seq <= end; seq++ {
		fine = fine && b.append(b.at(seq).Payload)
		b.drop(seq)
	}
	b.next = end + 1
	if !fine || len(b.data) == 0 {
		if fine && b.frame.Head == nil { // nothing but padding
			return nil
		}
		b.surrender()
		return nil
	}
	b.frame.Data, b.frame.Gap = b.data, b.gap
	b.lost, b.gap = false, false
	return &b.frame
}

// append adds a packet's part to the frame, and reports whether it is one.
func (b *Builder) append(payload []byte) bool {
	if len(payload) == 0 {
		return true
	}
	switch b.codec {
	case codec.VP8:
		return b.appendVP8(payload, b.frame.Head == nil)
	case codec.VP9:
		return b.appendVP9(payload, b.frame.Head == nil)
	}
	var ok bool
	b.data, ok = appendUnits(b.data, payload, &b.frame.Key)
	return ok
}

func (b *Builder) appendVP8(payload []byte, first bool) bool {
	d, err := codec.ParseVP8(payload)
	if err != nil || first && !d.Start {
		return false
	}
	if first {
		b.frame.Head = b.head[:copy(b.head[:], payload[:d.Size])]
		b.frame.Key = d.KeyFrame
	}
	b.data = append(b.data, payload[d.Size:]...)
	return true
}

func (b *Builder) appendVP9(payload []byte, first bool) bool {
	size, _, err := vp9Size(payload)
	if err != nil || first && (payload[0]&vp9Begin == 0 || size > maxHead) {
		return false
	}
	if first {
		b.frame.Head = b.head[:copy(b.head[:], payload[:size])]
		b.head[0] |= vp9End // as if it were one packet
		var f codec.Frame
		_ = codec.VP9.Describe(payload, nil, false, nil, &f)
		b.frame.Key = f.KeyFrame
	}
	b.data = append(b.data, payload[size:]...)
	return true
}
