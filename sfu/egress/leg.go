package egress

// Hot path: see ARCHITECTURE.md#packet

import (
	"encoding/binary"
	"errors"
	"time"
	"unsafe"

	"callserver/sfu/bandwidth"
	"callserver/sfu/forward"
	"callserver/sfu/prefetch"
	"callserver/sfu/srtp"
	"callserver/sfu/udp"
)

// maxPadding is how many bytes of RTP padding a packet may get to be as long as those beside it, so that they are sent in one run. Encoders
// cut a frame into parts that differ by a byte or two.
const maxPadding = forward.MaxFill

// datagram is how many bytes IP and UDP add to a packet, as far as anybody counts them.
const datagram = 28

// repeatable is how many packets a stream without retransmissions of its own remembers, for those sent again to be the same byte for byte.
const repeatable = 64

var errTooLarge = errors.New("egress: packet larger than a datagram may be")

// A Path is how datagrams reach a client.
type Path struct {
	Sockets []*udp.Socket // of the local address; a worker uses one of them
	To      *udp.Destination
	Write   func(b []byte) // in place of both: sends one datagram over a stream, and does not wait
}

// A Leg is one encrypted connection to a client. Its methods may be called by anybody, except those of which it is said that they belong to the
// worker's turn.
type Leg struct {
	worker *Worker

	// In the worker's turn only.
	sealer      srtp.Sealer // if overhead is not 0
	overhead    int         // of the sealer, in bytes; 0 until the keys are known
	path        *Path       // nil until there is one
	outbox      *udp.Outbox // of the path
	first, last int32       // slots, if count > 0
	count       int
	segment     int // size of the packets in the run that is being made

	sent *bandwidth.Sent // nil: nothing is counted
	gate *gate           // nil: nothing waits
}

// NewLeg returns a leg of the worker without keys and path: what is sent on it is lost.
func (w *Worker) NewLeg() *Leg { return &Leg{worker: w} }

// Lane is the worker.
func (l *Leg) Lane() forward.Lane { return l.worker }

// Do queues f, to be called in the worker's turn, and does not wait.
func (l *Leg) Do(f func()) { l.worker.Do(f) }

// Turn has f called in the worker's turn, and sends what f writes, before it returns. It must not be called in a turn.
func (l *Leg) Turn(f func()) {
	w := l.worker
	w.turn.Lock()
	defer w.unlock()
	w.now = time.Since(w.start)
	f()
	w.flush()
}

// Fetch has the processor fetch what sending needs, in steps 1 and 2, of which the second looks at what the first fetched. It belongs to the worker's turn.
func (l *Leg) Fetch(step int) {
	if step == 1 {
		prefetch.Lines(unsafe.Pointer(l), hotLines)
		return
	}
	if l.path != nil {
		prefetch.Lines(unsafe.Pointer(l.path), 1)
		l.sealer.Fetch()
	}
}

// hotLines is how many cache lines of a Leg each packet needs.
const hotLines = 4

// SetSealer sets the keys that the leg protects with, and takes s over. They are set once: each key has one sender.
func (l *Leg) SetSealer(s *srtp.Sealer) {
	l.Turn(func() {
		if l.overhead == 0 {
			l.sealer, l.overhead = *s, s.Overhead()
		}
	})
}

// SetPath sets where packets go from now on; nil loses them.
func (l *Leg) SetPath(p *Path) { l.Turn(func() { l.take(p) }) }

func (l *Leg) take(p *Path) {
	w := l.worker
	l.path, l.outbox = p, nil
	if p == nil || p.Write != nil || len(p.Sockets) == 0 {
		return
	}
	s := p.Sockets[w.index%len(p.Sockets)]
	if w.outboxes[s] == nil {
		w.outboxes[s] = s.NewOutbox()
	}
	l.outbox = w.outboxes[s]
}

// RTCP queues a compound packet, marshalled, which belongs to the leg from then on.
func (l *Leg) RTCP(compound []byte) {
	l.worker.Do(func() {
		if l.overhead == 0 || l.path == nil || len(compound)+2*srtp.MaxOverhead > slotSize {
			return
		}
		l.segment = 0 // not to be padded up to
		l.commit(l.sealer.RTCP(l.worker.slot(), compound))
		l.segment = 0
	})
}

// Now is the time of the worker's turn, since an origin of its own. It belongs to the turn.
func (l *Leg) Now() time.Duration { return l.worker.now }

// Count has the packets of video counted in s, which numbers those that carry a transport-wide sequence number. It belongs to the worker's turn.
func (l *Leg) Count(s *bandwidth.Sent) { l.sent = s }

// A Stream is one RTP stream on a leg. The zero value is none; one goroutine at a time.
type Stream struct {
	SSRC    uint32
	Once    bool // none of its packets is ever sent again under its number
	Video   bool // it counts for Leg.Count and may have to wait, for Leg.Limit
	numbers srtp.Stream
}

// Fetch has the processor fetch what sending needs besides the Stream itself.
func (s *Stream) Fetch() { s.numbers.Fetch() }

// A Packet is one RTP packet to send. It is borrowed for the call.
type Packet struct {
	Header  []byte // in what Leg.Header returned
	Head    []byte // of the payload, may be empty
	Payload []byte // the rest of it
	Padding uint8  // bytes of padding; the header says so already
	Fill    uint8  // bytes of padding that make it as long as the others of its batch, at most maxPadding
	Number  uint8  // where in Header the two bytes of the transport-wide sequence number are, which Send fills in; 0 = there are none
	Again   bool   // it was sent before, with the same number
	Urgent  bool   // it does not wait
}

// Header returns the room for a packet's header, to append to, or nil if nothing can be sent now. It belongs to the worker's turn.
func (l *Leg) Header() []byte {
	if l.overhead == 0 || l.path == nil {
		return nil
	}
	return l.worker.slot()
}

// Send protects a packet and puts it into the batch. It returns srtp.ErrReuse for what would be a second packet under one number. It
// belongs to the worker's turn.
func (l *Leg) Send(s *Stream, p *Packet) error {
	n := len(p.Header)
	if n+len(p.Head)+len(p.Payload)+int(p.Padding)+maxPadding+srtp.MaxOverhead > slotSize {
		return errTooLarge
	}
	plain, padding := p.Payload, int(p.Padding)
	switch {
	case padding > 0:
	case p.Again:
		padding = s.padded(p)
	default:
		padding = l.fill(n+len(p.Head)+len(plain), int(p.Fill))
	}
	if len(p.Head) > 0 || padding > 0 {
		b := append(p.Header, p.Head...)
		b = append(b, p.Payload...)
		if padding > 0 {
			p.Header[0] |= 0x20
			b = append(b, make([]byte, padding-1)...)
			b = append(b, byte(padding))
		}
		plain = b[n:]
	}
	if l.gate != nil && s.Video && !p.Urgent && l.hold(s, p, plain) {
		return nil
	}
	return l.seal(s, p, plain)
}

// seal protects a packet whose header and payload are complete, but for the transport-wide number.
func (l *Leg) seal(s *Stream, p *Packet, plain []byte) error {
	if p.Number > 0 && l.sent != nil {
		binary.BigEndian.PutUint16(p.Header[p.Number:], l.sent.Next())
	}
	index, err := s.number(p, plain)
	if err != nil {
		l.worker.counts.refused.Add(1)
		return err
	}
	b := l.sealer.RTP(p.Header, plain, s.SSRC, index)
	if s.Video && l.sent != nil {
		if p.Number > 0 {
			l.sent.Add(len(b)+datagram, l.worker.now)
		} else {
			l.sent.Count(len(b) + datagram)
		}
	}
	l.commit(b)
	return nil
}

// fill is how many bytes of padding make a packet as long as those before it in the run, or else those that follow.
func (l *Leg) fill(size, more int) int {
	if l.outbox == nil || !l.outbox.Segments(l.path.To) {
		return 0
	}
	if missing := l.segment - size - l.overhead; missing >= more && missing <= maxPadding {
		return missing
	}
	return more
}

// padded is how many bytes of padding a packet had when it was sent first: what it is told by is remembered, and there are not many ways to pad.
func (s *Stream) padded(p *Packet) int {
	seq := binary.BigEndian.Uint16(p.Header[2:])
	if _, err := s.numbers.Again(seq, p.Header, p.Head, p.Payload); err == nil {
		return 0
	}
	p.Header[0] |= 0x20
	for n := 1; n <= maxPadding; n++ {
		tail := make([]byte, n)
		tail[n-1] = byte(n)
		if _, err := s.numbers.Again(seq, p.Header, p.Head, p.Payload, tail); err == nil {
			return n
		}
	}
	p.Header[0] &^= 0x20
	return 0 // seal refuses it
}

// number returns the index under which a packet may be sealed.
func (s *Stream) number(p *Packet, plain []byte) (uint64, error) {
	seq := binary.BigEndian.Uint16(p.Header[2:])
	if p.Again {
		return s.numbers.Again(seq, p.Header, plain)
	}
	index, err := s.numbers.Next(seq)
	if err == nil && !s.Once {
		s.numbers.Remember(repeatable)
		s.numbers.Print(index, p.Header, plain)
	}
	return index, err
}

// commit takes the packet in the slot into the batch.
func (l *Leg) commit(b []byte) {
	w := l.worker
	at := int32(w.used)
	w.used++
	w.chain[at] = link{size: int32(len(b)), next: -1}
	if l.count == 0 {
		w.touched = append(w.touched, l)
		l.first, l.segment = at, 0
	} else {
		w.chain[l.last].next = at
	}
	l.last = at
	l.count++
	switch {
	case l.segment == 0 || len(b) > l.segment:
		l.segment = len(b)
	case len(b) < l.segment: // the last of its run
		l.segment = 0
	}
}

// post hands the leg's packets to its socket.
func (l *Leg) post() {
	w := l.worker
	for at := l.first; at >= 0; at = w.chain[at].next {
		b := w.room[int(at)*slotSize : int(at)*slotSize+int(w.chain[at].size)]
		switch {
		case l.path == nil:
		case l.path.Write != nil:
			l.path.Write(b)
		case l.outbox != nil:
			l.outbox.Add(l.path.To, b)
		}
	}
	l.count = 0
}
