package packet

// Hot path: see ARCHITECTURE.md#packet

import (
	"encoding/binary"
	"errors"
)

// Extensions are the header extension ids that were negotiated for the stream a packet came on (RFC 8285); 0 means not negotiated.
type Extensions struct {
	AudioLevel           uint8 // urn:ietf:params:rtp-hdrext:ssrc-audio-level (RFC 6464)
	TransportCC          uint8 // transport-wide-cc-extensions-01
	SendTime             uint8 // abs-send-time
	DependencyDescriptor uint8 // AV1 RTP specification, appendix A
	AbsCaptureTime       uint8 // abs-capture-time
}

// Errors of Parse. They say what is wrong with the datagram and are not wrapped: the packet path counts them, it does not print them.
var (
	ErrShort   = errors.New("packet: shorter than its RTP header says")
	ErrVersion = errors.New("packet: RTP version is not 2")
	ErrPadding = errors.New("packet: padding longer than the payload")
)

const (
	headerSize     = 12
	oneByteProfile = 0xBEDE // RFC 8285 §4.2
	twoByteProfile = 0x1000 // RFC 8285 §4.3, the low four bits are "appbits"
)

// Parse reads the RTP packet (RFC 3550 §5.1) in the first n bytes of Buffer into p's fields. A header extension block that is broken
// is skipped as a whole: the payload is still good.
func (p *Packet) Parse(n int, ids Extensions) error {
	if n < headerSize || n > len(p.buffer) {
		return ErrShort
	}
	b := p.buffer[:n]
	p.reset()
	if b[0]>>6 != 2 {
		return ErrVersion
	}
	p.Marker, p.PayloadType = b[1]&0x80 != 0, b[1]&0x7f
	p.SequenceNumber = binary.BigEndian.Uint16(b[2:])
	p.Timestamp = binary.BigEndian.Uint32(b[4:])
	p.SSRC = binary.BigEndian.Uint32(b[8:])

	at := headerSize + 4*int(b[0]&0x0f)
	if b[0]&0x10 != 0 {
		if n < at+4 {
			return ErrShort
		}
		profile, size := binary.BigEndian.Uint16(b[at:]), 4*int(binary.BigEndian.Uint16(b[at+2:]))
		at += 4
		if n < at+size {
			return ErrShort
		}
		p.parseExtensions(profile, b[at:at+size:at+size], ids)
		at += size
	}
	if n < at {
		return ErrShort
	}
	if b[0]&0x20 != 0 {
		if n == at || b[n-1] == 0 || int(b[n-1]) > n-at {
			return ErrPadding
		}
		n -= int(b[n-1])
	}
	p.Payload = b[at:n:n]
	return nil
}

func (p *Packet) parseExtensions(profile uint16, b []byte, ids Extensions) {
	oneByte := profile == oneByteProfile
	if !oneByte && profile&0xfff0 != twoByteProfile {
		return
	}
	for len(b) > 0 {
		var id uint8
		var size int
		switch {
		case b[0] == 0: // padding between elements
			b = b[1:]
			continue
		case oneByte:
			id, size, b = b[0]>>4, int(b[0]&0x0f)+1, b[1:]
			if id == 15 { // RFC 8285 §4.2: stop here
				return
			}
		case len(b) < 2:
			return
		default:
			id, size, b = b[0], int(b[1]), b[2:]
		}
		if size > len(b) {
			return
		}
		p.setExtension(id, b[:size:size], ids)
		b = b[size:]
	}
}

func (p *Packet) setExtension(id uint8, value []byte, ids Extensions) {
	switch {
	case id == 0:
	case id == ids.AudioLevel && len(value) >= 1:
		p.HasAudioLevel, p.Voice, p.AudioLevel = true, value[0]&0x80 != 0, value[0]&0x7f
	case id == ids.TransportCC && len(value) >= 2:
		p.HasTransportSequence, p.TransportSequence = true, binary.BigEndian.Uint16(value)
	case id == ids.SendTime && len(value) >= 3:
		p.HasSendTime, p.SendTime = true, uint32(value[0])<<16|uint32(value[1])<<8|uint32(value[2])
	case id == ids.DependencyDescriptor && len(value) > 0:
		p.DependencyDescriptor = value
	case id == ids.AbsCaptureTime && len(value) > 0:
		p.AbsCaptureTime = value
	}
}

// UnwrapRetransmission turns a parsed packet of a retransmission stream (RFC 4588 §4) into the original one, of the given stream and
// payload type. ErrShort means there is no original inside: such streams also carry padding to probe the path.
func (p *Packet) UnwrapRetransmission(ssrc uint32, payloadType uint8) error {
	if len(p.Payload) < 2 {
		return ErrShort
	}
	p.SequenceNumber = binary.BigEndian.Uint16(p.Payload)
	p.Payload, p.SSRC, p.PayloadType, p.Retransmitted = p.Payload[2:], ssrc, payloadType, true
	return nil
}
