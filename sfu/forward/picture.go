package forward

// Hot path: see ARCHITECTURE.md#packet

import (
	"callserver/sfu/codec"
	"callserver/sfu/packet"
)

// pictures keeps a receiver's VP8 picture ids, TL0PICIDX and KEYIDX continuous (RFC 7741 §4.2): each run goes on where the last one ended,
// and pictures that are held back leave no hole. The offset of the picture id is in the cuts of the splice, since it changes with them.
type pictures struct {
	started bool
	wide    bool   // a 15-bit id was sent: 7 bits would look like a jump back
	id      uint16 // highest sent
	tl0     uint8  // latest sent
	key     uint8

	base               uint16 // multiple of 128 that the receiver never saw, of ids that had 7 bits
	shiftTL0, shiftKey uint8  // input - output, in this run
	held               uint16
	holding            bool // held is a picture of which the newest packet was held back
}

// begin returns the offset of the picture ids of a run that starts with in.
func (r *pictures) begin(in *inbound) uint16 {
	d := &in.vp8
	r.holding = false
	if !r.started {
		r.started = true
		r.shiftTL0, r.shiftKey = 0, 0
		return 0
	}
	r.grow(d)
	r.shiftTL0, r.shiftKey = d.TL0-(r.tl0+1), d.KeyIndex-(r.key+1)
	return in.picture - r.base - (r.id + 1)
}

// grow changes to 15-bit ids with the first packet that has one, from where the receiver believes to be.
func (r *pictures) grow(d *codec.VP8Descriptor) {
	if d.Wide && !r.wide {
		r.wide = true
		unseen := r.id &^ 0x7f
		r.base, r.id = r.base+unseen, r.id-unseen
	}
}

// hold returns by how much the offset of the picture ids grows when the newest packet is held back.
func (r *pictures) hold(in *inbound) uint16 {
	if in.padding || !in.vp8.HasPictureID || r.holding && r.held == in.picture {
		return 0
	}
	r.held, r.holding = in.picture, true
	return 1
}

// rewrite fills in a packet's descriptor fields.
func (r *pictures) rewrite(e *sent, in *inbound, offset uint16) {
	d := &in.vp8
	r.grow(d)
	if r.wide {
		e.flags |= flagWide
	}
	e.picture = (in.picture - offset - r.base) & 0x7fff
	e.tl0, e.key = d.TL0-r.shiftTL0, (d.KeyIndex-r.shiftKey)&0x1f
	r.holding = r.holding && !in.newest
	if ahead := (e.picture - r.id) & 0x7fff; in.newest || ahead > 0 && ahead < 1<<14 {
		r.id, r.tl0, r.key = e.picture, e.tl0, e.key
	}
}

// frames keeps the dependency descriptor's frame numbers rising over changes of stream.
type frames struct {
	started bool
	number  uint16 // highest sent
	shift   uint16 // input - output
}

func (r *frames) begin(in *inbound) {
	if in.frame.HasNumber && r.started {
		r.shift = in.frame.Number - (r.number + 1)
	}
	r.started = r.started || in.frame.HasNumber
}

func (r *frames) rewrite(e *sent, in *inbound) {
	e.picture = in.frame.Number - r.shift
	if in.newest || packet.Newer(e.picture, r.number) {
		r.number = e.picture
	}
}
