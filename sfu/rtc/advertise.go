package rtc

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"callserver/sfu/rtc/port"

	"github.com/pion/webrtc/v4"
)

// Advertised is an address that clients are told, and what address translation makes of it. The zero value of a field but Addr means that nothing is
// changed.
type Advertised struct {
	Addr     netip.Addr
	UDP, TCP int        // ports that lead to ours; 0 = the same numbers, -1 = none does
	Local    netip.Addr // our address behind it; invalid = any of the family
}

const (
	// discoverTime bounds how long the start waits for STUN servers.
	discoverTime = 3 * time.Second
	// discoverInterval is how often they are asked again, since public addresses change.
	discoverInterval = time.Minute
	// watchInterval is how soon a change of this host's addresses is noticed.
	watchInterval = 5 * time.Second
)

// announcement is what clients are told of our addresses.
type announcement struct {
	mu         sync.Mutex
	discovered []Advertised // by STUN
	sharedTCP  []int        // public ports of listeners shared with ICE
}

// AcceptTCP takes connections of ICE over TCP from a listener that is shared with other protocols, and tells clients the port under which they reach
// it, in addition to TCPPort. Without a TCP port it does nothing but close the listener. The Engine closes it in the end.
func (e *Engine) AcceptTCP(l net.Listener, public int) {
	if !e.ports.ShareTCP(l) {
		_ = l.Close() // nobody is told of it
		return
	}
	e.told.mu.Lock()
	defer e.told.mu.Unlock()
	e.told.sharedTCP = append(e.told.sharedTCP, public)
}

// advertised is a local candidate as clients are to see it: as it is, or with the addresses of Options.Advertise, and with those that STUN found.
func (e *Engine) advertised(candidate webrtc.ICECandidate) []webrtc.ICECandidate {
	local, err := netip.ParseAddr(candidate.Address)
	if err != nil {
		return nil
	}
	e.told.mu.Lock()
	discovered, shared := e.told.discovered, e.told.sharedTCP
	e.told.mu.Unlock()
	wanted := slices.Concat(e.options.Advertise, discovered)
	if len(e.options.Advertise) == 0 {
		wanted = slices.Insert(wanted, 0, Advertised{Addr: local, Local: local})
	}
	var out []webrtc.ICECandidate
	for i, a := range wanted {
		if e.behind(a, local) {
			out = append(out, as(candidate, a, i, local)...)
		}
	}
	if candidate.Protocol == webrtc.ICEProtocolTCP {
		for _, c := range slices.Clone(out) {
			for _, public := range shared {
				c.Port = uint16(public)
				out = append(out, c)
			}
		}
	}
	return out
}

// tells reports whether clients are told how to reach a local address over UDP.
func (e *Engine) tells(local netip.Addr) bool {
	return len(e.advertised(webrtc.ICECandidate{Address: local.String(), Protocol: webrtc.ICEProtocolUDP})) > 0
}

// A Place is where clients send media over UDP: the address that they are told, and the socket behind it. Without UDP there are addresses only.
type Place struct{ Public, Local netip.AddrPort }

// Places are all of them, as clients that connect now are told.
func (e *Engine) Places() []Place {
	var out []Place
	number := max(e.ports.UDPPort, 0)
	for _, local := range e.ports.Local() {
		told := e.advertised(webrtc.ICECandidate{Address: local.String(), Port: uint16(number), Protocol: webrtc.ICEProtocolUDP})
		for _, c := range told {
			if addr, err := netip.ParseAddr(c.Address); err == nil && (c.Port != 0 || number == 0) {
				out = append(out, Place{netip.AddrPortFrom(addr, c.Port), netip.AddrPortFrom(local, uint16(number))})
			}
		}
	}
	return out
}

// behind reports whether what is sent to a reaches the local address.
func (e *Engine) behind(a Advertised, local netip.Addr) bool {
	switch {
	case a.Local.IsValid():
		return a.Local == local
	case a.Addr == local:
		return true
	default: // any of the family, unless it is one of ours, which has a candidate of its own
		return a.Addr.Is4() == local.Is4() && !e.ports.Has(a.Addr)
	}
}

// as is the candidate under an advertised address, none if the protocol is not let through.
func as(candidate webrtc.ICECandidate, a Advertised, i int, local netip.Addr) []webrtc.ICECandidate {
	port := a.UDP
	if candidate.Protocol == webrtc.ICEProtocolTCP {
		port = a.TCP
	}
	if port < 0 {
		return nil
	}
	if port > 0 {
		candidate.Port = uint16(port)
	}
	if a.Addr != local {
		candidate.Address = a.Addr.String()
		candidate.Foundation = "9" + strconv.Itoa(i) // RFC 8445 §5.1.1.3: differs by address
	}
	return []webrtc.ICECandidate{candidate}
}

// named lists the addresses of ours that a configuration names.
func named(list []Advertised) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		if out = append(out, a.Addr); a.Local.IsValid() {
			out = append(out, a.Local)
		}
	}
	return out
}

// watchLoop looks whether this host has other addresses by now. Clients that connect from then on, or again, are told them.
func (e *Engine) watchLoop(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	failed := ""
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		changed, err := e.ports.Refresh()
		if changed {
			e.log.Info("network addresses changed", "now", e.ports.Local())
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != "" && text != failed { // once, not at every look
			e.log.Warn("network addresses not in use", "error", err)
		}
		failed = text
	}
}

// startDiscovery asks STUN servers, if there are any, and returns when they have answered, or have not for too long.
func (e *Engine) startDiscovery(ctx context.Context) {
	if len(e.options.STUN) == 0 {
		return
	}
	answered := make(chan struct{})
	first := sync.OnceFunc(func() { close(answered) })
	e.loops.Go(func() { e.discoverLoop(ctx, first) })
	late := time.NewTimer(discoverTime)
	defer late.Stop()
	select {
	case <-answered:
	case <-late.C:
	}
}

// discoverLoop asks the STUN servers under which addresses we are seen. answered is called after every round.
func (e *Engine) discoverLoop(ctx context.Context, answered func()) {
	ticker := time.NewTicker(discoverInterval)
	defer ticker.Stop()
	for {
		e.discover(ctx)
		answered()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// discover asks once for every local address. What was found stays where no answer comes.
func (e *Engine) discover(ctx context.Context) {
	for _, local := range e.ports.Local() {
		if local.IsLoopback() {
			continue
		}
		public, err := port.Discover(ctx, e.options.STUN, local)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			e.log.Warn("no STUN server says under which address this server is seen; media.advertise names it without them", "from", local, "error", err)
		default:
			e.found(Advertised{Addr: public, Local: local})
		}
	}
}

// found notes under which address a local one is seen.
func (e *Engine) found(a Advertised) {
	e.told.mu.Lock()
	defer e.told.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(e.told.discovered), func(o Advertised) bool { return o.Local == a.Local })
	if slices.Contains(e.told.discovered, a) {
		return
	}
	e.told.discovered = append(next, a)
	e.log.Info("seen from outside", "as", a.Addr, "local", a.Local)
}
