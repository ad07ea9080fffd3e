// A frame is one encoded picture before it is split into packets, as encoders make and decoders take it.
// Package frame owns putting frames together out of the packets of one stream, and splitting them again, for VP8 (RFC 7741), VP9 (RFC 9628) and
// H.264 (RFC 6184).
// It never looks into what is encoded, sends, keeps time, or knows whether a frame is encrypted.
package frame

import (
	"callserver/sfu/codec"
)

// A Frame is one picture, or one spatial layer of it.
type Frame struct {
	Timestamp uint32
	Head      []byte // payload descriptor of its first packet: VP8, VP9
	Data      []byte // H.264: NAL units, each behind a start code of four bytes (ITU-T H.264 annex B)
	Key       bool   // a decoder can start with it
	Ends      bool   // the picture ends with it
	Gap       bool   // something before it was given up

	AbsCaptureTime []byte // header extension of its first packet, nil if absent
}

// Splits reports whether frames of the codec can be put together and split.
func Splits(c codec.Codec) bool { return c == codec.VP8 || c == codec.VP9 || c == codec.H264 }
