package matrixrtc

import (
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// The limits of the sample configuration.
var usual = Requests{Address: 3000, User: 120, Server: 6000}

func TestLimitOfAddress(t *testing.T) {
	now := time.Unix(0, 0)
	cases := []struct {
		name, first, second string
		shared              bool
	}{
		{"same v4", "8.8.8.8", "8.8.8.8", true},
		{"other v4", "8.8.8.8", "8.8.8.9", false},
		{"same /64", "2606:4700::1", "2606:4700::ffff:2", true},
		{"other /64", "2606:4700::1", "2606:4700:0:1::1", false},
		{"same link-local", "fe80::1%eth0", "fe80::2%eth1", true},
		{"loopback is the proxy", "127.0.0.1", "127.0.0.1", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := newLimits(usual)
			for range usual.Address {
				if err := l.ofAddress(netip.MustParseAddr(c.first), now); err != nil {
					t.Fatalf("%v within the minute", err)
				}
			}
			if err := l.ofAddress(netip.MustParseAddr(c.second), now); (err != nil) != c.shared {
				t.Errorf("after a minute's requests from %s, %s meets %v; limited: want %t", c.first, c.second, err, c.shared)
			}
		})
	}
	l := newLimits(usual)
	if err := l.ofAddress(netip.Addr{}, now); err != nil {
		t.Errorf("without an address: %v", err)
	}
}

func TestLimiterIsBounded(t *testing.T) {
	l, now := newLimiter[netip.Addr](3000), time.Unix(0, 0)
	addr := netip.MustParseAddr("8.0.0.0")
	for range 3 * limitKeys {
		l.take(addr, now)
		addr = addr.Next()
	}
	if got := len(l.buckets); got > limitKeys {
		t.Errorf("remembers %d addresses, at most %d", got, limitKeys)
	}
	for i := range limitKeys {
		l.take(addr, now.Add(time.Duration(i)*time.Second))
		addr = addr.Next()
	}
	if got := len(l.buckets); got > limitKeys {
		t.Errorf("remembers %d addresses later, at most %d", got, limitKeys)
	}
}

func TestRateLimitOfAnAddress(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Requests = usual })
	for i := range usual.Address {
		if rec := w.do(t, "POST", "/sfu/get", "{}"); rec.Code != 400 {
			t.Fatalf("request %d of the minute is answered %d", i, rec.Code)
		}
	}
	rec := w.do(t, "POST", "/sfu/get", sfuGetBody("T"))
	expect(t, rec, 429, "M_LIMIT_EXCEEDED")
	if rec.Header().Get("Retry-After") != "1" || !strings.Contains(rec.Body.String(), `"retry_after_ms":20`) {
		t.Errorf("429 says Retry-After %q and %s", rec.Header().Get("Retry-After"), rec.Body)
	}
	w.now = w.now.Add(20 * time.Millisecond)
	w.granted(t, w.do(t, "POST", "/sfu/get", sfuGetBody("T")))
}

// One user may not use up what a homeserver's users have together, and neither is used up by who cannot prove anything.
func TestRateLimitOfUsersAndServers(t *testing.T) {
	users := map[string]string{"A": "@alice:example.org", "B": "@bob:example.org", "C": "@carol:example.org"}
	w := newWorld(t, func(o *Options) { o.Requests = Requests{User: 8, Server: 20} })
	w.hs.users = users
	ask := func(token string) *httptest.ResponseRecorder { return w.do(t, "POST", "/sfu/get", sfuGetBody(token)) }
	for range 100 {
		expect(t, ask("nobody's"), 401, "M_UNAUTHORIZED")
	}
	for range 8 { // all that a join takes
		w.granted(t, ask("A"))
	}
	rec := ask("A")
	expect(t, rec, 429, "M_LIMIT_EXCEEDED")
	if rec.Header().Get("Retry-After") != "8" {
		t.Errorf("8 a minute: Retry-After %q", rec.Header().Get("Retry-After"))
	}
	for range 8 {
		w.granted(t, ask("B"))
	}
	for range 3 {
		w.granted(t, ask("C"))
	}
	expect(t, ask("C"), 429, "M_LIMIT_EXCEEDED") // example.org's 20, of which alice's refused one is the 9th
	w.now = w.now.Add(time.Minute)
	w.granted(t, ask("C"))
	got := w.Stats()
	if got.RateLimited != 2 || got.Refusals["user"] != 1 || got.Refusals["server"] != 1 || got.Refusals["unvouched"] != 100 {
		t.Errorf("counted %+v", got)
	}
}

// A server that the operator does not know is not asked more often than its limit, whoever says so.
func TestRateLimitBeforeLookups(t *testing.T) {
	remote := &vouching{users: map[string]string{}}
	w := newWorld(t, func(o *Options) { o.Remote = RemoteSubscribe; o.Requests = Requests{Server: 3} })
	name := w.another(t, remote)
	for i := range 3 {
		expect(t, w.do(t, "POST", "/sfu/get", bodyFor(name, "guess"+string(rune('a'+i)))), 401, "M_UNAUTHORIZED")
	}
	expect(t, w.do(t, "POST", "/sfu/get", bodyFor(name, "one more")), 429, "M_LIMIT_EXCEEDED")
	if n := remote.requests(); n != 3 {
		t.Errorf("the server was asked %d times, want 3", n)
	}
}

// An office of 200 behind one address joins at nine, with eight requests each.
func TestAnOfficeJoins(t *testing.T) {
	l, now := newLimits(usual), time.Unix(0, 0)
	for person := range 200 {
		for range 8 {
			user := "@user" + string(rune('a'+person)) + ":example.org"
			for what, err := range map[string]error{
				"address": l.ofAddress(netip.MustParseAddr("8.8.8.8"), now), "server": l.ofServer("example.org", now), "user": l.ofUser(user, now),
			} {
				if err != nil {
					t.Fatalf("person %d meets the limit of the %s: %v", person, what, err)
				}
			}
		}
	}
}

func BenchmarkLimiter(b *testing.B) {
	l, now, addr := newLimiter[netip.Addr](3000), time.Unix(0, 0), netip.MustParseAddr("8.8.8.8")
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		l.take(addr, now)
	}
}
