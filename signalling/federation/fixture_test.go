package federation

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// newDirectory has the names of testDNS.
func newDirectory(t *testing.T, o Options) *Directory {
	t.Helper()
	if o.Resolver == nil {
		o.Resolver = testDNS(t)
	}
	d := New(o)
	t.Cleanup(d.Close)
	return d
}

// vouching answers about OpenID tokens: whoever holds the token T is its entry under T; an entry that is no user id
// is the whole answer.
type vouching struct {
	users map[string]string

	mu    sync.Mutex
	asked int
	hosts []string
}

func (h *vouching) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.asked++
	h.hosts = append(h.hosts, r.Host)
	h.mu.Unlock()
	user, known := h.users[r.URL.Query().Get("access_token")]
	switch {
	case r.URL.Path != pathUserInfo:
		http.NotFound(w, r)
	case !known:
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errcode":"M_UNKNOWN_TOKEN","error":"no"}`)
	case strings.HasPrefix(user, "@"):
		_ = json.NewEncoder(w).Encode(map[string]string{"sub": user})
	default:
		_, _ = io.WriteString(w, user)
	}
}

func (h *vouching) requests() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// alice's token is T; the others are what hostile homeservers answer.
var tokens = map[string]string{
	"T":           "@alice:example.org",
	"foreign":     "@alice:example.com",
	"subdomain":   "@alice:sub.example.org",
	"case":        "@alice:Example.org",
	"port":        "@alice:example.org:8448",
	"two domains": "@alice:example.com:example.org",
	"no domain":   "@alice",
	"no local":    "@:example.org",
	"control":     "@al\nice:example.org",
	"long":        "@" + strings.Repeat("a", 255) + ":example.org",
	"no sigil":    `{"sub":"alice:example.org"}`,
	"number":      `{"sub":5}`,
	"array":       `[]`,
	"no sub":      `{}`,
	"not JSON":    `<html>`,
	"huge":        `{"sub":"@alice:example.org","x":"` + strings.Repeat("x", maxAnswer) + `"}`,
	"é/+":         "@é:example.org",
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

func newNetwork(t *testing.T, d *Directory, h http.Handler) *network {
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
	if d != nil {
		n.install(d)
	}
	return n
}

// install lets both lanes of a Directory reach the network, and trust its certificates.
func (n *network) install(d *Directory) {
	for _, l := range []*lane{d.trusted, d.open} {
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
