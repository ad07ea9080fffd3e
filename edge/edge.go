// Package edge is the HTTP listener that clients reach. It owns the socket, the request limits, the mounting of handlers
// under prefixes, the guard of the development key, and the graceful close. It never speaks a protocol of its own.
package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
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
}

// A Listener accepts HTTP requests on one address. Safe for concurrent use.
type Listener struct {
	socket net.Listener
	server *http.Server
	guard  *guard
}

// Stats counts since the start.
type Stats struct {
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
		socket: socket,
		guard:  g,
		server: &http.Server{
			Handler:           g,
			MaxHeaderBytes:    maxHeader,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		},
	}, nil
}

// Addr is the bound address.
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }

// Stats returns the counters.
func (l *Listener) Stats() Stats {
	return Stats{Requests: l.guard.requests.Load(), Refused: l.guard.refused.Load(), Panics: l.guard.panics.Load()}
}

// Run serves until Close. It returns nil after an orderly close.
func (l *Listener) Run() error {
	if err := l.server.Serve(l.socket); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}

// Close stops accepting, waits for the requests under way until ctx ends, and cuts off the rest. WebSockets are not
// waited for: whoever upgraded them closes them first. Closing twice is fine.
func (l *Listener) Close(ctx context.Context) error {
	err := l.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, l.server.Close())
	}
	_ = l.socket.Close() // open still if Run was never called
	return err
}

// guard stands before every handler.
type guard struct {
	next        http.Handler
	development bool
	log         *slog.Logger

	requests, refused, panics atomic.Uint64
}
