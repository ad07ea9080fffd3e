// Package udp is a datagram socket that moves many datagrams with one system call.
// It owns opening such sockets, several on one port where cores share it, receiving in batches (recvmmsg), sending in batches of runs
// that the kernel or the network card splits (sendmmsg, UDP_SEGMENT), and falling back to one datagram a call wherever that is not to be had.
// It never looks into a datagram, starts a goroutine or decides where one goes.
package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// BatchSize is how many datagrams one system call receives, or runs of datagrams it sends, at most.
const BatchSize = 64

// ErrEmpty means that a bare socket has nothing to receive.
var ErrEmpty = errors.New("no datagram there")

// Options describe a socket. The zero value is a socket of its own with the kernel's buffers.
type Options struct {
	Buffer int  // bytes asked of the kernel for each direction; 0 = its default. It may grant less
	Single bool // runs are never sent in one piece
	Share  int  // how many sockets share the port, so that as many cores receive; fewer where the system cannot; 0 = 1
	// Runs receives what one sender sent as one run, or the card has put together, as one piece (UDP_GRO), where the system can.
	Runs bool
	// Gather is how long datagrams may wait for others, where they come so thick that receiving them together pays; 0 = not at all. Not every system can.
	Gather time.Duration
}

// A Socket is a UDP socket. Sending, writing and Close are safe for concurrent use; one goroutine receives at a time.
type Socket struct {
	conn    net.PacketConn
	ip      *net.UDPConn // conn where it is the system's, else nil
	bare    addrPortConn // conn where it is one that Go's poller does not know, else nil
	fast    fast
	gather  *gatherer // nil = datagrams are received when they come
	counter counters
}

// counters are a socket's totals.
type counters struct {
	calls, sent, lost, unsegmented atomic.Uint64
}

// Stats is a snapshot of what a Socket sent through outboxes.
type Stats struct {
	Calls       uint64 // system calls
	Sent        uint64 // datagrams taken by the kernel
	Lost        uint64 // datagrams refused by it
	Unsegmented uint64 // destinations that turned out not to take segmented runs
}

// Listen opens the sockets of one address and port, one or as many as o.Share says. Port 0 is any free one. It fails if anybody else, who
// might share too, has the port. The caller closes them.
func Listen(at netip.AddrPort, o Options) ([]*Socket, error) {
	first, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	if !canShare || o.Share < 2 && o.Gather == 0 {
		return []*Socket{newSocket(first, o)}, nil
	}
	local, ok := first.LocalAddr().(*net.UDPAddr)
	_ = first.Close() // it was there to see that the port is free: sockets that share one also share it with another process
	if !ok {
		return nil, fmt.Errorf("listen on %s: local address is unknown", at)
	}
	at = netip.AddrPortFrom(at.Addr(), uint16(local.Port))
	if o.Gather > 0 {
		return listenGathering(at, o)
	}
	var all []*Socket
	for range o.Share {
		c, err := listenShared(at)
		if err != nil {
			for _, s := range all {
				_ = s.Close()
			}
			return nil, err
		}
		all = append(all, newSocket(c, o))
	}
	return all, nil
}

// listenGathering opens the sockets of a port that is known to be free.
func listenGathering(at netip.AddrPort, o Options) ([]*Socket, error) {
	all, err := ListenBare(at, o)
	for i := 0; i < len(all) && err == nil; i++ {
		all[i].gather, err = gatherFrom(all[i], o.Gather)
	}
	if err != nil {
		for _, s := range all {
			_ = s.Close()
		}
		return nil, err
	}
	return all, nil
}

// Wrap makes a Socket of any packet connection. Only the system's own are batched. Close closes it.
func Wrap(c net.PacketConn, o Options) *Socket { return newSocket(c, o) }

func newSocket(c net.PacketConn, o Options) *Socket {
	s := &Socket{conn: c}
	s.ip, _ = c.(*net.UDPConn)
	if b, ok := c.(interface {
		SetReadBuffer(int) error
		SetWriteBuffer(int) error
	}); ok && o.Buffer > 0 {
		_ = b.SetReadBuffer(o.Buffer) // best effort: the kernel's limit wins
		_ = b.SetWriteBuffer(o.Buffer)
	}
	switch c := c.(type) {
	case *net.UDPConn:
		s.fast.open(c)
	case addrPortConn:
		s.bare = c
		s.fast.open(c)
	}
	s.fast.segments = s.fast.segments && !o.Single
	if o.Runs {
		s.fast.takeRuns()
	}
	return s
}

// addrPortConn is a connection of ours.
type addrPortConn interface {
	net.PacketConn
	syscall.Conn
	WriteToAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// LocalAddr is the address that the socket listens on.
func (s *Socket) LocalAddr() net.Addr { return s.conn.LocalAddr() }

// WriteToAddrPort sends one datagram.
func (s *Socket) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if s.fast.ready() && len(b) > 0 && to.Addr().Zone() == "" {
		if err := s.writeOne(b, unmap(to)); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	switch {
	case s.ip != nil:
		return s.ip.WriteToUDPAddrPort(b, to)
	case s.bare != nil:
		return s.bare.WriteToAddrPort(b, to)
	}
	return s.conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
}

// Close closes the socket; Receive returns net.ErrClosed.
func (s *Socket) Close() error {
	if s.gather != nil {
		_ = s.gather.poll.Close()
	}
	return s.conn.Close()
}

// Stats is a snapshot of the totals.
func (s *Socket) Stats() Stats {
	return Stats{Calls: s.counter.calls.Load(), Sent: s.counter.sent.Load(), Lost: s.counter.lost.Load(),
		Unsegmented: s.counter.unsegmented.Load()}
}

// Dropped is how many datagrams the kernel has thrown away at the socket, modulo 2^32: there was no room for them, or, seldom, they came damaged. It is
// 0 where the system does not say, and once the socket is closed.
func (s *Socket) Dropped() uint32 { return s.fast.dropped() }

// Segments reports whether runs of datagrams are handed to the kernel in one piece.
func (s *Socket) Segments() bool { return s.fast.segments }

// Receive waits for datagrams and takes what is there, at most as many as b has buffers, into b. If there is nothing yet it calls idle first, so that what the batches
// before have brought is dealt with before it waits, and not while more of it arrives; nil does nothing. A bare socket does not wait: ErrEmpty. Errors other than net.ErrClosed pass.
func (s *Socket) Receive(b *Inbox, idle func()) error {
	if s.gather != nil {
		return s.gather.receive(b, idle)
	}
	if s.fast.ready() {
		return s.receiveBatch(b, idle)
	}
	if idle != nil {
		idle()
	}
	b.n = 0
	n, from, err := s.read(b.Buffers[0])
	if err != nil {
		return err
	}
	b.n, b.sizes[0], b.parts[0], b.from[0] = 1, n, n, from
	return nil
}

// read receives one datagram.
func (s *Socket) read(to []byte) (int, netip.AddrPort, error) {
	if s.ip != nil {
		n, from, err := s.ip.ReadFromUDPAddrPort(to)
		return n, unmap(from), err
	}
	n, from, err := s.conn.ReadFrom(to)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	udp, ok := from.(*net.UDPAddr)
	if !ok {
		return 0, netip.AddrPort{}, fmt.Errorf("datagram from %v: no UDP address", from)
	}
	return n, unmap(udp.AddrPort()), nil
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// LargestRun is how many bytes a run has at most: the buffers for a socket that receives runs are as large.
const LargestRun = 65535

// An Inbox is the room for one batch of received datagrams, or runs of them. Between two calls of Receive the owner may replace the Buffers of those that the
// first has brought, so that they can be kept where they are. One goroutine only.
type Inbox struct {
	// Buffers are each as large as the largest datagram wanted; larger ones are dropped. All that are not nil come first, and their number stays.
	Buffers [BatchSize][]byte
	n       int
	sizes   [BatchSize]int
	parts   [BatchSize]int // of a run: the size of each datagram but the last
	from    [BatchSize]netip.AddrPort
	fast    inbox
}

// Len is how many datagrams, or runs, the last Receive brought.
func (b *Inbox) Len() int { return b.n }

// Datagram is the i-th datagram, in Buffers[i], and the address that it came from. It is empty where the buffer was too small.
func (b *Inbox) Datagram(i int) ([]byte, netip.AddrPort) { return b.Buffers[i][:b.sizes[i]], b.from[i] }

// Run is what a socket that receives runs has as the i-th: datagrams of so many bytes each, but for the last, which may be smaller. A single one is a run, too.
func (b *Inbox) Run(i int) (datagrams []byte, size int, from netip.AddrPort) {
	return b.Buffers[i][:b.sizes[i]], b.parts[i], b.from[i]
}
