// A Homeserver is one Matrix homeserver that the operator named: what this program may do there, and what it hears
// from there. Package homeserver owns the application service registrations, the requests made with them or with a
// caller's own token, the transactions that the homeserver pushes, and their distribution to subscribers.
// It knows nothing of calls, decides nothing about anybody, and never logs or stores a token.
//
// # Privileges
//
// A homeserver may know this program by up to two registrations, both optional. A narrow one has a sender user and
// ghosts of its own, and its url makes the homeserver push the events of the rooms that they are in. A wide one
// covers the homeserver's own users, so that requests can be made in their name ([Homeserver.As]); its url is null, or
// else every event of every room would be pushed. Either may have the scope of MSC4502 ([Homeserver.IsJoined]). What no
// registration allows fails with [ErrNoPrivilege] before anything is sent.
//
// # A homeserver that is down or slow
//
// Every request has a time-out and counts towards a bound on requests at a time, and to one on those about its room. After a
// few that found nobody, the homeserver is left alone for a moment, longer each time; requests fail at once meanwhile, with
// [ErrUnavailable]. A room that alone is slow counts once among those few, and nothing counts that others overtook.
package homeserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/federation"
	"maunium.net/go/mautrix/id"
)

const (
	requestTimeout = 5 * time.Second
	dialTimeout    = 2 * time.Second
	maxAnswer      = 16 << 20 // bytes; a list of 100,000 members has 10 MB
)

// Options of a Homeserver. ServerName is required.
type Options struct {
	ServerName    string          // example.org
	ClientAPI     string          // base URL of the client API; empty means https://HOST of ServerName
	Registrations []*Registration // parsed; none means that only callers' own tokens can be used
	RootCAs       *x509.CertPool  // nil means the system's
	Timeout       time.Duration   // of one request; 0 means 5 s
	Now           func() time.Time
	Logger        *slog.Logger // nil means none
}

// A Homeserver is safe for concurrent use.
type Homeserver struct {
	options  Options
	base     *url.URL
	log      *slog.Logger
	http     *http.Client
	slots    *slots
	breaker  breaker
	versions versions
	inbox    inbox
	counters counters
	heard    atomic.Bool // see Pushes
}

type counters struct {
	requests, failures, spared                         atomic.Uint64
	transactions, replayed, events, badEvents, dropped atomic.Uint64
}

// Stats are the counts since the start.
type Stats struct {
	Requests     uint64 // sent to the homeserver
	Failures     uint64 // of these, those that it did not answer, or with 5xx or 429
	Spared       uint64 // not sent, because it did not answer a moment ago
	Transactions uint64 // received from it
	Replayed     uint64 // of these, those seen before
	Events       uint64 // in new transactions, and by polls
	BadEvents    uint64 // of these, those that are no events
	Dropped      uint64 // deliveries that a subscriber had no room for
}

// New checks the options, all of them. The caller must Close the Homeserver.
func New(o Options) (*Homeserver, error) {
	host, _, ok := federation.ParseServerName(o.ServerName)
	if !ok {
		return nil, fmt.Errorf("homeserver %q: that is no server name", o.ServerName)
	}
	if o.ClientAPI == "" {
		if strings.Contains(host, ":") { // an IPv6 address
			host = "[" + host + "]"
		}
		o.ClientAPI = "https://" + host
	}
	base, err := url.Parse(strings.TrimRight(o.ClientAPI, "/"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || base.RawQuery != "" {
		return nil, fmt.Errorf("homeserver %s: client API %q is not a base URL like https://matrix.example.org", o.ServerName, o.ClientAPI)
	}
	base.RawPath = base.EscapedPath()
	if err := distinct(o.Registrations); err != nil {
		return nil, fmt.Errorf("homeserver %s: %w", o.ServerName, err)
	}
	if o.Timeout == 0 {
		o.Timeout = requestTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Homeserver{
		options: o, base: base, log: o.Logger.With("homeserver", o.ServerName),
		slots: newSlots(),
		http:  newClient(o.RootCAs),
	}
	return h, nil
}

// distinct refuses registrations that the homeserver would refuse too.
func distinct(rs []*Registration) error {
	for i, r := range rs {
		for _, other := range rs[:i] {
			if r.ID == other.ID || r.AppToken == other.AppToken || r.ServerToken == other.ServerToken {
				return fmt.Errorf("two registrations (%s and %s) have the same id or token", other.ID, r.ID)
			}
		}
	}
	return nil
}

func newClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{ // no Proxy: the operator named the homeserver, and tokens go there only
			DialContext:           newDialer().DialContext,
			TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:   dialTimeout,
			MaxIdleConnsPerHost:   32,
			IdleConnTimeout:       time.Minute,
			ForceAttemptHTTP2:     true,
			ResponseHeaderTimeout: time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Name is the server name.
func (h *Homeserver) Name() string { return h.options.ServerName }

// Local reports whether a user is one of this homeserver's.
func (h *Homeserver) Local(user id.UserID) bool {
	_, domain, ok := strings.Cut(string(user), ":")
	return ok && strings.HasPrefix(string(user), "@") && domain == h.options.ServerName
}

// ServerOf is the homeserver of a user, empty if it is no user id.
func ServerOf[User ~string](user User) string {
	_, server, _ := strings.Cut(string(user), ":")
	return server
}

// Pushes reports whether the homeserver is known to reach this server with events: it did since the start.
func (h *Homeserver) Pushes() bool { return h.heard.Load() }

// Stats returns what happened since the start.
func (h *Homeserver) Stats() Stats {
	c := &h.counters
	return Stats{
		Requests: c.requests.Load(), Failures: c.failures.Load(), Spared: c.spared.Load(),
		Transactions: c.transactions.Load(), Replayed: c.replayed.Load(),
		Events: c.events.Load(), BadEvents: c.badEvents.Load(), Dropped: c.dropped.Load(),
	}
}

// Close drops idle connections. Requests on their way go on.
func (h *Homeserver) Close() error {
	h.http.CloseIdleConnections()
	return nil
}
