package ledger

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.mau.fi/util/dbutil"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"callserver/signalling/token"
)

func open(t *testing.T, name string) *dbutil.Database {
	t.Helper()
	raw, err := sql.Open("sqlite", "file:"+name)
	if err != nil {
		t.Fatal(err)
	}
	raw.SetMaxOpenConns(1)
	db, err := dbutil.NewWithDB(raw, "sqlite3")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// start runs a Ledger of the database; end is what the program does when it ends.
func start(t *testing.T, db *dbutil.Database) (*token.Revocations, *Ledger, func()) {
	t.Helper()
	r := &token.Revocations{}
	l, err := New(t.Context(), db, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = l.Run(t.Context()) })
	return r, l, func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		running.Wait()
	}
}

func count(t *testing.T, db *dbutil.Database) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), "SELECT count(*) FROM revocation").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// eventually waits for the loop, which nothing else tells about.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(20 * time.Second); !is(); runtime.Gosched() {
		if time.Now().After(late) {
			t.Fatal(what)
		}
	}
}

func TestLedger(t *testing.T) {
	name := filepath.Join(t.TempDir(), "callserver.db")
	now := time.Now()
	kicked := token.Origin{User: "@alice:example.org", Conversation: "!room:example.org", Verified: now.Add(-time.Minute)}

	db := open(t, name)
	r, _, end := start(t, db)
	r.Revoke("@long-ago:example.org", "!r", now.Add(-token.RevokedLife-time.Minute))
	eventually(t, "nothing is written", func() bool { return count(t, db) == 1 })
	r.Revoke(kicked.User, kicked.Conversation, now)
	r.Revoke(kicked.User, "!other:example.org", now)
	eventually(t, "not exactly what still counts is written", func() bool { return count(t, db) == 2 })

	// The program is killed here: nothing is closed before another one begins.
	second, _, endSecond := start(t, open(t, name))
	if !second.Revoked(kicked) {
		t.Error("a restart makes the token good again")
	}
	anew := kicked
	anew.Verified = now.Add(time.Second)
	if second.Revoked(anew) {
		t.Error("what was verified anew is revoked")
	}
	end()
	endSecond()
	end()
}

// Whatever is revoked at the last moment is on disk when Close returns.
func TestCloseWrites(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "callserver.db"))
	r := &token.Revocations{}
	l, err := New(t.Context(), db, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Revoke("@a:example.org", "!r", time.Now())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 1 {
		t.Errorf("%d are written, want 1", n)
	}
}

// A disk that takes nothing costs a line in the log and no memory; what was not written is when it can be.
func TestFullDisk(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "callserver.db"))
	r := &token.Revocations{}
	l, err := New(t.Context(), db, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), "ALTER TABLE revocation RENAME TO elsewhere"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		r.Revoke(fmt.Sprintf("@%d:example.org", i%2), "!r", time.Now())
		if err := l.write(); err == nil {
			t.Fatal("written to no table")
		}
	}
	if len(l.pending) != 2 {
		t.Errorf("%d wait, want the latest of two places", len(l.pending))
	}
	if _, err := db.Exec(t.Context(), "ALTER TABLE elsewhere RENAME TO revocation"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 2 {
		t.Errorf("%d are written, want 2", n)
	}
}

// When too many are revoked to tell them apart, one line says it for all.
func TestEverybody(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "callserver.db"))
	l, err := New(t.Context(), db, &token.Revocations{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	l.pending = []token.Revocation{{User: "@a:example.org", Conversation: "!r", At: now}, {At: now.Add(time.Second)}}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 1 {
		t.Errorf("%d are written, want 1", n)
	}
	r, _, end := start(t, db)
	defer end()
	if !r.Revoked(token.Origin{User: "@b:example.org", Conversation: "!x", Verified: now}) {
		t.Error("a token from before is good again")
	}
}
