// Hot path: see ARCHITECTURE.md#packet

package port

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/udp"
)

// maxControl bounds the datagrams of one address that wait for Pion (STUN, DTLS, data channels); more are dropped, and come again.
const maxControl = 1024

// maxTaken bounds the datagrams that are opened before what came of them is sent: the packets of a frame come one after the other, and are sent
// in one run if they are sent together.
const maxTaken = 256

// runs is how many datagrams, or runs of them, are received with one system call: each needs room for the longest.
const runs = 32

// A Receiver takes the media datagrams, RTP and RTCP, of one client. Calls come from the goroutine of a socket, one after the other for as long as the
// client sends from one address.
type Receiver interface {
	// Receive takes a datagram. It may write to b, and has it only until it returns.
	Receive(b []byte, now time.Time)
}

// isMedia is RFC 7983 §7: RTP and RTCP begin with a byte of 128 to 191.
func isMedia(b []byte) bool { return len(b) > 0 && b[0]>>6 == 2 }

// An Intake is the sockets of one local address. It takes the media off them and is a net.PacketConn with the rest, for Pion's ICE. Media from an
// address without a route is dropped.
type Intake struct {
	sockets []*udp.Socket
	after   func(home int) // called when a socket has nothing more, at the latest after maxTaken
	control chan control
	closed  chan struct{}
	once    sync.Once
	loops   sync.WaitGroup

	relayed atomic.Bool // there are relays

	mu     sync.RWMutex
	routes map[netip.AddrPort]Receiver
	relays map[netip.AddrPort]relay
}

// control is a datagram that is no media.
type control struct {
	b    []byte
	from netip.AddrPort
}

// newIntake starts a read loop for each socket. Close ends them.
func newIntake(sockets []*udp.Socket, after func(home int)) *Intake {
	in := &Intake{sockets: sockets, after: after, control: make(chan control, maxControl), closed: make(chan struct{}),
		routes: map[netip.AddrPort]Receiver{}, relays: map[netip.AddrPort]relay{}}
	for i := range sockets {
		in.loops.Go(func() { in.readLoop(i) })
	}
	return in
}

// readLoop reads one socket until it is closed.
func (in *Intake) readLoop(home int) {
	inbox := &udp.Inbox{}
	room := make([]byte, runs*udp.LargestRun)
	for i := range runs {
		inbox.Buffers[i] = room[i*udp.LargestRun : (i+1)*udp.LargestRun : (i+1)*udp.LargestRun]
	}
	taken := 0
	deal := func() {
		if taken > 0 {
			taken = 0
			in.after(home)
		}
	}
	for {
		if taken >= maxTaken {
			deal()
			runtime.Gosched() // the others, where there is one core: it might go on like this
		}
		if err := in.sockets[home].Receive(inbox, deal); err != nil {
			select {
			case <-in.closed:
				return
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of some destination
		}
		taken += in.handOn(inbox, time.Now())
	}
}

// handOn deals with what the inbox has, and returns how many datagrams that were.
func (in *Intake) handOn(inbox *udp.Inbox, now time.Time) (datagrams int) {
	var last netip.AddrPort // the packets of a frame come one after the other
	var to Receiver
	for i := range inbox.Len() {
		b, size, from := inbox.Run(i)
		if from != last {
			last, to = from, in.receiver(from)
		}
		for len(b) > 0 {
			n := min(size, len(b))
			in.give(b[:n:n], from, to, now)
			b = b[n:]
			datagrams++
		}
	}
	return datagrams
}

// give passes a datagram to whoever is to have it; media of nobody is dropped.
func (in *Intake) give(b []byte, from netip.AddrPort, to Receiver, now time.Time) {
	switch {
	case !isMedia(b):
		in.pass(b, from)
	case to != nil:
		to.Receive(b, now)
	}
}

// receiver is who takes the media from an address, nil if nobody does.
func (in *Intake) receiver(from netip.AddrPort) Receiver {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return in.routes[from]
}

// pass hands a copy of a datagram to Pion.
func (in *Intake) pass(b []byte, from netip.AddrPort) {
	if len(in.control) == maxControl { // not worth a copy
		return
	}
	select {
	case in.control <- control{bytes.Clone(b), from}:
	default:
	}
}

// route has the media from an address go to r. It reports whether it does: unless firm, others keep what they have.
func (in *Intake) route(from netip.AddrPort, firm bool, r Receiver) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if now := in.routes[from]; !firm && now != nil && now != r {
		return false
	}
	in.routes[from] = r
	return true
}

// unroute ends that, unless somebody else has the address by now.
func (in *Intake) unroute(from netip.AddrPort, r Receiver) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.routes[from] == r {
		delete(in.routes, from)
	}
}

// ReadFromAddrPort waits for a datagram that is no media. Pion uses it in place of ReadFrom.
func (in *Intake) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case c := <-in.control:
		if len(c.b) > len(b) {
			return 0, c.from, io.ErrShortBuffer
		}
		return copy(b, c.b), c.from, nil
	case <-in.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

// WriteToAddrPort sends one datagram.
func (in *Intake) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if r, ok := in.relay(to); ok {
		r.send(b)
		return len(b), nil
	}
	return in.sockets[0].WriteToAddrPort(b, to)
}

// ReadFrom implements net.PacketConn.
func (in *Intake) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := in.ReadFromAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteTo implements net.PacketConn.
func (in *Intake) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("send to %v: no UDP address", to)
	}
	return in.WriteToAddrPort(b, unmapped(a.AddrPort()))
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// LocalAddr implements net.PacketConn.
func (in *Intake) LocalAddr() net.Addr { return in.sockets[0].LocalAddr() }

// Close implements net.PacketConn: it closes the sockets and returns when their loops have ended.
func (in *Intake) Close() error {
	in.once.Do(func() {
		close(in.closed)
		for _, s := range in.sockets {
			_ = s.Close() // what is closed is not open any more
		}
	})
	in.loops.Wait()
	return nil
}

// SetDeadline implements net.PacketConn. Deadlines would be those of all clients: there are none.
func (in *Intake) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.PacketConn.
func (in *Intake) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.PacketConn.
func (in *Intake) SetWriteDeadline(time.Time) error { return nil }
