package rtc

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"callserver/sfu/egress"
	"callserver/sfu/rtc/description"
	"callserver/sfu/rtc/port"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"
)

// maxPaths bounds the addresses from which one connection's media is taken. A browser tries some pairs, and may send on any that works, also on
// one that ICE at our end did not choose.
const maxPaths = 16

// movedAfter is how long the chosen pair must have been silent until another takes its place that the client prefers by now. Clients check the
// pair that they use every 2.5 s or more often, so it is the one that they moved from.
const movedAfter = time.Second

// A Way is how a client's media reaches us.
type Way uint8

// The ways, the best first.
const (
	NoWay Way = iota // not connected yet
	UDP
	TCP
	Relayed
)

// String names the way in lower case.
func (w Way) String() string { return [...]string{"none", "udp", "tcp", "relay"}[w] }

// paths are the ways that a connection's media comes, as ICE learns them. Media goes the way that ICE chose.
type paths struct {
	mu     sync.Mutex
	closed bool
	routes map[port.Link]*port.Route
	chosen port.Link
	way    Way       // by which chosen leads
	heard  time.Time // when a check came over chosen
}

// A check is what is to be known of one connectivity check.
type check struct {
	link     port.Link
	prefers  bool // the client wants to use the pair
	answered bool // and has answered a check of ours there: nobody made up its address
}

// heard notes where a connectivity check with our password came from, and reports whether its pair takes the place of the chosen one. Pion calls
// it for every check, from the goroutine that serves all of the connection's ICE.
func (c *connection) heard(prefers bool, pair *ice.CandidatePair, now time.Time) bool {
	l, err := linkOf(pair.Local.Address(), pair.Remote.Address(), uint16(pair.Remote.Port()), pair.Local.NetworkType().IsTCP())
	if err != nil {
		return false
	}
	c.paths.mu.Lock()
	defer c.paths.mu.Unlock()
	if c.paths.routes[l] == nil {
		_, _ = c.attachLocked(l, false) // another check follows
	}
	return c.paths.movedLocked(check{link: l, prefers: prefers, answered: pair.ResponsesReceived() > 0}, now)
}

// movedLocked reports whether the client has left the chosen pair for the one that is checked. Pion looks at the priorities alone (RFC 8445 §7.3.1.5),
// by which an address that is only seen never takes the place of one that was told: a client that comes to be behind address translation
// would be sent nothing any more.
func (p *paths) movedLocked(on check, now time.Time) bool {
	if on.link == p.chosen {
		p.heard = now
		return false
	}
	return p.chosen != (port.Link{}) && on.prefers && on.answered && now.Sub(p.heard) >= movedAfter
}

// selected follows the pair that ICE chose: it works both ways, and what we send takes it from now on.
func (c *connection) selected(pair *webrtc.ICECandidatePair) {
	l, err := linkOf(pair.Local.Address, pair.Remote.Address, pair.Remote.Port, pair.Local.Protocol == webrtc.ICEProtocolTCP)
	again := false
	if err == nil {
		again, err = c.take(l, wayOf(pair))
	}
	if err != nil {
		c.peer.log.Warn("no path for media", "error", err)
	}
	if again {
		c.peer.start(c.renew)
	}
}

// take sends over the link, and reports whether another one, or the same, was in use before.
func (c *connection) take(l port.Link, w Way) (again bool, err error) {
	p := &c.paths
	p.mu.Lock()
	defer p.mu.Unlock()
	route, err := c.attachLocked(l, true)
	if route == nil {
		return false, err
	}
	again = p.way != NoWay
	p.chosen, p.way, p.heard = l, w, time.Now()
	c.leg.SetPath(&egress.Path{Sockets: route.Sockets, To: route.To, Write: route.Write})
	return again, nil
}

func wayOf(pair *webrtc.ICECandidatePair) Way {
	switch {
	case pair.Remote.Typ == webrtc.ICECandidateTypeRelay:
		return Relayed
	case pair.Local.Protocol == webrtc.ICEProtocolTCP:
		return TCP
	}
	return UDP
}

// renew has pictures begin anew that the client sends or receives: what came before the path changed is lost, and receivers ask for a key frame
// only after seconds.
func (c *connection) renew() {
	now := time.Now()
	if c == c.peer.client {
		for _, u := range *c.peer.uplinks.Load() {
			if s := u.source.Load(); s != nil && s.Codec().Video() {
				u.RequestKeyFrame(-1)
			}
		}
	}
	if c == c.peer.sender() {
		for _, d := range *c.peer.downlinks.Load() {
			if k := d.sink.Load(); k != nil && d.kind == description.Video {
				k.RequestKeyFrame(now)
			}
		}
	}
}

// way is how the connection's media goes, NoWay before it is up.
func (c *connection) way() Way {
	c.paths.mu.Lock()
	defer c.paths.mu.Unlock()
	return c.paths.way
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
