package config

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"path/filepath"
)

// networks reads a list of networks in CIDR form.
func (l *loader) networks(key string, v any) (networks []netip.Prefix) {
	for _, item := range items(v) {
		network, err := netip.ParsePrefix(fmt.Sprint(item))
		if err != nil || network.Addr().Is4In6() {
			l.problem(key, fmt.Sprintf("%q is not a network", fmt.Sprint(item)), "list networks with their prefix length, for example [10.0.0.0/8, fd00::/8]")
			continue
		}
		networks = append(networks, network.Masked())
	}
	return networks
}

func privateNetworks(l *loader, key string, v any) {
	l.config.FederationPrivate = l.networks(key, v)
}

func proxyProtocol(l *loader, key string, v any) {
	l.config.HTTP.ProxyProtocol = l.networks(key, v)
	for _, n := range l.config.HTTP.ProxyProtocol {
		if n.Bits() == 0 {
			l.problem(key, n.String()+" is everybody, and who is a proxy may say from which address a client comes", "list the proxies alone, for example [192.0.2.1/32]")
		}
	}
}

func advertise(l *loader, key string, v any) {
	for _, item := range items(v) {
		addr, err := netip.ParseAddr(fmt.Sprint(item))
		if err != nil || addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
			l.problem(key, fmt.Sprintf("%q is not an address that clients can send to", fmt.Sprint(item)), "list IP addresses, for example [203.0.113.7, 2001:db8::7]; names are not resolved")
			continue
		}
		l.config.Media.Advertise = append(l.config.Media.Advertise, addr.Unmap())
	}
}

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
