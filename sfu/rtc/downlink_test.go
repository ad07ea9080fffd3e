package rtc

import (
	"bytes"
	"encoding/binary"
	"testing"

	"callserver/sfu/forward"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// recorder keeps the last packet written.
type recorder struct {
	header  rtp.Header
	payload []byte
}

func (r *recorder) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	r.header = *h
	r.payload = append(r.payload[:0], payload...)
	return len(payload), nil
}

func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }

// wired returns a downlink with numbers, and where its packets go.
func wired(w wire) (*downlink, *recorder) {
	d, r := newDownlink(nil, DownlinkOptions{TrackID: "TR_V", StreamID: "PA|TR_V", Mime: "video/VP8"}), &recorder{}
	var stream webrtc.TrackLocalWriter = r
	d.stream.Store(&stream)
	d.ssrc.Store(1111)
	if w.rtx != 0 {
		d.rtxSSRC.Store(2222)
	}
	d.negotiated(w)
	return d, r
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
			want:    rtp.Header{Version: 2, PayloadType: 96, SSRC: 1111, ExtensionProfile: rtp.ExtensionProfileOneByte},
		},
		{
			name: "again without a retransmission stream", wire: wire{payload: 96},
			out:     forward.Outgoing{SequenceNumber: 10, Head: []byte("h"), Payload: []byte("b"), Retransmission: true},
			payload: "hb",
			want:    rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: 10, SSRC: 1111, ExtensionProfile: rtp.ExtensionProfileOneByte},
		},
		{
			name: "padding", wire: wire{payload: 96},
			out:  forward.Outgoing{SequenceNumber: 10, Padding: 200},
			want: rtp.Header{Version: 2, Padding: true, PaddingSize: 200, PayloadType: 96, SequenceNumber: 10, SSRC: 1111, ExtensionProfile: rtp.ExtensionProfileOneByte},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, r := wired(c.wire)
			if err := d.WriteRTP(&c.out); err != nil {
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
	d, r := wired(wire{payload: 96, rtx: 97})
	o := &forward.Outgoing{SequenceNumber: 0x1234, Timestamp: 5, Marker: true, Head: []byte("head"), Payload: []byte("body"), Retransmission: true}
	var last uint16
	for i := range 3 {
		if err := d.WriteRTP(o); err != nil {
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

func TestWriteRTPAllocates(t *testing.T) {
	d, _ := wired(wire{payload: 96, rtx: 97, dependency: 4, captureTime: 5})
	o := &forward.Outgoing{Head: []byte("head"), Payload: make([]byte, 1100), DependencyDescriptor: make([]byte, 30), AbsCaptureTime: make([]byte, 8)}
	for _, again := range []bool{false, true} {
		o.Retransmission = again
		if n := testing.AllocsPerRun(1000, func() { _ = d.WriteRTP(o) }); n != 0 {
			t.Errorf("retransmission %v: %v allocations a packet", again, n)
		}
	}
}

func BenchmarkWriteRTP(b *testing.B) {
	d, _ := wired(wire{payload: 96, rtx: 97, dependency: 4})
	o := &forward.Outgoing{Head: []byte("head"), Payload: make([]byte, 1100)}
	b.ReportAllocs()
	for b.Loop() {
		if err := d.WriteRTP(o); err != nil {
			b.Fatal(err)
		}
	}
}
