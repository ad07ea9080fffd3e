package port

import (
	"errors"
	"fmt"
	"net/netip"

	"callserver/sfu/udp"
)

// ErrTaken means that another client sends from the address.
var ErrTaken = errors.New("the address is another client's")

// A Route is the path between a client and one of our sockets, as ICE chose it: media from there goes to a Receiver, and what is to be sent takes
// the same way back. Detach ends it.
type Route struct {
	Sockets []*udp.Socket // of the local address; nil over TCP
	To      *udp.Destination
	Write   func(b []byte) // in place of both, over TCP: sends one datagram, or loses it if the client reads too slowly

	detach func()
}

// A Link is the two ends of a path: our address, as the client reached it, and the client's.
type Link struct {
	Local  netip.Addr
	Remote netip.AddrPort
	TCP    bool
}

// Attach directs the media that a client sends over a link to r. A link that proved to reach its client is firm, and takes the place of another
// client's; what is only known to have come with the client's password is not, since its source may be forged: ErrTaken then means that somebody
// else's media comes from there.
func (p *Ports) Attach(l Link, firm bool, r Receiver) (*Route, error) {
	remote := unmapped(l.Remote)
	if l.TCP {
		return p.attachTCP(remote, r)
	}
	in := p.intake(l.Local.Unmap())
	if in == nil {
		return nil, fmt.Errorf("media of %s: no socket on %s", remote, l.Local)
	}
	if !in.route(remote, firm, r) {
		return nil, ErrTaken
	}
	detach := func() { in.unroute(remote, r) }
	if way, ok := in.relay(remote); ok {
		return &Route{Sockets: way.sockets, To: way.to, Write: way.write, detach: detach}, nil
	}
	return &Route{Sockets: in.sockets, To: udp.NewDestination(remote), detach: detach}, nil
}

func (p *Ports) attachTCP(remote netip.AddrPort, r Receiver) (*Route, error) {
	if p.TCP == nil {
		return nil, fmt.Errorf("media of %s: no TCP port", remote)
	}
	c, ok := p.TCP.find(remote)
	if !ok {
		return nil, fmt.Errorf("media of %s: no TCP connection from there", remote)
	}
	to := c.route(remote, r)
	return &Route{
		Write:  func(b []byte) { _, _ = c.WriteTo(b, to) }, // Pion queues it, up to tcpWriteBuffer
		detach: func() { c.unroute(remote, r) },
	}, nil
}

// Detach ends the route. A datagram may still be on its way to the Receiver. Detaching twice, or nothing, is fine.
func (r *Route) Detach() {
	if r != nil {
		r.detach()
	}
}
