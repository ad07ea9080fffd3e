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

// A Destination is an address that datagrams are sent to. It remembers whether segmented runs reach it. Safe for concurrent use.
type Destination struct {
	addr   netip.AddrPort
	udp    *net.UDPAddr
	name   name
	single atomic.Bool // runs failed: one datagram at a time
}

// NewDestination returns the destination of an address.
func NewDestination(a netip.AddrPort) *Destination {
	d := &Destination{addr: unmap(a), udp: net.UDPAddrFromAddrPort(unmap(a))}
	d.name.set(d.addr)
	return d
}

// Addr is the address.
func (d *Destination) Addr() netip.AddrPort { return d.addr }

// An Outbox gathers datagrams to be sent from one socket. Datagrams of one size that follow each other to one destination form a run,
// which the last may close with a smaller one: a run is sent in one piece where the system can. One goroutine only.
type Outbox struct {
	socket    *Socket
	datagrams [][]byte
	runs      []run
	fast      outbox
}

// run is datagrams of one size, but for the last, to one destination.
type run struct {
	to           *Destination
	first, count int // among the datagrams
	size, bytes  int // of each, in all
	closed       bool
}

// NewOutbox returns an empty Outbox of s.
func (s *Socket) NewOutbox() *Outbox {
	o := &Outbox{socket: s}
	o.fast.open(o)
	return o
}

// Add appends a datagram, which must not change before Flush has returned.
func (o *Outbox) Add(to *Destination, b []byte) {
	o.datagrams = append(o.datagrams, b)
	if n := len(o.runs); n > 0 && o.runs[n-1].takes(to, len(b)) && o.socket.fast.segments {
		r := &o.runs[n-1]
		r.count++
		r.bytes += len(b)
		r.closed = len(b) < r.size
		return
	}
	o.runs = append(o.runs, run{to: to, first: len(o.datagrams) - 1, count: 1, size: len(b), bytes: len(b)})
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
	o.datagrams, o.runs = o.datagrams[:0], o.runs[:0]
}

// flushEach sends one datagram at a time.
func (o *Outbox) flushEach() {
	for i := range o.runs {
		r := &o.runs[i]
		for _, b := range o.datagrams[r.first : r.first+r.count] {
			o.sendOne(r.to, b)
		}
	}
}

func (o *Outbox) sendOne(to *Destination, b []byte) {
	var err error
	s := o.socket
	if s.ip != nil {
		_, err = s.ip.WriteToUDPAddrPort(b, to.addr)
	} else {
		_, err = s.conn.WriteTo(b, to.udp)
	}
	s.counter.calls.Add(1)
	if err != nil {
		s.counter.lost.Add(1)
		return
	}
	s.counter.sent.Add(1)
}
