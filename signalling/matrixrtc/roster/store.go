package roster

import (
	"context"
	"encoding/json"
	"fmt"

	"go.mau.fi/util/dbutil"
)

// A Table is a Store in a database that others may use, too.
type Table struct{ db *dbutil.Database }

// upgrades are the versions of the table, in order; one that was released never changes.
var upgrades = dbutil.BuildUpgradeTable().WithRaw(0, 1, 1, "Participants whose membership may be left behind", dbutil.TxnModeOn,
	func(ctx context.Context, db *dbutil.Database) error {
		_, err := db.Exec(ctx, `CREATE TABLE roster_stay (
			matrix_room TEXT NOT NULL,
			room        TEXT NOT NULL, -- of the media server
			user_id     TEXT NOT NULL,
			device_id   TEXT NOT NULL,
			slot        TEXT NOT NULL,
			identities  TEXT NOT NULL, -- JSON
			PRIMARY KEY (matrix_room, room, user_id, device_id)
		)`)
		return err
	}).Finish()

// NewTable makes the table or brings it up to date.
func NewTable(ctx context.Context, db *dbutil.Database) (*Table, error) {
	t := &Table{db.Child("roster_stay_version", upgrades, nil)}
	if err := t.db.Upgrade(ctx); err != nil {
		return nil, fmt.Errorf("prepare the table of participants: %w", err)
	}
	return t, nil
}

// Load implements Store.
func (t *Table) Load(ctx context.Context) ([]Record, error) {
	rows, err := t.db.Query(ctx, `SELECT matrix_room, room, user_id, device_id, slot, identities FROM roster_stay ORDER BY matrix_room, user_id, device_id`)
	if err != nil {
		return nil, err
	}
	return dbutil.NewRowIterWithError(rows, scan, err).AsList()
}

func scan(row dbutil.Scannable) (Record, error) {
	var r Record
	var ids string
	if err := row.Scan(&r.Room, &r.Call, &r.User, &r.Device, &r.Slot, &ids); err != nil {
		return Record{}, err
	}
	if err := json.Unmarshal([]byte(ids), &r.Identities); err != nil {
		return Record{}, fmt.Errorf("identities of a participant: %w", err)
	}
	return r, nil
}

// Apply implements Store.
func (t *Table) Apply(ctx context.Context, changes []Change) error {
	return t.db.DoTxn(ctx, nil, func(ctx context.Context) error {
		for _, c := range changes {
			if err := t.apply(ctx, c); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *Table) apply(ctx context.Context, c Change) error {
	r := &c.Record
	if c.Over {
		_, err := t.db.Exec(ctx, `DELETE FROM roster_stay WHERE matrix_room=$1 AND room=$2 AND user_id=$3 AND device_id=$4`,
			r.Room, r.Call, r.User, r.Device)
		return err
	}
	ids, err := json.Marshal(r.Identities)
	if err != nil {
		return err
	}
	_, err = t.db.Exec(ctx, `INSERT INTO roster_stay (matrix_room, room, user_id, device_id, slot, identities) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (matrix_room, room, user_id, device_id) DO UPDATE SET slot=excluded.slot, identities=excluded.identities`,
		r.Room, r.Call, r.User, r.Device, r.Slot, string(ids))
	return err
}
