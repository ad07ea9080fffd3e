// A Path carries what a TURN server relays, in batches, below the server: what clients send on channels or in Send indications goes to their peers, and back, without
// the server seeing it. Package path owns the sockets of listeners and relays, the table that tells which datagram belongs where, the loops (one for each core) that carry,
// and handing over in memory what is for this process's own media ports. It never decides who may have a relay or which peers it reaches: the server tells it.
package path

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/udp"
)

const (
	// listenerBuffer is asked of the kernel for each socket that clients send to.
	listenerBuffer = 4 << 20 // bytes
	// DefaultRelayBuffer is asked of the kernel for each relay's socket: enough for a burst of key frames, and not so much that what waits in it is late.
	DefaultRelayBuffer = 256 << 10 // bytes
	// maxControl bounds the datagrams of a listener that wait for the server (requests); more are dropped, and come again.
	maxControl = 1024
	// maxPeers bounds the peers without a channel that an allocation keeps in mind; more are forgotten and found anew.
	maxPeers = 64
)

// Options configure a Path. The zero value works.
type Options struct {
	Loops       int // 0 = one for each core
	RelayBuffer int // bytes asked of the kernel for each relay's socket in each direction; 0 = DefaultRelayBuffer
	// Media returns where in this process what is sent to an address is taken, nil if that is not one of ours. nil = nothing is.
	Media func(to netip.AddrPort) Intake
	// Panicked is told of panics in what a client or peer sent, which cost that batch. nil = they end the process.
	Panicked func(value any)
}

// An Intake is a media port of this process. It takes datagrams as if they had come to its socket. It is safe for concurrent use.
type Intake interface {
	// Take takes a datagram. It may write to b, and has it only until it returns.
	Take(b []byte, from netip.AddrPort, now time.Time)
	// Taken is called when there is nothing more for now, by the loop with that index, or by no loop (-1).
	Taken(home int)
	// Meet says how a client is reached that has the relayed address, until Part. Over UDP it is by one of the sockets; over a stream by write, which
	// does not wait.
	Meet(relayed netip.AddrPort, sockets []*udp.Socket, to *udp.Destination, write func(b []byte))
	// Part ends that.
	Part(relayed netip.AddrPort)
}

// A Guard is what a server allows one allocation. It is safe for concurrent use, and does not block.
type Guard interface {
	// To is where a peer is that the client names, on this host where that is one of our own; not ok where the client may send nothing. It is asked
	// once for a channel, and for a peer that the client begins to send to without one.
	To(peer netip.AddrPort) (netip.AddrPort, bool)
	// From is the name under which the client knows a sender; not ok where the client may hear nothing from there.
	From(sender netip.AddrPort) (netip.AddrPort, bool)
	// Up counts what is to go to peers, before it does, and reports whether it may.
	Up(packets, bytes int, now time.Time) bool
	// Down counts what has gone to the client, and reports whether more may; 0 only asks, about one datagram that goes if it may. It is called once
	// for some thousand bytes of a peer's.
	Down(packets, bytes int, now time.Time) bool
}

// A Path is safe for concurrent use.
type Path struct {
	options Options
	loops   []*loop
	ended   sync.WaitGroup
	next    atomic.Uint32 // loop
	counts  counts

	mu sync.RWMutex // guards what the loops look up: the clients of listeners, the channels, peers and permissions of relays
}

type counts struct {
	strangers, unbound, forbidden, capped, slow, control atomic.Uint64
}

// Stats is a snapshot of what a Path dropped.
type Stats struct {
	Strangers uint64 // data of clients without an allocation, or for a channel that is not bound
	Unbound   uint64 // data from peers for which there is no permission
	Forbidden uint64 // data to or from ports that the server does not allow
	Capped    uint64 // data above an allocation's bandwidth
	Slow      uint64 // data for connected clients that read too slowly
	Control   uint64 // requests that came faster than the server takes them
}

// New starts the loops. It returns errors.ErrUnsupported where the system has no batches. The caller closes it after the server that uses it.
func New(o Options) (*Path, error) {
	if o.Loops == 0 {
		o.Loops = runtime.GOMAXPROCS(0)
	}
	if o.RelayBuffer == 0 {
		o.RelayBuffer = DefaultRelayBuffer
	}
	if o.Media == nil {
		o.Media = func(netip.AddrPort) Intake { return nil }
	}
	p := &Path{options: o}
	for i := range o.Loops {
		l, err := newLoop(p, i)
		if err != nil {
			for _, l := range p.loops {
				_ = l.poll.Close()
			}
			return nil, err
		}
		p.loops = append(p.loops, l)
	}
	for _, l := range p.loops {
		p.ended.Go(l.relayLoop)
	}
	return p, nil
}

// Close ends the loops and returns when they have ended. The listeners and relays are closed by then.
func (p *Path) Close() error {
	var errs []error
	for _, l := range p.loops {
		errs = append(errs, l.poll.Close())
	}
	p.ended.Wait()
	return errors.Join(errs...)
}

// Stats is a snapshot of the totals.
func (p *Path) Stats() Stats {
	c := &p.counts
	return Stats{Strangers: c.strangers.Load(), Unbound: c.unbound.Load(), Forbidden: c.forbidden.Load(), Capped: c.capped.Load(), Slow: c.slow.Load(), Control: c.control.Load()}
}

// Listen opens the sockets that clients send to, one for each loop. Closing the Listener closes them.
func (p *Path) Listen(at netip.AddrPort) (*Listener, error) {
	sockets, err := udp.ListenBare(at, udp.Options{Buffer: listenerBuffer, Share: len(p.loops)})
	if err != nil {
		return nil, err
	}
	l := &Listener{path: p, sockets: sockets, control: make(chan control, maxControl), closed: make(chan struct{}), clients: map[netip.AddrPort]*Relay{}}
	for i, s := range sockets {
		if err := p.loops[i].poll.Add(s, &source{socket: s, listener: l}); err != nil {
			return nil, errors.Join(fmt.Errorf("listen on %s: %w", at, err), l.Close())
		}
	}
	return l, nil
}

// A Listener is where clients send to over UDP: a net.PacketConn that brings the server what is not carried below it.
type Listener struct {
	path    *Path
	sockets []*udp.Socket
	control chan control
	home    atomic.Int32 // loop of the last datagram that the server read
	closed  chan struct{}
	once    sync.Once

	clients map[netip.AddrPort]*Relay // guarded by Path.mu
}

// control is a datagram for the server.
type control struct {
	b    []byte
	from netip.AddrPort
	home int
}

// pass hands a copy of a datagram to the server.
func (l *Listener) pass(b []byte, from netip.AddrPort, home int) {
	if len(l.control) < maxControl { // else it is not worth a copy
		select {
		case l.control <- control{bytes.Clone(b), from, home}:
			return
		default:
		}
	}
	l.path.counts.control.Add(1)
}

// ReadFrom implements net.PacketConn.
func (l *Listener) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case c := <-l.control:
		l.home.Store(int32(c.home))
		return copy(b, c.b), net.UDPAddrFromAddrPort(c.from), nil
	case <-l.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo implements net.PacketConn.
func (l *Listener) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("send to %v: no UDP address", to)
	}
	return l.sockets[0].WriteToAddrPort(b, unmapped(a.AddrPort()))
}

// LocalAddr implements net.PacketConn.
func (l *Listener) LocalAddr() net.Addr { return l.sockets[0].LocalAddr() }

// Close implements net.PacketConn. Closing twice is fine.
func (l *Listener) Close() error {
	var errs []error
	l.once.Do(func() {
		close(l.closed)
		for _, s := range l.sockets {
			errs = append(errs, s.Close())
		}
	})
	return errors.Join(errs...)
}

// SetDeadline implements net.PacketConn. A listener has no deadlines.
func (l *Listener) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.PacketConn.
func (l *Listener) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.PacketConn.
func (l *Listener) SetWriteDeadline(time.Time) error { return nil }

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
