package codec

// Hot path: see ARCHITECTURE.md#packet

import "errors"

// Errors of the parsers. They say what is wrong with a payload and are not wrapped: the packet path counts them, it does not print them.
var (
	ErrShort       = errors.New("codec: payload ends inside its descriptor")
	ErrNoStructure = errors.New("codec: dependency descriptor before its template structure")
	ErrStructure   = errors.New("codec: broken template structure")
)

// A Frame is what one packet says about the frame it is a part of.
type Frame struct {
	KeyFrame bool  // a decoder can start with this packet: it is the first of a key frame
	Intra    bool  // like KeyFrame if no packet of the same timestamp came before: H.264 and H.265 slices without their parameter sets
	Start    bool  // first packet of a frame; unknown (false) for H.264 and H.265
	End      bool  // last packet of a frame; of a layer's frame where there are spatial layers
	Joins    uint8 // temporal layers, a bit each, that a receiver of those below can begin with this frame

	Spatial, Temporal int8 // 0 where the payload does not say

	Number    uint16 // dependency descriptor frame number, if HasNumber
	HasNumber bool
}

// Describe fills in f for one payload. dd is the packet's dependency descriptor, nil if it has none, and state what earlier ones of the
// same stream said; where there is one it is believed rather than the payload, which end-to-end encryption may hide. After an error f
// holds what could be read, with layers 0. Not safe for concurrent use with the same state.
func (c Codec) Describe(payload, dd []byte, marker bool, state *Dependency, f *Frame) error {
	*f = Frame{End: marker}
	if len(dd) > 0 && (c == VP9 || c == AV1) {
		if err := state.describe(dd, f); err == nil || c == AV1 {
			return err
		}
		number, ok := f.Number, f.HasNumber // VP9's own descriptor is in the clear as well
		*f = Frame{End: marker, Number: number, HasNumber: ok}
	}
	switch c {
	case VP8:
		d, err := ParseVP8(payload)
		if err == nil {
			*f = d.Frame(marker)
		}
		return err
	case VP9:
		return describeVP9(payload, f)
	case H264:
		return describeH264(payload, f)
	case H265:
		return describeH265(payload, f)
	case AV1:
		return describeAV1(payload, f)
	default: // audio: each packet stands alone
		f.KeyFrame, f.Start, f.End = true, true, true
		return nil
	}
}

// describeVP9 reads the payload descriptor of RFC 9628 §4.2 as far as the layer indices.
func describeVP9(b []byte, f *Frame) error {
	if len(b) < 1 {
		return ErrShort
	}
	flags := b[0]
	predicted, start, end := flags&0x40 != 0, flags&0x08 != 0, flags&0x04 != 0
	at := 1
	if flags&0x80 != 0 { // I: picture id
		if len(b) < at+1 {
			return ErrShort
		}
		at++
		if b[at-1]&0x80 != 0 {
			at++
		}
	}
	if flags&0x20 != 0 { // L: layer indices
		if len(b) < at+1 {
			return ErrShort
		}
		f.Temporal, f.Spatial = int8(b[at]>>5), int8(b[at]>>1&7)
		if b[at]&0x10 != 0 { // U: what comes above this layer does not look back beyond here
			f.Joins = 0xfe << f.Temporal
		}
	}
	f.Start, f.End = start, end
	f.KeyFrame = start && !predicted && f.Spatial == 0
	return nil
}

// describeAV1 reads the aggregation header (AV1 RTP specification §4.4). Only the N bit survives encryption.
func describeAV1(b []byte, f *Frame) error {
	if len(b) < 1 {
		return ErrShort
	}
	f.KeyFrame = b[0]&0x88 == 0x08 // N, and not a continuation
	f.Start = f.KeyFrame
	return nil
}
