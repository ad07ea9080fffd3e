package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"

	"callserver/internal/config"
	"callserver/internal/telemetry"
)

// drainTime bounds how long clients get to hear that the server goes, once it was told to.
const drainTime = 5 * time.Second

// garbage is how much of it may gather beside what is in use, in percent. Half of the standard: next to nothing is allocated per packet, so it gathers
// slowly, and most of what is in use holds no pointers.
const garbage = 50

// letGather has so much garbage gather beside what is in use, in percent, unless GOGC in the environment says how much, and returns what undoes that.
func letGather(percent int) (undo func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(percent)
	return func() { debug.SetGCPercent(before) }
}

type serveCmd struct{ configured }

// Run serves until the context ends, then drains.
func (s serveCmd) Run(cmd *command) error {
	conf, err := s.load(cmd)
	if err != nil {
		return err
	}
	letGather(garbage) // for good
	log := telemetry.Logger(cmd.stderr, telemetry.LogOptions{Level: conf.Log.Level, JSON: conf.Log.JSON, Identifiers: conf.Log.Identifiers})
	srv, err := newServer(conf, log)
	if err != nil {
		return err
	}
	announce(conf, srv, log)
	return srv.run(cmd.ctx)
}

// announce says what an operator must know, a line per listener, and ends with "ready".
func announce(conf *config.Config, srv *server, log *slog.Logger) {
	for _, w := range conf.Warnings {
		log.Warn("configuration", "warning", w)
	}
	if conf.Development() {
		log.Warn("the development key is in use: this machine only", "key", config.DevelopmentKey, "secret", config.DevelopmentSecret)
	}
	for _, l := range srv.listeners() {
		log.Info("listening", "for", l.what, "at", l.at)
	}
	log.Info("ready", "version", version())
}

// run holds the group of everything that goes on: the first failure, or the end of ctx, drains and ends all.
func (s *server) run(ctx context.Context) error {
	// Work goes on while clients hear the farewell: it ends with background, not with ctx.
	background, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, failed := errgroup.WithContext(background)
	for _, work := range s.work() {
		group.Go(func() error { return work(background) })
	}
	group.Go(func() error {
		select {
		case <-ctx.Done():
			s.log.Info("draining", "at most", drainTime)
		case <-failed.Done(): // one part failed: take the others down in order
		}
		defer end()
		drain, cancel := context.WithTimeout(background, drainTime)
		defer cancel()
		return s.close(drain)
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	s.log.Info("stopped")
	return nil
}
