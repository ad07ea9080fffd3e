package config

import (
	"crypto/tls"
	"fmt"
	"net/mail"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// tlsFile takes the name of a file, which is read when the server starts, and again when it changes.
func tlsFile(field func(*Config) *string) func(*loader, string, any) {
	return func(l *loader, key string, v any) {
		name, isText := v.(string)
		if !isText || name == "" {
			l.problem(key, fmt.Sprintf("%q is no file", fmt.Sprint(v)), "name the file, in PEM, for example /etc/letsencrypt/live/call.example.org/fullchain.pem")
			return
		}
		if _, ok := l.file(key, name); !ok {
			return
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(l.dir, name)
		}
		*field(&l.config) = name
	}
}

// tlsCheck looks at the certificate and its key together.
func (l *loader) tlsCheck() {
	t := l.config.TLS
	switch {
	case t == (TLS{}):
	case t.Certificate == "" && !l.given["tls.certificate_file"]:
		l.problem("tls.certificate_file", "is missing, and tls.key_file is of no use without it", "name the certificate with its chain")
	case t.Key == "" && !l.given["tls.key_file"]:
		l.problem("tls.key_file", "is missing, and tls.certificate_file is of no use without it", "name the file of the certificate's private key")
	case t.Certificate == "" || t.Key == "": // a problem already
	default:
		if _, err := tls.LoadX509KeyPair(t.Certificate, t.Key); err != nil {
			l.problem("tls.certificate_file", err.Error(), "name a certificate in PEM, with its chain, and the key that belongs to it")
		}
	}
}

// acmeDomains reads the names that certificates are got for.
func acmeDomains(l *loader, key string, v any) {
	for _, item := range items(v) {
		name := strings.ToLower(strings.TrimSuffix(fmt.Sprint(item), "."))
		_, err := netip.ParseAddr(name)
		switch {
		case strings.Contains(name, "*"):
			l.problem(key, name+" stands for many names, and the authority can not be shown that all of them are ours", "list the names under which clients reach this server")
		case err == nil, strings.ContainsAny(name, "/:@_ "), !strings.Contains(name, "."), strings.Contains(name, ".."), strings.HasPrefix(name, "."):
			l.problem(key, fmt.Sprintf("%q is no domain that certificates are given for", fmt.Sprint(item)), "write names as in the DNS, without scheme and port: [call.example.org]")
		case !slices.Contains(l.config.ACME.Domains, name):
			l.config.ACME.Domains = append(l.config.ACME.Domains, name)
		}
	}
}

func acmeEmail(l *loader, key string, v any) {
	address, err := mail.ParseAddress(fmt.Sprint(v))
	if err != nil || address.Name != "" {
		l.problem(key, fmt.Sprintf("%q is no address for mail", fmt.Sprint(v)), "write for example admin@example.org")
		return
	}
	l.config.ACME.Email = address.Address
}

func acmeDirectory(l *loader, key string, v any) {
	u, ok := l.url(key, v)
	switch {
	case !ok:
	case u.Scheme != "https":
		l.problem(key, u.String()+" is not https", "name the directory of an authority, for example https://acme-staging-v02.api.letsencrypt.org/directory")
	default:
		l.config.ACME.Directory = u.String()
	}
}

func acmePort(l *loader, key string, v any) {
	if n, ok := l.portNumber(key, v); ok {
		l.config.ACME.HTTPPort = n
	}
}

// acmeCheck looks at what belongs to certificates of an authority, and says where they are kept.
func (l *loader) acmeCheck() {
	c := &l.config
	if len(c.ACME.Domains) == 0 {
		for _, key := range []string{"email", "directory", "ca_file", "http_port"} {
			if l.given["tls.acme."+key] && !l.given["tls.acme.domains"] {
				l.problem("tls.acme.domains", "is missing, and tls.acme."+key+" is of no use without it", "list the names under which clients reach this server: [call.example.org]")
				return
			}
		}
		return
	}
	if c.TLS != (TLS{}) {
		l.problem("tls.acme.domains", "is set, and tls.certificate_file too", "keep one: a certificate of files, or one from an authority")
	}
	if c.Data.File == "" {
		l.problem("tls.acme.domains", "is set, and data.file is off", "set data.file: account and certificates are kept beside it, and the authority gives only a few a week")
		return
	}
	c.ACME.Storage = filepath.Join(filepath.Dir(c.Data.File), "acme")
	if u := c.HTTP.PublicURL; u != nil && !slices.Contains(c.ACME.Domains, strings.ToLower(u.Hostname())) {
		c.Warnings = append(c.Warnings, "tls.acme.domains: "+u.Hostname()+" of http.public_url is not in it, so that clients will refuse the certificate")
	}
	if c.TURN.Enabled && c.TURN.Domain != "" && !slices.Contains(c.ACME.Domains, strings.ToLower(c.TURN.Domain)) {
		c.Warnings = append(c.Warnings, "tls.acme.domains: "+c.TURN.Domain+" of turn.domain is not in it, so that clients will not use the relay over TLS")
	}
}
