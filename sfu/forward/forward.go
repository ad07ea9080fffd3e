// Package forward is the path of a packet from one published track to its receivers.
// It owns the choice of layer, the continuous sequence numbers, timestamps and picture ids each receiver sees, retransmission, key frame
// requests, reports in both directions and what is observed on the way: loudness, which layers arrive, counts.
// It never starts a goroutine, reads the clock, opens a socket or knows what WebRTC library is in use: time comes in as a parameter, and
// packets leave through Writer.
package forward

import (
	"time"

	"callserver/sfu/codec"
)

// A Layer is one rendition of a video: Spatial is the position among the negotiated simulcast streams (or the spatial layer of a scalable
// one), lowest resolution first; Temporal is the frame rate layer.
type Layer struct{ Spatial, Temporal int8 }

// NoLayer as a target pauses a Sink; as current layer it says that nothing is being forwarded.
var NoLayer = Layer{-1, -1}

// MaxFill bounds Outgoing.Fill.
const MaxFill = 16

// maxTemporal is the highest temporal layer id any of the codecs can carry.
const maxTemporal = 7

// maxStreams is how many simulcast streams a track may have.
const maxStreams = 3

// MaxTemporal returns the layer of the given spatial id without a limit on the frame rate.
func MaxTemporal(spatial int8) Layer { return Layer{spatial, maxTemporal} }

// Outgoing is one packet for one receiver. It and everything it points to is borrowed for the call of WriteRTP.
type Outgoing struct {
	SequenceNumber uint16
	Timestamp      uint32
	Marker         bool
	Padding        uint8 // octets of RTP padding to append (RFC 3550 §5.1); the payload is empty then
	Fill           uint8 // octets by which the longest packet handed over together with this one is longer; 0 for more than MaxFill

	Head    []byte // rewritten payload descriptor, may be empty
	Payload []byte // the rest, bit for bit what the publisher sent

	DependencyDescriptor []byte // nil if absent
	AbsCaptureTime       []byte // nil if absent
	AudioLevel           uint8  // -dBov, if HasAudioLevel
	Voice, HasAudioLevel bool

	// Retransmission marks a packet that was sent before: it goes out on the receiver's RTX stream if there is one, otherwise
	// with exactly the bytes of the first time. All fields above are the same as the first time.
	Retransmission bool
}

// Writer takes packets for one receiver. It must not block for long and must be safe for concurrent use, unless it has a Lane; it is called without
// any lock held.
// A call may still be running when Sink.Detach returns.
type Writer interface {
	WriteRTP(o *Outgoing) error
}

// Upstream is the way back to the publisher. It is called without any lock held.
type Upstream interface {
	RequestKeyFrame(spatial int8)
	// Await says that Source.Waits may have come to be true other than by Push: Nacks is to be called from now on.
	Await()
}

// SourceOptions describe a published track.
type SourceOptions struct {
	Codec     codec.Codec
	ClockRate uint32 // Hz; 0 means the codec's own
	Video     bool
	Spatials  int  // number of simulcast streams, 1 to 3; 0 means 1
	SVC       bool // one stream carries several spatial layers
}

// SinkOptions describe a receiver of a track.
type SinkOptions struct {
	Target Layer // ignored for audio
	Paused bool  // start paused: SetTarget starts it
	RTX    bool  // retransmissions go out on a stream of their own, and are counted there

	// Patience is for how long the key frame that it begins with may wait for receivers that are about to come: they are then served by one.
	Patience time.Duration
}
