package frame

import "callserver/sfu/codec"

// Bits of the first octet of VP9's payload descriptor (RFC 9628 §4.2).
const (
	vp9ID        = 0x80 // I
	vp9Predicted = 0x40 // P
	vp9Layers    = 0x20 // L
	vp9Flexible  = 0x10 // F
	vp9Begin     = 0x08 // B
	vp9End       = 0x04 // E
	vp9Structure = 0x02 // V
)

// vp9Size returns how long a payload descriptor is, and where in it the scalability structure begins, which only the first packet of a frame
// may have.
func vp9Size(b []byte) (size, structure int, err error) {
	r := reader{b: b}
	flags := r.octet()
	if flags&vp9ID != 0 && r.octet()&0x80 != 0 {
		r.octet()
	}
	if flags&vp9Layers != 0 {
		r.octet()
		if flags&vp9Flexible == 0 {
			r.octet() // TL0PICIDX
		}
	}
	if flags&vp9Flexible != 0 && flags&vp9Predicted != 0 {
		for more, n := true, 0; more && n < 3; n++ {
			more = r.octet()&1 != 0
		}
	}
	structure = r.at
	if flags&vp9Structure != 0 {
		r.structure()
	}
	if r.at > len(b) {
		return 0, 0, codec.ErrShort
	}
	return r.at, min(structure, r.at), nil
}

// reader reads octets; beyond the end they are zero.
type reader struct {
	b  []byte
	at int
}

func (r *reader) octet() (v byte) {
	if r.at < len(r.b) {
		v = r.b[r.at]
	}
	r.at++
	return v
}

// structure passes over a scalability structure (RFC 9628 §4.2.1).
func (r *reader) structure() {
	head := r.octet()
	if head&0x10 != 0 { // Y: width and height of each layer
		r.at += 4 * (int(head>>5) + 1)
	}
	if head&0x08 != 0 { // G
		for n := r.octet(); n > 0 && r.at <= len(r.b); n-- {
			r.at += int(r.octet() >> 2 & 3)
		}
	}
}
