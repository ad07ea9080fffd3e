package edge

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// checkInterval is how long a changed certificate file may go unnoticed.
const checkInterval = 10 * time.Second

// Files names a certificate, with the chain behind it, and its key, both in PEM.
type Files struct{ Certificate, Key string }

// Certificates are what TLS listeners show. One of them serves all listeners. Safe for concurrent use.
type Certificates struct {
	get       func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	protocols []string // that clients of get speak, and nobody else
}

// Issued are certificates that somebody else looks after, who also answers a certificate authority that offers the protocol by ALPN.
func Issued(get func(*tls.ClientHelloInfo) (*tls.Certificate, error), protocol string) *Certificates {
	return &Certificates{get: get, protocols: []string{protocol}}
}

// Config is TLS with these certificates. protocols are offered by ALPN (RFC 7301), the best first.
func (c *Certificates) Config(protocols ...string) *tls.Config {
	return &tls.Config{GetCertificate: c.get, NextProtos: slices.Concat(protocols, c.protocols), MinVersion: tls.VersionTLS12}
}

// LoadCertificates reads the files, and reads them again once they changed. Where they can not be read or do not belong together that is the error.
func LoadCertificates(files []Files, log *slog.Logger) (*Certificates, error) {
	f, err := loadFiles(files, log)
	if err != nil {
		return nil, err
	}
	return &Certificates{get: f.get}, nil
}

// loadedFiles are certificates of files. It starts no goroutine, but looks at the files while clients connect.
type loadedFiles struct {
	files  []Files
	log    *slog.Logger
	now    func() time.Time
	loaded atomic.Pointer[[]pair]

	mu      sync.Mutex // held by whoever looks at the files; others go on with what is loaded
	checked time.Time
	failed  string // the last failure that was logged
}

// pair is a certificate as it was read.
type pair struct {
	certificate      *tls.Certificate
	certPEM, keyText []byte
}

func loadFiles(files []Files, log *slog.Logger) (*loadedFiles, error) {
	if len(files) == 0 {
		return nil, errors.New("no certificate files")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &loadedFiles{files: files, log: log, now: time.Now}
	pairs, err := readPairs(files)
	if err != nil {
		return nil, err
	}
	c.loaded.Store(&pairs)
	c.checked = c.now()
	return c, nil
}

// get is the certificate for a client: the first that suits the name that it asked for, or else the first.
func (c *loadedFiles) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.check()
	pairs := *c.loaded.Load()
	for _, p := range pairs {
		if hello.SupportsCertificate(p.certificate) == nil {
			return p.certificate, nil
		}
	}
	return pairs[0].certificate, nil
}

// check reads the files again if the last time is long enough ago. Files that are just being replaced may not belong together: what was
// loaded stays until they do.
func (c *loadedFiles) check() {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	now := c.now()
	if now.Sub(c.checked) < checkInterval {
		return
	}
	c.checked = now
	pairs, err := readPairs(c.files)
	if err != nil {
		if c.failed != err.Error() {
			c.failed = err.Error()
			c.log.Warn("certificate not renewed: the old one stays in use", "error", err)
		}
		return
	}
	c.failed = ""
	if same(pairs, *c.loaded.Load()) {
		return
	}
	c.loaded.Store(&pairs)
	for _, p := range pairs {
		c.log.Info("certificate renewed", "names", p.certificate.Leaf.DNSNames, "until", p.certificate.Leaf.NotAfter)
	}
}

func readPairs(files []Files) ([]pair, error) {
	var pairs []pair
	for _, f := range files {
		var p pair
		var err error
		if p.certPEM, err = os.ReadFile(f.Certificate); err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		if p.keyText, err = os.ReadFile(f.Key); err != nil {
			return nil, fmt.Errorf("read key: %w", err)
		}
		certificate, err := tls.X509KeyPair(p.certPEM, p.keyText)
		if err != nil {
			return nil, fmt.Errorf("%s with %s: %w", f.Certificate, f.Key, err)
		}
		p.certificate = &certificate
		pairs = append(pairs, p)
	}
	return pairs, nil
}

func same(a, b []pair) bool {
	for i := range a { // as many files as ever
		if !bytes.Equal(a[i].certPEM, b[i].certPEM) || !bytes.Equal(a[i].keyText, b[i].keyText) {
			return false
		}
	}
	return true
}
