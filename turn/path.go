package turn

import (
	"net"
	"net/netip"
	"time"

	"callserver/turn/path"
)

// A way carries packets between clients and peers: path.Path where the system has batches, else pion/turn's own.
type way interface {
	// listen opens a socket that clients send to.
	listen(at netip.AddrPort) (net.PacketConn, error)
	// relay opens the socket of an allocation on a local address. It carries what Allocation.To, From, Up and Down let pass, and nothing else.
	relay(a *Allocation, at netip.AddrPort) (carrier, error)
	// stream takes the connection of a client.
	stream(c net.Conn) net.Conn
}

// A carrier is the relay of an allocation. What its ReadFrom returns pion sends to the client.
type carrier interface {
	net.PacketConn
	// serve says who the client is: what it is connected by, or where it sends from and what to.
	serve(at client, by net.Conn, public netip.AddrPort) error
	// Bind has a channel (RFC 8656 §12) lead to a peer, which is as the client names it.
	Bind(channel uint16, peer netip.AddrPort)
	Unbind(channel uint16)
	// Permit lets data without a channel pass to and from an address.
	Permit(peer netip.Addr)
	Forbid(peer netip.Addr)
	// Settle has the allocation told of all that was carried.
	Settle()
}

// fast is our own way.
type fast struct{ path *path.Path }

func (f fast) listen(at netip.AddrPort) (net.PacketConn, error) { return f.path.Listen(at) }

func (f fast) stream(c net.Conn) net.Conn { return f.path.Stream(c) }

func (f fast) relay(a *Allocation, at netip.AddrPort) (carrier, error) {
	r, err := f.path.Relay(at, a)
	if err != nil {
		return nil, err
	}
	return fastCarrier{r}, nil
}

type fastCarrier struct{ *path.Relay }

func (c fastCarrier) serve(at client, by net.Conn, public netip.AddrPort) error {
	if s, ok := by.(*path.Stream); ok {
		return c.ServeStream(s, public)
	}
	l, ok := at.listener.socket.(*path.Listener)
	if !ok {
		return net.ErrClosed // the client is connected no more
	}
	return c.Serve(l, at.at, public)
}

// socketBuffer is asked of the kernel for each direction of a relay: enough for a key frame, and no more than is read before it is too late.
const (
	socketBuffer   = path.DefaultRelayBuffer
	listenerBuffer = 4 << 20 // bytes
)

// plain is pion's own way, one system call a packet: plain sockets.
type plain struct{}

func (plain) stream(c net.Conn) net.Conn { return c }

func (plain) listen(at netip.AddrPort) (net.PacketConn, error) { return listenUDP(at, listenerBuffer) }

func (plain) relay(a *Allocation, at netip.AddrPort) (carrier, error) {
	socket, err := listenUDP(at, socketBuffer)
	if err != nil {
		return nil, err
	}
	return &relay{socket, a}, nil
}

func listenUDP(at netip.AddrPort, buffer int) (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	_ = c.SetReadBuffer(buffer) // best effort: the kernel's limit wins
	_ = c.SetWriteBuffer(buffer)
	return c, nil
}

// A relay is the socket of an allocation, of which pion knows the channels and permissions.
type relay struct {
	*net.UDPConn
	allocation *Allocation
}

func (*relay) serve(client, net.Conn, netip.AddrPort) error { return nil }

func (*relay) Bind(uint16, netip.AddrPort) {}
func (*relay) Unbind(uint16)               {}
func (*relay) Permit(netip.Addr)           {}
func (*relay) Forbid(netip.Addr)           {}
func (*relay) Settle()                     {}

// WriteTo sends to a peer, if that may be. What may not is dropped, which the client is not told, as RFC 8656 §11.2 has it.
func (r *relay) WriteTo(b []byte, to net.Addr) (int, error) {
	peer, ok := r.allocation.To(addrPort(to))
	if !ok || !r.allocation.Up(1, len(b), time.Now()) {
		return len(b), nil
	}
	if _, err := r.WriteToUDPAddrPort(b, peer); err != nil {
		return 0, err
	}
	return len(b), nil
}

// ReadFrom waits for what a peer sends and may send.
func (r *relay) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := r.ReadFromUDPAddrPort(b)
		if err != nil {
			return 0, nil, err
		}
		peer, ok := r.allocation.From(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		if ok && r.allocation.pass(down, 1, n, time.Now()) {
			return n, net.UDPAddrFromAddrPort(peer), nil
		}
	}
}
