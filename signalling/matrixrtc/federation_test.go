package matrixrtc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// network is a loopback server that stands for all hosts of the internet that a test names, with a certificate
// authority of its own. Connections to anything else go through the real dialers and their address check.
type network struct {
	addr string // host:port of the server
	port string
	cas  *x509.CertPool

	mu    sync.Mutex
	hosts map[string]bool
	calls []string // what was dialled, in order
	conns int      // connections that reached the server
}

func newNetwork(t *testing.T, a *Authoriser, h http.Handler) *network {
	t.Helper()
	n := &network{hosts: make(map[string]bool)}
	server := httptest.NewUnstartedServer(h)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			n.mu.Lock()
			n.conns++
			n.mu.Unlock()
		}
	}
	server.Config.ErrorLog = nil
	server.TLS, n.cas = certificate(t, "example.com", "*.example.com", "localhost", "127.0.0.1")
	server.StartTLS()
	t.Cleanup(server.Close)
	n.addr = server.Listener.Addr().String()
	_, n.port, _ = net.SplitHostPort(n.addr)
	if a != nil {
		n.install(a)
	}
	return n
}

// install lets both lanes of an Authoriser reach the network, and trust its certificates.
func (n *network) install(a *Authoriser) {
	for _, l := range []*lane{a.directory.trusted, a.directory.open} {
		real := l.dial
		l.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			n.mu.Lock()
			n.calls = append(n.calls, address)
			known := n.hosts[address]
			n.mu.Unlock()
			if known {
				return (&net.Dialer{}).DialContext(ctx, network, n.addr)
			}
			return real(ctx, network, address)
		}
		for _, c := range []*http.Client{l.direct, l.routed} {
			c.Transport.(*http.Transport).TLSClientConfig.RootCAs = n.cas
		}
	}
}

// public makes addresses, as host:port, reach the server as if they were public.
func (n *network) public(addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addresses {
		n.hosts[a] = true
	}
}

func (n *network) dialled() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.calls...)
}

// dialledPublic counts the dialled addresses that the test declared public.
func (n *network) dialledPublic() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for _, address := range n.calls {
		if n.hosts[address] {
			count++
		}
	}
	return count
}

// reached counts the connections that the server accepted.
func (n *network) reached() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conns
}

// certificate makes an authority and a certificate by it for the names.
func certificate(t *testing.T, names ...string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	parsed := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, authority, authority, key.Public(), key))))
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	der := must(x509.CreateCertificate(rand.Reader, leaf, parsed, key.Public(), key))
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func bodyFor(server, token string) string {
	return edit(sfuGetBody(token), func(b map[string]any) {
		b["openid_token"].(map[string]any)["matrix_server_name"] = server
	})
}

// The real way, with nothing replaced: a configured homeserver at localhost:PORT behind an authority of its own.
func TestConfiguredHomeserverOnLoopback(t *testing.T) {
	hs := &vouching{users: map[string]string{}}
	n := newNetwork(t, nil, hs)
	name := "localhost:" + n.port
	hs.users["T"] = "@alice:" + name
	w := newWorld(t, func(o *Options) {
		o.Homeservers = []Homeserver{{ServerName: name, Unverified: true}}
		o.RootCAs = n.cas
	})
	g, _ := w.granted(t, w.do(t, "POST", "/sfu/get", bodyFor(name, "T")))
	if want := "@alice:" + name + ":DEVICE"; g.Identity != want {
		t.Errorf("identity is %q, want %q", g.Identity, want)
	}
	w.granted(t, w.do(t, "POST", "/sfu/get", bodyFor(name, "T")))
	if n.reached() != 1 {
		t.Errorf("two lookups took %d connections, want one", n.reached())
	}
}

func TestUntrustedCertificate(t *testing.T) {
	hs := &vouching{users: map[string]string{}}
	n := newNetwork(t, nil, hs)
	name := "localhost:" + n.port
	hs.users["T"] = "@alice:" + name
	w := newWorld(t, func(o *Options) {
		o.Homeservers = []Homeserver{{ServerName: name, Unverified: true}}
		o.RootCAs = x509.NewCertPool()
	})
	expect(t, w.do(t, "POST", "/sfu/get", bodyFor(name, "T")), 401, "M_UNAUTHORIZED")
	if hs.requests() != 0 {
		t.Error("the token went to a server without a trusted certificate")
	}
}

// web is a hostile or ordinary public server: a well-known document, or a redirect, and user infos.
type web struct {
	vouching
	site
}

type site struct {
	delegate string // m.server
	redirect string // of the well-known document
	userinfo string // redirect of the user info
	garbage  string // in place of the well-known document
}

func (s *web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == pathUserInfo && s.userinfo != "":
		http.Redirect(w, r, s.userinfo, http.StatusFound)
	case r.URL.Path != "/.well-known/matrix/server":
		s.vouching.ServeHTTP(w, r)
	case s.redirect != "":
		http.Redirect(w, r, s.redirect, http.StatusFound)
	case s.garbage != "":
		_, _ = io.WriteString(w, s.garbage)
	case s.delegate != "":
		_, _ = io.WriteString(w, `{"m.server":"`+s.delegate+`"}`)
	default:
		http.NotFound(w, r)
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
			w := newWorld(t, func(o *Options) {
				o.Remote = RemoteSubscribe
				o.Resolver = testDNS(t)
			})
			w.calls.hold("@alice:example.org")
			n := newNetwork(t, w.Authoriser, s)
			n.public(c.public...)
			rec := w.do(t, "POST", "/sfu/get", bodyFor(c.server, "T"))
			g, _ := w.granted(t, rec)
			if want := "@alice:" + c.server + ":DEVICE"; g.Identity != want {
				t.Errorf("identity is %q, want %q", g.Identity, want)
			}
			if got := s.hosts[len(s.hosts)-1]; got != c.host {
				t.Errorf("user info was asked of host %q, want %q; dialled %q", got, c.host, n.dialled())
			}
			before := len(n.dialled())
			w.granted(t, w.do(t, "POST", "/sfu/get", bodyFor(c.server, "T")))
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
			w := newWorld(t, func(o *Options) {
				o.Remote = RemoteSubscribe
				o.Resolver = testDNS(t)
			})
			n := newNetwork(t, w.Authoriser, s)
			n.public("example.com:443", "example.com:1234")
			put := func(text string) string { return strings.ReplaceAll(text, "PORT", n.port) }
			s.delegate, s.redirect, s.userinfo = put(s.delegate), put(s.redirect), put(s.userinfo)
			server := put(c.server)
			s.users = map[string]string{"T": "@alice:" + server}
			for range 2 { // names may lead elsewhere the second time
				expect(t, w.do(t, "POST", "/sfu/get", bodyFor(server, "T")), 401, "M_UNAUTHORIZED")
				w.now = w.now.Add(silentLife)
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
	w := newWorld(t, func(o *Options) {
		o.Remote = RemoteSubscribe
		o.Resolver = testDNS(t)
		o.Homeservers = []Homeserver{{ServerName: inside, Unverified: true}}
	})
	n.install(w.Authoriser)
	n.public("example.com:443")
	w.granted(t, w.do(t, "POST", "/sfu/get", bodyFor(inside, "T")))
	expect(t, w.do(t, "POST", "/sfu/get", bodyFor("example.com", "E")), 401, "M_UNAUTHORIZED")
	if s.requests() != 1 {
		t.Errorf("user info was asked %d times, want only for the configured homeserver", s.requests())
	}
}

func TestInvalidServerNames(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Remote = RemoteSubscribe; o.Resolver = testDNS(t) })
	n := newNetwork(t, w.Authoriser, &vouching{users: tokens})
	for _, name := range []string{
		"example.com/path", "example.com?x", "user@example.com", "example.com#", "exa mple.com", "http://example.com",
		"[::1", "::1", "example.com:99999", "example.com:-1", "example.com:http", "[fe80::1%lo]", strings.Repeat("a", 256), "é.example.com",
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, w.do(t, "POST", "/sfu/get", bodyFor(name, "T")), 401, "M_UNAUTHORIZED")
		})
	}
	if len(n.dialled()) > 0 {
		t.Errorf("dialled %q for names that are none", n.dialled())
	}
}

func TestErrorsHideTheToken(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Resolver = testDNS(t) })
	w.directory.trusted.direct.Timeout = 0
	for _, h := range []Homeserver{
		{},
		{ServerName: "example.org"},
		{ServerName: "example.org", Federation: "http://127.0.0.1:1"},
	} {
		_, err := w.directory.user(t.Context(), openIDToken{AccessToken: "SECRET", ServerName: "localhost:1"}, h, w.now)
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("with %+v the error is: %v", h, err)
		}
	}
}

func TestSilentServerIsLeftAlone(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Remote = RemoteSubscribe; o.Resolver = testDNS(t) })
	n := newNetwork(t, w.Authoriser, &vouching{})
	for range 2 {
		expect(t, w.do(t, "POST", "/sfu/get", bodyFor("127.0.0.1:1", "T")), 401, "M_UNAUTHORIZED")
	}
	if got := len(n.dialled()); got != 1 {
		t.Errorf("dialled %d times, want once", got)
	}
	w.now = w.now.Add(silentLife)
	expect(t, w.do(t, "POST", "/sfu/get", bodyFor("127.0.0.1:1", "T")), 401, "M_UNAUTHORIZED")
	if got := len(n.dialled()); got != 2 {
		t.Errorf("dialled %d times after a while, want twice", got)
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
	if err := publicOnly(t.Context(), "tcp4", "127.0.0.1:80", nil); !errors.Is(err, errPrivate) {
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
			w := newWorld(t, func(o *Options) {
				o.Homeservers = []Homeserver{{ServerName: "example.org", Federation: slow.URL}}
			})
			w.directory.timeout = 20 * time.Millisecond
			expect(t, w.do(t, "POST", "/sfu/get", sfuGetBody("T")), 401, "M_UNAUTHORIZED")
			if s := w.Stats(); s.LookupFailures != 1 {
				t.Errorf("counted %+v", s)
			}
		})
	}
}

// Everybody joins at once: the homeserver is looked for once.
func TestCrowd(t *testing.T) {
	s := &web{}
	s.users = map[string]string{"T": "@alice:example.com"}
	w := newWorld(t, func(o *Options) {
		o.Homeservers = []Homeserver{{ServerName: "example.com", Unverified: true}}
		o.Resolver = testDNS(t)
	})
	n := newNetwork(t, w.Authoriser, s)
	n.public("example.com:443", "example.com:8448")
	var crowd sync.WaitGroup
	var answers [50]*httptest.ResponseRecorder
	for i := range answers {
		crowd.Go(func() { answers[i] = w.do(t, "POST", "/sfu/get", bodyFor("example.com", "T")) })
	}
	crowd.Wait()
	for _, rec := range answers {
		w.granted(t, rec)
	}
	wellKnown := 0
	for _, address := range n.dialled() {
		if address == "example.com:443" {
			wellKnown++
		}
	}
	if wellKnown != 1 || w.Stats().Tokens != 50 {
		t.Errorf("discovery was made %d times for %d tokens", wellKnown, w.Stats().Tokens)
	}
}
