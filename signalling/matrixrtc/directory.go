package matrixrtc

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sync/singleflight"
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

// A directory knows how to ask a homeserver whose OpenID token one is. Safe for concurrent use.
type directory struct {
	trusted, open *lane // configured homeservers, and all others
	counters      *counters
	timeout       time.Duration // for everything about one token

	discovery singleflight.Group
	routes    *expiring[string, route]
	refused   *expiring[[sha256.Size]byte, struct{}] // by hash of server and token
	silent    *expiring[string, struct{}]            // by server name
}

func newDirectory(resolver *net.Resolver, roots *x509.CertPool, c *counters) *directory {
	return &directory{
		trusted:  newLane(resolver, roots, true, trustedSlots),
		open:     newLane(resolver, roots, false, openSlots),
		counters: c,
		timeout:  lookupTimeout,
		routes:   newExpiring[string, route](maxRoutes),
		refused:  newExpiring[[sha256.Size]byte, struct{}](maxRefused),
		silent:   newExpiring[string, struct{}](maxRoutes),
	}
}

// user asks the homeserver that a token names whose token it is, and believes only an id on that very server.
// Configured is the zero value for a server that the operator does not know. The lookup goes on for at most the
// time-out, even when the client is gone: others may be waiting for the same discovery.
func (d *directory) user(ctx context.Context, t openIDToken, configured Homeserver, now time.Time) (string, error) {
	key := sha256.Sum256([]byte(t.ServerName + "\x00" + t.AccessToken))
	_, refused := d.refused.get(key, now)
	_, silent := d.silent.get(t.ServerName, now)
	if refused || silent {
		d.counters.lookupsSpared.Add(1)
		return "", errSpared
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timeout)
	defer cancel()
	d.counters.lookups.Add(1)
	status, body, err := d.ask(ctx, t, configured, now)
	if err != nil {
		d.counters.lookupFailures.Add(1)
		if configured.ServerName == "" {
			d.silent.put(t.ServerName, struct{}{}, now, now.Add(silentLife))
		}
		return "", err
	}
	sub, err := subject(status, body, t.ServerName)
	if err != nil {
		d.counters.lookupFailures.Add(1)
		if final(status) {
			d.refused.put(key, struct{}{}, now, now.Add(refusedLife))
		}
		return "", err
	}
	return sub, nil
}

// final reports whether a homeserver that answered so will say the same of the same token again.
func final(status int) bool {
	return status < http.StatusInternalServerError && status != http.StatusTooManyRequests
}

// ask fetches the user info along the configured or the discovered way.
func (d *directory) ask(ctx context.Context, t openIDToken, configured Homeserver, now time.Time) (int, []byte, error) {
	l := d.open
	if configured.ServerName != "" {
		l = d.trusted
	}
	if err := l.enter(ctx); err != nil {
		return 0, nil, err
	}
	defer l.leave()
	query := url.Values{"access_token": {t.AccessToken}}
	if configured.Federation != "" {
		return l.get(ctx, configured.Federation, pathUserInfo, query, route{})
	}
	r, err := d.route(ctx, l, t.ServerName, now)
	if err != nil {
		return 0, nil, err
	}
	status, body, err := l.get(ctx, "https://"+r.host, pathUserInfo, query, r)
	if err != nil {
		d.routes.drop(t.ServerName) // it may have moved
	}
	return status, body, err
}

// route finds a server, once for all who ask at the same time.
func (d *directory) route(ctx context.Context, l *lane, name string, now time.Time) (route, error) {
	found, err, _ := d.discovery.Do(name, func() (any, error) {
		if r, ok := d.routes.get(name, now); ok {
			return r, nil
		}
		r, err := l.discover(ctx, name)
		if err != nil {
			return nil, err
		}
		d.routes.put(name, r, now, now.Add(routeLife))
		return r, nil
	})
	if err != nil {
		return route{}, err
	}
	return found.(route), nil
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
	local, domain, ok := strings.Cut(strings.TrimPrefix(info.Sub, "@"), ":")
	switch {
	case !ok || local == "" || !strings.HasPrefix(info.Sub, "@"), len(info.Sub) > 255, strings.ContainsFunc(info.Sub, unicode.IsControl):
		return "", fmt.Errorf("%s vouches for something that is no user id: %.300q", server, info.Sub)
	case domain != server:
		return "", fmt.Errorf("%s vouches for a user of another server: %q", server, info.Sub)
	}
	return info.Sub, nil
}

func (d *directory) close() {
	d.trusted.close()
	d.open.close()
}
