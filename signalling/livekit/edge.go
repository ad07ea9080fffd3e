// A client is one participant as the LiveKit client protocol knows it: the websocket that comes and goes, and the
// session behind it that stays. Package livekit owns the translation between that protocol and signalling.Session:
// the websockets of /rtc and /rtc/v1, resumption, and the RoomService. It never decides who receives what, and never
// touches WebRTC or media.
package livekit

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/token"
)

// Options configure an Edge.
type Options struct {
	Server *signalling.Server
	Keys   token.Keys   // who may sign tokens; also signs the refreshed ones
	Logger *slog.Logger // nil: none
}

// An Edge serves the LiveKit protocol over HTTP. Safe for concurrent use.
type Edge struct {
	server *signalling.Server
	keys   token.Keys
	log    *slog.Logger
	counts counters

	// alive ends the websockets that outlast the deadline of Close: a hijacked connection has no context of its own.
	alive context.Context //nolint:containedctx // see above
	halt  context.CancelFunc

	running sync.WaitGroup // handlers of websockets, loops of clients

	mu       sync.Mutex
	clients  map[sfu.SID]*client
	draining bool
}

type counters struct {
	joined, resumed, mismatched, refused, panics, cut atomic.Uint64
}

// Stats is a snapshot of an Edge's totals.
type Stats struct {
	Clients    int    // sessions now, with or without a websocket
	Joined     uint64 // sessions ever
	Resumed    uint64 // websockets that took over a session
	Mismatched uint64 // resumptions of unknown sessions
	Refused    uint64 // requests answered with an HTTP error
	Panics     uint64 // recovered where client bytes enter; each ended one client
	Cut        uint64 // connections cut because the client did not read
}

var (
	errDenied   = &signalling.Error{Code: signalling.NotAllowed, Text: "permissions denied"}
	errDraining = &signalling.Error{Code: signalling.Unavailable, Text: "server is shutting down"}
)

// New returns an Edge that serves until Close.
func New(o Options) *Edge {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	alive, halt := context.WithCancel(context.Background())
	return &Edge{server: o.Server, keys: o.Keys, log: o.Logger, alive: alive, halt: halt, clients: map[sfu.SID]*client{}}
}

// Stats returns the totals so far.
func (e *Edge) Stats() Stats {
	e.mu.Lock()
	n := len(e.clients)
	e.mu.Unlock()
	return Stats{
		Clients: n,
		Joined:  e.counts.joined.Load(), Resumed: e.counts.resumed.Load(), Mismatched: e.counts.mismatched.Load(),
		Refused: e.counts.refused.Load(), Panics: e.counts.panics.Load(), Cut: e.counts.cut.Load(),
	}
}

// Close sends every client away with leave{SERVER_SHUTDOWN, RECONNECT}, so that it joins anew by itself as soon as a
// server answers, and refuses new ones. It returns when all of them are gone; websockets still open when ctx ends are
// cut, and that is the error.
func (e *Edge) Close(ctx context.Context) error {
	e.mu.Lock()
	e.draining = true
	for _, c := range e.clients {
		c.dismiss()
	}
	e.mu.Unlock()
	done := context.AfterFunc(ctx, e.halt)
	e.running.Wait()
	e.halt()
	if !done() {
		return fmt.Errorf("drain clients: %w", ctx.Err())
	}
	return nil
}

// enter counts a handler in; false while draining.
func (e *Edge) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining {
		return false
	}
	e.running.Add(1)
	return true
}

func (e *Edge) leave() { e.running.Done() }

// open finds or makes the session of an admitted client and returns the client's connection to it. This is the seam
// at which another node's session would be reached: nothing but frames passes.
func (e *Edge) open(ctx context.Context, a admission) (conn, error) {
	if a.hello.Reconnect {
		return e.resume(ctx, a)
	}
	p := newPipe()
	c, err := newClient(ctx, e, a, p)
	if err != nil {
		return nil, err
	}
	if !e.add(c) {
		c.sess.Leave(sfu.ServerShutdown)
		return nil, errDraining
	}
	e.counts.joined.Add(1)
	return p, nil
}

// add makes c known and starts its loop; false while draining.
func (e *Edge) add(c *client) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining {
		return false
	}
	e.clients[c.sess.SID()] = c
	e.running.Go(c.loop)
	return true
}

func (e *Edge) remove(c *client) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.clients, c.sess.SID())
}

// resume gives an existing session the client's new connection. A session that is not known is answered in the
// protocol's own words: the client then joins anew.
func (e *Edge) resume(ctx context.Context, a admission) (conn, error) {
	p := newPipe()
	e.mu.Lock()
	c := e.clients[sfu.SID(a.hello.ParticipantSid)]
	e.mu.Unlock()
	if c != nil && !e.server.Revoked(a.grant) && c.sess.Is(sfu.RoomID(a.grant.Room), sfu.Identity(a.grant.Identity)) && c.attach(ctx, resumption{pipe: p, admission: a}) {
		e.counts.resumed.Add(1)
		return p, nil
	}
	e.counts.mismatched.Add(1)
	return mismatch(p), nil
}
