package edge

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeCertificate makes a certificate that vouches for itself, for one name, and writes it into the files.
func writeCertificate(t *testing.T, f Files, name string) {
	t.Helper()
	certificate, key := newCertificate(t, name)
	for file, text := range map[string][]byte{f.Certificate: certificate, f.Key: key} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func newCertificate(t *testing.T, name string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})
}

func filesIn(dir, name string) Files {
	return Files{Certificate: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
}

// shown is the name on the certificate that a client gets who asks for one.
func shown(t *testing.T, c *loadedFiles, asked string) string {
	t.Helper()
	got, err := c.get(&tls.ClientHelloInfo{
		ServerName: asked, SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		SupportedCurves: []tls.CurveID{tls.CurveP256}, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256},
	})
	if err != nil {
		t.Fatal(err)
	}
	return got.Leaf.Subject.CommonName
}

// TestCertificatesAreReadAgain replaces the files, well and badly.
func TestCertificatesAreReadAgain(t *testing.T) {
	f := filesIn(t.TempDir(), "call")
	writeCertificate(t, f, "old.example.org")
	var log bytes.Buffer
	c, err := loadFiles([]Files{f}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	c.checked = now
	expect := func(what, want string) {
		t.Helper()
		if got := shown(t, c, want); got != want {
			t.Errorf("%s: shows %s, want %s", what, got, want)
		}
	}
	expect("as read", "old.example.org")

	certificate, key := newCertificate(t, "new.example.org")
	if err := os.WriteFile(f.Certificate, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	expect("at once", "old.example.org")
	now = now.Add(checkInterval)
	expect("without its key", "old.example.org")
	now = now.Add(checkInterval)
	expect("still without", "old.example.org")
	if n := strings.Count(log.String(), "certificate not renewed"); n != 1 {
		t.Errorf("said %d times that the key is missing, want once:\n%s", n, &log)
	}
	if err := os.WriteFile(f.Key, key, 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(checkInterval)
	expect("with its key", "new.example.org")
	if !strings.Contains(log.String(), "certificate renewed") {
		t.Errorf("did not say that it was renewed:\n%s", &log)
	}
	if err := os.Remove(f.Certificate); err != nil {
		t.Fatal(err)
	}
	now = now.Add(checkInterval)
	expect("removed", "new.example.org")
}

// TestCertificateByName shows the certificate of the name that the client asks for.
func TestCertificateByName(t *testing.T) {
	dir := t.TempDir()
	one, two := filesIn(dir, "one"), filesIn(dir, "two")
	writeCertificate(t, one, "one.example.org")
	writeCertificate(t, two, "two.example.org")
	c, err := loadFiles([]Files{one, two}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[string]string{
		"one.example.org": "one.example.org", "two.example.org": "two.example.org", "three.example.org": "one.example.org",
	} {
		if got := shown(t, c, asked); got != want {
			t.Errorf("asked for %s: shows %s, want %s", asked, got, want)
		}
	}
}

func TestCertificatesRefused(t *testing.T) {
	dir := t.TempDir()
	one, two := filesIn(dir, "one"), filesIn(dir, "two")
	writeCertificate(t, one, "one.example.org")
	writeCertificate(t, two, "two.example.org")
	for name, tc := range map[string]struct {
		files []Files
		want  string
	}{
		"none":           {nil, "no certificate files"},
		"no such file":   {[]Files{{Certificate: filepath.Join(dir, "nothing"), Key: one.Key}}, "read certificate"},
		"no such key":    {[]Files{{Certificate: one.Certificate, Key: filepath.Join(dir, "nothing")}}, "read key"},
		"another's key":  {[]Files{{Certificate: one.Certificate, Key: two.Key}}, "private key does not match"},
		"no certificate": {[]Files{{Certificate: one.Key, Key: one.Key}}, "failed to find certificate"},
	} {
		if _, err := LoadCertificates(tc.files, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}
