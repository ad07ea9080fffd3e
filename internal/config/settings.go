package config

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
)

// A setting is one key of the file. set checks the value and stores it, or reports a problem.
type setting struct {
	key     string
	scalar  bool   // the environment gives the text as it is; otherwise YAML
	example string // a right value
	set     func(l *loader, key string, v any)
}

// settings is the whole vocabulary, in the order of docs/callserver.yaml.
var settings = []setting{
	{"log.level", true, "info", logLevel},
	{"log.format", true, "text", logFormat},
	{"log.identifiers", true, "false", boolean(func(c *Config) *bool { return &c.Log.Identifiers })},
	{"http.listen", true, "127.0.0.1:7880", listen(func(c *Config) *string { return &c.HTTP.Listen }, false)},
	{"http.public_url", true, "https://call.example.org", publicURL},
	{"http.proxy_protocol", false, "[192.0.2.1/32]", proxyProtocol},
	{"tls.certificate_file", true, "fullchain.pem", tlsFile(func(c *Config) *string { return &c.TLS.Certificate })},
	{"tls.key_file", true, "privkey.pem", tlsFile(func(c *Config) *string { return &c.TLS.Key })},
	{"tls.acme.domains", false, "[call.example.org]", acmeDomains},
	{"tls.acme.email", true, "admin@example.org", acmeEmail},
	{"tls.acme.directory", true, "https://acme-staging-v02.api.letsencrypt.org/directory", acmeDirectory},
	{"tls.acme.ca_file", true, "ca.pem", authorities(func(c *Config) **x509.CertPool { return &c.ACME.Roots })},
	{"tls.acme.http_port", true, "80", acmePort},
	{"admin.listen", true, "127.0.0.1:7980", listen(func(c *Config) *string { return &c.Admin.Listen }, true)},
	{"media.udp_port", true, "7881", port(func(c *Config) *int { return &c.Media.UDPPort })},
	{"media.tcp_port", true, "7881", port(func(c *Config) *int { return &c.Media.TCPPort })},
	{"media.advertise", false, "[203.0.113.7]", advertise},
	{"media.stun", false, "[\"stun.example.org:3478\"]", stunServers},
	{"media.interfaces", false, "[eth0]", interfaces},
	{"media.ice_lite", true, "false", boolean(func(c *Config) *bool { return &c.Media.ICELite })},
	{"turn.enabled", true, "true", boolean(func(c *Config) *bool { return &c.TURN.Enabled })},
	{"turn.udp_port", true, "3478", port(func(c *Config) *int { return &c.TURN.UDPPort })},
	{"turn.tcp_port", true, "3478", port(func(c *Config) *int { return &c.TURN.TCPPort })},
	{"turn.tls_port", true, "5349", port(func(c *Config) *int { return &c.TURN.TLSPort })},
	{"turn.domain", true, "turn.example.org", relayDomain},
	{"turn.relay_ports", true, "49152-65535", relayPorts},
	{"turn.secrets", false, "[a-long-random-secret]", relaySecrets},
	{"turn.secrets_file", true, "turn-secrets", relaySecretsFile},
	{"turn.peers.allow", false, "[10.20.0.0/16]", relayPeers},
	{"turn.tcp_relay", true, "false", boolean(func(c *Config) *bool { return &c.TURN.TCPRelay })},
	{"keys", false, "{my-key: a-long-random-secret}", keys},
	{"keys_file", true, "keys.yaml", keysFile},
	{"homeservers", false, "[{server_name: example.org}]", homeservers},
	{"remote_users", true, "subscribe", remoteUsers},
	{"servers.allow", false, "[\"*.example.org\"]", globs(func(c *Config) *[]string { return &c.Servers.Allow })},
	{"servers.deny", false, "[evil.example.com]", globs(func(c *Config) *[]string { return &c.Servers.Deny })},
	{"matrix_rooms", false, "[{room: \"!id:example.org\", sources: [microphone]}]", matrixRooms},
	{"limits.requests.address", true, "3000", count(func(c *Config) *int { return &c.Limits.Requests.Address })},
	{"limits.requests.user", true, "120", count(func(c *Config) *int { return &c.Limits.Requests.User })},
	{"limits.requests.server", true, "6000", count(func(c *Config) *int { return &c.Limits.Requests.Server })},
	{"limits.room.participants", true, "50", count(func(c *Config) *int { return &c.Limits.Room.Participants })},
	{"limits.room.sources", false, "[microphone, camera]", sources(func(c *Config) *[]string { return &c.Limits.Room.Sources })},
	{"limits.user.rooms", true, "3", count(func(c *Config) *int { return &c.Limits.UserRooms })},
	{"limits.bitrate.participant", true, "4M", bitrate(func(c *Config) *int64 { return &c.Limits.Bitrate.Participant })},
	{"limits.bitrate.server", true, "800M", bitrate(func(c *Config) *int64 { return &c.Limits.Bitrate.Server })},
	{"limits.relay.user", true, "32", some(func(c *Config) *int { return &c.Limits.Relay.User })},
	{"limits.relay.address", true, "4000", some(func(c *Config) *int { return &c.Limits.Relay.Address })},
	{"limits.relay.server", true, "10000", some(func(c *Config) *int { return &c.Limits.Relay.Server })},
	{"limits.relay.bitrate", true, "50M", bitrate(func(c *Config) *int64 { return &c.Limits.Relay.AllocationBitrate })},
	{"limits.relay.server_bitrate", true, "1G", bitrate(func(c *Config) *int64 { return &c.Limits.Relay.Bitrate })},
	{"limits.load.cpu", true, "80", share(func(c *Config) *int { return &c.Limits.Overload.CPU })},
	{"limits.load.packets", true, "200000", count(func(c *Config) *int { return &c.Limits.Overload.Packets })},
	{"federation_ca_file", true, "ca.pem", authorities(func(c *Config) **x509.CertPool { return &c.FederationCA })},
	{"federation_private_networks", false, "[10.0.0.0/8]", privateNetworks},
	{"data.file", true, "/var/lib/callserver/callserver.db", dataFile},
	{"membership.delegate", true, "true", boolean(func(c *Config) *bool { return &c.Membership.Delegate })},
	{"membership.sweep", true, "true", boolean(func(c *Config) *bool { return &c.Membership.Sweep })},
	{"membership.grace", true, "15s", period(func(c *Config) *time.Duration { return &c.Membership.Grace }, time.Second, time.Hour)},
	{"bot.commands", true, "true", boolean(func(c *Config) *bool { return &c.Bot.Commands })},
	{"bot.bridge", true, "true", boolean(func(c *Config) *bool { return &c.Bot.Bridge })},
	{"bot.invite", false, "[\"@*:example.org\"]", userGlobs},
	{"bot.element_call", true, "https://call.element.io", elementCall},
	{"bot.recovery_key_file", true, "/var/lib/callserver/recovery-keys", recoveryFile},
	{"room.auto_create", true, "false", boolean(func(c *Config) *bool { return &c.Room.AutoCreate })},
}

func defaults(c *Config) {
	c.HTTP.Listen = "127.0.0.1:7880"
	c.Admin.Listen = "127.0.0.1:7980"
	c.Media.UDPPort, c.Media.TCPPort = 7881, 7881
	c.ACME.HTTPPort = 80
	c.Keys = map[string]string{}
	c.RemoteUsers = true
	c.Limits.Requests = Requests{Address: 3000, User: 120, Server: 6000}
	c.Limits.Overload = Overload{CPU: 80}
	c.Limits.Relay = RelayLimits{User: 32, Address: 4000, Server: 10_000, AllocationBitrate: 50_000_000}
	c.TURN = TURN{Enabled: true, UDPPort: 3478, TCPPort: 3478, TLSPort: 5349, FirstPort: 49152, LastPort: 65535}
	c.Bot.Commands, c.Bot.Bridge = true, true
	c.Membership = Membership{Delegate: true, Sweep: true, Grace: 15 * time.Second}
}

// Keys lists every setting, in the order of the manual.
func Keys() []string {
	names := make([]string, len(settings))
	for i, s := range settings {
		names[i] = s.key
	}
	return names
}

// sections lists the inner nodes of the tree.
func sections() []string {
	var names []string
	for _, s := range settings {
		for i, c := range s.key {
			if c == '.' && !slices.Contains(names, s.key[:i]) {
				names = append(names, s.key[:i])
			}
		}
	}
	return names
}

func logLevel(l *loader, key string, v any) {
	if l.config.Log.Level.UnmarshalText([]byte(fmt.Sprint(v))) != nil {
		l.config.Log.Level = slog.LevelInfo
		l.problem(key, fmt.Sprintf("%q is not a level", fmt.Sprint(v)), "use debug, info, warn or error")
	}
}

func logFormat(l *loader, key string, v any) {
	switch v {
	case "text":
	case "json":
		l.config.Log.JSON = true
	default:
		l.problem(key, fmt.Sprintf("%q is not a format", fmt.Sprint(v)), "use text or json")
	}
}

// isOff reads the ways to say that a listener is not wanted.
func isOff(v any) bool { return v == false || v == "off" || v == "false" }

func listen(field func(*Config) *string, optional bool) func(*loader, string, any) {
	return func(l *loader, key string, v any) {
		if optional && isOff(v) {
			*field(&l.config) = ""
			return
		}
		text := fmt.Sprint(v)
		_, number, err := net.SplitHostPort(text)
		if err == nil {
			_, err = strconv.ParseUint(number, 10, 16)
		}
		if err != nil {
			l.problem(key, fmt.Sprintf("%q is not host:port", text), "write for example 127.0.0.1:7880, or :7880 for every address")
			return
		}
		*field(&l.config) = text
	}
}

func port(field func(*Config) *int) func(*loader, string, any) {
	return func(l *loader, key string, v any) {
		if isOff(v) {
			*field(&l.config) = Off
			return
		}
		n, err := strconv.ParseUint(fmt.Sprint(v), 10, 16)
		if err != nil {
			l.problem(key, fmt.Sprintf("%v is not a port", v), "use 1 to 65535, 0 for any free port, or off")
			return
		}
		*field(&l.config) = int(n)
	}
}

func boolean(field func(*Config) *bool) func(*loader, string, any) {
	return func(l *loader, key string, v any) {
		switch v {
		case true, "true":
			*field(&l.config) = true
		case false, "false":
			*field(&l.config) = false
		default:
			l.problem(key, fmt.Sprintf("%q is neither yes nor no", fmt.Sprint(v)), "use true or false")
		}
	}
}

// period reads a length of time within bounds; off is 0.
func period(field func(*Config) *time.Duration, least, most time.Duration) func(*loader, string, any) {
	return func(l *loader, key string, v any) {
		if isOff(v) {
			*field(&l.config) = 0
			return
		}
		d, err := time.ParseDuration(fmt.Sprint(v))
		if err != nil || d < least || d > most {
			l.problem(key, fmt.Sprintf("%q is not a time from %v to %v", fmt.Sprint(v), least, most), "write for example 15s, or off")
			return
		}
		*field(&l.config) = d
	}
}

func publicURL(l *loader, key string, v any) {
	if u, ok := l.url(key, v); ok {
		l.config.HTTP.PublicURL = u
	}
}

// url reads an http(s) base URL and takes its trailing slash away.
func (l *loader) url(key string, v any) (*url.URL, bool) {
	text := fmt.Sprint(v)
	u, err := url.Parse(strings.TrimRight(text, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		l.problem(key, fmt.Sprintf("%q is not a base URL", text), "write scheme and host, for example https://call.example.org")
		return nil, false
	}
	return u, true
}

// items reads a list, which the environment may also give as text with commas.
func items(v any) (items []any) {
	switch v := v.(type) {
	case []any:
		return v
	case string:
		for item := range strings.SplitSeq(v, ",") {
			items = append(items, strings.TrimSpace(item))
		}
		return items
	}
	return []any{v}
}

// globs reads patterns of server names.
func globs(field func(*Config) *[]string) func(*loader, string, any) {
	return func(l *loader, key string, v any) {
		for _, item := range items(v) {
			name, isText := item.(string)
			if !isText || name == "" || strings.ContainsAny(name, "/@ ") {
				l.problem(key, fmt.Sprintf("%q is no server name", fmt.Sprint(item)), "write what stands after the colon of a user's id; * stands for anything and ? for one character: \"*.example.org\"")
				continue
			}
			*field(&l.config) = append(*field(&l.config), name)
		}
	}
}

func keys(l *loader, key string, v any) {
	pairs, ok := v.(map[string]any)
	if !ok {
		l.problem(key, "is not a list of key: secret pairs", "write below it, indented:  my-key: a-long-random-secret")
		return
	}
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		secret, isText := pairs[name].(string)
		_, twice := l.config.Keys[name]
		switch {
		case !isText || secret == "":
			l.problem(key+"."+name, "has no secret", "give it one in quotes; callserver token --new-key prints a good one")
		case twice:
			l.problem(key+"."+name, "is defined twice, in keys and in keys_file", "keep one of the two")
		default:
			l.config.Keys[name] = secret
		}
	}
}

func keysFile(l *loader, key string, v any) {
	name := fmt.Sprint(v)
	text, ok := l.file(key, name)
	if !ok {
		return
	}
	l.warnIfPublic(key, name)
	tree, err := yaml.Parser().Unmarshal(text)
	if err != nil || len(tree) == 0 {
		l.problem(key, name+" holds no keys", "write one \"key: secret\" a line")
		return
	}
	keys(l, key, tree)
}

func homeservers(l *loader, key string, v any) {
	l.entries(key, v, "homeserver", "server_name: example.org", l.homeserver)
}

// entries reads a list of sections; the example is the first line of one.
func (l *loader) entries(key string, v any, noun, example string, read func(at string, fields map[string]any)) {
	items, ok := v.([]any)
	if !ok {
		l.problem(key, "is not a list", fmt.Sprintf("begin each %s with \"- %s\"", noun, example))
		return
	}
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", key, i)
		fields, ok := item.(map[string]any)
		if !ok {
			l.problem(at, "is not a "+noun, fmt.Sprintf("write \"- %s\"", example))
			continue
		}
		read(at, fields)
	}
}

// HomeserverKeys lists the settings of one entry of homeservers.
func HomeserverKeys() []string {
	return []string{"server_name", "client_api", "federation", "registration", "signing_key_file", "unverified", "publish"}
}

func (l *loader) homeserver(at string, fields map[string]any) {
	var h Homeserver
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		key, value := at+"."+name, fields[name]
		switch name {
		case "server_name":
			h.ServerName = fmt.Sprint(value)
			if h.ServerName == "" || strings.ContainsAny(h.ServerName, "/@ ") {
				l.problem(key, fmt.Sprintf("%q is not a server name", h.ServerName), "write what stands after the colon of a user's id, for example example.org")
				return
			}
		case "client_api":
			if u, ok := l.url(key, value); ok {
				h.ClientAPI = u.String()
			}
		case "federation":
			if u, ok := l.url(key, value); ok {
				h.Federation = u.String()
			}
		case "registration":
			h.Registrations = l.registrations(key, value)
		case "signing_key_file":
			h.SigningKey = l.secretFile(key, value)
		case "unverified":
			h.Unverified = value == "allow"
			if value != "allow" && value != "refuse" {
				l.problem(key, fmt.Sprintf("%q is not a policy", fmt.Sprint(value)), "use refuse or allow")
			}
		case "publish":
			h.PublishRemote = l.publish(key, value)
		default:
			l.unknownField(key, at, name, HomeserverKeys())
		}
	}
	if len(h.Registrations) > 0 && h.ClientAPI == "" {
		l.problem(at+".client_api", "is missing, and registration is of no use without it", "write the base URL at which this machine reaches the homeserver, for example http://127.0.0.1:8008")
	}
	if h.ServerName == "" {
		l.problem(at+".server_name", "is missing", "write what stands after the colon of a user's id, for example example.org")
		return
	}
	if slices.ContainsFunc(l.config.Homeservers, func(o Homeserver) bool { return o.ServerName == h.ServerName }) {
		l.problem(at+".server_name", h.ServerName+" is listed twice", "keep one entry")
		return
	}
	l.config.Homeservers = append(l.config.Homeservers, h)
}

// registrations reads one file or several.
func (l *loader) registrations(key string, v any) (files []File) {
	names, several := v.([]any)
	if !several {
		names = []any{v}
	}
	for _, v := range names {
		name, isText := v.(string)
		if !isText || name == "" {
			l.problem(key, fmt.Sprintf("%q is no file", fmt.Sprint(v)), "name the registration file that the homeserver has too, or a list of them")
			continue
		}
		text, ok := l.file(key, name)
		if !ok {
			continue
		}
		l.warnIfPublic(key, name)
		files = append(files, File{name, text})
	}
	return files
}

// secretFile reads a file that only this server should be able to read.
func (l *loader) secretFile(key string, v any) File {
	name, isText := v.(string)
	if !isText || name == "" {
		l.problem(key, fmt.Sprintf("%q is no file", fmt.Sprint(v)), "name the file, for example signing.key")
		return File{}
	}
	text, ok := l.file(key, name)
	if !ok {
		return File{}
	}
	l.warnIfPublic(key, name)
	return File{name, text}
}

// warnIfPublic warns of a file of secrets that everybody can read.
func (l *loader) warnIfPublic(key, name string) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(l.dir, name)
	}
	if info, err := os.Stat(name); err == nil && info.Mode().Perm()&0o007 != 0 {
		l.config.Warnings = append(l.config.Warnings, key+": everybody on this machine can read "+name+" - chmod o-rwx it")
	}
}

func remoteUsers(l *loader, key string, v any) {
	switch v {
	case "refuse":
		l.config.RemoteUsers = false
	case "subscribe":
		l.config.RemoteUsers = true
	default:
		l.problem(key, fmt.Sprintf("%q is not a policy", fmt.Sprint(v)), "use refuse or subscribe")
	}
}

func dataFile(l *loader, key string, v any) {
	if isOff(v) {
		return
	}
	name, isText := v.(string)
	if !isText || name == "" || strings.ContainsAny(name, "?#") {
		l.problem(key, fmt.Sprintf("%q is no file", fmt.Sprint(v)), "name a file in a directory that this server may write to, for example /var/lib/callserver/callserver.db, or write off")
		return
	}
	l.config.Data.File = name
}

func recoveryFile(l *loader, key string, v any) {
	name, isText := v.(string)
	if !isText || name == "" {
		l.problem(key, fmt.Sprintf("%q is no file", fmt.Sprint(v)), "name a file in a directory that this server may write to, for example /var/lib/callserver/recovery-keys")
		return
	}
	l.config.Bot.Recovery = name
}

// authorities reads certificates of authorities that are trusted besides the system's.
func authorities(field func(*Config) **x509.CertPool) func(*loader, string, any) {
	return func(l *loader, key string, v any) {
		text, ok := l.file(key, fmt.Sprint(v))
		if !ok {
			return
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool() // a system without certificates: only the file's
		}
		if !pool.AppendCertsFromPEM(text) {
			l.problem(key, fmt.Sprint(v)+" holds no certificate", "name a file of PEM certificates (-----BEGIN CERTIFICATE-----)")
			return
		}
		*field(&l.config) = pool
	}
}
