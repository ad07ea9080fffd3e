package turn

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/pion/stun/v4"
	pion "github.com/pion/turn/v5"
)

// authenticate is pion's AuthHandler: the name of who signs as they claim, and the key that they must have signed with. Who allocates needs a
// credential whose time is not over; an allocation lives on beyond it.
func (l *listener) authenticate(request *pion.RequestAttributes) (user string, key []byte, ok bool) {
	at := l.relay.clock()
	c, ok := read(request.Username)
	if !ok || request.Realm != realm {
		l.relay.counts.refuse(refusedUnknown)
		return "", nil, false
	}
	until := c.until
	if request.Method != stun.MethodAllocate {
		until = until.Add(afterLife)
	}
	if at.After(until) {
		l.relay.counts.refuse(refusedExpired)
		return "", nil, false
	}
	if key = l.relay.keys.key(request.Username, c, at); key == nil {
		l.relay.counts.refuse(refusedUnknown)
		return "", nil, false
	}
	return c.user, key, true
}

// authenticated is pion's word whether a request was signed so.
func (l *listener) authenticated(_, _ net.Addr, _, _, _, _ string, right bool) {
	if !right {
		l.relay.counts.refuse(refusedForged)
	}
}

// quota is pion's QuotaHandler.
func (l *listener) quota(user, _ string, from net.Addr) bool {
	why := l.relay.ledger.may(user, addrPort(from).Addr())
	if why != none {
		l.relay.counts.refuse(why)
	}
	return why == none
}

// permits is pion's PermissionHandler. It is asked for clients that have an allocation, after their request was found to be signed by its user.
func (l *listener) permits(from net.Addr, peer net.IP) bool {
	a := l.relay.ledger.of(client{l, addrPort(from)})
	addr, ok := netip.AddrFromSlice(peer)
	if a != nil && ok && l.relay.policy.admits(a.scope, addr, l.relay.clock()) {
		return true
	}
	l.relay.counts.refuse(refusedPeer)
	return false
}

// allocated is pion's word that an allocation has a client.
func (l *listener) allocated(from, _ net.Addr, _, _, _ string, public net.Addr, _ int) {
	at := client{l, addrPort(from)}
	a, may := l.relay.ledger.attach(at, public)
	switch {
	case a == nil: // over already
		return
	case may:
		l.relay.counts.opened[a.scope].Add(1)
	default: // requests at once that found room for one
		l.relay.counts.refuse(refusedAddress)
		a.end()
		return
	}
	if a.carrier == nil {
		return
	}
	if err := a.carrier.serve(at, l.doors.of(at.at), a.public); err != nil {
		l.relay.log.Debug("no relay for a client", "error", err)
		a.end()
	}
}

// carrier is what carries for the allocation at a relayed address, nil if nothing does.
func (l *listener) carrier(public net.Addr) carrier {
	if a := l.relay.ledger.at(addrPort(public), false); a != nil {
		return a.carrier
	}
	return nil
}

func (l *listener) bound(_, _ net.Addr, _, _, _ string, public, peer net.Addr, channel uint16) {
	if c := l.carrier(public); c != nil {
		c.Bind(channel, addrPort(peer))
	}
}

func (l *listener) unbound(_, _ net.Addr, _, _, _ string, public, _ net.Addr, channel uint16) {
	if c := l.carrier(public); c != nil {
		c.Unbind(channel)
	}
}

func (l *listener) permitted(_, _ net.Addr, _, _, _ string, public net.Addr, peer net.IP) {
	if a, ok := netip.AddrFromSlice(peer); ok {
		if c := l.carrier(public); c != nil {
			c.Permit(a)
		}
	}
}

func (l *listener) forbidden(_, _ net.Addr, _, _, _ string, public net.Addr, peer net.IP) {
	if a, ok := netip.AddrFromSlice(peer); ok {
		if c := l.carrier(public); c != nil {
			c.Forbid(a)
		}
	}
}

// Validate implements pion.RelayAddressGenerator.
func (l *listener) Validate() error { return nil }

// AllocatePacketConn implements pion.RelayAddressGenerator. Without a user it is asked whether a port with an even number is free.
func (l *listener) AllocatePacketConn(c pion.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	a, err := l.open(c, func(a *Allocation, at netip.AddrPort) (err error) {
		if a.carrier, err = l.relay.way.relay(a, at); err == nil {
			a.socket, a.local = a.carrier, addrPort(a.carrier.LocalAddr())
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return &relaySocket{a.carrier, a}, net.UDPAddrFromAddrPort(a.public), nil
}

// open makes an allocation. listen opens its socket.
func (l *listener) open(c pion.AllocateListenerConfig, listen func(*Allocation, netip.AddrPort) error) (*Allocation, error) {
	r, tcp := l.relay, strings.HasPrefix(c.Network, "tcp")
	a := &Allocation{relay: r, user: c.UserID, scope: scopeOf(c.UserID), begun: r.clock()}
	for i := range a.meters {
		a.meters[i].set(r.options.AllocationBitrate/8, byteBurst)
	}
	if err := r.ledger.open(a.user); err != nil {
		r.counts.refuse(refusedUser)
		return nil, err
	}
	at, err := l.at(c.Network)
	if err == nil {
		err = r.onPort(at, c.RequestedPort, func(at netip.AddrPort) error {
			if r.ledger.at(r.policy.public(at), tcp) != nil {
				return syscall.EADDRINUSE // by another of our addresses that is behind the same public one
			}
			return listen(a, at)
		})
	}
	if err == nil {
		a.public = r.policy.public(a.local)
		if err = r.enter(a, tcp); err == nil {
			return a, nil
		}
		_ = a.socket.Close() // nobody has used it
	}
	r.ledger.release(a)
	r.counts.refuse(refusedSocket)
	r.log.Debug("no relay for a client", "error", err)
	return nil, err
}

// at is the local address for a relay: the one that the client sent to, where that is of the family, as it leads to the client.
func (l *listener) at(network string) (netip.Addr, error) {
	four := strings.HasSuffix(network, "4")
	if l.local.IsValid() && l.local.Is4() == four {
		return l.local, nil
	}
	for _, p := range l.relay.policy.look(l.relay.clock()).places {
		if p.Local.Addr().Is4() == four {
			return p.Local.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no local address for a relay of %s", network)
}

// portTries is how often a free port is looked for at random.
const portTries = 32

// onPort tries ports until one is free: the one that is asked for, or else some within the range.
func (r *Relay) onPort(at netip.Addr, wanted int, listen func(netip.AddrPort) error) error {
	first, last := r.options.FirstPort, r.options.LastPort
	if wanted != 0 {
		if wanted < first || wanted > last {
			return fmt.Errorf("port %d is none of the relays'", wanted)
		}
		return listen(netip.AddrPortFrom(at, uint16(wanted)))
	}
	for range portTries {
		err := listen(netip.AddrPortFrom(at, uint16(first+rand.IntN(last-first+1))))
		if !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return fmt.Errorf("turn.relay_ports: %d-%d on %s are as good as all in use - widen the range", first, last, at)
}
