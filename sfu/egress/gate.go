package egress

import "time"

const (
	maxHeld   = 256                   // packets that wait; more are lost, as in any queue
	heldFirst = 20 * time.Millisecond // of the rate may leave at once
	repairs   = 4                     // a quarter of the rate is for what is sent again
	repairFor = time.Second           // of that may be saved up
)

// gate holds video back that would leave faster than a line carries it: key frames, and what comes in bursts. Sound passes by it. There is one only
// while the line is known to be too slow for what is wanted.
type gate struct {
	rate    int64 // bytes/s
	credit  int64 // bytes that may leave now; what is larger may leave if there is any
	at      time.Duration
	repair  int64 // bytes that may be sent again
	held    []held
	spare   [][]byte // of packets that have left
	dropped uint64
}

// held is a packet that waits, header and payload in one.
type held struct {
	stream *Stream
	number uint8
	header int // bytes
	again  bool
	b      []byte
}

// Limit has video leave at so many bits/s at most; 0 takes the limit away, and sends what waits. It belongs to the worker's turn.
func (l *Leg) Limit(bitrate int64) {
	switch g := l.gate; {
	case bitrate <= 0 && g == nil:
	case bitrate <= 0:
		l.release(true)
		l.gate = nil
	case g == nil:
		l.gate = &gate{rate: bitrate / 8, at: l.worker.now}
	default:
		g.pass(l.worker.now)
		g.rate = bitrate / 8
	}
}

// pass adds what may leave since the last time.
func (g *gate) pass(now time.Duration) {
	passed := now - g.at
	g.at = now
	more := g.rate * int64(min(passed, time.Second)) / int64(time.Second)
	g.credit = min(g.credit+more, g.rate*int64(heldFirst)/int64(time.Second))
	g.repair = min(g.repair+more/repairs, g.rate/repairs*int64(repairFor)/int64(time.Second))
}

// Repair reports whether a packet of that size may be sent again, and takes it as sent. It belongs to the worker's turn.
func (l *Leg) Repair(size int) bool {
	g := l.gate
	if g == nil {
		return true
	}
	g.pass(l.worker.now)
	if g.repair < int64(size) {
		return false
	}
	g.repair -= int64(size)
	return true
}

// hold keeps a packet for later, and reports whether it did: not while what came before has left and there is credit.
func (l *Leg) hold(s *Stream, p *Packet, plain []byte) bool {
	g := l.gate
	g.pass(l.worker.now)
	if len(g.held) == 0 && g.credit > 0 {
		g.credit -= int64(len(p.Header) + len(plain) + datagram)
		return false
	}
	if len(g.held) == maxHeld {
		g.dropped++
		return true
	}
	var b []byte
	if n := len(g.spare); n > 0 {
		b, g.spare = g.spare[n-1][:0], g.spare[:n-1]
	}
	b = append(append(b, p.Header...), plain...)
	g.held = append(g.held, held{stream: s, number: p.Number, header: len(p.Header), again: p.Again, b: b})
	return true
}

// Release sends what has waited long enough. It belongs to the worker's turn.
func (l *Leg) Release() {
	if l.gate != nil {
		l.release(false)
	}
}

func (l *Leg) release(all bool) {
	g := l.gate
	g.pass(l.worker.now)
	n := 0
	for n < len(g.held) && (all || g.credit > 0) {
		h := &g.held[n]
		g.credit -= int64(len(h.b) + datagram)
		if b := l.Header(); b != nil {
			p := Packet{Header: append(b, h.b[:h.header]...), Number: h.number, Again: h.again}
			_ = l.seal(h.stream, &p, h.b[h.header:]) // refused ones are counted
		}
		g.spare = append(g.spare, h.b)
		h.b = nil
		n++
	}
	g.held = g.held[:copy(g.held, g.held[n:])]
}

// Waiting is how many packets wait. It belongs to the worker's turn.
func (l *Leg) Waiting() int {
	if l.gate == nil {
		return 0
	}
	return len(l.gate.held)
}
