package packet

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pion/rtp"
)

var ids = Extensions{AudioLevel: 1, TransportCC: 3, SendTime: 4, DependencyDescriptor: 12, AbsCaptureTime: 15}

// header is 12 octets with sequence number 0x0102, timestamp 0x03040506 and SSRC 0x0708090a.
func header(first, second byte) []byte {
	return []byte{first, second, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestParse(t *testing.T) {
	long := bytes.Repeat([]byte{7}, 40)
	plain := Packet{SequenceNumber: 0x0102, Timestamp: 0x03040506, SSRC: 0x0708090a, PayloadType: 111, Payload: []byte{9, 8}}
	with := func(change func(p *Packet)) *Packet {
		p := &Packet{SequenceNumber: plain.SequenceNumber, Timestamp: plain.Timestamp, SSRC: plain.SSRC, PayloadType: 111, Payload: []byte{9, 8}}
		change(p)
		return p
	}
	for _, c := range []struct {
		name  string
		bytes []byte
		want  *Packet
		err   error
	}{
		{"plain", join(header(0x80, 111), []byte{9, 8}), with(func(*Packet) {}), nil},
		{"marker", join(header(0x80, 0x80|111), []byte{9, 8}), with(func(p *Packet) { p.Marker = true }), nil},
		{"contributing sources", join(header(0x82, 111), make([]byte, 8), []byte{9, 8}), with(func(*Packet) {}), nil},
		{"padding", join(header(0xa0, 111), []byte{9, 8, 0, 0, 3}), with(func(*Packet) {}), nil},
		{"nothing but padding", join(header(0xa0, 111), []byte{0, 0, 3}), with(func(p *Packet) { p.Payload = nil }), nil},
		{"empty", header(0x80, 111), with(func(p *Packet) { p.Payload = nil }), nil},
		{
			"one-byte extensions", join(header(0x90, 111), []byte{0xbe, 0xde, 0, 3, 0x10, 0x85, 0, 0x31, 0x12, 0x34, 0xc3, 1, 2, 3, 4, 0}, []byte{9, 8}),
			with(func(p *Packet) {
				p.HasAudioLevel, p.Voice, p.AudioLevel = true, true, 5
				p.HasTransportSequence, p.TransportSequence = true, 0x1234
				p.DependencyDescriptor = []byte{1, 2, 3, 4}
			}), nil,
		},
		{
			"when it left", join(header(0x90, 111), []byte{0xbe, 0xde, 0, 1, 0x42, 0x12, 0x34, 0x56}, []byte{9, 8}),
			with(func(p *Packet) { p.HasSendTime, p.SendTime = true, 0x123456 }), nil,
		},
		{
			"one-byte id 15 ends them", join(header(0x90, 111), []byte{0xbe, 0xde, 0, 1, 0xf0, 1, 0x10, 5}, []byte{9, 8}),
			with(func(*Packet) {}), nil,
		},
		{
			"two-byte extensions", join(header(0x90, 111), []byte{0x10, 0x03, 0, 12, 12, 40}, long, []byte{1, 1, 127, 0, 3, 0}, []byte{9, 8}),
			with(func(p *Packet) { p.DependencyDescriptor = long; p.HasAudioLevel, p.AudioLevel = true, 127 }), nil,
		},
		{
			"two-byte id 15", join(header(0x90, 111), []byte{0x10, 0x00, 0, 1, 15, 1, 6, 0}, []byte{9, 8}),
			with(func(p *Packet) { p.AbsCaptureTime = []byte{6} }), nil,
		},
		{
			"unknown profile", join(header(0x90, 111), []byte{0x12, 0x34, 0, 1, 0x10, 5, 0, 0}, []byte{9, 8}),
			with(func(*Packet) {}), nil,
		},
		{
			"element beyond its block", join(header(0x90, 111), []byte{0xbe, 0xde, 0, 1, 0xcf, 1, 2, 3}, []byte{9, 8}),
			with(func(*Packet) {}), nil,
		},
		{"short", header(0x80, 111)[:11], nil, ErrShort},
		{"version 1", header(0x40, 111), nil, ErrVersion},
		{"missing contributing sources", header(0x81, 111), nil, ErrShort},
		{"missing extension header", join(header(0x90, 111), []byte{0xbe}), nil, ErrShort},
		{"missing extensions", join(header(0x90, 111), []byte{0xbe, 0xde, 0, 2, 0, 0, 0, 0}), nil, ErrShort},
		{"padding of length 0", join(header(0xa0, 111), []byte{9, 0}), nil, ErrPadding},
		{"padding beyond payload", join(header(0xa0, 111), []byte{9, 3}), nil, ErrPadding},
		{"padding flag without payload", header(0xa0, 111), nil, ErrPadding},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Get(Capacity)
			defer p.Release()
			err := p.Parse(copy(p.Buffer(), c.bytes), ids)
			if !errors.Is(err, c.err) {
				t.Fatalf("Parse(%x): error %v, want %v", c.bytes, err, c.err)
			}
			if err != nil {
				return
			}
			if d := cmp.Diff(c.want, p, cmpopts.IgnoreUnexported(Packet{}), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("Parse(%x) (-want +got):\n%s", c.bytes, d)
			}
		})
	}
}

// TestGet has room for what is asked for, and no more for sound than it needs.
func TestGet(t *testing.T) {
	for size, want := range map[int]int{0: smallCapacity, smallCapacity: smallCapacity, smallCapacity + 1: Capacity, Capacity: Capacity} {
		p := Get(size)
		if got := len(p.Buffer()); got != want {
			t.Errorf("for %d bytes: a buffer of %d, want %d", size, got, want)
		}
		p.Release()
	}
}

func TestReferences(t *testing.T) {
	p := Get(Capacity).Retain()
	p.Release()
	p.Release()
	defer func() {
		if recover() == nil {
			t.Error("Release without a reference did not panic")
		}
	}()
	q := &Packet{buffer: make([]byte, Capacity)}
	q.Release()
}

func TestUnwrapRetransmission(t *testing.T) {
	p := Get(Capacity)
	defer p.Release()
	if err := p.Parse(copy(p.Buffer(), join(header(0x80, 97), []byte{0xab, 0xcd, 1, 2, 3})), ids); err != nil {
		t.Fatal(err)
	}
	if err := p.UnwrapRetransmission(42, 96); err != nil {
		t.Fatal(err)
	}
	if p.SequenceNumber != 0xabcd || p.SSRC != 42 || p.PayloadType != 96 || !p.Retransmitted || !bytes.Equal(p.Payload, []byte{1, 2, 3}) {
		t.Errorf("got %+v", p)
	}
	if err := p.Parse(copy(p.Buffer(), header(0x80, 97)), ids); err != nil {
		t.Fatal(err)
	}
	if err := p.UnwrapRetransmission(42, 96); !errors.Is(err, ErrShort) {
		t.Errorf("empty retransmission: error %v, want %v", err, ErrShort)
	}
}

// FuzzParse also compares with another implementation where that accepts the packet.
func FuzzParse(f *testing.F) {
	f.Add(join(header(0x90, 111), []byte{0xbe, 0xde, 0, 3, 0x10, 0x85, 0, 0x31, 0x12, 0x34, 0xc3, 1, 2, 3, 4, 0}, []byte{9, 8}))
	f.Add(join(header(0xb2, 111), make([]byte, 8), []byte{0x10, 0, 0, 1, 1, 1, 127, 0}, []byte{9, 8, 0, 2}))
	f.Add(header(0x9f, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := Get(Capacity)
		defer p.Release()
		if p.Parse(copy(p.Buffer(), b), ids) != nil || len(b) > Capacity {
			return
		}
		var other rtp.Packet
		if other.Unmarshal(b) != nil {
			return
		}
		if other.SequenceNumber != p.SequenceNumber || other.Timestamp != p.Timestamp || other.SSRC != p.SSRC || other.Marker != p.Marker || other.PayloadType != p.PayloadType {
			t.Errorf("header of %x: got %+v, other %+v", b, p, other.Header)
		}
		if !bytes.Equal(other.Payload, p.Payload) {
			t.Errorf("payload of %x: got %x, other %x", b, p.Payload, other.Payload)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	datagram := join(header(0x90, 111), []byte{0xbe, 0xde, 0, 3, 0x10, 0x85, 0, 0x31, 0x12, 0x34, 0xc3, 1, 2, 3, 4, 0}, make([]byte, 1100))
	p := Get(Capacity)
	n := copy(p.Buffer(), datagram)
	b.ReportAllocs()
	for b.Loop() {
		if p.Parse(n, ids) != nil {
			b.Fatal("broken")
		}
	}
}
