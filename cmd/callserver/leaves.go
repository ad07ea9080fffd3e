package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"go.mau.fi/util/dbutil"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"callserver/internal/config"
	"callserver/sfu"
	"callserver/signalling/matrixrtc/leave"
	"callserver/signalling/token"
	"callserver/signalling/token/ledger"
)

// openTime is how long the data file may take to open.
const openTime = 10 * time.Second

// openData opens the one file of what survives a restart, if a homeserver gives us anything to keep. Where the operator
// did not choose the file, everything else goes on without it.
func (s *server) openData(c *config.Config) error {
	able := slices.ContainsFunc(c.Homeservers, func(h config.Homeserver) bool { return len(h.Registrations) > 0 })
	if c.Data.File == "" || !able {
		return nil
	}
	db, err := openDatabase(c.Data.File)
	switch {
	case err == nil:
		s.data = db
	case c.Data.Default:
		s.log.Warn("data.file: a restart forgets what was revoked, and clients keep their delayed leaves to themselves - name a file that this server may write to, or off",
			"file", c.Data.File, "err", err)
	default:
		return fmt.Errorf("data.file: %w", err)
	}
	return nil
}

func openDatabase(name string) (*dbutil.Database, error) {
	// SQLite would make it for everybody to read, and there are secrets in it.
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	query := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: name}).EscapedPath()+"?"+query.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // one writer: no lock to wait for
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	if err := db.PingContext(ctx); err != nil { // the directory must take the log beside it, too
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), db.Close())
	}
	wrapped, err := dbutil.NewWithDB(db, "sqlite3")
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return wrapped, nil
}

// openLedger has revocations survive a restart, if there is a file for them.
func (s *server) openLedger(c *config.Config) error {
	if s.data == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	var err error
	if s.ledger, err = ledger.New(ctx, s.data, s.revocations, s.log); err != nil {
		return fmt.Errorf("data.file: %s: %w", c.Data.File, err)
	}
	return nil
}

// openLeaves makes the keeper of delayed leaves if there is a file to remember them in and a homeserver that lets us try
// them; otherwise it makes nothing.
func (s *server) openLeaves(c *config.Config) error {
	homeservers := map[string]leave.Homeserver{}
	able := false
	for _, h := range s.matrix {
		homeservers[h.Name()] = leave.Of(h)
		able = able || h.Sender() != ""
	}
	if s.data == nil || !able || !c.Membership.Delegate {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	table, err := leave.NewTable(ctx, s.data)
	if err != nil {
		return fmt.Errorf("data.file: %s: %w", c.Data.File, err)
	}
	s.leaves, err = leave.New(ctx, leave.Options{Homeservers: homeservers, Store: table, Logger: s.log})
	return err
}

// leaver tells the keeper of leaves who comes and goes.
type leaver struct{ leaves *leave.Keeper }

func (w leaver) Joined(g token.Grant, session sfu.SID) {
	w.leaves.Joined(g.Room, g.Identity, string(session))
}

func (w leaver) Left(g token.Grant, session sfu.SID, why sfu.Reason) {
	reason := leave.Lost
	switch why {
	case sfu.ClientInitiated:
		reason = leave.ByItself
	case sfu.ServerShutdown:
		reason = leave.Shutdown
	}
	w.leaves.Left(g.Room, g.Identity, string(session), reason)
}
