package bench

import (
	"encoding/binary"
	"time"
)

// A stamp ends every payload that we send: it says which packet this is and when it left, so that a receiver in the same
// process measures loss, order and delay whatever the server rewrote in front of it. Servers forward payloads as they
// are, but for the descriptor at their beginning.
type stamp struct {
	track   uint32 // index in the plan
	layer   uint8
	flags   uint8
	frame   uint32
	counter uint32        // of the packets of this track and layer, from 0
	sent    time.Duration // since the run's clock began
}

const (
	stampSize  = 26
	stampMagic = 0xca115eed

	flagKey   = 1 << 0 // part of a key frame
	flagFirst = 1 << 1 // first packet of its frame
	flagLast  = 1 << 2 // last packet of its frame
)

// put writes the stamp into the last stampSize bytes of b.
func (s stamp) put(b []byte) {
	b = b[len(b)-stampSize:]
	binary.BigEndian.PutUint32(b, stampMagic)
	binary.BigEndian.PutUint32(b[4:], s.track)
	b[8], b[9] = s.layer, s.flags
	binary.BigEndian.PutUint32(b[10:], s.frame)
	binary.BigEndian.PutUint32(b[14:], s.counter)
	binary.BigEndian.PutUint64(b[18:], uint64(s.sent))
}

// readStamp reads the stamp at the end of a payload.
func readStamp(b []byte) (stamp, bool) {
	if len(b) < stampSize {
		return stamp{}, false
	}
	b = b[len(b)-stampSize:]
	return stamp{
		track: binary.BigEndian.Uint32(b[4:]),
		layer: b[8], flags: b[9],
		frame:   binary.BigEndian.Uint32(b[10:]),
		counter: binary.BigEndian.Uint32(b[14:]),
		sent:    time.Duration(binary.BigEndian.Uint64(b[18:])),
	}, binary.BigEndian.Uint32(b) == stampMagic
}
