package framecrypto

import "bytes"

// readable is how many bytes of a frame, sealed or not, stay as they are, and whether what follows is escaped. That may be
// more than the frame has.
func readable(codec Codec, frame []byte, intra bool) (size int, escaped bool) {
	switch codec {
	case Opus:
		size = 1
	case VP9:
	case H264:
		if size := firstSlice(frame); size > 0 {
			return size, true
		}
		fallthrough // without a slice clients take it for VP8
	case VP8:
		size = 3
		if intra {
			size = 10
		}
	}
	return size, false
}

var startCode = []byte{0, 0, 1}

// firstSlice returns where the second byte of the first slice of a picture ends (ITU-T H.264 annex B), or 0.
func firstSlice(frame []byte) int {
	for at := 0; ; {
		found := bytes.Index(frame[at:], startCode)
		if found < 0 {
			return 0
		}
		at += found + len(startCode)
		if at >= len(frame) {
			return 0
		}
		if kind := frame[at] & 0x1f; kind == 1 || kind == 5 { // a slice, of a key frame
			return at + 2
		}
	}
}

// appendLongStarts appends a header with every start code in four bytes, as depacketisers write it: what is authenticated
// must be what receivers see.
func appendLongStarts(dst, header []byte) []byte {
	for {
		found := bytes.Index(header, startCode)
		if found < 0 {
			return append(dst, header...)
		}
		dst = append(dst, header[:found]...)
		if found == 0 || header[found-1] != 0 {
			dst = append(dst, 0)
		}
		dst = append(dst, startCode...)
		header = header[found+len(startCode):]
	}
}

// appendEscaped puts a 3 between two zeros and what would be read as a start code with them (ITU-T H.264 §7.4.1).
func appendEscaped(dst, plain []byte) []byte {
	zeros := 0
	for _, b := range plain {
		if zeros >= 2 && b <= 3 {
			dst = append(dst, 3)
			zeros = 0
		}
		dst = append(dst, b)
		if b == 0 {
			zeros++
		} else {
			zeros = 0
		}
	}
	return dst
}

// appendUnescaped takes those out again.
func appendUnescaped(dst, escaped []byte) []byte {
	for {
		found := bytes.Index(escaped, []byte{0, 0, 3})
		if found < 0 {
			return append(dst, escaped...)
		}
		dst = append(dst, escaped[:found+2]...)
		escaped = escaped[found+3:]
	}
}
