package rtc

import (
	"errors"
	"net/netip"
	"sync"

	"callserver/sfu/egress"
	"callserver/sfu/rtc/port"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"
)

// maxPaths bounds the addresses from which one connection's media is taken. A browser tries some pairs, and may send on any that works, also on
// one that ICE at our end did not choose.
const maxPaths = 16

// paths are the ways that a connection's media comes, as ICE learns them. Media goes the way that ICE chose.
type paths struct {
	mu     sync.Mutex
	closed bool
	routes map[port.Link]*port.Route
	chosen port.Link
}

// heard notes where a connectivity check with our password came from. Pion calls it for every one, from the goroutine that serves all of the
// connection's ICE.
func (c *connection) heard(local, remote ice.Candidate) {
	if l, err := linkOf(local.Address(), remote.Address(), uint16(remote.Port()), local.NetworkType().IsTCP()); err == nil {
		c.paths.mu.Lock()
		defer c.paths.mu.Unlock()
		if c.paths.routes[l] == nil {
			_, _ = c.attachLocked(l, false) // another check follows
		}
	}
}

// selected follows the pair that ICE chose: it works both ways, and what we send takes it from now on.
func (c *connection) selected(pair *webrtc.ICECandidatePair) {
	l, err := linkOf(pair.Local.Address, pair.Remote.Address, pair.Remote.Port, pair.Local.Protocol == webrtc.ICEProtocolTCP)
	if err == nil {
		c.paths.mu.Lock()
		defer c.paths.mu.Unlock()
		var route *port.Route
		if route, err = c.attachLocked(l, true); route != nil {
			c.paths.chosen = l
			c.leg.SetPath(&egress.Path{Sockets: route.Sockets, To: route.To, Write: route.Write})
		}
	}
	if err != nil {
		c.peer.log.Warn("no path for media", "error", err)
	}
}

func linkOf(local, remote string, remotePort uint16, tcp bool) (port.Link, error) {
	from, err := netip.ParseAddr(remote)
	to, err2 := netip.ParseAddr(local)
	return port.Link{Local: to, Remote: netip.AddrPortFrom(from, remotePort), TCP: tcp}, errors.Join(err, err2)
}

// attachLocked takes media from the link. A closed connection has no routes.
func (c *connection) attachLocked(l port.Link, firm bool) (*port.Route, error) {
	p := &c.paths
	if p.closed {
		return nil, nil
	}
	route, err := c.peer.engine.ports.Attach(l, firm, c.inlet)
	if err != nil {
		return nil, err
	}
	if p.routes == nil {
		p.routes = map[port.Link]*port.Route{}
	}
	for other, r := range p.routes {
		if len(p.routes) >= maxPaths && other != p.chosen && other != l {
			r.Detach()
			delete(p.routes, other)
		}
	}
	p.routes[l] = route
	return route, nil
}

// leave takes no more media and sends none.
func (c *connection) leave() {
	c.paths.mu.Lock()
	c.paths.closed = true
	for _, r := range c.paths.routes {
		r.Detach()
	}
	c.paths.routes = nil
	c.paths.mu.Unlock()
	c.leg.SetPath(nil)
	c.inlet.Close()
}
