package leave

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mau.fi/util/dbutil"
	_ "modernc.org/sqlite" // the driver "sqlite"
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
	return db
}

func TestTable(t *testing.T) {
	name := filepath.Join(t.TempDir(), "callserver.db")
	at := time.UnixMilli(1_750_000_000_000)
	one := Job{Server: "x", User: "@a:x", Delay: "1", Length: time.Hour, Room: "R", Identities: []string{"@a:x:D", "H"}, Restarted: at}
	two := one
	two.Delay, two.Fate, two.Restarted = "2", Cancel, at.Add(time.Minute)
	later := one
	later.Restarted, later.Fate = at.Add(48*time.Minute), Send

	db := open(t, name)
	table, err := NewTable(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Apply(t.Context(), []Change{{Job: one}, {Job: two}, {Job: later}, {Job: two, Over: true}, {Job: two}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	db = open(t, name)
	t.Cleanup(func() { _ = db.Close() })
	if table, err = NewTable(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	jobs, err := table.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Job{two, later}, jobs); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if err := table.Apply(t.Context(), []Change{{Job: two, Over: true}, {Job: later, Over: true}}); err != nil {
		t.Fatal(err)
	}
	if jobs, err := table.Load(t.Context()); err != nil || len(jobs) != 0 {
		t.Errorf("%v, %v", jobs, err)
	}
}
