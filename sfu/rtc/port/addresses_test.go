package port

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/pion/logging"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
)

// shifting is the system's network with addresses that a test chooses, all on one interface.
type shifting struct {
	*stdnet.Net
	addresses []string
}

func (s *shifting) Interfaces() ([]*transport.Interface, error) {
	i := transport.NewInterface(net.Interface{Index: 1, Name: "test0", Flags: net.FlagUp})
	for _, a := range s.addresses {
		i.AddAddress(&net.IPNet{IP: net.ParseIP(a), Mask: net.CIDRMask(8, 32)})
	}
	return []*transport.Interface{i}, nil
}

// TestTold has connections wait for datagrams only where clients are told to send some.
func TestTold(t *testing.T) {
	system, err := stdnet.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{"127.0.0.2": true}
	p, err := Open(Options{TCP: -1, Loopback: true, Net: &shifting{system, []string{"127.0.0.1", "127.0.0.2"}}, Log: logging.NewDefaultLoggerFactory(),
		Told: func(local netip.Addr) bool { return told[local.String()] }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, want := range []string{"127.0.0.2", "127.0.0.1"} {
		told = map[string]bool{want: true}
		if got := p.UDP.GetListenAddresses(); len(got) != 1 || !got[0].(*net.UDPAddr).IP.Equal(net.ParseIP(want)) {
			t.Errorf("connections wait on %v, want %s", got, want)
		}
	}
}

// TestRefresh follows addresses that come and go.
func TestRefresh(t *testing.T) {
	system, err := stdnet.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	n := &shifting{system, []string{"127.0.0.1"}}
	p, err := Open(Options{TCP: -1, Loopback: true, Net: n, Log: logging.NewDefaultLoggerFactory()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, tc := range []struct {
		name    string
		now     []string
		changed bool
		err     bool
		want    []string
	}{
		{"nothing", []string{"127.0.0.1"}, false, false, []string{"127.0.0.1"}},
		{"one more", []string{"127.0.0.1", "127.0.0.2"}, true, false, []string{"127.0.0.1", "127.0.0.2"}},
		{"another", []string{"127.0.0.3"}, true, false, []string{"127.0.0.3"}},
		{"back", []string{"127.0.0.2"}, true, false, []string{"127.0.0.2"}},
		{"none for a moment", nil, false, false, []string{"127.0.0.2"}},
		{"one that cannot be had", []string{"127.0.0.2", "192.0.2.1"}, false, true, []string{"127.0.0.2"}},
	} {
		n.addresses = tc.now
		changed, err := p.Refresh()
		if changed != tc.changed || (err != nil) != tc.err {
			t.Errorf("%s: changed %v, %v", tc.name, changed, err)
		}
		var told []string
		for _, a := range p.UDP.GetListenAddresses() {
			u := a.(*net.UDPAddr)
			told = append(told, u.IP.String())
			if u.Port != p.UDPPort {
				t.Errorf("%s: %v is not on port %d", tc.name, a, p.UDPPort)
			}
			c, err := p.UDP.GetConn("ufrag-of-"+tc.name, a)
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
				continue
			}
			_ = c.Close()
		}
		if !slices.Equal(told, tc.want) {
			t.Errorf("%s: told %v, want %v", tc.name, told, tc.want)
		}
	}
	if p.Has(netip.MustParseAddr("127.0.0.1")) || !p.Has(netip.MustParseAddr("127.0.0.2")) {
		t.Errorf("in use are %v", p.Local())
	}
	if _, err := p.Attach(Link{Local: netip.MustParseAddr("127.0.0.3"), Remote: netip.MustParseAddrPort("127.0.0.9:1")}, true, make(taker, 1)); err != nil {
		t.Errorf("an address that is gone has no socket any more: %v", err)
	}
	if _, err := p.UDP.GetConn("ufrag", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}); err == nil {
		t.Error("a connection on an address that was never there")
	}
}
