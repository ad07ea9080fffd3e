// A frame is one encoded picture or piece of sound before it is split into packets, as the clients' end-to-end encryption
// treats it (livekit-client's frame cryptor, which Element Call uses). Package framecrypto owns its sealed form, the keys,
// and which bytes of each codec stay readable. It never sees packets, distributes no keys, and is for legs that end at
// this server: what passes between clients is forwarded as it is.
//
// # Form
//
//	header | ciphertext | tag, 16 bytes | IV, 12 bytes | 0x0c | key index
//
// AES-128-GCM; the header is readable and authenticated. Opus: 1 byte. VP8: 10 bytes of a key frame, 3 of others. VP9: none.
// H.264: all up to the second byte of the first slice, with start codes of four bytes; what follows it is escaped like a
// NAL unit (00 00 03), so that depacketisers find no start code in it. AV1 has no form. An empty frame, which Opus
// sends while nobody speaks, stays as it is.
package framecrypto

import "errors"

// Codec is how a track is encoded.
type Codec uint8

// The codecs whose frames can be sealed.
const (
	Opus Codec = iota
	VP8
	VP9
	H264
)

// Why a frame was neither sealed nor opened. Callers compare with errors.Is; none is wrapped, so that a hostile sender
// costs no memory.
var (
	ErrNoKey     = errors.New("no key of that index")
	ErrDeadKey   = errors.New("the key failed too often")
	ErrMalformed = errors.New("not a sealed frame")
	ErrForged    = errors.New("the key does not open the frame")
)

const (
	tagSize   = 16
	ivSize    = 12
	trailer   = 2 // size of the IV, key index
	footer    = ivSize + trailer
	maxFailed = 10 // frames in a row, after which a key is dead
	ratchets  = 10 // how far a key is turned to open a frame
)
