package ingress

// Hot path: see ARCHITECTURE.md#packet

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/bandwidth"
	"callserver/sfu/packet"
)

const (
	smallestWindow = 64   // numbers remembered: a tenth of a second of a camera
	largestWindow  = 4096 // and of a screen on a fast line; what is left out by more than this goes unreported

	arrivalTick   = 250 * time.Microsecond // unit of a delta
	referenceUnit = 256                    // ticks: 64 ms
	maxStatuses   = 512                    // packets that one report is about
	largestDelta  = 1<<15 - 1
)

// Arrivals collects transport-wide congestion control feedback for one connection (draft-holmer-rmcat-transport-wide-cc-extensions-01): media,
// and the probes that browsers send on retransmission streams and on SSRC 0. Safe for concurrent use.
type Arrivals struct {
	extension atomic.Uint32 // id of the transport sequence number, 0 = not negotiated
	changed   func()        // what Line says may be new; nil = nobody asks

	mu       sync.Mutex
	ssrc     uint32
	media    uint32 // SSRC of the latest packet
	start    time.Time
	numbers  packet.Unwrapper
	times    []uint32 // by number: ticks since start, plus one; 0 = has not come. A power of two long, empty until something arrives
	begin    uint64   // first that is to be reported
	end      uint64   // one past the highest
	reported uint8    // reports so far, modulo 256
	pending  bool
	line     bandwidth.Uplink
}

func newArrivals(ssrc uint32, changed func()) *Arrivals {
	return &Arrivals{ssrc: ssrc, changed: changed}
}

// probe notes a packet of no section, if it has a number.
func (a *Arrivals) probe(b []byte, now time.Time) {
	if v := extension(b, uint8(a.extension.Load())); len(v) >= 2 {
		a.record(binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint16(v), now)
	}
}

// take notes a packet of so many bytes.
func (a *Arrivals) take(p *packet.Packet, size int, now time.Time) {
	if a.note(p, size, now) && a.changed != nil {
		a.changed()
	}
}

// note is take, and reports whether Line may have something new to say.
func (a *Arrivals) note(p *packet.Packet, size int, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.recordLocked(p.SSRC, p.TransportSequence, now)
	return p.HasSendTime && a.line.Note(p.SendTime, size, now.Sub(a.start))
}

// Line is how many bits/s the client's line carries while it sends more than that; without limited it does not. Widened reports, once, that the line
// seems to carry more than when it was found to be narrow.
func (a *Arrivals) Line(now time.Time) (bitrate int64, limited, widened bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	bitrate, limited = a.line.Limit(now.Sub(a.start))
	return bitrate, limited, a.line.Widened()
}

// record notes the arrival of a packet.
func (a *Arrivals) record(ssrc uint32, number uint16, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.recordLocked(ssrc, number, now)
}

func (a *Arrivals) recordLocked(ssrc uint32, number uint16, now time.Time) {
	seq := a.numbers.Unwrap(number)
	if len(a.times) == 0 {
		a.times, a.start = make([]uint32, smallestWindow), now
		a.begin, a.end = seq, seq
	}
	if seq >= a.end {
		a.advance(seq + 1)
	}
	if a.end-seq > uint64(len(a.times)) { // forgotten
		return
	}
	if slot := a.slot(seq); *slot == 0 {
		*slot = uint32(max(now.Sub(a.start), 0)/arrivalTick) + 1
		a.media, a.pending = ssrc, true
		a.begin = min(a.begin, seq) // a late one is reported together with those that overtook it
	}
}

// advance makes room for numbers up to end. Those that wait for their report are kept, if there is room at all.
func (a *Arrivals) advance(end uint64) {
	for end-a.begin > uint64(len(a.times)) && len(a.times) < largestWindow {
		old, before := a.times, a.end
		a.times = make([]uint32, 2*len(old))
		for seq := before - min(before, uint64(len(old))); seq < before; seq++ {
			*a.slot(seq) = old[seq&uint64(len(old)-1)]
		}
	}
	if end-a.end >= uint64(len(a.times)) {
		clear(a.times)
	} else {
		for seq := a.end; seq < end; seq++ {
			*a.slot(seq) = 0
		}
	}
	a.end = end
	a.begin = max(a.begin, end-min(end, uint64(len(a.times))))
}

func (a *Arrivals) slot(seq uint64) *uint32 { return &a.times[seq&uint64(len(a.times)-1)] }

// Feedback returns the next report that is due, marshalled, which is the caller's. Nil means that nothing arrived since the last one.
func (a *Arrivals) Feedback() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.pending {
		return nil
	}
	first := a.begin // that arrived
	for first < a.end && *a.slot(first) == 0 {
		first++
	}
	if first == a.end {
		a.begin, a.pending = a.end, false
		return nil
	}
	a.begin = max(a.begin, first-min(first, maxStatuses-1))
	return a.report(first)
}

// Statuses of a packet (§3.1.1).
const (
	missing = iota
	smallDelta
	largeDelta
)

// report makes one report, from begin on, as far as it reaches. What is missing in front, before the first that arrived, is a loss like any other: most
// bursts of losses lie between two reports, and a sender that never hears of them takes a line that is too narrow for a good one.
func (a *Arrivals) report(first uint64) []byte {
	const fixed = 20
	b := make([]byte, fixed, fixed+64)
	at := *a.slot(first) - 1
	reference := at / referenceUnit
	before := reference * referenceUnit

	var statuses [maxStatuses]uint8
	var deltas [maxStatuses]int16
	n, last := 0, 0
	for n < maxStatuses && a.begin+uint64(n) < a.end {
		t := *a.slot(a.begin + uint64(n))
		if t != 0 {
			delta := int64(t-1) - int64(before)
			if delta > largestDelta || delta < -largestDelta {
				break // the next report has a reference of its own
			}
			statuses[n], deltas[n], before = largeDelta, int16(delta), t-1
			if delta >= 0 && delta <= 255 {
				statuses[n] = smallDelta
			}
			last = n + 1
		}
		n++
	}
	n = last                  // what is missing at the end belongs to the next report, if anything comes after it
	b[0], b[1] = 2<<6|15, 205 // RFC 4585 §6.1: transport layer feedback
	binary.BigEndian.PutUint32(b[4:], a.ssrc)
	binary.BigEndian.PutUint32(b[8:], a.media)
	binary.BigEndian.PutUint16(b[12:], uint16(a.begin))
	binary.BigEndian.PutUint16(b[14:], uint16(n))
	binary.BigEndian.PutUint32(b[16:], reference<<8|uint32(a.reported))
	b = appendChunks(b, statuses[:n])
	for i, s := range statuses[:n] {
		switch s {
		case smallDelta:
			b = append(b, byte(deltas[i]))
		case largeDelta:
			b = binary.BigEndian.AppendUint16(b, uint16(deltas[i]))
		}
	}
	if padding := -len(b) & 3; padding > 0 {
		b[0] |= 1 << 5
		b = append(b, make([]byte, padding-1)...)
		b = append(b, byte(padding))
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)/4-1))
	a.begin += uint64(n)
	a.reported++
	return b
}

// appendChunks writes statuses as runs of equal ones (§3.1.3) and vectors of fourteen or seven (§3.1.4).
func appendChunks(b []byte, s []uint8) []byte {
	const oneBit, twoBit = 14, 7
	for len(s) > 0 {
		run := 1
		for run < len(s) && s[run] == s[0] {
			run++
		}
		if run >= oneBit || run == len(s) {
			b = binary.BigEndian.AppendUint16(b, uint16(s[0])<<13|uint16(run))
			s = s[run:]
			continue
		}
		n := min(len(s), oneBit)
		chunk, width := uint16(1)<<15, 1
		for _, v := range s[:n] {
			if v == largeDelta {
				n, width = min(len(s), twoBit), 2
				chunk |= 1 << 14
				break
			}
		}
		for i, v := range s[:n] {
			chunk |= uint16(v) << (oneBit - width*(i+1))
		}
		b = binary.BigEndian.AppendUint16(b, chunk)
		s = s[n:]
	}
	return b
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
