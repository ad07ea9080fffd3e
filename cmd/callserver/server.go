package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"callserver/edge"
	"callserver/internal/config"
	"callserver/internal/telemetry"
)

// A server is every part of the running program, wired and bound to its sockets.
type server struct {
	log       *slog.Logger
	telemetry *telemetry.Telemetry
	clients   *edge.Listener // what clients reach
	admin     *edge.Listener // what the operator reaches, nil = off
}

// newServer wires the parts and opens every socket, or none.
func newServer(c *config.Config, log *slog.Logger) (_ *server, err error) {
	s := &server{log: log, telemetry: telemetry.New(version())}
	defer func() {
		if err != nil {
			_ = s.close(context.Background()) // the first error says more
		}
	}()
	if s.clients, err = edge.Listen(edge.Options{
		Listen:      c.HTTP.Listen,
		Handler:     s.routes(),
		Development: c.Development(),
		Logger:      log,
	}); err != nil {
		return nil, err
	}
	if c.Admin.Listen != "" {
		s.admin, err = edge.Listen(edge.Options{Listen: c.Admin.Listen, Handler: s.telemetry.Handler(), Logger: log})
	}
	if err != nil {
		return nil, err
	}
	s.observe()
	return s, nil
}

// routes says which part answers which path.
func (s *server) routes() http.Handler {
	return edge.Mux(
		edge.Mount{Handler: http.HandlerFunc(edge.OK), Root: []string{"/", "/healthz"}},
	)
}

// work lists what runs until the server ends.
func (s *server) work() []func(context.Context) error {
	work := []func(context.Context) error{
		func(context.Context) error { return s.clients.Run() },
	}
	if s.admin != nil {
		work = append(work, func(context.Context) error { return s.admin.Run() })
	}
	return work
}

// close takes the parts down in the order in which clients notice. Closing a server that was wired half is fine.
func (s *server) close(ctx context.Context) error {
	var errs []error
	for _, l := range []*edge.Listener{s.clients, s.admin} {
		if l != nil {
			errs = append(errs, l.Close(ctx))
		}
	}
	return errors.Join(errs...)
}

// A listener is one line of the start.
type listener struct{ what, at string }

func (s *server) listeners() []listener {
	ls := []listener{{"clients", "http://" + s.clients.Addr().String()}}
	if s.admin != nil {
		ls = append(ls, listener{"admin", "http://" + s.admin.Addr().String()})
	}
	return ls
}
