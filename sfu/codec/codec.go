// Package codec says what one RTP payload is: a key frame or not, where a frame starts and ends, and which layer it belongs to.
// It owns the payload descriptors of VP8, VP9, H.264, AV1 and the dependency descriptor extension, with the rewriting of VP8's.
// It never reads what end-to-end encryption hides: only descriptors, NAL unit types and the first byte of a VP8 frame.
package codec

import "strings"

// A Codec is an RTP payload format.
type Codec uint8

// The codecs that are forwarded.
const (
	Unknown Codec = iota
	Opus
	RED
	PCMU
	PCMA
	VP8
	VP9
	H264
	H265
	AV1
)

var mimes = [...]string{
	Unknown: "", Opus: "audio/opus", RED: "audio/red", PCMU: "audio/PCMU", PCMA: "audio/PCMA",
	VP8: "video/VP8", VP9: "video/VP9", H264: "video/H264", H265: "video/H265", AV1: "video/AV1",
}

// Parse returns the codec of a MIME type such as "video/VP8", in any case, or Unknown.
func Parse(mime string) Codec {
	for c := Opus; int(c) < len(mimes); c++ {
		if strings.EqualFold(mimes[c], mime) {
			return c
		}
	}
	return Unknown
}

// Mime returns the MIME type in its registered spelling, or "" for Unknown.
func (c Codec) Mime() string {
	if int(c) >= len(mimes) {
		return ""
	}
	return mimes[c]
}

// String returns the MIME type.
func (c Codec) String() string { return c.Mime() }

// Video reports whether the codec is a video codec.
func (c Codec) Video() bool { return c >= VP8 && c <= AV1 }

// ClockRate returns the RTP clock rate in Hz.
func (c Codec) ClockRate() uint32 {
	switch {
	case c == PCMU || c == PCMA:
		return 8000
	case c.Video():
		return 90000
	default:
		return 48000
	}
}
