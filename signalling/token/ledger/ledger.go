// A Ledger keeps the revocations of tokens over a restart of this server.
// Package ledger owns their table in the data file and the loop that writes it: soon after a revocation, within
// milliseconds, so that nobody waits for a disk to be put out of a call.
// It never decides what is revoked, and looks at no token.
package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.mau.fi/util/dbutil"

	"callserver/signalling/token"
)

const (
	writeWithin = 5 * time.Second
	retryAfter  = 5 * time.Second // a disk that is full
)

// upgrades are the versions of the table, in order; one that was released never changes.
var upgrades = dbutil.BuildUpgradeTable().WithRaw(0, 1, 1, "Revocations", dbutil.TxnModeOn,
	func(ctx context.Context, db *dbutil.Database) error {
		_, err := db.Exec(ctx, `CREATE TABLE revocation (
			user_id      TEXT   NOT NULL,
			conversation TEXT   NOT NULL,
			at           BIGINT NOT NULL, -- ns since 1970
			PRIMARY KEY (user_id, conversation)
		)`)
		return err
	}).Finish()

// A Ledger is safe for concurrent use.
type Ledger struct {
	db          *dbutil.Database
	revocations *token.Revocations
	changed     <-chan struct{}
	log         *slog.Logger

	running sync.WaitGroup // Run
	stop    chan struct{}
	stopped sync.Once

	mu      sync.Mutex         // held while they are written, and by who enters or closes
	pending []token.Revocation // that could not be
}

// New makes the table or brings it up to date, and revokes what an earlier run did. It is to be called before anything
// else uses the revocations. A nil logger means none.
func New(ctx context.Context, db *dbutil.Database, r *token.Revocations, log *slog.Logger) (*Ledger, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Ledger{db: db.Child("revocation_version", upgrades, nil), revocations: r, log: log, stop: make(chan struct{})}
	if err := l.db.Upgrade(ctx); err != nil {
		return nil, fmt.Errorf("prepare the table of revocations: %w", err)
	}
	rows, err := l.db.Query(ctx, `SELECT user_id, conversation, at FROM revocation`)
	if err != nil {
		return nil, fmt.Errorf("load revocations: %w", err)
	}
	former, err := dbutil.NewRowIterWithError(rows, scan, err).AsList()
	if err != nil {
		return nil, fmt.Errorf("load revocations: %w", err)
	}
	l.changed = r.Keep(former, time.Now())
	return l, nil
}

func scan(row dbutil.Scannable) (r token.Revocation, err error) {
	var at int64
	err = row.Scan(&r.User, &r.Conversation, &at)
	r.At = time.Unix(0, at)
	return r, err
}

// enter counts Run in; false once closed.
func (l *Ledger) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.stop:
		return false
	default:
		l.running.Add(1)
		return true
	}
}

// Run writes what is revoked until ctx ends or Close is called, which is no error. It is called once.
func (l *Ledger) Run(ctx context.Context) error {
	if !l.enter() {
		return nil
	}
	defer l.running.Done()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.stop:
			return nil
		case <-l.changed:
		case <-retry.C:
		}
		if err := l.write(); err != nil {
			l.log.Error("tokens that were revoked would be good again after a restart", "err", err)
			retry.Reset(retryAfter)
		}
	}
}

// Close ends Run and writes what is left. Closing twice is fine.
func (l *Ledger) Close() error {
	l.mu.Lock()
	l.stopped.Do(func() { close(l.stop) })
	l.mu.Unlock()
	l.running.Wait()
	return l.write()
}

// write brings everything to the disk, and drops what has expired: the table is bounded as the revocations are.
func (l *Ledger) write() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, l.revocations.Take()...)
	if len(l.pending) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeWithin)
	defer cancel()
	if err := l.db.DoTxn(ctx, nil, l.apply); err != nil {
		l.pending = latest(l.pending)
		return fmt.Errorf("store revocations: %w", err)
	}
	l.pending = nil
	return nil
}

func (l *Ledger) apply(ctx context.Context) error {
	expired := l.pending[0]
	for _, r := range l.pending {
		if r.User == "" { // it says what all up to then say
			if _, err := l.db.Exec(ctx, `DELETE FROM revocation WHERE at<=$1`, r.At.UnixNano()); err != nil {
				return err
			}
		}
		if _, err := l.db.Exec(ctx, `INSERT INTO revocation (user_id, conversation, at) VALUES ($1, $2, $3)
			ON CONFLICT (user_id, conversation) DO UPDATE SET at=excluded.at`, r.User, r.Conversation, r.At.UnixNano()); err != nil {
			return err
		}
		if r.At.After(expired.At) {
			expired = r
		}
	}
	_, err := l.db.Exec(ctx, `DELETE FROM revocation WHERE at<$1`, expired.At.Add(-token.RevokedLife).UnixNano())
	return err
}

// latest keeps the last of each place: a disk that is full for long costs no memory.
func latest(all []token.Revocation) []token.Revocation {
	last := map[[2]string]int{}
	for i, r := range all {
		last[[2]string{r.User, r.Conversation}] = i
	}
	kept := all[:0]
	for i, r := range all {
		if last[[2]string{r.User, r.Conversation}] == i {
			kept = append(kept, r)
		}
	}
	return kept
}
