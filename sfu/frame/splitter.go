package frame

import "callserver/sfu/codec"

// MaxPayload is how long the payloads of a Splitter may be, in bytes: with headers and protection they fit everywhere.
const MaxPayload = 1160

// A Splitter splits frames of one codec into the payloads of packets. Caller's goroutine only.
type Splitter struct {
	codec codec.Codec
	frame *Frame
	first bool
	rest  []byte // of the frame, or of its unit
	units []byte // H.264: what follows the unit
	part  int    // bytes of rest in each payload
	unit  byte   // H.264: header of the unit, while it is sent in fragments
	whole bool   // H.264: nothing of the unit was sent
}

// NewSplitter returns a Splitter for one of the codecs that Splits names.
func NewSplitter(c codec.Codec) *Splitter { return &Splitter{codec: c} }

// Start begins with a frame, which must stay as it is until Next has returned the last of it.
func (s *Splitter) Start(f *Frame) {
	s.frame, s.first, s.rest, s.units = f, true, f.Data, nil
	if s.codec == codec.H264 {
		s.rest, s.units = nil, f.Data
		s.advance()
		return
	}
	s.spread(MaxPayload - len(f.Head))
}

// spread has what is left sent in parts of about the same size, none above the limit.
func (s *Splitter) spread(limit int) {
	n := (len(s.rest) + limit - 1) / limit
	s.part = (len(s.rest) + max(n, 1) - 1) / max(n, 1)
}

// Next appends the next payload to dst, and reports whether there is one and whether it is the last.
func (s *Splitter) Next(dst []byte) (payload []byte, last, ok bool) {
	if len(s.rest) == 0 {
		return dst, false, false
	}
	if s.codec == codec.H264 {
		return s.nextH264(dst)
	}
	n := min(s.part, len(s.rest))
	last = n == len(s.rest)
	switch s.codec {
	case codec.VP8:
		at := len(dst)
		dst = append(dst, s.frame.Head...)
		if !s.first {
			dst[at] &^= 0x10 // S: start of the frame
		}
	default:
		dst = s.headVP9(dst, last)
	}
	dst = append(dst, s.rest[:n]...)
	s.rest, s.first = s.rest[n:], false
	return dst, last, true
}

func (s *Splitter) headVP9(dst []byte, last bool) []byte {
	head := s.frame.Head
	flags := head[0] &^ (vp9Begin | vp9End)
	if s.first {
		flags |= vp9Begin
	} else if _, structure, err := vp9Size(head); err == nil {
		head = head[:structure]
		flags &^= vp9Structure
	}
	if last {
		flags |= vp9End
	}
	return append(append(dst, flags), head[1:]...)
}

// nextH264 sends a unit as it is, or in fragments (RFC 6184 §5.6, §5.8).
func (s *Splitter) nextH264(dst []byte) (payload []byte, last, ok bool) {
	if s.whole && len(s.rest) <= MaxPayload {
		dst = append(dst, s.rest...)
		s.advance()
		return dst, len(s.rest) == 0, true
	}
	flags := byte(0)
	if s.whole {
		s.unit, s.whole, flags = s.rest[0], false, 0x80
		s.rest = s.rest[1:]
		s.spread(MaxPayload - 2)
	}
	n := min(s.part, len(s.rest))
	done := n == len(s.rest)
	if done {
		flags |= 0x40
	}
	dst = append(dst, s.unit&^typeBits|packFUA, flags|s.unit&typeBits)
	dst = append(dst, s.rest[:n]...)
	s.rest = s.rest[n:]
	if done {
		s.advance()
	}
	return dst, len(s.rest) == 0, true
}

// advance goes to the next unit that is not empty.
func (s *Splitter) advance() {
	s.rest, s.whole = nil, true
	for len(s.units) > 0 && len(s.rest) == 0 {
		s.rest, s.units = nextUnit(s.units)
	}
}
