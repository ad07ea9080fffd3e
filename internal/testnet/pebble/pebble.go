// Package pebble is a real certificate authority for tests: Let's Encrypt's Pebble, as a process of its own, with a DNS that leads every name here.
// It owns that process and what must be known to ask it.
// It never builds the program, and skips a test that was given none.
package pebble

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

// Options say how the authority behaves.
type Options struct {
	HTTPPort, TLSPort int           // where it looks for the answers to its challenges
	Validity          time.Duration // of its certificates; 0 = 90 days
}

// An Authority gives certificates.
type Authority struct {
	Directory string         // URL
	Roots     *x509.CertPool // who vouches for its own certificate
	RootFile  string         // the same in PEM
	Issued    *x509.CertPool // who vouches for the certificates that it gives
}

// setting names the program, in the environment.
const setting = "CALLSERVER_TEST_PEBBLE"

// Given reports whether tests were given an authority.
func Given() bool { return os.Getenv(setting) != "" }

// Lingering are goroutines that whoever asks an authority leaves behind.
func Lingering() []goleak.Option {
	return []goleak.Option{
		// One for each authority, in a package variable of certmagic: it lives as long as the process.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"),
		// Looks every five seconds whether the lock that it keeps fresh is still there.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
		// Idle connections to the authority, which certmagic keeps for two minutes.
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
	}
}

// FreePort is one of 127.0.0.1 that is free at this moment.
func FreePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// Start starts an authority, which ends with the test, or skips the test.
func Start(t *testing.T, o Options) *Authority {
	t.Helper()
	program := os.Getenv(setting)
	if program == "" {
		t.Skip("needs a certificate authority: make test SUITE=acme builds Pebble and runs this")
	}
	if o.Validity == 0 {
		o.Validity = 90 * 24 * time.Hour
	}
	dir := t.TempDir()
	a := &Authority{Roots: x509.NewCertPool(), RootFile: filepath.Join(dir, "cert.pem")}
	a.certify(t, dir)
	at, manage := "127.0.0.1:"+strconv.Itoa(FreePort(t)), "127.0.0.1:"+strconv.Itoa(FreePort(t))
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": at, "managementListenAddress": manage, "certificate": a.RootFile, "privateKey": filepath.Join(dir, "key.pem"),
		"httpPort": o.HTTPPort, "tlsPort": o.TLSPort, "keyAlgorithm": "ecdsa", "retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles": map[string]any{"default": map[string]any{"description": "of this test", "validityPeriod": int(o.Validity / time.Second)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pebble.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	a.run(t, program, "-config", file, "-dnsserver", serveNames(t))
	a.Directory = "https://" + at + "/dir"
	a.Issued = x509.NewCertPool()
	if !a.Issued.AppendCertsFromPEM(a.fetch(t, "https://"+manage+"/roots/0")) {
		t.Fatal("the authority shows no root")
	}
	return a
}

// run starts the process and ends it with the test. What it said is told if the test failed.
func (a *Authority) run(t *testing.T, program string, args ...string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, program, args...)
	c.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0")
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = c.Wait() // killed
		if t.Failed() {
			t.Logf("the authority said:\n%s", &said)
		}
	})
}

// fetch asks until there is an answer.
func (a *Authority) fetch(t *testing.T, url string) []byte {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.Roots}, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	for deadline := time.Now().Add(20 * time.Second); ; {
		question, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := client.Do(question)
		if err == nil {
			defer func() { _ = r.Body.Close() }()
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			return body
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // until it listens
	}
}

// certify makes the authority's own certificate, in cert.pem, and key.pem.
func (a *Authority) certify(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	a.Roots.AppendCertsFromPEM(certificate)
	for name, text := range map[string][]byte{"cert.pem": certificate, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serveNames is a DNS server, over TCP as Pebble asks, in which every name is 127.0.0.1. It returns its address.
func serveNames(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_ = serveName(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

// serveName answers one question (RFC 1035 §4.2.2).
func serveName(c net.Conn) error {
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return err
	}
	question := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, question); err != nil {
		return err
	}
	reply, err := answer(question)
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
	return err
}

// answer is that of the DNS server.
func answer(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionAvailable: true}
	m.Answers, m.Authorities, m.Additionals = nil, nil, nil
	for _, q := range m.Questions {
		if q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			})
		}
	}
	return m.Pack()
}
