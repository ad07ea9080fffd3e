package rtc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"callserver/sfu/bandwidth"
	"callserver/sfu/egress"
	"callserver/sfu/forward"
	keys "callserver/sfu/srtp"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// sent is a downlink on a leg of its own, and what comes out of it, opened by another implementation.
type sent struct {
	*downlink
	t       testing.TB
	leg     *egress.Leg
	client  *srtp.Context
	header  rtp.Header
	payload []byte
	padding byte
	count   int
	counted bandwidth.Sent
}

// wired returns a downlink with numbers, and where its packets go.
func wired(t testing.TB, w wire) *sent {
	t.Helper()
	pool := egress.NewPool(1, func(value any) { t.Error(value) })
	t.Cleanup(pool.Close)
	material := make([]byte, keys.GCM128.Material())
	for i := range material {
		material[i] = byte(i)
	}
	sealer, _, err := keys.Server(keys.GCM128, material)
	if err != nil {
		t.Fatal(err)
	}
	client, err := srtp.CreateContext(material[16:32], material[44:], srtp.ProtectionProfileAeadAes128Gcm)
	if err != nil {
		t.Fatal(err)
	}
	s := &sent{t: t, leg: pool.Assign().NewLeg(), client: client}
	s.leg.SetSealer(sealer)
	s.leg.SetPath(&egress.Path{Write: s.take})
	s.downlink = newDownlink(nil, s.leg, DownlinkOptions{TrackID: "TR_V", StreamID: "PA|TR_V", Mime: "video/VP8"})
	s.leg.Turn(func() { s.leg.Count(&s.counted) })
	out := &outlet{media: egress.Stream{SSRC: 1111, Once: w.rtx != 0, Video: true}}
	if w.rtx != 0 {
		out.rtx = egress.Stream{SSRC: 2222, Once: true, Video: true}
		s.rtx.Store(true)
	}
	s.streams.Store(out)
	s.negotiated(w)
	return s
}

// take opens a datagram.
func (s *sent) take(b []byte) {
	s.count++
	if s.client == nil {
		return
	}
	s.header = rtp.Header{}
	plain, err := s.client.DecryptRTP(nil, b, nil)
	if err != nil {
		s.t.Error(err)
		return
	}
	n, err := s.header.Unmarshal(plain)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.payload, s.padding = plain[n:], 0
	if s.header.Padding {
		s.padding = plain[len(plain)-1]
		s.payload = s.payload[:len(s.payload)-int(s.padding)]
	}
	s.header.Padding, s.header.PaddingSize = s.padding > 0, s.padding
}

// write writes packets in the worker's turn and returns the last error, when they are out.
func (s *sent) write(packets ...*forward.Outgoing) (err error) {
	s.leg.Turn(func() {
		for _, o := range packets {
			err = s.WriteRTP(o)
		}
	})
	return err
}

func TestWriteRTP(t *testing.T) {
	long := bytes.Repeat([]byte{7}, 40)
	for _, c := range []struct {
		name    string
		wire    wire
		out     forward.Outgoing
		payload string
		want    rtp.Header
		ext     map[uint8]string
	}{
		{
			name: "first time", wire: wire{payload: 96, rtx: 97, dependency: 4, captureTime: 5},
			out:     forward.Outgoing{SequenceNumber: 10, Timestamp: 20, Marker: true, Head: []byte("head"), Payload: []byte("body"), AbsCaptureTime: []byte("12345678")},
			payload: "headbody",
			want:    rtp.Header{Version: 2, Marker: true, PayloadType: 96, SequenceNumber: 10, Timestamp: 20, SSRC: 1111, Extension: true, ExtensionProfile: rtp.ExtensionProfileOneByte},
			ext:     map[uint8]string{5: "12345678"},
		},
		{
			name: "long descriptor", wire: wire{payload: 96, dependency: 4, captureTime: 5},
			out:     forward.Outgoing{Payload: []byte("body"), DependencyDescriptor: long, AbsCaptureTime: []byte("12345678")},
			payload: "body",
			want:    rtp.Header{Version: 2, PayloadType: 96, SSRC: 1111, Extension: true, ExtensionProfile: rtp.ExtensionProfileTwoByte},
			ext:     map[uint8]string{4: string(long), 5: "12345678"},
		},
		{
			name: "extensions not negotiated", wire: wire{payload: 96},
			out:     forward.Outgoing{Payload: []byte("body"), DependencyDescriptor: long, AbsCaptureTime: []byte("12345678")},
			payload: "body",
			want:    rtp.Header{Version: 2, PayloadType: 96, SSRC: 1111},
		},
		{
			name: "with a transport-wide number", wire: wire{payload: 96, rtx: 97, transport: 3, captureTime: 5},
			out:     forward.Outgoing{Payload: []byte("body"), AbsCaptureTime: []byte("12345678")},
			payload: "body",
			want:    rtp.Header{Version: 2, PayloadType: 96, SSRC: 1111, Extension: true, ExtensionProfile: rtp.ExtensionProfileOneByte},
			ext:     map[uint8]string{3: "\x00\x00", 5: "12345678"},
		},
		{
			name: "no transport-wide number without a retransmission stream", wire: wire{payload: 96, transport: 3},
			out:     forward.Outgoing{Payload: []byte("body")},
			payload: "body",
			want:    rtp.Header{Version: 2, PayloadType: 96, SSRC: 1111},
		},
		{
			name: "again without a retransmission stream", wire: wire{payload: 96},
			out:     forward.Outgoing{SequenceNumber: 10, Head: []byte("h"), Payload: []byte("b"), Retransmission: true},
			payload: "hb",
			want:    rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: 10, SSRC: 1111},
		},
		{
			name: "padding", wire: wire{payload: 96},
			out:  forward.Outgoing{SequenceNumber: 10, Padding: 200},
			want: rtp.Header{Version: 2, Padding: true, PaddingSize: 200, PayloadType: 96, SequenceNumber: 10, SSRC: 1111},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := wired(t, c.wire)
			if c.out.Retransmission { // of what was sent
				first := c.out
				first.Retransmission = false
				if err := r.write(&first); err != nil {
					t.Fatal(err)
				}
				r.header, r.payload = rtp.Header{}, nil
			}
			if err := r.write(&c.out); err != nil {
				t.Fatal(err)
			}
			for id, want := range c.ext {
				if got := r.header.GetExtension(id); string(got) != want {
					t.Errorf("extension %d: got %q, want %q", id, got, want)
				}
			}
			if len(r.header.Extensions) != len(c.ext) {
				t.Errorf("%d extensions", len(r.header.Extensions))
			}
			r.header.Extensions = nil
			if diff := cmp.Diff(c.want, r.header); diff != "" || string(r.payload) != c.payload {
				t.Errorf("got %q (-want +got):\n%s", r.payload, diff)
			}
		})
	}
}

// TestRetransmission checks RFC 4588 §4: a stream and numbers of its own, and the old number before the payload.
func TestRetransmission(t *testing.T) {
	r := wired(t, wire{payload: 96, rtx: 97})
	o := &forward.Outgoing{SequenceNumber: 0x1234, Timestamp: 5, Marker: true, Head: []byte("head"), Payload: []byte("body"), Retransmission: true}
	var last uint16
	for i := range 3 {
		if err := r.write(o); err != nil {
			t.Fatal(err)
		}
		h := r.header
		if h.SSRC != 2222 || h.PayloadType != 97 || h.Timestamp != 5 || !h.Marker {
			t.Errorf("got %+v", h)
		}
		if binary.BigEndian.Uint16(r.payload) != 0x1234 || string(r.payload[2:]) != "headbody" {
			t.Errorf("got %q", r.payload)
		}
		if i > 0 && h.SequenceNumber != last+1 {
			t.Errorf("number %d after %d", h.SequenceNumber, last)
		}
		last = h.SequenceNumber
	}
}

// TestTransportNumbers checks that every packet of video has the next number, whichever stream it is of, and is counted.
func TestTransportNumbers(t *testing.T) {
	r := wired(t, wire{payload: 96, rtx: 97, transport: 3})
	o := &forward.Outgoing{SequenceNumber: 7, Timestamp: 90, Payload: []byte("body")}
	again := *o
	again.Retransmission = true
	for i, write := range []func(){
		func() { _ = r.WriteRTP(o) },
		func() { _ = r.WriteRTP(&again) },
		func() {
			if n := r.pad(); n < maxPadding {
				t.Errorf("%d bytes of padding", n)
			}
		},
		func() { o.SequenceNumber++; _ = r.WriteRTP(o) },
	} {
		r.leg.Turn(write)
		if got := r.header.GetExtension(3); r.count != i+1 || len(got) != 2 || binary.BigEndian.Uint16(got) != uint16(i) {
			t.Errorf("packet %d of %d has number %x", i, r.count, got)
		}
		if i == 2 && (r.header.SSRC != 2222 || r.header.PayloadType != 97 || r.header.Timestamp != 90 || r.padding != maxPadding || len(r.payload) > 0) {
			t.Errorf("padding: %+v, %d bytes of payload", r.header, len(r.payload))
		}
	}
	if next := r.counted.Next(); next != 4 {
		t.Errorf("%d packets counted", next)
	}
}

// TestRepeat checks that without a retransmission stream a packet goes out again as it was, to the byte, or not at all: another packet under
// the same number would give both away.
func TestRepeat(t *testing.T) {
	r := wired(t, wire{payload: 96, captureTime: 5, transport: 3})
	first := forward.Outgoing{SequenceNumber: 10, Payload: []byte("body"), AbsCaptureTime: []byte("12345678")}
	again := first
	again.Retransmission = true
	if err := r.write(&first, &again); err != nil || r.count != 2 {
		t.Fatalf("%d packets, %v", r.count, err)
	}
	other := again
	other.Payload = []byte("b0dy")
	missing := again
	missing.SequenceNumber = 9
	twice := first
	for name, o := range map[string]*forward.Outgoing{"another payload": &other, "never sent": &missing, "first time twice": &twice} {
		if err := r.write(o); !errors.Is(err, keys.ErrReuse) || r.count != 2 {
			t.Errorf("%s: %d packets, %v", name, r.count, err)
		}
	}
	r.negotiated(wire{payload: 97, captureTime: 5})
	if err := r.write(&again); !errors.Is(err, keys.ErrReuse) || r.count != 2 {
		t.Errorf("another payload type: %d packets, %v", r.count, err)
	}
}

// TestRemoved sends nothing on a downlink that has lost its section.
func TestRemoved(t *testing.T) {
	r := wired(t, wire{payload: 96, rtx: 97})
	r.streams.Store(nil)
	if err := r.write(&forward.Outgoing{Payload: []byte("late")}); err != nil || r.count != 0 {
		t.Errorf("%d packets, %v", r.count, err)
	}
}

func TestWriteRTPAllocates(t *testing.T) {
	r := wired(t, wire{payload: 96, rtx: 97, dependency: 4, captureTime: 5, transport: 3})
	r.client = nil
	o := &forward.Outgoing{Head: []byte("head"), Payload: make([]byte, 1100), DependencyDescriptor: make([]byte, 30), AbsCaptureTime: make([]byte, 8)}
	for _, again := range []bool{false, true} {
		o.Retransmission = again
		write := func() { _ = r.WriteRTP(o); o.SequenceNumber++ }
		if n := testing.AllocsPerRun(1000, func() { r.leg.Turn(write) }); n != 0 {
			t.Errorf("retransmission %v: %v allocations a packet", again, n)
		}
	}
}

// BenchmarkWriteRTP is the header, the protection and the batch, without a socket.
func BenchmarkWriteRTP(b *testing.B) {
	for _, size := range []int{80, 1100} {
		b.Run(fmt.Sprintf("%d bytes", size), func(b *testing.B) {
			r := wired(b, wire{payload: 96, rtx: 97, dependency: 4, transport: 3})
			r.client = nil
			o := &forward.Outgoing{Head: []byte("head"), Payload: make([]byte, size)}
			b.ReportAllocs()
			r.leg.Turn(func() {
				for b.Loop() {
					o.SequenceNumber++
					if err := r.WriteRTP(o); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
