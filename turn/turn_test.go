package turn

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

const (
	host  = "127.0.0.1"
	other = "127.0.0.2" // somebody else's, as far as the relay knows
)

var allowed = []netip.Prefix{netip.MustParsePrefix(other + "/32")}

// A client of a call talks with our media, by indications and by a channel, over UDP and TCP; and so does a user of a homeserver, whose call may be
// bridged into one that is held here.
func TestReachesMedia(t *testing.T) {
	w := start(t, host, Options{})
	later := time.Now().Add(time.Hour)
	media := addrPort(w.media.LocalAddr())
	for name, c := range map[string]*caller{
		"udp": w.udp(w.Credential("PA_one", time.Now())), "tcp": w.stream(w.Credential("PA_two", time.Now())),
		"user over udp": w.udp(shared("@alice:example.org", later)), "user over tcp": w.stream(shared("@bob:example.org", later)),
	} {
		t.Run(name, func(t *testing.T) {
			relay := c.mustAllocate()
			if got := c.permit(media.Addr()); got != 0 {
				t.Fatalf("permission: %d", got)
			}
			c.say(media, "up")
			if text, from := reads(t, w.media); text != "up" || from != relay {
				t.Errorf("media got %q from %s, want %q from %s", text, from, "up", relay)
			}
			_, _ = w.media.WriteToUDPAddrPort([]byte("down"), relay)
			if text, from, _ := c.hears(); text != "down" || from != media {
				t.Errorf("got %q from %s", text, from)
			}
			if got := c.bind(0x4000, media); got != 0 {
				t.Fatalf("channel: %d", got)
			}
			c.tell(0x4000, strings.Repeat("u", 1201))
			if text, _ := reads(t, w.media); len(text) != 1201 {
				t.Errorf("media got %d bytes by channel", len(text))
			}
			_, _ = w.media.WriteToUDPAddrPort([]byte("downwards"), relay)
			if text, _, channel := c.hears(); text != "downwards" || channel != 0x4000 {
				t.Errorf("got %q by channel %#x", text, channel)
			}
		})
	}
	s := w.Stats()
	for _, kind := range []string{"join", "homeserver"} {
		if got := s.Kinds[kind]; got.Allocations != 2 || got.Opened != 2 || got.Up != (Carried{4, 2*1201 + 4}) || got.Down != (Carried{4, 26}) {
			t.Errorf("%s: stats %+v", kind, got)
		}
	}
	if len(s.Users) != 4 || strings.Contains(s.Users[0].User, "PA_") || s.Users[0].Bytes != 1201+2+4+9 {
		t.Errorf("users %+v", s.Users)
	}
}

// Two users of a homeserver talk from relay to relay, and with somebody outside.
func TestHomeserverReachesRelaysAndPeers(t *testing.T) {
	w := start(t, host, Options{Peers: allowed})
	later := time.Now().Add(time.Hour)
	alice, bob := w.udp(shared("@alice:example.org", later)), w.stream(shared("@bob:example.org", later))
	a, b := alice.mustAllocate(), bob.mustAllocate()
	if got := [2]stun.ErrorCode{alice.permit(b.Addr()), bob.permit(a.Addr())}; got != [2]stun.ErrorCode{} {
		t.Fatalf("permissions: %d", got)
	}
	alice.say(b, "hello bob")
	if text, from, _ := bob.hears(); text != "hello bob" || from != a {
		t.Errorf("bob heard %q from %s", text, from)
	}
	bob.say(a, "hello alice")
	if text, from, _ := alice.hears(); text != "hello alice" || from != b {
		t.Errorf("alice heard %q from %s", text, from)
	}
	peer := socket(t, other)
	at := addrPort(peer.LocalAddr())
	if got := alice.bind(0x4001, at); got != 0 {
		t.Fatalf("channel to a peer: %d", got)
	}
	alice.tell(0x4001, "hello")
	if text, from := reads(t, peer); text != "hello" || from != a {
		t.Errorf("the peer got %q from %s", text, from)
	}
	_, _ = peer.WriteToUDPAddrPort([]byte("yes"), a)
	if text, _, channel := alice.hears(); text != "yes" || channel != 0x4001 {
		t.Errorf("alice heard %q by %#x", text, channel)
	}
}

// What media is called outside and where it is are two things behind address translation: a client uses one name for it all the time.
func TestMediaBehindTranslation(t *testing.T) {
	outside := netip.MustParseAddrPort("203.0.113.7:7881")
	inside := netip.MustParseAddrPort("10.9.9.9:7881")
	var media netip.AddrPort
	w := start(t, host, Options{Places: func() []Place { return []Place{{inside, media}, {outside, media}} }})
	media = addrPort(w.media.LocalAddr())
	if err := w.policy.refresh(time.Now()); err != nil {
		t.Fatal(err)
	}
	c := w.udp(w.Credential("PA_one", time.Now()))
	relay := c.mustAllocate()
	if relay.Addr() != inside.Addr() {
		t.Errorf("the relay is told to be at %s", relay)
	}
	for _, name := range []netip.AddrPort{outside, inside} {
		if got := c.permit(name.Addr()); got != 0 {
			t.Fatalf("permission for %s: %d", name, got)
		}
	}
	c.say(outside, "one")
	text, from := reads(t, w.media)
	if text != "one" {
		t.Errorf("media got %q", text)
	}
	c.say(inside, "by another name")
	c.say(outside, "two")
	if text, _ := reads(t, w.media); text != "two" {
		t.Errorf("media got %q", text)
	}
	_, _ = w.media.WriteToUDPAddrPort([]byte("down"), from)
	if text, name, _ := c.hears(); text != "down" || name != outside {
		t.Errorf("heard %q from %s, want the name that was used first", text, name)
	}
}

// Two of our addresses may be behind one public one: their relays have different ports, or clients could not tell them apart.
func TestRelaysBehindOneAddress(t *testing.T) {
	public := netip.MustParseAddrPort("203.0.113.7:7881")
	places := func() []Place {
		return []Place{{public, netip.MustParseAddrPort(host + ":7881")}, {public, netip.MustParseAddrPort(other + ":7881")}}
	}
	w := start(t, host, Options{Places: places, FirstPort: 61000, LastPort: 61001})
	second, err := w.ListenUDP(netip.AddrPortFrom(netip.MustParseAddr(other), 0))
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	one, two := w.udp(shared("@alice:example.org", later)), w.dial("udp", second, shared("@bob:example.org", later))
	if a, b := one.mustAllocate(), two.mustAllocate(); a == b || a.Addr() != public.Addr() || b.Addr() != public.Addr() {
		t.Errorf("relays at %s and %s", a, b)
	}
	if _, got := w.dial("udp", second, shared("@carol:example.org", later)).allocate(); got != stun.CodeInsufficientCapacity {
		t.Errorf("a third one: %d", got)
	}
}
