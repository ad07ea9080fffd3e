package leave

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"callserver/signalling/homeserver"
)

const (
	atOnce      = 32 // requests to homeservers at a time; the next one waits
	storeWithin = 5 * time.Second
)

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
	wake     chan struct{} // capacity 1
	counters counters

	mu   sync.Mutex
	book *Book

	running sync.WaitGroup // Run
	stop    chan struct{}
	stopped sync.Once

	storing sync.Mutex // held while changes are on their way to the store, so that they get there in order
	unsaved []Change   // by storing
}

type counters struct{ delegated, refused, restarted, sent, cancelled, failures, storeFailures atomic.Uint64 }

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
	k := &Keeper{options: o, log: o.Logger, trials: map[string]*trial{}, wake: make(chan struct{}, 1), stop: make(chan struct{}), book: NewBook()}
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
		Cancelled: c.cancelled.Load(), Failures: c.failures.Load(), StoreFailures: c.storeFailures.Load(),
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.Held, s.Owed = k.book.Counts()
	return s
}

// Joined says that a participant of the media server has come.
func (k *Keeper) Joined(room, identity, session string) {
	k.do(func(now time.Time) { k.book.Joined(Key{room, identity}, session, now) })
}

// Left says that a participant has gone.
func (k *Keeper) Left(room, identity, session string, why Why) {
	k.do(func(now time.Time) { k.book.Left(Key{room, identity}, session, why, now) })
}

// Holds reports whether the leave of a participant is still to be sent, or to be put off: nobody else need end its
// membership.
func (k *Keeper) Holds(room, identity string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.book.Holds(Key{room, identity})
}

func (k *Keeper) do(change func(now time.Time)) {
	k.mu.Lock()
	change(time.Now())
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Close ends Run and returns when it has ended. What is owed stays in the store. Closing twice is fine.
func (k *Keeper) Close() error {
	k.mu.Lock()
	k.stopped.Do(func() { close(k.stop) })
	k.mu.Unlock()
	k.running.Wait()
	return k.save(context.Background())
}

// enter counts Run in; false once closed.
func (k *Keeper) enter() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.stop:
		return false
	default:
		k.running.Add(1)
		return true
	}
}

// Run works until ctx ends or Close is called, which is no error. It is called once.
func (k *Keeper) Run(ctx context.Context) error {
	if !k.enter() {
		return nil
	}
	defer k.running.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var loops errgroup.Group
	loops.Go(func() error {
		defer cancel()
		select {
		case <-k.stop:
		case <-ctx.Done():
		}
		return nil
	})
	for name, t := range k.trials {
		loops.Go(func() error {
			k.trialLoop(ctx, name, t)
			return nil
		})
	}
	k.runLoop(ctx)
	_ = loops.Wait() // none fails
	return nil
}

func (k *Keeper) runLoop(ctx context.Context) {
	var requests errgroup.Group
	defer func() {
		_ = requests.Wait() // none fails
		k.saveOrTell(ctx)
	}()
	requests.SetLimit(atOnce)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-k.wake:
		}
		k.mu.Lock()
		tasks := k.book.Due(time.Now())
		k.mu.Unlock()
		k.saveOrTell(ctx) // what is about to be done is on disk before it is
		for _, t := range tasks {
			requests.Go(func() error {
				k.perform(ctx, t)
				return nil
			})
		}
		timer.Reset(k.pause())
	}
}

// pause is how long the loop has nothing to do.
func (k *Keeper) pause() time.Duration {
	k.mu.Lock()
	next, any := k.book.Next()
	k.mu.Unlock()
	if !any {
		return time.Hour
	}
	return max(0, time.Until(next))
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
	k.do(func(now time.Time) { k.book.Result(t, r, began, now) })
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

// save brings the changes of the book to the store. What cannot be stored now is tried again with the next change.
func (k *Keeper) save(ctx context.Context) error {
	k.storing.Lock()
	defer k.storing.Unlock()
	k.mu.Lock()
	k.unsaved = append(k.unsaved, k.book.Changes()...)
	k.mu.Unlock()
	if len(k.unsaved) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWithin)
	defer cancel()
	if err := k.options.Store.Apply(ctx, k.unsaved); err != nil {
		k.counters.storeFailures.Add(1)
		k.unsaved = compacted(k.unsaved)
		return fmt.Errorf("store delayed leaves: %w", err)
	}
	k.unsaved = nil
	return nil
}

// compacted keeps the latest change of each job: a disk that is full for long costs no memory.
func compacted(changes []Change) []Change {
	latest := map[ref]int{}
	for i, c := range changes {
		latest[c.Job.ref()] = i
	}
	kept := changes[:0]
	for i, c := range changes {
		if latest[c.Job.ref()] == i {
			kept = append(kept, c)
		}
	}
	return kept
}

// saveOrTell does without the store if it must: the homeserver sends what we forget.
func (k *Keeper) saveOrTell(ctx context.Context) {
	if err := k.save(ctx); err != nil {
		k.log.Error("delayed leaves may be lost by a restart", "err", err)
	}
}
