package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"time"

	"go.mau.fi/util/dbutil"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"callserver/internal/config"
	"callserver/sfu"
	"callserver/signalling/matrixrtc/leave"
)

// openTime is how long the data file may take to open.
const openTime = 10 * time.Second

// openData opens the one file of what survives a restart.
func openData(name string) (*dbutil.Database, error) {
	// SQLite would make it for everybody to read, and there are secrets in it.
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data.file: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("data.file: %w", err)
	}
	query := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: name}).EscapedPath()+"?"+query.Encode())
	if err != nil {
		return nil, fmt.Errorf("data.file: %w", err)
	}
	db.SetMaxOpenConns(1) // one writer: no lock to wait for
	wrapped, err := dbutil.NewWithDB(db, "sqlite3")
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("data.file: %w", err)
	}
	return wrapped, nil
}

// openLeaves makes the keeper of delayed leaves if there is a file to remember them in and a homeserver that it may ask
// for something; otherwise it opens nothing.
func (s *server) openLeaves(c *config.Config, log *slog.Logger) error {
	if c.Data.File == "" {
		return nil
	}
	homeservers := map[string]leave.Homeserver{}
	able := false
	for _, h := range s.matrix {
		homeservers[h.Name()] = nil
		if h.Sender() != "" {
			homeservers[h.Name()], able = leave.Of(h), true
		}
	}
	if !able {
		return nil
	}
	var err error
	if s.data, err = openData(c.Data.File); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	table, err := leave.NewTable(ctx, s.data)
	if err != nil {
		return fmt.Errorf("data.file: %s: %w", c.Data.File, err)
	}
	s.leaves, err = leave.New(ctx, leave.Options{Homeservers: homeservers, Store: table, Logger: log})
	return err
}

// watcher tells the keeper of leaves who comes and goes.
type watcher struct{ leaves *leave.Keeper }

func (w watcher) Joined(room, identity string, session sfu.SID) {
	w.leaves.Joined(room, identity, string(session))
}

func (w watcher) Left(room, identity string, session sfu.SID, why sfu.Reason) {
	reason := leave.Lost
	switch why {
	case sfu.ClientInitiated:
		reason = leave.ByItself
	case sfu.ServerShutdown:
		reason = leave.Shutdown
	}
	w.leaves.Left(room, identity, string(session), reason)
}
