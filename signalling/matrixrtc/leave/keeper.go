package leave

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/clerk"
)

// atOnce is how many requests to homeservers are made at a time; the next one waits.
const atOnce = 32

var (
	// ErrNotReal means that the user's homeserver has shown neither lately nor now that its delayed events work for us.
	ErrNotReal = errors.New("delayed events are not known to work on the homeserver")
	// ErrForeign means that there is no such delayed event, or that it is not the leave of this user in this room.
	ErrForeign = errors.New("no leave of this user has this delay id")
)

// A Homeserver is what is needed of one. Errors are those of package homeserver.
type Homeserver interface {
	// Do manages a delayed event of a user.
	Do(ctx context.Context, v Verb, user, delay string) error
	// Scheduled reads a delayed event of a user, or fails with homeserver.ErrNoPrivilege.
	Scheduled(ctx context.Context, user, delay string) (homeserver.Scheduled, error)
	// Try schedules, restarts and cancels a delayed event of our own user. It fails with homeserver.ErrNoDelay where there
	// are none.
	Try(ctx context.Context) error
}

// A Store keeps jobs over a restart. For one goroutine at a time.
type Store interface {
	Load(ctx context.Context) ([]Job, error)
	Apply(ctx context.Context, changes []Change) error // all of them or none
}

// Options of a Keeper.
type Options struct {
	Homeservers map[string]Homeserver // by server name; all whose users get tokens
	Store       Store
	Logger      *slog.Logger // nil means none
}

// A Keeper runs a Book against homeservers. Safe for concurrent use.
type Keeper struct {
	options  Options
	log      *slog.Logger
	trials   map[string]*trial
	book     *Book // by the clerk's lock
	clerk    *clerk.Clerk[Task, Change]
	counters counters
}

type counters struct{ delegated, refused, restarted, sent, cancelled, failures atomic.Uint64 }

// Stats are counts since the start, but for Held and Owed.
type Stats struct {
	Delegated     uint64 // leaves taken over from clients
	Refused       uint64 // leaves not taken over
	Restarted     uint64
	Sent          uint64
	Cancelled     uint64
	Failures      uint64 // requests that the homeserver did not grant
	StoreFailures uint64
	Held, Owed    int // leaves of participants that are here or may return; leaves to be sent or cancelled
}

// New loads what an earlier run left behind.
func New(ctx context.Context, o Options) (*Keeper, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{options: o, log: o.Logger, trials: map[string]*trial{}, book: NewBook()}
	k.clerk = clerk.New(clerk.Options[Task, Change]{
		Book: k.book, Perform: k.perform, AtOnce: atOnce,
		Apply: o.Store.Apply, Key: func(c Change) any { return c.Job.ref() }, What: "delayed leaves",
		// The homeserver sends what we forget.
		Lost: func(err error) { k.log.Error("delayed leaves may be lost by a restart", "err", err) },
	})
	for name := range o.Homeservers {
		k.trials[name] = &trial{}
	}
	jobs, err := o.Store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("load delayed leaves: %w", err)
	}
	k.book.Resume(jobs, time.Now())
	if len(jobs) > 0 {
		k.log.Info("delayed leaves of an earlier run taken over", "leaves", len(jobs))
	}
	return k, nil
}

// Stats returns what happened since the start.
func (k *Keeper) Stats() Stats {
	c := &k.counters
	s := Stats{
		Delegated: c.delegated.Load(), Refused: c.refused.Load(), Restarted: c.restarted.Load(), Sent: c.sent.Load(),
		Cancelled: c.cancelled.Load(), Failures: c.failures.Load(), StoreFailures: k.clerk.StoreFailures(),
	}
	k.clerk.Look(func() { s.Held, s.Owed = k.book.Counts() })
	return s
}

// Joined says that a participant of the media server has come.
func (k *Keeper) Joined(room, identity, session string) {
	k.clerk.Do(func(now time.Time) { k.book.Joined(Key{room, identity}, session, now) })
}

// Left says that a participant has gone.
func (k *Keeper) Left(room, identity, session string, why Why) {
	k.clerk.Do(func(now time.Time) { k.book.Left(Key{room, identity}, session, why, now) })
}

// Holds reports whether the leave of a participant is still to be sent, or to be put off: nobody else need end its
// membership.
func (k *Keeper) Holds(room, identity string) (yes bool) {
	k.clerk.Look(func() { yes = k.book.Holds(Key{room, identity}) })
	return yes
}

// Close ends Run and returns when it has ended. What is owed stays in the store. Closing twice is fine.
func (k *Keeper) Close() error { return k.clerk.Close() }

// Run works until ctx ends or Close is called, which is no error. It is called once.
func (k *Keeper) Run(ctx context.Context) error {
	var loops []func(context.Context)
	for name, t := range k.trials {
		loops = append(loops, func(ctx context.Context) { k.trialLoop(ctx, name, t) })
	}
	k.clerk.Run(ctx, loops...)
	return nil
}

func (k *Keeper) perform(ctx context.Context, t Task) {
	began := time.Now()
	err := k.ask(ctx, t)
	var answer *homeserver.Error
	r := Result{OK: err == nil, Gone: homeserver.Code(err) == "M_NOT_FOUND"}
	if errors.As(err, &answer) {
		r.After = answer.Retry
	}
	k.count(t, r, err)
	k.clerk.Do(func(now time.Time) { k.book.Result(t, r, began, now) })
}

func (k *Keeper) ask(ctx context.Context, t Task) error {
	h := k.options.Homeservers[t.Server]
	if h == nil {
		return fmt.Errorf("%w: %s is not configured any more", homeserver.ErrNoPrivilege, t.Server)
	}
	return h.Do(ctx, t.Verb, t.User, t.Delay)
}

func (k *Keeper) count(t Task, r Result, err error) {
	c := &k.counters
	switch {
	case !r.OK && !r.Gone:
		c.failures.Add(1)
		k.log.Warn("delayed leave: homeserver refused", "what", t.Verb.String(), "homeserver", t.Server, "err", err)
	case t.Verb == Restart:
		c.restarted.Add(1)
	case t.Verb == SendNow:
		c.sent.Add(1)
	case t.Verb == Forget:
		c.cancelled.Add(1)
	}
}
