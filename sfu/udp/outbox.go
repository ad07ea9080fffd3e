// Hot path: see ARCHITECTURE.md#packet

package udp

import (
	"net"
	"net/netip"
	"sync/atomic"
)

// Limits of a run: what the kernel takes in one segmented datagram.
const (
	maxSegments = 64    // UDP_MAX_SEGMENTS of the kernels up to 6.8
	maxRun      = 60000 // bytes; an IP packet holds 65,535 with its headers
)

// Limits of a frame, in bytes.
const (
	MaxHead = 56 // before a datagram
	MaxTail = 8  // after it
)

// A Framer frames what is sent to a destination that is reached by way of something else, and counts it. It is safe for concurrent use.
type Framer interface {
	// Frame writes what goes before a datagram of so many bytes into head, and returns how long that is and how many zeros follow the datagram.
	// Without ok the datagram is not to be sent.
	Frame(head *[MaxHead]byte, size int) (before, after int, ok bool)
}

// A Destination is an address that datagrams are sent to. It remembers whether segmented runs reach it. Safe for concurrent use.
type Destination struct {
	addr   netip.AddrPort
	udp    *net.UDPAddr
	name   name
	framer Framer      // nil = datagrams go as they are
	single atomic.Bool // runs failed: one datagram at a time
}

// NewDestination returns the destination of an address.
func NewDestination(a netip.AddrPort) *Destination {
	d := &Destination{addr: unmap(a), udp: net.UDPAddrFromAddrPort(unmap(a))}
	d.name.set(d.addr)
	return d
}

// Framed returns a destination at the same address to which datagrams go as f frames them.
func (d *Destination) Framed(f Framer) *Destination {
	framed := NewDestination(d.addr)
	framed.framer = f
	return framed
}

// Addr is the address.
func (d *Destination) Addr() netip.AddrPort { return d.addr }

// An Outbox gathers datagrams to be sent from one socket. Datagrams of one size that follow each other to one destination form a run,
// which the last may close with a smaller one: a run is sent in one piece where the system can. One goroutine only.
type Outbox struct {
	socket    *Socket
	datagrams []datagram
	heads     []frame // of datagrams
	runs      []run
	fast      outbox
}

// datagram is what is sent as one.
type datagram struct {
	body          []byte
	head          int32 // among the heads, if before or after is not 0
	before, after uint8 // bytes of the frame
}

// frame is room for what goes before a datagram, and zeros that may follow it.
type frame [MaxHead + MaxTail]byte

// run is datagrams of one size, but for the last, to one destination.
type run struct {
	to              *Destination
	first, count    int // among the datagrams
	vector, vectors int // while it is sent: where its parts are, and how many
	size, bytes     int // of each, in all
	closed          bool
}

// NewOutbox returns an empty Outbox, for Use to say of which socket.
func NewOutbox() *Outbox { return (&Socket{}).NewOutbox() }

// NewOutbox returns an empty Outbox of s.
func (s *Socket) NewOutbox() *Outbox {
	o := &Outbox{socket: s}
	o.fast.open(o)
	return o
}

// Use sends what was gathered, if that was for another socket, and goes on with s.
func (o *Outbox) Use(s *Socket) {
	if o.socket != s {
		o.Flush()
		o.socket = s
	}
}

// Len is how many datagrams wait for Flush.
func (o *Outbox) Len() int { return len(o.datagrams) }

// Add appends a datagram, which must not change before Flush has returned.
func (o *Outbox) Add(to *Destination, b []byte) {
	d, size := datagram{body: b}, len(b)
	if to.framer != nil {
		if !o.frame(to, &d) {
			return
		}
		size += int(d.before) + int(d.after)
	}
	o.datagrams = append(o.datagrams, d)
	if n := len(o.runs); n > 0 && o.runs[n-1].takes(to, size) && o.socket.fast.segments {
		r := &o.runs[n-1]
		r.count++
		r.bytes += size
		r.closed = size < r.size
		return
	}
	o.runs = append(o.runs, run{to: to, first: len(o.datagrams) - 1, count: 1, size: size, bytes: size})
}

// frame gives a datagram its frame. It reports whether it is to be sent.
func (o *Outbox) frame(to *Destination, d *datagram) bool {
	d.head = int32(len(o.heads))
	o.heads = append(o.heads, frame{})
	before, after, ok := to.framer.Frame((*[MaxHead]byte)(o.heads[d.head][:]), len(d.body))
	if !ok {
		o.heads = o.heads[:d.head]
		return false
	}
	d.before, d.after = uint8(before), uint8(after)
	return true
}

// Segments reports whether runs to the destination are sent in one piece.
func (o *Outbox) Segments(to *Destination) bool { return o.socket.fast.segments && !to.single.Load() }

// takes reports whether a datagram of so many bytes may follow.
func (r *run) takes(to *Destination, size int) bool {
	return r.to == to && !r.closed && size <= r.size && size > 0 && r.count < maxSegments && r.bytes+size <= maxRun && !to.single.Load()
}

// Flush sends what was gathered, in order, and empties the Outbox. Datagrams that the kernel refuses are lost, as on any network, and
// counted. It waits while the socket's buffer is full.
func (o *Outbox) Flush() {
	if len(o.runs) > 0 {
		if o.socket.fast.ready() {
			o.flushBatch()
		} else {
			o.flushEach()
		}
	}
	clear(o.datagrams)
	clear(o.runs)
	o.datagrams, o.heads, o.runs = o.datagrams[:0], o.heads[:0], o.runs[:0]
}

// flushEach sends one datagram at a time.
func (o *Outbox) flushEach() {
	for i := range o.runs {
		o.sendEach(&o.runs[i])
	}
}

// sendEach sends the datagrams of a run one at a time.
func (o *Outbox) sendEach(r *run) {
	for i := r.first; i < r.first+r.count; i++ {
		d := &o.datagrams[i]
		b := d.body
		if d.before > 0 || d.after > 0 {
			head := &o.heads[d.head]
			b = append(append(append(make([]byte, 0, len(b)+len(head)), head[:d.before]...), b...), head[MaxHead:MaxHead+d.after]...)
		}
		o.socket.sendOne(r.to, b)
	}
}

// Send sends one datagram.
func (s *Socket) Send(to *Destination, b []byte) {
	if to.framer != nil {
		var head [MaxHead]byte
		before, after, ok := to.framer.Frame(&head, len(b))
		if !ok {
			return
		}
		b = append(append(append(make([]byte, 0, before+len(b)+after), head[:before]...), b...), make([]byte, after)...)
	}
	s.sendOne(to, b)
}

// sendOne sends one datagram, framed already.
func (s *Socket) sendOne(to *Destination, b []byte) {
	var err error
	switch {
	case s.ip != nil:
		_, err = s.ip.WriteToUDPAddrPort(b, to.addr)
	case s.bare != nil:
		_, err = s.bare.WriteToAddrPort(b, to.addr)
	default:
		_, err = s.conn.WriteTo(b, to.udp)
	}
	s.counter.calls.Add(1)
	if err != nil {
		s.counter.lost.Add(1)
		return
	}
	s.counter.sent.Add(1)
}
