package ingress

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
)

// Arrivals collects transport-wide congestion control feedback for one connection (draft-holmer-rmcat-transport-wide-cc-extensions-01): media,
// and the probes that browsers send on retransmission streams and on SSRC 0. Safe for concurrent use.
type Arrivals struct {
	extension atomic.Uint32 // id of the transport sequence number, 0 = not negotiated

	mu       sync.Mutex
	recorder *twcc.Recorder // nil until something arrives
	ssrc     uint32
	start    time.Time
	pending  bool
}

func newArrivals(ssrc uint32) *Arrivals { return &Arrivals{ssrc: ssrc} }

// probe notes a packet of no section, if it has a number.
func (a *Arrivals) probe(b []byte, now time.Time) {
	if v := extension(b, uint8(a.extension.Load())); len(v) >= 2 {
		a.record(binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint16(v), now)
	}
}

// record notes the arrival of a packet.
func (a *Arrivals) record(ssrc uint32, seq uint16, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.recorder == nil {
		a.recorder, a.start = twcc.NewRecorder(a.ssrc), now
	}
	a.recorder.Record(ssrc, seq, now.Sub(a.start).Microseconds())
	a.pending = true
}

// Feedback returns the reports due, none if nothing arrived since the last call.
func (a *Arrivals) Feedback() []rtcp.Packet {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.pending {
		return nil
	}
	a.pending = false
	return a.recorder.BuildFeedbackPacket()
}

// extension finds the value of a header extension in an RTP packet (RFC 8285), nil if it is not there.
func extension(b []byte, id uint8) []byte {
	if id == 0 || len(b) < 12 || b[0]&0x10 == 0 {
		return nil
	}
	at := 12 + 4*int(b[0]&0x0f)
	if len(b) < at+4 {
		return nil
	}
	profile := binary.BigEndian.Uint16(b[at:])
	end := at + 4 + 4*int(binary.BigEndian.Uint16(b[at+2:]))
	if end > len(b) {
		return nil
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
				return nil
			}
		case profile&0xfff0 == 0x1000 && at+1 < end:
			found, size = b[at], int(b[at+1])
			at += 2
		default:
			return nil
		}
		if at+size > end {
			return nil
		}
		if found == id {
			return b[at : at+size]
		}
		at += size
	}
	return nil
}
