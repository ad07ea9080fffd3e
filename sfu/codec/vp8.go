package codec

// Hot path: see ARCHITECTURE.md#packet

// VP8Descriptor is a VP8 payload descriptor (RFC 7741 §4.2).
type VP8Descriptor struct {
	Size      int    // octets it takes in the payload it was read from
	PictureID uint16 // if HasPictureID; 7 or, if Wide, 15 bits
	TL0       uint8  // TL0PICIDX, if HasTL0
	KeyIndex  uint8  // KEYIDX, 5 bits, if HasKeyIndex
	Temporal  uint8  // TID, if HasTemporal

	HasPictureID, Wide               bool
	HasTL0, HasTemporal, HasKeyIndex bool
	Sync                             bool // Y: depends on the base layer only
	Start                            bool // first packet of a frame
	KeyFrame                         bool // and that is a key frame

	first uint8 // the mandatory octet
}

// MaxVP8Size is the longest VP8 payload descriptor, in octets.
const MaxVP8Size = 6

const (
	vp8Extended = 0x80 // X

	vp8HasPictureID = 0x80 // I
	vp8HasTL0       = 0x40 // L
	vp8HasTemporal  = 0x20 // T
	vp8HasKeyIndex  = 0x10 // K
)

// ParseVP8 reads the descriptor at the front of an RTP payload, and the one bit of the frame behind it that encryption leaves clear.
func ParseVP8(payload []byte) (VP8Descriptor, error) {
	if len(payload) < 1 {
		return VP8Descriptor{}, ErrShort
	}
	d := VP8Descriptor{first: payload[0], Start: payload[0]&0x17 == 0x10, Size: 1} // S set, partition 0
	if d.first&vp8Extended != 0 {
		if len(payload) < 2 {
			return VP8Descriptor{}, ErrShort
		}
		if err := d.parseExtended(payload); err != nil {
			return VP8Descriptor{}, err
		}
	}
	if d.Start {
		if len(payload) <= d.Size {
			return VP8Descriptor{}, ErrShort
		}
		d.KeyFrame = payload[d.Size]&1 == 0
	}
	return d, nil
}

func (d *VP8Descriptor) parseExtended(b []byte) error {
	flags, at := b[1], 2
	if flags&vp8HasPictureID != 0 {
		if len(b) < at+1 {
			return ErrShort
		}
		d.HasPictureID, d.PictureID = true, uint16(b[at]&0x7f)
		if d.Wide = b[at]&0x80 != 0; d.Wide {
			at++
			if len(b) < at+1 {
				return ErrShort
			}
			d.PictureID = d.PictureID<<8 | uint16(b[at])
		}
		at++
	}
	if d.HasTL0 = flags&vp8HasTL0 != 0; d.HasTL0 {
		if len(b) < at+1 {
			return ErrShort
		}
		d.TL0 = b[at]
		at++
	}
	d.HasTemporal, d.HasKeyIndex = flags&vp8HasTemporal != 0, flags&vp8HasKeyIndex != 0
	if d.HasTemporal || d.HasKeyIndex {
		if len(b) < at+1 {
			return ErrShort
		}
		if d.HasTemporal {
			d.Temporal, d.Sync = b[at]>>6, b[at]&0x20 != 0
		}
		d.KeyIndex = b[at] & 0x1f
		at++
	}
	d.Size = at
	return nil
}

// Append appends the descriptor to b. It may be a different size than the one that was read: a picture id grows from 7 to 15 bits
// when Wide is set.
func (d *VP8Descriptor) Append(b []byte) []byte {
	b = append(b, d.first)
	if d.first&vp8Extended == 0 {
		return b
	}
	flags := uint8(0)
	if d.HasPictureID {
		flags |= vp8HasPictureID
	}
	if d.HasTL0 {
		flags |= vp8HasTL0
	}
	if d.HasTemporal {
		flags |= vp8HasTemporal
	}
	if d.HasKeyIndex {
		flags |= vp8HasKeyIndex
	}
	b = append(b, flags)
	switch {
	case d.HasPictureID && d.Wide:
		b = append(b, 0x80|uint8(d.PictureID>>8), uint8(d.PictureID))
	case d.HasPictureID:
		b = append(b, uint8(d.PictureID&0x7f))
	}
	if d.HasTL0 {
		b = append(b, d.TL0)
	}
	if d.HasTemporal || d.HasKeyIndex {
		last := d.Temporal<<6 | d.KeyIndex&0x1f
		if d.Sync {
			last |= 0x20
		}
		b = append(b, last)
	}
	return b
}

// Frame returns what the descriptor says about the frame.
func (d *VP8Descriptor) Frame(marker bool) Frame {
	f := Frame{KeyFrame: d.KeyFrame, Start: d.Start, End: marker, Temporal: int8(d.Temporal)}
	if d.Sync {
		f.Joins = 1 << d.Temporal
	}
	return f
}
