// Package acme is an issuer: it gets certificates from a certificate authority by ACME (RFC 8555) and renews them. It owns the account, the
// certificates on disk, the answers to the authority's challenges, and what the operator is told when one fails. It never listens for clients:
// whoever does shows the certificates, and with them answers TLS-ALPN-01 (RFC 8737).
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"go.uber.org/zap"
)

const (
	// LetsEncrypt is the directory of the authority that is asked by default.
	LetsEncrypt = certmagic.LetsEncryptProductionCA
	// Protocol is what the authority offers by ALPN when it looks whether a name is ours. A listener that shows the certificates accepts it.
	Protocol = acmez.ACMETLS1Protocol

	// storageRetry is how long an issuer waits that can not write to its directory.
	storageRetry = 10 * time.Minute
)

// Options say which certificates to get. Domains and Storage are required.
type Options struct {
	Domains   []string
	Email     string         // where the authority writes to, "" = nowhere
	Directory string         // URL of the authority, "" = LetsEncrypt
	Roots     *x509.CertPool // who vouches for the authority's own certificate, nil = those of the system
	Storage   string         // directory of the account and the certificates; it is made where it is missing
	HTTPPort  int            // where HTTP-01 is answered while the authority asks; 0 = 80, -1 = nowhere
	Logger    *slog.Logger   // nil = slog.Default()

	interval time.Duration // between two looks whether a certificate must be renewed; 0 = ten minutes
	lookUp   func(ctx context.Context, host string) ([]netip.Addr, error)
}

// An Issuer holds the certificates of some domains. Safe for concurrent use.
type Issuer struct {
	options   Options
	log       *slog.Logger
	cache     *certmagic.Cache
	authority *certmagic.ACMEIssuer
	config    *certmagic.Config
	missing   []string // domains without a certificate on disk
	closing   sync.Once
}

// New takes the certificates that are on disk. The caller closes the issuer.
func New(o Options) (*Issuer, error) {
	if len(o.Domains) == 0 || o.Storage == "" {
		return nil, errors.New("certificates without domains, or without a directory to keep them in")
	}
	if o.Directory == "" {
		o.Directory = LetsEncrypt
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.lookUp == nil {
		o.lookUp = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if err := os.MkdirAll(o.Storage, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of certificates beside data.file: %w", err)
	}
	i := &Issuer{options: o, log: o.Logger}
	i.configure()
	for _, domain := range o.Domains {
		if _, err := i.config.CacheManagedCertificate(context.Background(), domain); err != nil {
			i.missing = append(i.missing, domain) // what can not be read is asked for anew
		}
	}
	return i, nil
}

// configure starts the loop of certmagic that looks after what is in the cache.
func (i *Issuer) configure() {
	quiet := zap.New(&chatter{i.log.With("part", "certmagic")})
	i.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return i.config, nil },
		RenewCheckInterval: i.options.interval,
		Logger:             quiet,
	})
	i.config = certmagic.New(i.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: i.options.Storage},
		Logger:  quiet, OnEvent: i.event, ShouldEmitFunc: told,
		// As with files: who asks for another name, or for none, is shown the first certificate.
		DefaultServerName: i.options.Domains[0], FallbackServerName: i.options.Domains[0],
	})
	i.authority = certmagic.NewACMEIssuer(i.config, certmagic.ACMEIssuer{
		CA:    i.options.Directory, // its own staging directory, if it is Let's Encrypt, is asked first after a failure
		Email: i.options.Email, Agreed: true, TrustedRoots: i.options.Roots, Logger: quiet,
		DisableHTTPChallenge: i.options.HTTPPort < 0, AltHTTPPort: max(i.options.HTTPPort, 0),
	})
	i.config.Issuers = []certmagic.Issuer{i.authority}
}

// Certificate is the one for a client, or, if it is the authority that looks, the answer to its challenge. It is for tls.Config.GetCertificate.
func (i *Issuer) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return i.config.GetCertificate(hello)
}

// Run gets the certificates that are missing, again and again where that fails, and returns when ctx ends. What expires is renewed until Close.
// The listener at addr shows the certificates already.
func (i *Issuer) Run(ctx context.Context, addr net.Addr) error {
	if at, ok := addr.(*net.TCPAddr); ok { // certmagic sees that the port is taken, and relies on whoever has it
		i.authority.AltTLSALPNPort = at.Port
		if !at.IP.IsUnspecified() {
			i.authority.ListenHost = at.IP.String()
		}
	}
	var obtaining sync.WaitGroup
	for _, domain := range i.missing {
		i.log.Info("certificate is asked for", "domain", domain, "authority", i.options.Directory)
		obtaining.Go(func() { i.obtainLoop(ctx, domain) })
	}
	if err := i.cache.RenewManagedCertificates(ctx); err != nil {
		i.log.Error("certificates not renewed", "error", err)
	}
	obtaining.Wait()
	<-ctx.Done()
	return nil
}

// obtainLoop runs until there is a certificate. Where the authority refuses it, certmagic waits longer and longer, up to six hours; it gives up
// where nothing can be stored.
func (i *Issuer) obtainLoop(ctx context.Context, domain string) {
	retry := time.NewTimer(storageRetry)
	defer retry.Stop()
	for {
		err := i.config.ObtainCertAsync(ctx, domain) // despite its name it waits
		if err == nil {
			_, err = i.config.CacheManagedCertificate(ctx, domain)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		i.log.Error("no certificate", "domain", domain, "error", err, "directory", i.options.Storage)
		retry.Reset(storageRetry)
		select {
		case <-retry.C:
		case <-ctx.Done():
			return
		}
	}
}

// Close ends the renewals. A challenge that is being answered is given up. Closing twice is fine.
func (i *Issuer) Close() {
	i.closing.Do(i.cache.Stop)
}
