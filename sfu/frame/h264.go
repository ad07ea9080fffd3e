package frame

import (
	"bytes"
	"encoding/binary"
)

// NAL unit and packet types of H.264 (ITU-T H.264 table 7-1, RFC 6184 §5.2).
const (
	unitIDR       = 5
	unitSPS       = 7
	unitDelimiter = 9
	unitLast      = 23 // the last type that is a unit alone
	packSTAPA     = 24
	packFUA       = 28

	typeBits = 0x1f
)

var startCode = []byte{0, 0, 0, 1}

// beginsUnit reports whether a payload begins an access unit: with a delimiter or parameters.
func beginsUnit(b []byte) bool {
	kind := uint8(0)
	switch {
	case len(b) == 0:
	case b[0]&typeBits == packSTAPA && len(b) > 3:
		kind = b[3] & typeBits
	case b[0]&typeBits == packFUA && len(b) > 1 && b[1]&0x80 != 0:
		kind = b[1] & typeBits
	default:
		kind = b[0] & typeBits
	}
	return kind == unitDelimiter || kind == unitSPS
}

// appendUnits adds the NAL units of a payload to dst, and reports whether it is one that is known. A fragment goes on where the one before it
// ended.
func appendUnits(dst, b []byte, key *bool) ([]byte, bool) {
	note := func(kind uint8) { *key = *key || kind == unitIDR || kind == unitSPS }
	switch kind := b[0] & typeBits; {
	case kind == packFUA:
		if len(b) < 3 {
			return dst, false
		}
		if b[1]&0x80 != 0 {
			note(b[1] & typeBits)
			dst = append(append(dst, startCode...), b[0]&^typeBits|b[1]&typeBits)
		} else if len(dst) == 0 {
			return dst, false
		}
		return append(dst, b[2:]...), true
	case kind == packSTAPA:
		for b = b[1:]; len(b) >= 2; {
			size := int(binary.BigEndian.Uint16(b))
			b = b[2:]
			if size == 0 || size > len(b) {
				return dst, false
			}
			note(b[0] & typeBits)
			dst = append(append(dst, startCode...), b[:size]...)
			b = b[size:]
		}
		return dst, len(b) == 0
	case kind >= 1 && kind <= unitLast:
		note(kind)
		return append(append(dst, startCode...), b...), true
	}
	return dst, false
}

// nextUnit cuts the first NAL unit off data, which begins with a start code of three or four bytes. A zero before the next start code is part of
// that; one at the end of data is not, since encrypted units may end with any byte.
func nextUnit(data []byte) (unit, rest []byte) {
	short := startCode[1:]
	at := bytes.Index(data, short)
	if at < 0 {
		return nil, nil
	}
	data = data[at+len(short):]
	at = bytes.Index(data, short)
	if at < 0 {
		return data, nil
	}
	unit, rest = data[:at], data[at:]
	if at > 0 && unit[at-1] == 0 {
		unit = unit[:at-1]
	}
	return unit, rest
}
