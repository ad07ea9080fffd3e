// A Directory knows other homeservers as servers know each other: where they are, and for whom they vouch. Package
// federation owns their discovery, the guard that keeps requests for strangers out of private networks, the proof of
// users by OpenID tokens, and the signatures under requests between servers. It never knows of rooms or calls, and never logs or stores a token.
//
// # Private addresses
//
// A configured homeserver may live at a private or loopback address, since the operator named it. Every other
// server is reached at public addresses and in Options.Private only, checked on the address that is dialled, so that
// neither a redirect nor a name that resolves differently the second time leads inside.
package federation

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/sync/singleflight"

	"callserver/internal/expiring"
)

const (
	pathUserInfo = "/_matrix/federation/v1/openid/userinfo"

	routeLife    = time.Hour        // how long a discovered route is used
	refusedLife  = 30 * time.Second // how long a token that its homeserver did not know is not asked about again
	silentLife   = 10 * time.Second // how long a server that could not be reached is left alone; configured ones never are
	maxRoutes    = 4096
	maxRefused   = 4096
	trustedSlots = 256
	openSlots    = 64
)

var errSpared = errors.New("asked a moment ago without success")

// A Server is a homeserver that the operator configured.
type Server struct {
	Name string // as in the ids of its users: example.org
	Base string // base URL of its federation API, for development; empty means discovery as Matrix specifies it
}

// Options of a Directory. The zero value reaches public servers only.
type Options struct {
	Servers  []Server
	Private  []netip.Prefix // networks that are not public, in which other homeservers are reached all the same
	RootCAs  *x509.CertPool // certificate authorities of homeservers; nil means the system's
	Resolver *net.Resolver  // nil means the system's
}

// A Directory reaches homeservers. Safe for concurrent use; its owner must Close it.
type Directory struct {
	servers       map[string]Server // by name
	trusted, open *lane             // configured homeservers, and all others
	timeout       time.Duration     // for everything about one token

	discovery singleflight.Group // by server name
	fetches   singleflight.Group // of keys, by server name
	routes    *expiring.Map[string, route]
	refused   *expiring.Map[[sha256.Size]byte, struct{}] // by hash of server and token
	silent    *expiring.Map[string, struct{}]            // by server name
	keys      *expiring.Map[string, keyring]             // by server name

	lookups, failures, spared atomic.Uint64
}

// Stats are the counts since the start.
type Stats struct {
	Lookups        uint64 // requests to homeservers about OpenID tokens and signing keys
	LookupFailures uint64 // of these, those without a usable answer
	LookupsSpared  uint64 // lookups not made because the same one failed moments ago
}

// New returns a Directory that has asked nobody yet.
func New(o Options) *Directory {
	d := &Directory{
		servers: make(map[string]Server, len(o.Servers)),
		trusted: newLane(o, guard{anywhere: true}, trustedSlots),
		open:    newLane(o, guard{private: o.Private}, openSlots),
		timeout: lookupTimeout,
		routes:  expiring.New[string, route](maxRoutes),
		refused: expiring.New[[sha256.Size]byte, struct{}](maxRefused),
		silent:  expiring.New[string, struct{}](maxRoutes),
		keys:    expiring.New[string, keyring](maxKeys),
	}
	for _, s := range o.Servers {
		s.Base = strings.TrimRight(s.Base, "/")
		d.servers[s.Name] = s
	}
	return d
}

// Close drops the idle connections to homeservers. Requests being answered go on.
func (d *Directory) Close() {
	d.trusted.close()
	d.open.close()
}

// Stats returns what happened since the start.
func (d *Directory) Stats() Stats {
	return Stats{Lookups: d.lookups.Load(), LookupFailures: d.failures.Load(), LookupsSpared: d.spared.Load()}
}

// User asks the homeserver called name whose OpenID token it is, and believes only an id on that very server. The
// lookup goes on for at most five seconds, even when the client is gone: others may be waiting for the same discovery.
// Errors do not contain the token. Matrix server-server API, "OpenID".
func (d *Directory) User(ctx context.Context, name, token string, now time.Time) (string, error) {
	key := sha256.Sum256([]byte(name + "\x00" + token))
	if _, refused := d.refused.Get(key, now); refused || d.isSilent(name, now) {
		d.spared.Add(1)
		return "", errSpared
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timeout)
	defer cancel()
	d.lookups.Add(1)
	status, body, err := d.call(ctx, name, ask{method: http.MethodGet, path: pathUserInfo, query: url.Values{"access_token": {token}}}, now)
	if err != nil {
		d.failures.Add(1)
		return "", err
	}
	sub, err := subject(status, body, name)
	if err != nil {
		d.failures.Add(1)
		if final(status) {
			d.refused.Put(key, struct{}{}, now, now.Add(refusedLife))
		}
		return "", err
	}
	return sub, nil
}

// final reports whether a homeserver that answered so will say the same of the same token again.
func final(status int) bool {
	return status < http.StatusInternalServerError && status != http.StatusTooManyRequests
}

// isSilent reports whether a server could not be reached a moment ago.
func (d *Directory) isSilent(name string, now time.Time) bool {
	_, silent := d.silent.Get(name, now)
	return silent
}

// call asks a homeserver along the configured or the discovered way. One that is not configured and does not answer is
// left alone for a while.
func (d *Directory) call(ctx context.Context, name string, a ask, now time.Time) (int, []byte, error) {
	server, configured := d.servers[name]
	l := d.open
	if configured {
		l = d.trusted
	}
	if err := l.enter(ctx); err != nil {
		return 0, nil, err
	}
	defer l.leave()
	status, body, err := d.callOn(ctx, l, server.Base, name, a, now)
	if err != nil && !configured && !errors.Is(ctx.Err(), context.Canceled) {
		d.silent.Put(name, struct{}{}, now, now.Add(silentLife))
	}
	return status, body, err
}

func (d *Directory) callOn(ctx context.Context, l *lane, base, name string, a ask, now time.Time) (int, []byte, error) {
	if base != "" {
		return l.do(ctx, base, a, route{})
	}
	r, err := d.route(ctx, l, name, now)
	if err != nil {
		return 0, nil, err
	}
	status, body, err := l.do(ctx, "https://"+r.host, a, r)
	if err != nil {
		d.routes.Drop(name) // it may have moved
	}
	return status, body, err
}

// route finds a server, once for all who ask at the same time.
func (d *Directory) route(ctx context.Context, l *lane, name string, now time.Time) (route, error) {
	found, err, _ := d.discovery.Do(name, func() (any, error) {
		if r, ok := d.routes.Get(name, now); ok {
			return r, nil
		}
		r, err := l.discover(ctx, name)
		if err != nil {
			return nil, err
		}
		d.routes.Put(name, r, now, now.Add(routeLife))
		return r, nil
	})
	if err != nil {
		return route{}, err
	}
	return found.(route), nil
}

// ParseUser returns the homeserver of a user; not ok if the text cannot be a user id.
func ParseUser(user string) (server string, ok bool) {
	local, server, ok := strings.Cut(strings.TrimPrefix(user, "@"), ":")
	ok = ok && strings.HasPrefix(user, "@") && local != "" && server != "" && len(user) <= 255 && !strings.ContainsFunc(user, unicode.IsControl)
	return server, ok
}

// subject reads the user id out of an answer. Its domain must be the server asked, byte for byte: no server may vouch
// for the users of another.
func subject(status int, body []byte, server string) (string, error) {
	if status != http.StatusOK {
		return "", fmt.Errorf("%s answers %d about the token", server, status)
	}
	var info struct {
		Sub string `json:"sub"`
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return "", fmt.Errorf("%s answers something else than JSON about the token: %w", server, err)
	}
	domain, ok := ParseUser(info.Sub)
	switch {
	case !ok:
		return "", fmt.Errorf("%s vouches for something that is no user id: %.300q", server, info.Sub)
	case domain != server:
		return "", fmt.Errorf("%s vouches for a user of another server: %q", server, info.Sub)
	}
	return info.Sub, nil
}
