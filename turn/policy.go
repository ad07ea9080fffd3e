package turn

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"callserver/internal/internet"
)

// A scope is what a kind of credential is for.
type scope uint8

const (
	joins       scope = iota // from a join answer: our media, and nothing else
	homeservers              // made by a homeserver: our media as well, the public internet, peers of its users, and relays of the same scope
	scopes
)

// leastPort is the lowest port of a peer outside this host. Clients and relays use none below, but name servers, clocks and the like do, which
// would take a relay for whoever asks.
const leastPort = 1024

// closed are addresses of the public internet at which clouds answer their machines' questions about themselves.
var closed = []netip.Addr{netip.MustParseAddr("168.63.129.16")}

// A policy says which peers exist for whom. Everything else does not.
type policy struct {
	places    func() []Place
	addresses func() ([]netip.Addr, error)
	peers     []netip.Prefix

	seen atomic.Pointer[surroundings]

	mu sync.Mutex // held by whoever looks around; others go on with what was seen
}

// surroundings are what belongs to this host, at one time.
type surroundings struct {
	at     time.Time
	places []Place
	media  map[netip.AddrPort]netip.AddrPort // public to local
	names  map[netip.AddrPort]netip.AddrPort // local to the first public one
	own    map[netip.Addr]bool
}

// lookInterval is how soon a change of addresses is noticed.
const lookInterval = 5 * time.Second

// look is what was seen lately.
func (p *policy) look(now time.Time) *surroundings {
	s := p.seen.Load()
	if now.Sub(s.at) > lookInterval && p.mu.TryLock() {
		_ = p.refreshLocked(now) // what was seen last stays
		p.mu.Unlock()
		s = p.seen.Load()
	}
	return s
}

func (p *policy) refresh(now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refreshLocked(now)
}

func (p *policy) refreshLocked(now time.Time) error {
	addresses, err := p.addresses()
	if err != nil {
		return fmt.Errorf("turn: %w", err)
	}
	s := &surroundings{at: now, places: p.places(), media: map[netip.AddrPort]netip.AddrPort{}, names: map[netip.AddrPort]netip.AddrPort{}, own: map[netip.Addr]bool{}}
	for _, a := range addresses {
		s.own[a] = true
	}
	for _, place := range s.places {
		s.own[place.Public.Addr()], s.own[place.Local.Addr()] = true, true
		if place.Public.Port() == 0 || place.Local.Port() == 0 {
			continue
		}
		s.media[place.Public] = place.Local
		if _, known := s.names[place.Local]; !known {
			s.names[place.Local] = place.Public
		}
	}
	p.seen.Store(s)
	return nil
}

// admits reports whether a scope has peers at an address at all: what CreatePermission, ChannelBind and Connect ask, of which two know no port.
// The address is as the client wrote it: an IPv6 form of an IPv4 address is refused.
func (p *policy) admits(s scope, peer netip.Addr, now time.Time) bool {
	seen := p.look(now)
	switch {
	case s == joins:
		return slices.ContainsFunc(seen.places, func(place Place) bool { return place.Public.Addr() == peer && place.Public.Port() != 0 })
	case seen.own[peer]:
		return true // for the ports of relays
	default:
		return p.foreign(peer)
	}
}

// public is the address that clients are told for a local one: one of the public internet where there is any, since it is their peers that must
// reach it.
func (p *policy) public(local netip.AddrPort) netip.AddrPort {
	told := local.Addr()
	for i, place := range slices.DeleteFunc(slices.Clone(p.seen.Load().places), func(o Place) bool { return o.Local.Addr() != local.Addr() }) {
		if at := place.Public.Addr(); i == 0 || internet.Public(at) && !internet.Public(told) {
			told = at
		}
	}
	return netip.AddrPortFrom(told, local.Port())
}

// foreign reports whether users of homeservers have peers at an address that is not ours.
func (p *policy) foreign(peer netip.Addr) bool {
	if slices.ContainsFunc(p.peers, func(n netip.Prefix) bool { return n.Contains(peer) }) {
		return true
	}
	return internet.Public(peer) && !slices.Contains(closed, peer)
}

// reach is where a peer is that a client of a scope names, over UDP or TCP; ours tells whether that is on this host. Not ok: nowhere for that scope.
func (r *Relay) reach(s scope, peer netip.AddrPort, tcp bool) (to netip.AddrPort, ours, ok bool) {
	seen := r.policy.look(r.clock())
	if to, ok = seen.media[peer]; ok || s == joins {
		return to, true, ok && !tcp
	}
	if a := r.ledger.at(peer, tcp); a != nil && a.scope == s {
		return a.local, true, true
	}
	if seen.own[peer.Addr()] {
		return to, true, false
	}
	return peer, false, peer.Port() >= leastPort && r.policy.foreign(peer.Addr())
}

// hears is the name under which clients of a scope know who sends, where they have not sent to it before. Not ok: they do not hear it.
func (r *Relay) hears(s scope, sender netip.AddrPort, tcp bool) (netip.AddrPort, bool) {
	seen := r.policy.look(r.clock())
	if name, ok := seen.names[sender]; ok || s == joins {
		return name, ok && !tcp
	}
	if a := r.ledger.behind(sender, tcp); a != nil && a.scope == s {
		return a.public, true
	}
	if seen.own[sender.Addr()] {
		return sender, false
	}
	return sender, sender.Port() >= leastPort && r.policy.foreign(sender.Addr())
}
