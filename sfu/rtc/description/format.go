package description

import "strings"

// Header extensions that are negotiated. RFC 8285 ids are the client's where the client offers.
const (
	URIMID         = "urn:ietf:params:rtp-hdrext:sdes:mid"
	URIRID         = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
	URIRepairedRID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
	URIAudioLevel  = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
	URITransportCC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
	URISendTime    = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
	URIDependency  = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
	URICaptureTime = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
)

// MaxMessageSize is what we accept on a data channel, in bytes.
const MaxMessageSize = 65535

// Format is a codec as SDP spells it, with the payload types of the offers that we make (RFC 8829 leaves them to us).
type Format struct {
	Mime     string // "video/VP8"
	Rate     uint32 // Hz
	Channels uint16
	FMTP     string // what Pion is told; clients see their own
	Payload  uint8
	RTX      uint8 // 0 = none
}

// Formats lists every codec that can be forwarded, in our order of preference.
var Formats = []Format{
	{"audio/opus", 48000, 2, "minptime=10;useinbandfec=1", 111, 0},
	{"audio/red", 48000, 2, "111/111", 63, 0},
	{"audio/PCMU", 8000, 1, "", 0, 0},
	{"audio/PCMA", 8000, 1, "", 8, 0},
	{"video/VP8", 90000, 0, "", 96, 97},
	{"video/H264", 90000, 0, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f", 102, 103},
	{"video/VP9", 90000, 0, "profile-id=0", 98, 99},
	{"video/AV1", 90000, 0, "", 45, 46},
	{"video/H265", 90000, 0, "", 49, 50},
}

// FindFormat returns the table's entry for a codec by mime type, or nil.
func FindFormat(mime string) *Format {
	for i := range Formats {
		if strings.EqualFold(Formats[i].Mime, mime) {
			return &Formats[i]
		}
	}
	return nil
}

// Video reports whether it is a video codec.
func (f *Format) Video() bool { return strings.HasPrefix(f.Mime, "video/") }

// Name is the encoding name, "VP8".
func (f *Format) Name() string { return f.Mime[strings.IndexByte(f.Mime, '/')+1:] }

// Own is the codec as an offer of ours names it, with more format parameters appended.
func (f *Format) Own(fmtp string, feedback []string) Codec {
	return Codec{f, f.Payload, f.RTX, f.FMTP + fmtp, feedback}
}
