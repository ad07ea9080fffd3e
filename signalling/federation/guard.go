package federation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

var errPrivate = errors.New("not a public address: only servers listed under homeservers, and federation_private_networks, may be there")

// special are the prefixes that are not the public internet (IANA special-purpose registries, RFC 6890), besides
// everything in IPv6 outside global unicast, which is 2000::/3.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), // 6to4 carries an IPv4 address
	netip.MustParsePrefix("3fff::/20"),
}

var (
	globalUnicast = netip.MustParsePrefix("2000::/3")
	nat64         = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: an IPv4 address in the last four bytes
)

// public reports whether an address belongs to the public internet.
func public(a netip.Addr) bool {
	a = a.Unmap()
	if nat64.Contains(a) {
		whole := a.As16()
		a = netip.AddrFrom4([4]byte(whole[12:]))
	}
	if a.Zone() != "" || a.Is6() && !globalUnicast.Contains(a) {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsValid()
}

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
