package turn

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// A client is where a client sends from, and which listener to.
type client struct {
	listener *listener
	at       netip.AddrPort
}

// endpoint is the address of a relay.
type endpoint struct {
	at  netip.AddrPort
	tcp bool
}

// A ledger holds who has which allocations. What an allocation takes is returned when pion closes its socket, which it does exactly once, in
// whatever way the allocation ends.
type ledger struct {
	options *Options

	mu        sync.Mutex
	all       int
	users     map[string]int
	addresses map[netip.Prefix]int
	relays    map[endpoint]*Allocation // by the public address and the local one
	clients   map[client]*Allocation
}

var (
	errUserQuota = errors.New("the user has too many allocations")
	errFull      = errors.New("the server has too many allocations")
)

// may is the reason why a client gets no further allocation, nothing if it does.
func (l *ledger) may(user string, from netip.Addr) refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.users[user] >= l.options.UserAllocations:
		return refusedUser
	case l.addresses[charged(from)] >= l.options.AddressAllocations:
		return refusedAddress
	case l.all >= l.options.Allocations:
		return refusedServer
	}
	return none
}

// open counts an allocation for a user.
func (l *ledger) open(user string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users[user] >= l.options.UserAllocations { // several requests at once
		return errUserQuota
	}
	if l.all >= l.options.Allocations {
		return errFull
	}
	l.all++
	l.users[user]++
	return nil
}

// enter makes the relay of an allocation known.
func (l *ledger) enter(a *Allocation, tcp bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.relays[endpoint{a.public, tcp}] != nil {
		return syscall.EADDRINUSE
	}
	l.relays[endpoint{a.public, tcp}] = a
	l.relays[endpoint{a.local, tcp}] = a
	return nil
}

// attach says whose client an allocation is. It returns the allocation, nil if that is over already, and whether the client's address may have it.
func (l *ledger) attach(c client, public net.Addr) (*Allocation, bool) {
	_, tcp := public.(*net.TCPAddr)
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.relays[endpoint{addrPort(public), tcp}]
	if a == nil {
		return nil, false
	}
	a.client, a.charge = c, charged(c.at.Addr())
	l.clients[c] = a
	l.addresses[a.charge]++
	return a, l.addresses[a.charge] <= l.options.AddressAllocations
}

// release returns what an allocation took; it reports whether it had not been returned before.
func (l *ledger) release(a *Allocation) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.released {
		return false
	}
	a.released = true
	l.all--
	lower(l.users, a.user)
	if a.charge.IsValid() {
		lower(l.addresses, a.charge)
	}
	for _, at := range []netip.AddrPort{a.public, a.local} {
		for _, tcp := range []bool{false, true} {
			if l.relays[endpoint{at, tcp}] == a {
				delete(l.relays, endpoint{at, tcp})
			}
		}
	}
	if l.clients[a.client] == a {
		delete(l.clients, a.client)
	}
	return true
}

func lower[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}

// of is the allocation of a client, or nil.
func (l *ledger) of(c client) *Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clients[c]
}

// at is the allocation whose relay clients are told to be at an address, or nil.
func (l *ledger) at(public netip.AddrPort, tcp bool) *Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.relays[endpoint{public, tcp}]; a != nil && a.public == public {
		return a
	}
	return nil
}

// behind is the allocation whose relay is at a local address, or nil.
func (l *ledger) behind(local netip.AddrPort, tcp bool) *Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.relays[endpoint{local, tcp}]; a != nil && a.local == local {
		return a
	}
	return nil
}

// live lists the allocations.
func (l *ledger) live() []*Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*Allocation, 0, l.all)
	for at, a := range l.relays {
		if at.at == a.public { // each once
			out = append(out, a)
		}
	}
	return out
}

// charged is what counts for an address: IPv6 gives every household a /64 at least.
func charged(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // fails for bits out of range only
	return p
}
