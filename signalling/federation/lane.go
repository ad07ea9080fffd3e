package federation

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"maunium.net/go/mautrix/federation"
)

// How long a homeserver may take, and how much it may say. Clients wait for it in the middle of joining.
const (
	lookupTimeout    = 5 * time.Second // for discovery and answer together
	wellKnownTimeout = 2 * time.Second // then discovery goes on without the document
	dialTimeout      = 2 * time.Second // for one name or address
	maxAnswer        = 64 << 10        // bytes, of header and body each
	maxRedirects     = 5               // of the well-known document; nothing else may redirect
)

// A lane is how homeservers of one degree of trust are reached. Connections are pooled for each lane by itself: one
// that was opened to a private address for a configured homeserver must not serve a stranger who names the same host.
type lane struct {
	dial   dialFunc
	direct *http.Client // to the host of the URL
	routed *http.Client // to the addresses that route put in the context
	find   *federation.ResolveServerNameOpts
	slots  chan struct{} // lookups at a time; when full, the next one waits
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

type routeKey struct{}

func newLane(o Options, g guard, slots int) *lane {
	l := &lane{dial: g.dialer(o.Resolver).DialContext, slots: make(chan struct{}, slots)}
	transport := func(dial dialFunc) *http.Transport {
		return &http.Transport{ // no Proxy: the address check must see the homeserver's
			DialContext:            dial,
			TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    dialTimeout,
			MaxResponseHeaderBytes: maxAnswer,
			MaxIdleConnsPerHost:    4,
			MaxIdleConns:           64,
			IdleConnTimeout:        time.Minute,
		}
	}
	l.direct = &http.Client{Transport: transport(l.dialDirect), CheckRedirect: neverRedirect}
	l.routed = &http.Client{Transport: transport(l.dialRoute), CheckRedirect: neverRedirect}
	resolver := o.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	l.find = &federation.ResolveServerNameOpts{
		DNSClient: resolver,
		HTTPClient: &http.Client{
			Transport: l.direct.Transport, CheckRedirect: secureRedirect, Timeout: wellKnownTimeout,
		},
	}
	return l
}

func neverRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func secureRedirect(to *http.Request, via []*http.Request) error {
	if to.URL.Scheme != "https" || len(via) > maxRedirects {
		return errors.New("too many redirects, or one that leaves https")
	}
	return nil
}

func (l *lane) dialDirect(ctx context.Context, network, address string) (net.Conn, error) {
	return l.dial(ctx, network, address)
}

// dialRoute dials the addresses that discovery found for the host, in their order.
func (l *lane) dialRoute(ctx context.Context, network, _ string) (net.Conn, error) {
	addresses, _ := ctx.Value(routeKey{}).([]string)
	var errs []error
	for _, address := range addresses {
		conn, err := l.dial(ctx, network, address)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(append(errs, errNoRoute)...)
}

var errNoRoute = errors.New("no address of the homeserver answers")

// A route is where the federation API of a server name is.
type route struct {
	host      string   // for TLS and the Host header
	addresses []string // host:port
}

// discover resolves a server name as Matrix's server-server API specifies it.
func (l *lane) discover(ctx context.Context, name string) (route, error) {
	found, err := federation.ResolveServerName(ctx, name, l.find)
	if err != nil {
		return route{}, fmt.Errorf("discover %s: %w", name, err)
	}
	if _, _, ok := federation.ParseServerName(found.HostHeader); !ok {
		return route{}, fmt.Errorf("discover %s: its well-known document names no server: %q", name, found.HostHeader)
	}
	return route{host: found.HostHeader, addresses: found.IPPort}, nil
}

// An ask is one request below a base URL.
type ask struct {
	method, path  string
	query         url.Values
	authorization string
	body          []byte // JSON; nil for none
}

// do asks below a base URL, along a route unless that is empty. Errors do not contain the query.
func (l *lane) do(ctx context.Context, base string, a ask, r route) (status int, body []byte, err error) {
	client := l.direct
	if r.host != "" {
		client = l.routed
		ctx = context.WithValue(ctx, routeKey{}, r.addresses)
	}
	target := base + a.path
	if a.query != nil {
		target += "?" + a.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, a.method, target, bytes.NewReader(a.body))
	if err != nil {
		return 0, nil, fmt.Errorf("ask %s: %w", base, bare(err))
	}
	if a.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.authorization != "" {
		req.Header.Set("Authorization", a.authorization)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("ask %s: %w", base, bare(err))
	}
	defer func() { _ = resp.Body.Close() }() // read to the end, or given up
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, fmt.Errorf("read answer of %s: %w", base, err)
	}
	if len(body) > maxAnswer {
		return 0, nil, fmt.Errorf("read answer of %s: more than %d bytes", base, maxAnswer)
	}
	return resp.StatusCode, body, nil
}

// bare takes the URL out of an error: its query is somebody's token.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func (l *lane) enter(ctx context.Context) error {
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for other lookups: %w", ctx.Err())
	}
}

func (l *lane) leave() { <-l.slots }

func (l *lane) close() {
	l.direct.CloseIdleConnections()
	l.routed.CloseIdleConnections()
}
