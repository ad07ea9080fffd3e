package switchboard

import (
	"database/sql"
	"path/filepath"
	"reflect"
	"testing"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

func TestTable(t *testing.T) {
	raw, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "data.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	db, err := dbutil.NewWithDB(raw, "sqlite3")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for range 2 { // the second time there is nothing to make
		if _, err := NewTable(ctx, db); err != nil {
			t.Fatal(err)
		}
	}
	table, err := NewTable(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	one := Record{Server: "example.org", Room: many, Call: "c1", Party: "p", Version: 1, Speaker: bot, Member: bob, Device: pretended}
	two := Record{Server: "example.org", Room: many, Call: "c2", Party: "q", Speaker: bot, Member: bot, Device: "CALL1"}
	for _, r := range []Record{one, two, one} {
		if err := table.Keep(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := table.Calls(ctx); err != nil || !reflect.DeepEqual(got, []Record{one, two}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := table.Forget(ctx, one); err != nil {
		t.Fatal(err)
	}
	if got, err := table.Calls(ctx); err != nil || !reflect.DeepEqual(got, []Record{two}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, w := range []Words{
		{Rooms: map[id.RoomID]bool{many: true, secret: false}, Users: map[id.UserID]bool{bob: true}}, {Rooms: map[id.RoomID]bool{many: false}},
	} {
		if err := table.Say(ctx, w); err != nil {
			t.Fatal(err)
		}
	}
	want := Words{Rooms: map[id.RoomID]bool{many: false, secret: false}, Users: map[id.UserID]bool{bob: true}}
	if got, err := table.Consent(ctx); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// What rooms and users said counts from when it is stored, and over a restart.
func TestConsent(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.store.words = Words{Rooms: map[id.RoomID]bool{secret: true}, Users: map[id.UserID]bool{alice: false}}
	})
	for _, tc := range []struct {
		name string
		room id.RoomID
		encrypted,
		want bool
	}{{"unencrypted, nothing said", many, false, true}, {"encrypted, nothing said", two, true, false}, {"encrypted, switched on", secret, true, true}} {
		if got := w.Bridged(tc.room, tc.encrypted); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
	if on, refused := w.Agreed(alice); on || !refused {
		t.Error("alice refuses")
	}
	if on, refused := w.Agreed(bob); on || refused {
		t.Error("bob said nothing")
	}
	if err := w.BridgeRoom(t.Context(), many, false); err != nil {
		t.Fatal(err)
	}
	w.agree(bob)
	if on, _ := w.Agreed(bob); !on || w.Bridged(many, false) {
		t.Error("what was said is not heeded")
	}
}
