package turn

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// forbidden are addresses that nobody reaches, in every form that a client may write them.
var forbidden = map[string]string{
	"unspecified": "0.0.0.0", "this network": "0.1.2.3", "loopback": "127.0.0.9", "private 10": "10.1.2.3", "private 172": "172.31.0.1", "private 192": "192.168.0.1",
	"link-local": "169.254.1.1", "metadata": "169.254.169.254", "metadata of another cloud": "168.63.129.16", "shared (CGNAT)": "100.64.0.1", "metadata in shared": "100.100.100.200",
	"protocol assignments": "192.0.0.192", "documentation": "203.0.113.1", "6to4 relay": "192.88.99.1", "benchmarks": "198.18.0.1", "multicast": "224.0.0.251", "reserved": "240.0.0.1", "broadcast": "255.255.255.255",

	"unspecified v6": "::", "loopback, compatible": "::127.0.0.1", "public, compatible": "::8.8.8.8", "discard": "100::1",
	"mapped public": "::ffff:8.8.8.8", "mapped loopback": "::ffff:127.0.0.1", "mapped private": "::ffff:10.0.0.1", "mapped metadata": "::ffff:169.254.169.254",
	"NAT64 public": "64:ff9b::808:808", "NAT64 private": "64:ff9b::a00:1", "NAT64 local": "64:ff9b:1::a00:1", "6to4 public": "2002:808:808::1", "6to4 private": "2002:a00:1::1", "Teredo": "2001::1",
	"link-local v6": "fe80::1", "site-local": "fec0::1", "unique local": "fc00::1", "metadata v6": "fd00:ec2::254", "multicast v6": "ff02::1", "documentation v6": "2001:db8::1", "documentation 2": "3fff::1",
}

// TestPeerAddresses asks for every forbidden address with every request that names a peer, in relays of both families, by both kinds of credentials.
// Addresses that may be reached show that it is not the request that is refused.
func TestPeerAddresses(t *testing.T) {
	for _, tc := range []struct{ host, public string }{{"127.0.0.1", "8.8.8.8"}, {"::1", "2001:4860:4860::8888"}} {
		if l, err := net.ListenPacket("udp", net.JoinHostPort(tc.host, "0")); err != nil {
			t.Logf("not tested on %s: %v", tc.host, err)
			continue
		} else {
			l.Close()
		}
		w := start(t, tc.host, Options{TCP: true, AddressAllocations: 100})
		public := netip.MustParseAddr(tc.public)
		later := time.Now().Add(time.Hour)
		user := w.stream(shared("@alice:example.org", later))
		user.mustAllocate()
		call := w.udp(w.Credential("PA_one", time.Now()))
		call.mustAllocate()
		connecting := w.stream(shared("@carol:example.org", later))
		if _, why := connecting.allocateBy(6); why != 0 {
			t.Fatalf("relay over TCP: %d", why)
		}
		requests := map[string]func(netip.Addr) stun.ErrorCode{
			"permission": user.permit, "permission in a call": call.permit,
			"channel":               func(peer netip.Addr) stun.ErrorCode { return user.bind(0x4000, netip.AddrPortFrom(peer, 4000)) },
			"channel in a call":     func(peer netip.Addr) stun.ErrorCode { return call.bind(0x4000, netip.AddrPortFrom(peer, 4000)) },
			"permission to connect": connecting.permit,
			"connect": func(peer netip.Addr) stun.ErrorCode {
				return code(connecting.ask(stun.MethodConnect, peerAddress(netip.AddrPortFrom(peer, 4000))))
			},
		}
		for request, ask := range requests {
			for form, address := range forbidden {
				if got := ask(netip.MustParseAddr(address)); got <= 0 {
					t.Errorf("on %s, %s to %s (%s): answered %d, want a refusal", tc.host, request, address, form, got)
				}
			}
		}
		if got := [...]stun.ErrorCode{user.permit(public), connecting.permit(public), user.bind(0x4000, netip.AddrPortFrom(public, 4000))}; got != [3]stun.ErrorCode{} {
			t.Errorf("on %s, to %s: %d, want no refusal", tc.host, public, got)
		}
		if got := call.permit(public); got != stun.CodeForbidden {
			t.Errorf("on %s, a call to %s: %d, want %d", tc.host, public, got, stun.CodeForbidden)
		}
		if got := call.permit(netip.MustParseAddr(tc.host)); got != 0 {
			t.Errorf("on %s, a call to our media: %d", tc.host, got)
		}
		for form, address := range forbidden { // none of them has a permission, so nothing is sent
			user.say(netip.AddrPortFrom(netip.MustParseAddr(address), 4000), form)
		}
		if got := w.Stats(); got.Kinds["homeserver"].Up.Packets != 0 || got.Refused["peer_address"] == 0 {
			t.Errorf("on %s: %+v", tc.host, got)
		}
	}
}

// TestForbiddenPorts sends to ports of addresses that are permitted, by indication and channel, and connects to them: what else runs on this host,
// and low ports outside, get nothing.
func TestForbiddenPorts(t *testing.T) {
	w := start(t, host, Options{Peers: allowed, TCP: true})
	media := addrPort(w.media.LocalAddr())
	services := map[string]*net.UDPConn{"admin": socket(t, host), "http": socket(t, host), "homeserver": socket(t, host)}
	later := time.Now().Add(time.Hour)
	peer := socket(t, other)
	for name, tc := range map[string]struct {
		caller *caller
		good   *net.UDPConn
	}{
		"call": {w.udp(w.Credential("PA_one", time.Now())), w.media}, "user": {w.udp(shared("@alice:example.org", later)), peer},
	} {
		t.Run(name, func(t *testing.T) {
			c := tc.caller
			relay := c.mustAllocate()
			if got := c.permit(media.Addr()); got != 0 {
				t.Fatalf("permission for our own address: %d", got)
			}
			bad := map[string]netip.AddrPort{"the relay itself": w.at, "ourselves over TCP": w.tcp}
			for service, s := range services {
				bad[service] = addrPort(s.LocalAddr())
			}
			before, channel := w.Stats().Refused["peer_port"], uint16(0x4000)
			for what, at := range bad {
				if got := c.bind(channel, at); got != 0 {
					t.Fatalf("channel to %s: %d", what, got)
				}
				c.tell(channel, what)
				c.say(at, what)
				channel++
			}
			good := addrPort(tc.good.LocalAddr())
			if got := c.bind(channel, good); got != 0 {
				t.Fatalf("channel to the right port: %d", got)
			}
			c.tell(channel, "right")
			if text, _ := reads(t, tc.good); text != "right" {
				t.Errorf("got %q", text)
			}
			for service, s := range services {
				if !quiet(t, s) {
					t.Errorf("%s was reached", service)
				}
				_, _ = s.WriteToUDPAddrPort([]byte("from "+service), relay) // whoever it is may not be heard, either
			}
			if got := w.Stats().Refused["peer_port"] - before; got != uint64(2*len(bad)) {
				t.Errorf("%d counted as refused, want %d", got, 2*len(bad))
			}
			_, _ = tc.good.WriteToUDPAddrPort([]byte("right"), relay)
			if text, _, _ := c.hears(); text != "right" {
				t.Errorf("heard %q", text)
			}
		})
	}
	t.Run("low port", func(t *testing.T) {
		if _, _, ok := w.reach(homeservers, netip.MustParseAddrPort("8.8.8.8:53"), false); ok {
			t.Error("a name server can be asked")
		}
		if _, ok := w.hears(homeservers, netip.MustParseAddrPort("8.8.8.8:53"), false); ok {
			t.Error("a name server can be heard")
		}
	})
	t.Run("connect", func(t *testing.T) {
		c := w.stream(shared("@carol:example.org", later))
		if _, why := c.allocateBy(6); why != 0 {
			t.Fatalf("relay over TCP: %d", why)
		}
		for _, at := range []string{host, other} {
			l, err := net.Listen("tcp", at+":0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			want := stun.CodeConnTimeoutOrFailure
			if at == other {
				want = 0
			}
			if got := code(c.ask(stun.MethodConnect, peerAddress(addrPort(l.Addr())))); got != want {
				t.Errorf("connect to %s: %d, want %d", l.Addr(), got, want)
			}
		}
	})
}

// Relays reach relays of the same kind only: one of a call is heard by our media alone.
func TestRelaysOfTwoKinds(t *testing.T) {
	w := start(t, host, Options{})
	user, call := w.udp(shared("@alice:example.org", time.Now().Add(time.Hour))), w.udp(w.Credential("PA_one", time.Now()))
	from, to := user.mustAllocate(), call.mustAllocate()
	if got := [2]stun.ErrorCode{user.permit(to.Addr()), call.permit(from.Addr())}; got != [2]stun.ErrorCode{} {
		t.Fatalf("permissions: %d", got)
	}
	user.say(to, "hello")
	call.say(from, "hello")
	if got := code(user.ask(stun.MethodRefresh)) + code(call.ask(stun.MethodRefresh)); got != 0 { // what was sent before has been dealt with
		t.Fatalf("refresh: %d", got)
	}
	if got := w.Stats(); got.Refused["peer_port"] != 2 || got.Kinds["join"].Up.Packets+got.Kinds["homeserver"].Up.Packets != 0 {
		t.Errorf("%+v", got)
	}
}
