// Package edge is the listener that clients reach over TCP. It owns the socket, TLS and its certificates, telling apart what connections
// speak (HTTP, TURN inside TLS, ICE over TCP), the limits of HTTP requests, the mounting of handlers under prefixes, the guard of the development
// key, and the graceful close. It never speaks TURN or ICE itself: whoever does accepts those connections.
package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// maxHeader bounds the request line and the headers: a first offer travels in the URL of /rtc/v1, and clients
	// rely on 1 MiB.
	maxHeader = 2 << 20
	// headerTimeout bounds how long a client may take to send them.
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
)

// Options says where to listen and what to serve. Listen is required.
type Options struct {
	Listen      string // host:port
	Handler     http.Handler
	Development bool         // the development key is in use: refuse what came from another machine
	Logger      *slog.Logger // nil = slog.Default()

	Certificates  *Certificates  // speak TLS with these; nil = without
	ProxyProtocol []netip.Prefix // proxies that pass TCP on and say who the client is, by the PROXY protocol, version 2
}

// A Listener accepts connections on one address. Safe for concurrent use.
type Listener struct {
	split  *splitter
	server *http.Server
	guard  *guard
}

// Stats counts since the start.
type Stats struct {
	Closed   uint64 // connections, before it was clear what they speak: no TLS, no proxy header, nothing said, too many
	Requests uint64 // handed to a handler
	Refused  uint64 // by the guard of the development key
	Panics   uint64 // in handlers, each answered with 500
}

// Listen binds the address, so that a port in use is an error at the start. Serving begins with Run.
func Listen(o Options) (*Listener, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Handler == nil {
		o.Handler = http.NotFoundHandler()
	}
	socket, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w", err)
	}
	g := &guard{next: o.Handler, development: o.Development, log: o.Logger}
	return &Listener{
		split: newSplitter(socket, o),
		guard: g,
		server: &http.Server{
			Handler:           g,
			ConnContext:       withTLS,
			MaxHeaderBytes:    maxHeader,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		},
	}, nil
}

// Addr is the bound address.
func (l *Listener) Addr() net.Addr { return l.split.socket.Addr() }

// TURN are the connections that speak TURN inside TLS. Unless this is called before Run, they are closed.
func (l *Listener) TURN() net.Listener { return l.split.turn.use() }

// ICE are the connections that begin, outside TLS, with a STUN message framed by RFC 4571, as ICE over TCP does. Unless this is called before
// Run, they are closed.
func (l *Listener) ICE() net.Listener { return l.split.ice.use() }

// Stats returns the counters.
func (l *Listener) Stats() Stats {
	return Stats{
		Closed:   l.split.refused.Load(),
		Requests: l.guard.requests.Load(), Refused: l.guard.refused.Load(), Panics: l.guard.panics.Load(),
	}
}

// Run serves until Close. It returns nil after an orderly close.
func (l *Listener) Run() error {
	var accepting errgroup.Group
	accepting.Go(func() error {
		err := l.split.acceptLoop()
		return errors.Join(err, l.split.close()) // HTTP ends too
	})
	err := l.server.Serve(l.split.http)
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if err = errors.Join(err, l.split.close(), accepting.Wait()); err != nil {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}

// Close stops accepting, waits for the requests under way until ctx ends, and cuts off the rest. WebSockets are not
// waited for: whoever upgraded them closes them first, and so are connections of TURN and ICE by whoever accepted them. Closing twice is fine.
func (l *Listener) Close(ctx context.Context) error {
	closed := l.split.close()
	err := l.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, l.server.Close())
	}
	return errors.Join(err, closed)
}

// guard stands before every handler.
type guard struct {
	next        http.Handler
	development bool
	log         *slog.Logger

	requests, refused, panics atomic.Uint64
}
