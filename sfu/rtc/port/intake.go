// Hot path: see ARCHITECTURE.md#packet

package port

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/packet"
	"callserver/sfu/udp"
)

// maxControl bounds the datagrams of one address that wait for Pion (STUN, DTLS, data channels); more are dropped, and come again.
const maxControl = 1024

// maxBatches bounds the batches that are opened before what came of them is sent: the packets of a frame come one after the other, and are sent
// in one run if they are sent together.
const maxBatches = 4

// A Receiver takes the media datagrams, RTP and RTCP, of one client. Calls come from the goroutine of a socket, one after the other for as long as the
// client sends from one address.
type Receiver interface {
	// Receive takes the datagram in the first n bytes of p's buffer, and p itself.
	Receive(p *packet.Packet, n int, now time.Time)
}

// isMedia is RFC 7983 §7: RTP and RTCP begin with a byte of 128 to 191.
func isMedia(b []byte) bool { return len(b) > 0 && b[0]>>6 == 2 }

// An Intake is the sockets of one local address. It takes the media off them and is a net.PacketConn with the rest, for Pion's ICE. Media from an
// address without a route is dropped.
type Intake struct {
	sockets []*udp.Socket
	after   func(home int) // called when a socket has nothing more, at the latest after maxBatches
	control chan control
	closed  chan struct{}
	once    sync.Once
	loops   sync.WaitGroup

	relayed atomic.Bool // there are relays

	mu     sync.RWMutex
	routes map[netip.AddrPort]Receiver
	relays map[netip.AddrPort]relay
}

// control is a datagram that is no media, in the first n bytes of p's buffer.
type control struct {
	p    *packet.Packet
	n    int
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

// reading is what one read loop works with.
type reading struct {
	inbox   udp.Inbox
	packets [udp.BatchSize]*packet.Packet // whose buffers the inbox has
	to      [udp.BatchSize]Receiver
}

// readLoop reads one socket until it is closed. Media stays in the packet that it was read into.
func (in *Intake) readLoop(home int) {
	r := &reading{}
	for i := range r.packets {
		r.refill(i)
	}
	defer func() {
		for _, p := range r.packets {
			p.Release()
		}
	}()
	batches := 0
	deal := func() {
		if batches > 0 {
			batches = 0
			in.after(home)
		}
	}
	for {
		if batches >= maxBatches {
			deal()
			runtime.Gosched() // the others, where there is one core: it might go on like this
		}
		if err := in.sockets[home].Receive(&r.inbox, deal); err != nil {
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
		in.lookUp(r)
		now := time.Now()
		for i := range r.inbox.Len() {
			b, from := r.inbox.Datagram(i)
			switch {
			case r.to[i] != nil:
				p := r.packets[i]
				r.refill(i)
				r.to[i].Receive(p, len(b), now)
				r.to[i] = nil
			case !isMedia(b) && len(b) > 0:
				p := r.packets[i]
				r.refill(i)
				in.pass(control{p, len(b), from})
			}
		}
		batches++
	}
}

func (r *reading) refill(i int) {
	r.packets[i] = packet.Get()
	r.inbox.Buffers[i] = r.packets[i].Buffer()
}

// lookUp finds who takes the media of the batch.
func (in *Intake) lookUp(r *reading) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	var last netip.AddrPort // the packets of a frame come one after the other
	var to Receiver
	for i := range r.inbox.Len() {
		b, from := r.inbox.Datagram(i)
		if !isMedia(b) {
			continue
		}
		if from != last {
			last, to = from, in.routes[from]
		}
		r.to[i] = to
	}
}

// pass hands a datagram to Pion.
func (in *Intake) pass(c control) {
	select {
	case in.control <- c:
	default:
		c.p.Release()
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
		defer c.p.Release()
		if c.n > len(b) {
			return 0, c.from, io.ErrShortBuffer
		}
		return copy(b, c.p.Buffer()[:c.n]), c.from, nil
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
