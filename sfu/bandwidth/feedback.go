package bandwidth

import (
	"encoding/binary"
	"errors"
	"time"
)

// errFeedback means that a report is not as draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1 has it.
var errFeedback = errors.New("malformed transport-wide feedback")

const (
	feedbackHeader = 20                     // bytes before the first chunk, those of every RTCP feedback packet included
	referenceUnit  = 64 * time.Millisecond  // of the reference time, which has 24 bits
	deltaUnit      = 250 * time.Microsecond // of receive deltas
)

// A receipt is what the receiver says about one packet.
type receipt struct {
	number  uint16
	arrived bool
	at      time.Duration // by its clock, since the reference time was 0
}

// readFeedback passes what an RTCP packet of transport-wide feedback says to visit, by rising number. A malformed rest is an error: what came
// before it has been visited.
func readFeedback(b []byte, visit func(r receipt)) error {
	if len(b) < feedbackHeader {
		return errFeedback
	}
	first, left := binary.BigEndian.Uint16(b[12:]), int(binary.BigEndian.Uint16(b[14:]))
	deltas, err := deltasOf(b, left)
	if err != nil {
		return err
	}
	r := receipt{number: first, at: time.Duration(binary.BigEndian.Uint32(b[16:])>>8) * referenceUnit}
	for at := feedbackHeader; left > 0; at += 2 {
		chunk := binary.BigEndian.Uint16(b[at:])
		n := min(symbols(chunk), left)
		for i := range n {
			var size int
			switch symbol(chunk, i) {
			case 1:
				size = 1
			case 2:
				size = 2
			}
			if deltas+size > len(b) {
				return errFeedback
			}
			if r.arrived = size > 0; size == 1 {
				r.at += time.Duration(b[deltas]) * deltaUnit
			} else if size == 2 {
				r.at += time.Duration(int16(binary.BigEndian.Uint16(b[deltas:]))) * deltaUnit
			}
			deltas += size
			visit(r)
			r.number++
		}
		left -= n
	}
	return nil
}

// deltasOf finds where the receive deltas begin: behind the chunks that describe so many packets.
func deltasOf(b []byte, left int) (at int, err error) {
	for at = feedbackHeader; left > 0; at += 2 {
		if at+2 > len(b) {
			return 0, errFeedback
		}
		n := symbols(binary.BigEndian.Uint16(b[at:]))
		if n == 0 {
			return 0, errFeedback
		}
		left -= n
	}
	return at, nil
}

// symbols is how many packets a chunk describes (§3.1.3, §3.1.4).
func symbols(chunk uint16) int {
	switch {
	case chunk&0x8000 == 0: // run length
		return int(chunk & 0x1fff)
	case chunk&0x4000 == 0: // a bit each
		return 14
	default: // two bits each
		return 7
	}
}

// symbol is the status of the i-th packet of a chunk (§3.1.1): 1 and 2 say that it arrived, and how long its delta is.
func symbol(chunk uint16, i int) uint16 {
	switch {
	case chunk&0x8000 == 0:
		return chunk >> 13 & 3
	case chunk&0x4000 == 0:
		return chunk >> (13 - i) & 1
	default:
		return chunk >> (12 - 2*i) & 3
	}
}
