package leave

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"go.mau.fi/util/dbutil"
)

// A Table is a Store in a database that others may use, too.
type Table struct{ db *dbutil.Database }

// upgrades are the versions of the table, in order; one that was released never changes.
var upgrades = dbutil.BuildUpgradeTable().WithRaw(0, 1, 1, "Delayed leaves", dbutil.TxnModeOn,
	func(ctx context.Context, db *dbutil.Database) error {
		_, err := db.Exec(ctx, `CREATE TABLE delayed_leave (
			server     TEXT    NOT NULL,
			delay_id   TEXT    NOT NULL,
			user_id    TEXT    NOT NULL,
			length     BIGINT  NOT NULL, -- ms
			room       TEXT    NOT NULL,
			identities TEXT    NOT NULL, -- JSON
			restarted  BIGINT  NOT NULL, -- ms since 1970
			fate       INTEGER NOT NULL,
			PRIMARY KEY (server, delay_id)
		)`)
		return err
	}).Finish()

// NewTable makes the table or brings it up to date.
func NewTable(ctx context.Context, db *dbutil.Database) (*Table, error) {
	t := &Table{db.Child("delayed_leave_version", upgrades, nil)}
	if err := t.db.Upgrade(ctx); err != nil {
		return nil, fmt.Errorf("prepare the table of delayed leaves: %w", err)
	}
	return t, nil
}

// Load implements Store.
func (t *Table) Load(ctx context.Context) ([]Job, error) {
	rows, err := t.db.Query(ctx, `SELECT server, delay_id, user_id, length, room, identities, restarted, fate FROM delayed_leave ORDER BY restarted, delay_id`)
	if err != nil {
		return nil, err
	}
	return dbutil.NewRowIterWithError(rows, scan, err).AsList()
}

func scan(row dbutil.Scannable) (Job, error) {
	var j Job
	var length, restarted int64
	var identities string
	if err := row.Scan(&j.Server, &j.Delay, &j.User, &length, &j.Room, &identities, &restarted, &j.Fate); err != nil {
		return Job{}, err
	}
	j.Length, j.Restarted = time.Duration(length)*time.Millisecond, time.UnixMilli(restarted)
	if err := json.Unmarshal([]byte(identities), &j.Identities); err != nil {
		return Job{}, fmt.Errorf("identities of a delayed leave: %w", err)
	}
	return j, nil
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
	j := &c.Job
	if c.Over {
		_, err := t.db.Exec(ctx, `DELETE FROM delayed_leave WHERE server=$1 AND delay_id=$2`, j.Server, j.Delay)
		return err
	}
	identities, err := json.Marshal(j.Identities)
	if err != nil {
		return err
	}
	_, err = t.db.Exec(ctx, `INSERT INTO delayed_leave (server, delay_id, user_id, length, room, identities, restarted, fate)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (server, delay_id) DO UPDATE SET restarted=excluded.restarted, fate=excluded.fate`,
		j.Server, j.Delay, j.User, j.Length.Milliseconds(), j.Room, string(identities), j.Restarted.UnixMilli(), j.Fate)
	return err
}
