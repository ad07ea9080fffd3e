// Package packet holds one RTP packet as it was received.
// It owns the packet's bytes (pooled, reference counted), the parsing of header and extensions, the memory of recent packets and the
// arithmetic of sequence numbers: what was lost, what to ask for again, what to report (RFC 3550, RFC 4585, RFC 8285).
// It never looks into a payload, reads a clock or starts a goroutine.
package packet

// Hot path: see ARCHITECTURE.md#packet

import (
	"sync"
	"sync/atomic"
)

// Capacity is the largest datagram, in bytes, that a Packet holds: an Ethernet MTU.
const Capacity = 1500

// smallCapacity is the buffer of small packets: Opus frames fit with header and protection.
const smallCapacity = 256

// A Packet is one received RTP packet. The fields are set by Parse and read-only from then on, so that any number of goroutines
// may read them while each holds a reference.
type Packet struct {
	references atomic.Int32 // first, with buffer: who lets go of a packet, or takes one, touches no more than these
	buffer     []byte

	SequenceNumber    uint16
	TransportSequence uint16 // transport-wide congestion control, if HasTransportSequence
	PayloadType       uint8
	AudioLevel        uint8 // RFC 6464, in -dBov: 0 is loudest, 127 silence; if HasAudioLevel
	Timestamp         uint32
	SSRC              uint32
	SendTime          uint32 // when it left, in 2^-18 s of 24 bits, if HasSendTime

	Marker               bool
	Voice                bool // RFC 6464 V bit
	HasAudioLevel        bool
	HasTransportSequence bool
	HasSendTime          bool
	// Retransmitted is set by whoever unwrapped the packet from a retransmission stream (RFC 4588): it fills a gap but does not count
	// as received in reports.
	Retransmitted bool

	// These point into the packet's own buffer and live as long as the reference does.
	Payload              []byte // without padding; empty for a padding-only packet
	DependencyDescriptor []byte // nil if absent
	AbsCaptureTime       []byte // nil if absent
}

// Rooms are packets with their bytes behind them, of two sizes: remembering sound does not hold an MTU for every frame.
type (
	large struct {
		Packet
		room [Capacity]byte
	}
	small struct {
		Packet
		room [smallCapacity]byte
	}
)

var (
	larges = sync.Pool{New: func() any {
		p := &large{}
		p.buffer = p.room[:]
		return &p.Packet
	}}
	smalls = sync.Pool{New: func() any {
		p := &small{}
		p.buffer = p.room[:]
		return &p.Packet
	}}
)

// Get returns a packet that the caller owns (reference count 1), with a buffer for a datagram of so many bytes, Capacity at most. Its fields are any packet's
// before Parse.
func Get(size int) *Packet {
	pool := &larges
	if size <= smallCapacity {
		pool = &smalls
	}
	p := pool.Get().(*Packet)
	p.references.Store(1)
	return p
}

// Buffer returns the packet's bytes at full capacity, to read a datagram into before Parse. Only the sole owner may write to it.
func (p *Packet) Buffer() []byte { return p.buffer }

// Retain adds a reference and returns p.
func (p *Packet) Retain() *Packet {
	if p.references.Add(1) <= 1 {
		panic("packet: Retain after the last Release")
	}
	return p
}

// Release gives up one reference; after the last one the buffer is reused.
func (p *Packet) Release() {
	switch n := p.references.Add(-1); {
	case n > 0:
	case n < 0:
		panic("packet: Release without a reference")
	case len(p.buffer) == smallCapacity:
		smalls.Put(p)
	default:
		larges.Put(p)
	}
}

func (p *Packet) reset() {
	p.SequenceNumber, p.TransportSequence, p.PayloadType, p.AudioLevel, p.Timestamp, p.SSRC, p.SendTime = 0, 0, 0, 0, 0, 0, 0
	p.Marker, p.Voice, p.HasAudioLevel, p.HasTransportSequence, p.HasSendTime, p.Retransmitted = false, false, false, false, false, false
	p.Payload, p.DependencyDescriptor, p.AbsCaptureTime = nil, nil, nil
}
