package switchboard

import (
	"context"
	"fmt"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/matrix/call"
)

// Words are what rooms and users said about being bridged.
type Words struct {
	Rooms map[id.RoomID]bool
	Users map[id.UserID]bool
}

// A Record is a call, as it is stored: enough to hang it up and to clear up after it.
type Record struct {
	Server  string // name of the homeserver
	Room    id.RoomID
	Call    string
	Party   string // ours
	Version call.Version
	Speaker id.UserID // in whose name we spoke to the client
	Member  id.UserID // of the room's call
	Device  string
}

// A Store keeps consent and calls over a restart. Safe for concurrent use.
type Store interface {
	Consent(ctx context.Context) (Words, error)
	Say(ctx context.Context, w Words) error
	Calls(ctx context.Context) ([]Record, error)
	Keep(ctx context.Context, r Record) error
	Forget(ctx context.Context, r Record) error
}

// A Table is a Store in a database that others may use, too.
type Table struct{ db *dbutil.Database }

// upgrades are the versions of the tables, in order; one that was released never changes.
var upgrades = dbutil.BuildUpgradeTable().WithRaw(0, 1, 1, "Who agreed to be bridged, and bridged calls", dbutil.TxnModeOn,
	func(ctx context.Context, db *dbutil.Database) error {
		_, err := db.Exec(ctx, `CREATE TABLE bridge_consent (
			who     TEXT NOT NULL PRIMARY KEY, -- a room or a user
			allowed BOOLEAN NOT NULL
		)`)
		if err != nil {
			return err
		}
		_, err = db.Exec(ctx, `CREATE TABLE bridge_call (
			server      TEXT NOT NULL,
			matrix_room TEXT NOT NULL,
			call_id     TEXT NOT NULL,
			party_id    TEXT NOT NULL,
			version     INTEGER NOT NULL,
			speaker     TEXT NOT NULL,
			member      TEXT NOT NULL,
			device_id   TEXT NOT NULL,
			PRIMARY KEY (matrix_room, call_id)
		)`)
		return err
	}).Finish()

// NewTable makes the tables or brings them up to date.
func NewTable(ctx context.Context, db *dbutil.Database) (*Table, error) {
	t := &Table{db.Child("bridge_version", upgrades, nil)}
	if err := t.db.Upgrade(ctx); err != nil {
		return nil, fmt.Errorf("prepare the tables of bridged calls: %w", err)
	}
	return t, nil
}

// Consent implements Store.
func (t *Table) Consent(ctx context.Context) (Words, error) {
	w := Words{Rooms: map[id.RoomID]bool{}, Users: map[id.UserID]bool{}}
	rows, err := t.db.Query(ctx, `SELECT who, allowed FROM bridge_consent`)
	if err != nil {
		return w, err
	}
	type word struct {
		who string
		on  bool
	}
	words, err := dbutil.NewRowIterWithError(rows, func(row dbutil.Scannable) (x word, err error) {
		return x, row.Scan(&x.who, &x.on)
	}, err).AsList()
	for _, x := range words {
		if x.who[0] == '@' {
			w.Users[id.UserID(x.who)] = x.on
		} else {
			w.Rooms[id.RoomID(x.who)] = x.on
		}
	}
	return w, err
}

// Say implements Store.
func (t *Table) Say(ctx context.Context, w Words) error {
	words := map[string]bool{}
	for room, on := range w.Rooms {
		words[string(room)] = on
	}
	for user, on := range w.Users {
		words[string(user)] = on
	}
	for who, on := range words {
		_, err := t.db.Exec(ctx, `INSERT INTO bridge_consent (who, allowed) VALUES ($1, $2) ON CONFLICT (who) DO UPDATE SET allowed=excluded.allowed`, who, on)
		if err != nil {
			return err
		}
	}
	return nil
}

// Calls implements Store.
func (t *Table) Calls(ctx context.Context) ([]Record, error) {
	rows, err := t.db.Query(ctx, `SELECT server, matrix_room, call_id, party_id, version, speaker, member, device_id FROM bridge_call ORDER BY matrix_room, call_id`)
	if err != nil {
		return nil, err
	}
	return dbutil.NewRowIterWithError(rows, func(row dbutil.Scannable) (r Record, err error) {
		return r, row.Scan(&r.Server, &r.Room, &r.Call, &r.Party, &r.Version, &r.Speaker, &r.Member, &r.Device)
	}, err).AsList()
}

// Keep implements Store.
func (t *Table) Keep(ctx context.Context, r Record) error {
	_, err := t.db.Exec(ctx, `INSERT INTO bridge_call (server, matrix_room, call_id, party_id, version, speaker, member, device_id)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (matrix_room, call_id) DO UPDATE SET party_id=excluded.party_id, version=excluded.version, speaker=excluded.speaker, member=excluded.member, device_id=excluded.device_id`,
		r.Server, r.Room, r.Call, r.Party, int(r.Version), r.Speaker, r.Member, r.Device)
	return err
}

// Forget implements Store.
func (t *Table) Forget(ctx context.Context, r Record) error {
	_, err := t.db.Exec(ctx, `DELETE FROM bridge_call WHERE matrix_room=$1 AND call_id=$2`, r.Room, r.Call)
	return err
}
