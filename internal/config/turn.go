package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// TURN is the relay for clients that media does not reach, and for calls of two that the homeserver's users hold without us.
type TURN struct {
	Enabled bool
	UDPPort int // 0 = any free port, Off = none
	TCPPort int
	TLSPort int // opened only with a certificate of our own

	Domain              string // how clients reach it, "" = the addresses of the media, and the host of HTTP.PublicURL over TLS
	FirstPort, LastPort int    // of relays

	Secrets  []string       // shared with the homeservers
	Peers    []netip.Prefix // that users of homeservers reach, besides the public internet
	TCPRelay bool           // they may reach peers over TCP, too
}

// RelayLimits bound what the relay carries. Zero means no limit for bit rates, and is not allowed for the rest.
type RelayLimits struct {
	User, Address, Server      int   // allocations
	AllocationBitrate, Bitrate int64 // bits/s each way
}

// leastSecret is the length of a secret below which it is warned of, in characters.
const leastSecret = 32

func relayPeers(l *loader, key string, v any) {
	l.config.TURN.Peers = l.networks(key, v)
}

func relayPorts(l *loader, key string, v any) {
	first, last, found := strings.Cut(fmt.Sprint(v), "-")
	from, err := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	to, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if !found || err != nil || err2 != nil || from < 1024 || to < from {
		l.problem(key, fmt.Sprintf("%q is not a range of ports", fmt.Sprint(v)), "write the first and the last one, 1024 or above, for example 49152-65535")
		return
	}
	l.config.TURN.FirstPort, l.config.TURN.LastPort = int(from), int(to)
}

func relayDomain(l *loader, key string, v any) {
	name := fmt.Sprint(v)
	if name == "" || strings.ContainsAny(name, "/:@?# ") {
		l.problem(key, fmt.Sprintf("%q is not a host name", name), "write the name alone, for example turn.example.org")
		return
	}
	l.config.TURN.Domain = name
}

func relaySecrets(l *loader, key string, v any) {
	for _, item := range items(v) {
		secret, isText := item.(string)
		l.relaySecret(key, secret, isText)
	}
}

// relaySecretsFile reads one secret a line.
func relaySecretsFile(l *loader, key string, v any) {
	name := fmt.Sprint(v)
	text, ok := l.file(key, name)
	if !ok {
		return
	}
	l.warnIfPublic(key, name)
	before := len(l.config.TURN.Secrets)
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			l.relaySecret(key, line, true)
		}
	}
	if len(l.config.TURN.Secrets) == before {
		l.problem(key, name+" holds no secret", "write one a line")
	}
}

func (l *loader) relaySecret(key, secret string, isText bool) {
	switch {
	case !isText || strings.TrimSpace(secret) == "":
		l.problem(key, "has an entry that is no secret", "give each in quotes: the turn_shared_secret of the homeserver")
		return
	case slices.Contains(l.config.TURN.Secrets, secret):
		return
	case len(secret) < leastSecret:
		l.config.Warnings = append(l.config.Warnings, fmt.Sprintf("%s: a secret has %d characters - use %d or more; who guesses it relays at your cost", key, len(secret), leastSecret))
	}
	l.config.TURN.Secrets = append(l.config.TURN.Secrets, secret)
}

// some reads a limit that cannot be off.
func some(field func(*Config) *int) func(*loader, string, any) {
	return func(l *loader, key string, v any) {
		n, err := strconv.ParseUint(fmt.Sprint(v), 10, 31)
		if err != nil || n == 0 {
			l.problem(key, fmt.Sprintf("%q is not a number of 1 or more", fmt.Sprint(v)), "use a whole number; turn.enabled: false turns the relay off")
			return
		}
		*field(&l.config) = int(n)
	}
}

// turnCheck looks at the relay together with the rest.
func (l *loader) turnCheck() {
	t := &l.config.TURN
	if l.config.Development() && !l.given["turn.enabled"] {
		t.Enabled = false // everybody is on this machine
	}
	if !t.Enabled {
		return
	}
	if t.UDPPort > 0 && t.UDPPort == l.config.Media.UDPPort {
		l.problem("turn.udp_port", fmt.Sprintf("%d is media.udp_port already", t.UDPPort), "give the two different ports, or write turn.udp_port: off")
	}
	if t.TCPPort > 0 && t.TCPPort == l.config.Media.TCPPort {
		l.problem("turn.tcp_port", fmt.Sprintf("%d is media.tcp_port already", t.TCPPort), "give the two different ports, or write turn.tcp_port: off")
	}
	if t.TLSPort > 0 && t.TLSPort == t.TCPPort {
		l.problem("turn.tls_port", fmt.Sprintf("%d is turn.tcp_port already", t.TLSPort), "give the two different ports, or write turn.tls_port: off")
	}
	if p := l.config.Media.UDPPort; p >= t.FirstPort && p <= t.LastPort && p > 0 {
		l.problem("turn.relay_ports", fmt.Sprintf("%d-%d holds media.udp_port, %d", t.FirstPort, t.LastPort, p), "keep the range free of other ports of this server")
	}
}
