package turn

import (
	"net"
	"net/netip"
	"time"
)

// A Path carries packets between clients and peers. The zero way is pion/turn's own: plain sockets, from which pion reads packet by packet. A faster
// one answers ChannelData itself: its listening sockets keep from pion what a Binding says where to send, and its relays need no socket for peers
// that are in this process.
type Path interface {
	// Listen opens a socket that clients send to. What its ReadFrom returns goes to pion.
	Listen(at netip.AddrPort) (net.PacketConn, error)
	// Relay opens the socket of an allocation on a local address. It sends and receives for the allocation what Allocation.To, From, Up and Down
	// let pass, and nothing else. What its ReadFrom returns goes to pion, which sends it to the client.
	Relay(a *Allocation, at netip.AddrPort) (net.PacketConn, error)
	// Bound says that ChannelData of a client is for a peer from now on, and what comes from there is to be sent as such.
	Bound(Binding)
	// Unbound says that a channel is gone; of the Binding, Allocation and Peer may be missing. Channels of an allocation whose relay was closed
	// may or may not be told of.
	Unbound(Binding)
}

// A Binding is a channel (RFC 8656 §12) of a client that sends over UDP.
type Binding struct {
	Listener   net.PacketConn // that the client sends to, as Path.Listen opened it
	Client     netip.AddrPort
	Channel    uint16
	Allocation *Allocation
	Peer       netip.AddrPort // as the client names it; Allocation.To says where it is
}

// socketBuffer is asked of the kernel for each direction of a relay: enough for a key frame, and no more than is read before it is too late.
const (
	socketBuffer   = 256 << 10 // bytes
	listenerBuffer = 4 << 20   // bytes
)

// plain is pion's own way.
type plain struct{}

func (plain) Bound(Binding)   {}
func (plain) Unbound(Binding) {}

func (plain) Listen(at netip.AddrPort) (net.PacketConn, error) { return listenUDP(at, listenerBuffer) }

func (plain) Relay(a *Allocation, at netip.AddrPort) (net.PacketConn, error) {
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

// A relay is the socket of an allocation.
type relay struct {
	*net.UDPConn
	allocation *Allocation
}

// WriteTo sends to a peer, if that may be. What may not is dropped, which the client is not told, as RFC 8656 §11.2 has it.
func (r *relay) WriteTo(b []byte, to net.Addr) (int, error) {
	peer, ok := r.allocation.To(addrPort(to))
	if !ok || !r.allocation.Up(len(b), time.Now()) {
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
		if ok && r.allocation.Down(n, time.Now()) {
			return n, net.UDPAddrFromAddrPort(peer), nil
		}
	}
}
