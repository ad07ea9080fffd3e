package federation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"callserver/internal/internet"
)

var errPrivate = errors.New("not a public address: only servers listed under homeservers, and federation_private_networks, may be there")

// public reports whether an address belongs to the public internet, also where IPv6 carries an IPv4 one.
func public(a netip.Addr) bool { return internet.Public(internet.Embedded(a)) }

// A guard decides which addresses may be dialled.
type guard struct {
	anywhere bool
	private  []netip.Prefix // besides public ones
}

// check refuses connections to private addresses. As the control of a dialer it sees the address that is really
// dialled, after every lookup.
func (g guard) check(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("dial %q: %w", address, err)
	}
	inside := func(p netip.Prefix) bool { return p.Contains(to.Addr().Unmap()) }
	if !public(to.Addr()) && !slices.ContainsFunc(g.private, inside) {
		return fmt.Errorf("%s: %w", to.Addr(), errPrivate)
	}
	return nil
}

// dialer returns a dialer that reaches what the guard allows.
func (g guard) dialer(r *net.Resolver) *net.Dialer {
	d := &net.Dialer{Resolver: r, Timeout: dialTimeout}
	if !g.anywhere {
		d.ControlContext = g.check
	}
	return d
}
