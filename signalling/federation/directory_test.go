package federation

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// vouches checks that a server vouches for its user alice.
func vouches(t *testing.T, d *Directory, server, token string) {
	t.Helper()
	if got, err := d.User(t.Context(), server, token, start); err != nil || got != "@alice:"+server {
		t.Errorf("%s vouches for %q (%v), want its alice", server, got, err)
	}
}

func refuses(t *testing.T, d *Directory, server, token string, now time.Time) {
	t.Helper()
	if got, err := d.User(t.Context(), server, token, now); err == nil {
		t.Errorf("%s is believed to vouch for %q", server, got)
	}
}

func TestHostileSubjects(t *testing.T) {
	for name := range tokens {
		if name == "T" || name == "é/+" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(&vouching{users: tokens})
			t.Cleanup(server.Close)
			d := newDirectory(t, Options{Servers: []Server{{Name: "example.org", Base: server.URL + "/"}}})
			refuses(t, d, "example.org", name, start)
			if s := d.Stats(); s.Lookups != 1 || s.LookupFailures != 1 {
				t.Errorf("counted %+v", s)
			}
		})
	}
}

// The real way, with nothing replaced: a configured homeserver at localhost:PORT behind an authority of its own.
func TestConfiguredHomeserverOnLoopback(t *testing.T) {
	hs := &vouching{users: map[string]string{}}
	n := newNetwork(t, nil, hs)
	name := "localhost:" + n.port
	hs.users["T"] = "@alice:" + name
	d := newDirectory(t, Options{Servers: []Server{{Name: name}}, RootCAs: n.cas, Resolver: net.DefaultResolver})
	for range 2 {
		vouches(t, d, name, "T")
	}
	if n.reached() != 1 {
		t.Errorf("two lookups took %d connections, want one", n.reached())
	}
}

func TestUntrustedCertificate(t *testing.T) {
	hs := &vouching{users: map[string]string{}}
	n := newNetwork(t, nil, hs)
	name := "localhost:" + n.port
	hs.users["T"] = "@alice:" + name
	d := newDirectory(t, Options{Servers: []Server{{Name: name}}, RootCAs: x509.NewCertPool(), Resolver: net.DefaultResolver})
	refuses(t, d, name, "T", start)
	if hs.requests() != 0 {
		t.Error("the token went to a server without a trusted certificate")
	}
}

func TestDiscovery(t *testing.T) {
	cases := []struct {
		name   string
		server string
		site   site
		public []string
		host   string // Host header of the user info request
	}{
		{"port in the name", "example.com:1234", site{}, []string{"example.com:1234"}, "example.com:1234"},
		{"no well-known, no SRV", "example.com", site{}, []string{"example.com:443", "example.com:8448"}, "example.com"},
		{"well-known with port", "example.com", site{delegate: "matrix.example.com:443"}, []string{"example.com:443", "matrix.example.com:443"}, "matrix.example.com:443"},
		{"well-known without port", "example.com", site{delegate: "matrix.example.com"}, []string{"example.com:443", "matrix.example.com:8448"}, "matrix.example.com"},
		{"well-known unreachable", "example.com", site{}, []string{"example.com:8448"}, "example.com"},
		{"well-known is garbage", "example.com", site{garbage: "<html>"}, []string{"example.com:443", "example.com:8448"}, "example.com"},
		{"well-known redirected", "example.com", site{redirect: "https://www.example.com/m"}, []string{"example.com:443", "www.example.com:443", "example.com:8448"}, "example.com"},
		{"SRV", "srv.example.com", site{}, []string{"target.example.com:9999"}, "srv.example.com"},
		{"older SRV", "old.example.com", site{}, []string{"target.example.com:9999"}, "old.example.com"},
		{"second of two SRV", "two.example.com", site{}, []string{"target.example.com:9999"}, "two.example.com"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := &web{site: c.site}
			s.users = map[string]string{"T": "@alice:" + c.server}
			d := newDirectory(t, Options{})
			n := newNetwork(t, d, s)
			n.public(c.public...)
			vouches(t, d, c.server, "T")
			if got := s.hosts[len(s.hosts)-1]; got != c.host {
				t.Errorf("user info was asked of host %q, want %q; dialled %q", got, c.host, n.dialled())
			}
			before := len(n.dialled())
			vouches(t, d, c.server, "T")
			if after := len(n.dialled()); after != before {
				t.Errorf("the second lookup dialled %q", n.dialled()[before:])
			}
		})
	}
}

// A token request must not make this server knock at doors inside.
func TestPrivateTargets(t *testing.T) {
	cases := []struct {
		name, server string
		site         site
	}{
		{"loopback", "127.0.0.1:PORT", site{}},
		{"loopback elsewhere", "127.1.2.3:PORT", site{}},
		{"loopback, default port", "127.0.0.1", site{}},
		{"unspecified", "0.0.0.0:PORT", site{}},
		{"private", "10.0.0.1:22", site{}},
		{"private 172", "172.16.0.1:22", site{}},
		{"private 192", "192.168.1.1:22", site{}},
		{"link-local, cloud metadata", "169.254.169.254:80", site{}},
		{"carrier NAT", "100.64.0.1:80", site{}},
		{"loopback v6", "[::1]:PORT", site{}},
		{"unspecified v6", "[::]:PORT", site{}},
		{"unique local v6", "[fd00::1]:PORT", site{}},
		{"link-local v6", "[fe80::1]:PORT", site{}},
		{"v4-mapped", "[::ffff:127.0.0.1]:PORT", site{}},
		{"v4-mapped in hex", "[::ffff:7f00:1]:PORT", site{}},
		{"v4-compatible", "[::127.0.0.1]:PORT", site{}},
		{"NAT64 of loopback", "[64:ff9b::7f00:1]:PORT", site{}},
		{"6to4 of loopback", "[2002:7f00:1::]:PORT", site{}},
		{"localhost", "localhost:PORT", site{}},
		{"a name of loopback", "inside.example.com:PORT", site{}},
		{"a name that changes to loopback", "rebinding.example.com:PORT", site{}},
		{"well-known redirects inside", "example.com", site{redirect: "https://127.0.0.1:PORT/.well-known/matrix/server"}},
		{"well-known redirects to plain http", "example.com", site{redirect: "http://127.0.0.1:PORT/.well-known/matrix/server"}},
		{"well-known delegates inside", "example.com", site{delegate: "127.0.0.1:PORT"}},
		{"well-known delegates to a name of loopback", "example.com", site{delegate: "inside.example.com:PORT"}},
		{"well-known delegates to localhost", "example.com", site{delegate: "localhost:PORT"}},
		{"well-known names a path", "example.com", site{delegate: "localhost:PORT/a"}},
		{"SRV leads inside", "srv-inside.example.com", site{}},
		{"user info redirects inside", "example.com:1234", site{userinfo: "https://127.0.0.1:PORT" + pathUserInfo + "?access_token=T"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := &web{site: c.site}
			d := newDirectory(t, Options{})
			n := newNetwork(t, d, s)
			n.public("example.com:443", "example.com:1234")
			put := func(text string) string { return strings.ReplaceAll(text, "PORT", n.port) }
			s.delegate, s.redirect, s.userinfo = put(s.delegate), put(s.redirect), put(s.userinfo)
			server := put(c.server)
			s.users = map[string]string{"T": "@alice:" + server}
			for i := range 2 { // names may lead elsewhere the second time
				refuses(t, d, server, "T", start.Add(time.Duration(i)*silentLife))
			}
			if s.requests() != 0 {
				t.Errorf("user info was asked inside; dialled %q", n.dialled())
			}
			if inside := n.reached() - n.dialledPublic(); inside > 0 {
				t.Errorf("%d connections inside; dialled %q", inside, n.dialled())
			}
		})
	}
}

// A connection made for a configured homeserver inside must not serve a stranger who delegates to the same host.
func TestStrangerCannotUseTheInsideConnection(t *testing.T) {
	s := &web{}
	n := newNetwork(t, nil, s)
	inside := "localhost:" + n.port
	s.delegate = inside
	s.users = map[string]string{"T": "@alice:" + inside, "E": "@eve:example.com"}
	d := newDirectory(t, Options{Servers: []Server{{Name: inside}}})
	n.install(d)
	n.public("example.com:443")
	vouches(t, d, inside, "T")
	refuses(t, d, "example.com", "E", start)
	if s.requests() != 1 {
		t.Errorf("user info was asked %d times, want only for the configured homeserver", s.requests())
	}
}

func TestInvalidServerNames(t *testing.T) {
	d := newDirectory(t, Options{})
	n := newNetwork(t, d, &vouching{users: tokens})
	for _, name := range []string{
		"example.com/path", "example.com?x", "user@example.com", "example.com#", "exa mple.com", "http://example.com",
		"[::1", "::1", "example.com:99999", "example.com:-1", "example.com:http", "[fe80::1%lo]", strings.Repeat("a", 256), "é.example.com",
	} {
		t.Run(name, func(t *testing.T) {
			refuses(t, d, name, "T", start)
		})
	}
	if len(n.dialled()) > 0 {
		t.Errorf("dialled %q for names that are none", n.dialled())
	}
}

func TestErrorsHideTheToken(t *testing.T) {
	for _, servers := range [][]Server{nil, {{Name: "localhost:1"}}, {{Name: "localhost:1", Base: "http://127.0.0.1:1"}}} {
		d := newDirectory(t, Options{Servers: servers, Resolver: net.DefaultResolver})
		_, err := d.User(t.Context(), "localhost:1", "SECRET", start)
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("with %+v the error is: %v", servers, err)
		}
	}
}

func TestSilentServerIsLeftAlone(t *testing.T) {
	d := newDirectory(t, Options{})
	n := newNetwork(t, d, &vouching{})
	for range 2 {
		refuses(t, d, "127.0.0.1:1", "T", start)
	}
	if got := len(n.dialled()); got != 1 {
		t.Errorf("dialled %d times, want once", got)
	}
	refuses(t, d, "127.0.0.1:1", "T", start.Add(silentLife))
	if got := len(n.dialled()); got != 2 {
		t.Errorf("dialled %d times after a while, want twice", got)
	}
}

// A network that the operator named is reached, and no other.
func TestPrivateNetworks(t *testing.T) {
	hs := &vouching{users: map[string]string{}}
	n := newNetwork(t, nil, hs)
	name := "127.0.0.1:" + n.port
	hs.users["T"] = "@alice:" + name
	inside := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	vouches(t, newDirectory(t, Options{Private: inside, RootCAs: n.cas}), name, "T")
	other := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	refuses(t, newDirectory(t, Options{Private: other, RootCAs: n.cas}), name, "T", start)
	if n.reached() != 1 {
		t.Errorf("%d connections reached the server, want only the allowed one", n.reached())
	}
}

func TestPublic(t *testing.T) {
	for address, want := range map[string]bool{
		"8.8.8.8": true, "::ffff:8.8.8.8": true, "2606:4700::1": true, "64:ff9b::808:808": true, "172.32.0.1": true, "100.128.0.1": true,
		"255.255.255.255": false, "224.0.0.1": false, "198.18.0.1": false, "ff02::1": false, "2001:db8::1": false, "2001::1": false,
		"::": false, "2606:4700::1%eth0": false, "fec0::1": false, "192.0.0.8": false,
	} {
		if got := public(netip.MustParseAddr(address)); got != want {
			t.Errorf("public(%s) = %t, want %t", address, got, want)
		}
	}
	if public(netip.Addr{}) {
		t.Error("no address is public")
	}
	if err := (guard{}).check(t.Context(), "tcp4", "127.0.0.1:80", nil); !errors.Is(err, errPrivate) {
		t.Errorf("dialling loopback: %v, want %v", err, errPrivate)
	}
}

func TestSlowHomeserver(t *testing.T) {
	for name, headers := range map[string]bool{"silent": false, "stops in the middle": true} {
		t.Run(name, func(t *testing.T) {
			slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if headers {
					_, _ = io.WriteString(w, `{"sub":`)
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
			}))
			t.Cleanup(slow.Close)
			d := newDirectory(t, Options{Servers: []Server{{Name: "example.org", Base: slow.URL}}})
			d.timeout = 20 * time.Millisecond
			refuses(t, d, "example.org", "T", start)
			if s := d.Stats(); s.LookupFailures != 1 {
				t.Errorf("counted %+v", s)
			}
		})
	}
}

// Everybody joins at once: the homeserver is looked for once.
func TestCrowd(t *testing.T) {
	s := &web{}
	s.users = map[string]string{"T": "@alice:example.com"}
	d := newDirectory(t, Options{Servers: []Server{{Name: "example.com"}}})
	n := newNetwork(t, d, s)
	n.public("example.com:443", "example.com:8448")
	var crowd sync.WaitGroup
	for range 50 {
		crowd.Go(func() { vouches(t, d, "example.com", "T") })
	}
	crowd.Wait()
	wellKnown := 0
	for _, address := range n.dialled() {
		if address == "example.com:443" {
			wellKnown++
		}
	}
	if wellKnown != 1 || d.Stats().Lookups != 50 {
		t.Errorf("discovery was made %d times for %d lookups", wellKnown, d.Stats().Lookups)
	}
}
