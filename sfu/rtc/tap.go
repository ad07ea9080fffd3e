package rtc

import (
	"encoding/binary"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
)

// tap collects transport-wide congestion control feedback for one connection. Uplinks report the media packets that they
// read; the bandwidth probes that browsers send on retransmission streams and on SSRC 0 end inside Pion, so the tap looks
// at those streams as Pion reads them. It never touches what we send. Safe for concurrent use.
type tap struct {
	interceptor.NoOp
	extension atomic.Uint32 // id of the transport sequence number, 0 = not negotiated

	mu       sync.Mutex
	recorder *twcc.Recorder
	start    time.Time
	pending  bool
}

func newTap(ssrc uint32) *tap { return &tap{recorder: twcc.NewRecorder(ssrc), start: time.Now()} }

// NewInterceptor implements interceptor.Factory; there is one tap a connection.
func (t *tap) NewInterceptor(string) (interceptor.Interceptor, error) { return t, nil }

// BindRemoteStream implements interceptor.Interceptor.
func (t *tap) BindRemoteStream(info *interceptor.StreamInfo, next interceptor.RTPReader) interceptor.RTPReader {
	if info.SSRC != 0 && !strings.HasSuffix(strings.ToLower(info.MimeType), "/rtx") {
		return next
	}
	return interceptor.RTPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		n, a, err := next.Read(b, a)
		if err == nil && n <= len(b) {
			if seq, ok := transportSequence(b[:n], uint8(t.extension.Load())); ok {
				t.record(binary.BigEndian.Uint32(b[8:]), seq, time.Now())
			}
		}
		return n, a, err
	})
}

// record notes the arrival of a packet.
func (t *tap) record(ssrc uint32, seq uint16, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recorder.Record(ssrc, seq, now.Sub(t.start).Microseconds())
	t.pending = true
}

// feedback returns the reports due, none if nothing arrived since the last call.
func (t *tap) feedback() []rtcp.Packet {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.pending {
		return nil
	}
	t.pending = false
	return t.recorder.BuildFeedbackPacket()
}

// transportSequence finds the transport-wide sequence number in an RTP packet (RFC 8285).
func transportSequence(b []byte, id uint8) (uint16, bool) {
	if id == 0 || len(b) < 12 || b[0]&0x10 == 0 {
		return 0, false
	}
	at := 12 + 4*int(b[0]&0x0f)
	if len(b) < at+4 {
		return 0, false
	}
	profile := binary.BigEndian.Uint16(b[at:])
	end := at + 4 + 4*int(binary.BigEndian.Uint16(b[at+2:]))
	if end > len(b) {
		return 0, false
	}
	for at += 4; at < end; {
		if b[at] == 0 { // padding
			at++
			continue
		}
		var found uint8
		var size int
		switch {
		case profile == 0xbede:
			found, size = b[at]>>4, int(b[at]&0x0f)+1
			at++
			if found == 15 { // RFC 8285 §4.2: stop
				return 0, false
			}
		case profile&0xfff0 == 0x1000 && at+1 < end:
			found, size = b[at], int(b[at+1])
			at += 2
		default:
			return 0, false
		}
		if at+size > end {
			return 0, false
		}
		if found == id && size >= 2 {
			return binary.BigEndian.Uint16(b[at:]), true
		}
		at += size
	}
	return 0, false
}
