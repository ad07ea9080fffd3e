package codec

// Hot path: see ARCHITECTURE.md#packet

import "encoding/binary"

// NAL unit and packet types of H.264 (RFC 6184 §5.2, §5.4).
const (
	h264IDR   = 5
	h264SPS   = 7
	h264STAPA = 24
	h264FUA   = 28
)

func describeH264(b []byte, f *Frame) error {
	if len(b) < 1 {
		return ErrShort
	}
	switch kind := b[0] & 0x1f; kind {
	case h264STAPA:
		return eachUnit(b[1:], func(unit []byte) { f.h264(unit[0] & 0x1f) })
	case h264FUA:
		if len(b) < 2 {
			return ErrShort
		}
		if b[1]&0x80 != 0 { // first fragment
			f.h264(b[1] & 0x1f)
		}
	default:
		f.h264(kind)
	}
	return nil
}

func (f *Frame) h264(kind uint8) {
	f.KeyFrame = f.KeyFrame || kind == h264SPS
	f.Intra = f.Intra || kind == h264IDR
}

// NAL unit and packet types of H.265 (RFC 7798 §1.1.4, §4.4).
const (
	h265FirstIRAP, h265LastIRAP = 16, 21
	h265VPS, h265SPS            = 32, 33
	h265Aggregation             = 48
	h265Fragment                = 49
)

func describeH265(b []byte, f *Frame) error {
	if len(b) < 2 {
		return ErrShort
	}
	f.Temporal = max(int8(b[1]&7)-1, 0)
	switch kind := b[0] >> 1 & 0x3f; kind {
	case h265Aggregation:
		return eachUnit(b[2:], func(unit []byte) { f.h265(unit[0] >> 1 & 0x3f) })
	case h265Fragment:
		if len(b) < 3 {
			return ErrShort
		}
		if b[2]&0x80 != 0 {
			f.h265(b[2] & 0x3f)
		}
	default:
		f.h265(kind)
	}
	return nil
}

func (f *Frame) h265(kind uint8) {
	f.KeyFrame = f.KeyFrame || kind == h265VPS || kind == h265SPS
	f.Intra = f.Intra || kind >= h265FirstIRAP && kind <= h265LastIRAP
}

// eachUnit calls fn with every NAL unit of an aggregation packet; units are never empty.
func eachUnit(b []byte, fn func(unit []byte)) error {
	for len(b) >= 2 {
		size := int(binary.BigEndian.Uint16(b))
		b = b[2:]
		if size == 0 || size > len(b) {
			return ErrShort
		}
		fn(b[:size])
		b = b[size:]
	}
	return nil
}
