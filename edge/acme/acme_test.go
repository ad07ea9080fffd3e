package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"callserver/edge"
	"callserver/internal/testnet/pebble"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, pebble.Lingering()...) }

const domain = "call.example.org"

// journal collects what is logged.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// site is a listener that shows the certificates of an issuer.
type site struct {
	issuer   *Issuer
	listener *edge.Listener
	said     *journal
}

// open opens the listener, which goes with the test, as does what run starts.
func open(t *testing.T, listener net.Listener, o Options) *site {
	t.Helper()
	s := &site{said: &journal{}}
	o.Domains, o.Logger = []string{domain}, slog.New(slog.NewTextHandler(s.said, nil))
	o.lookUp = func(context.Context, string) ([]netip.Addr, error) {
		return nil, errors.New("no name server in a test")
	}
	var err error
	if s.issuer, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.issuer.Close)
	_ = listener.Close() // its port is known to the authority
	s.listener, err = edge.Listen(edge.Options{
		Listen: listener.Addr().String(), Handler: http.HandlerFunc(edge.OK), Certificates: edge.Issued(s.issuer.Certificate, Protocol),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run serves, and gets certificates, until stop.
func (s *site) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.listener.Run() })
	running.Go(func() { _ = s.issuer.Run(ctx, s.listener.Addr()) })
	stop = sync.OnceFunc(func() {
		cancel()
		_ = s.listener.Close(context.Background())
		running.Wait()
		s.issuer.Close()
	})
	t.Cleanup(stop)
	return stop
}

// shown waits until a client accepts the certificate that it is shown, and which is not the one before.
func (s *site) shown(t *testing.T, roots *x509.CertPool, before *x509.Certificate) *x509.Certificate {
	t.Helper()
	var last error
	for deadline := time.Now().Add(25 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		c, err := tls.Dial("tcp", s.listener.Addr().String(), &tls.Config{ServerName: domain, RootCAs: roots})
		if last = err; err != nil {
			continue
		}
		leaf := c.ConnectionState().PeerCertificates[0]
		_ = c.Close()
		if before == nil || leaf.SerialNumber.Cmp(before.SerialNumber) != 0 {
			return leaf
		}
	}
	t.Fatalf("no new certificate (%v); said:\n%s", last, s.said)
	return nil
}

// says waits until the log has the text.
func (s *site) says(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(s.said.String(), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not say %q:\n%s", text, s.said)
		}
	}
}

func reserve(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// TestPebbleChallenges gets a certificate by each challenge alone, and shows it after a restart without asking again.
func TestPebbleChallenges(t *testing.T) {
	for _, tc := range []struct {
		name         string
		http, tls    bool // the authority reaches the port
		httpDisabled bool
	}{
		{name: "HTTP-01", http: true},
		{name: "TLS-ALPN-01", tls: true, httpDisabled: true},
		{name: "either", http: true, tls: true},
		{name: "the one that is let through", tls: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			listener, http01 := reserve(t), pebble.FreePort(t)
			po := pebble.Options{HTTPPort: pebble.FreePort(t), TLSPort: pebble.FreePort(t)}
			if tc.http {
				po.HTTPPort = http01
			}
			if tc.tls {
				po.TLSPort = port(listener)
			}
			authority := pebble.Start(t, po)
			o := Options{Email: "admin@example.org", Directory: authority.Directory, Roots: authority.Roots, Storage: t.TempDir(), HTTPPort: http01}
			if tc.httpDisabled {
				o.HTTPPort = -1
			}
			first := open(t, listener, o)
			stop := first.run(t)
			certificate := first.shown(t, authority.Issued, nil)
			stop()

			second := open(t, listener, o)
			second.run(t)
			if again := second.shown(t, authority.Issued, nil); again.SerialNumber.Cmp(certificate.SerialNumber) != 0 {
				t.Errorf("another certificate after a restart; said:\n%s", second.said)
			}
		})
	}
}

// TestPebbleRenewal shows a new certificate on the same listener before the old one ends.
func TestPebbleRenewal(t *testing.T) {
	listener := reserve(t)
	authority := pebble.Start(t, pebble.Options{HTTPPort: pebble.FreePort(t), TLSPort: port(listener), Validity: 12 * time.Second})
	s := open(t, listener, Options{Directory: authority.Directory, Roots: authority.Roots, Storage: t.TempDir(), HTTPPort: -1, interval: 500 * time.Millisecond})
	s.run(t)
	first := s.shown(t, authority.Issued, nil)
	second := s.shown(t, authority.Issued, first)
	if !second.NotBefore.Before(first.NotAfter) {
		t.Errorf("renewed at %v, after the old one had ended at %v", second.NotBefore, first.NotAfter)
	}
	if !strings.Contains(s.said.String(), "renewal=true") {
		t.Errorf("did not say that it was renewed:\n%s", s.said)
	}
}

// TestPebbleRefuses tells the operator what is wrong, by what a real authority answers.
func TestPebbleRefuses(t *testing.T) {
	authority := pebble.Start(t, pebble.Options{HTTPPort: pebble.FreePort(t), TLSPort: pebble.FreePort(t)})
	s := open(t, reserve(t), Options{Directory: authority.Directory, Roots: authority.Roots, Storage: t.TempDir(), HTTPPort: -1})
	s.run(t)
	s.says(t, "what answers at call.example.org on TCP port 443 is not this server")
}

// TestNobodyAnswers names the setting when the authority is not there, and shows no certificate meanwhile.
func TestNobodyAnswers(t *testing.T) {
	closed := reserve(t)
	_ = closed.Close()
	s := open(t, reserve(t), Options{Directory: fmt.Sprintf("https://127.0.0.1:%d/dir", port(closed)), Storage: t.TempDir(), HTTPPort: -1})
	stop := s.run(t)
	if _, err := tls.Dial("tcp", s.listener.Addr().String(), &tls.Config{ServerName: domain, InsecureSkipVerify: true}); err == nil {
		t.Error("a client was shown a certificate")
	}
	s.says(t, "check tls.acme.directory")
	stop()
}

func TestNewRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"no domain":    {Storage: t.TempDir()},
		"no directory": {Domains: []string{domain}},
		"a file":       {Domains: []string{domain}, Storage: "acme_test.go"},
	} {
		if i, err := New(o); err == nil {
			i.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}
