package roster

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"callserver/signalling/matrixrtc/member"
)

const (
	atOnce      = 8 // tasks at a time; the next one waits
	storeWithin = 5 * time.Second
	scanPause   = 100 * time.Millisecond // between two rooms
)

// A Homeserver is what is needed of one. An empty as means the sender user of the narrow registration. Errors are those
// of package homeserver.
type Homeserver interface {
	// Membership reads the state event of a member under its key.
	Membership(ctx context.Context, as, room, key string) (member.Event, error)
	// Memberships reads all state events of members in a room. That may be heavy.
	Memberships(ctx context.Context, as, room string) ([]member.Event, error)
	// Clear empties the state event of a member.
	Clear(ctx context.Context, as, room, key string) error
	// Rooms are those that the sender is in.
	Rooms(ctx context.Context) ([]string, error)
	// Sticky reports whether there may be sticky events (MSC4354).
	Sticky(ctx context.Context) (bool, error)
}

// A Store keeps records over a restart. For one goroutine at a time.
type Store interface {
	Load(ctx context.Context) ([]Record, error)
	Apply(ctx context.Context, changes []Change) error // all of them or none
}

// Options of a Roster. Homeservers are required.
type Options struct {
	Homeservers map[string]Homeserver // by server name; those that may be asked something
	Service     string                // our service URL, as members name it; empty clears no membership
	Grace       time.Duration         // 0 withholds nobody
	Store       Store                 // nil: nothing is remembered
	Withhold    func(call, session string, on bool)
	Held        func(call, identity string) bool // a delegated leave of that participant is not over; nil: never
	Logger      *slog.Logger                     // nil means none
}

// A Roster runs a Book against homeservers. Safe for concurrent use.
type Roster struct {
	options  Options
	log      *slog.Logger
	wake     chan struct{} // capacity 1
	counters counters
	rescan   map[string]chan struct{} // by homeserver: read the rooms of its sender again; capacity 1

	mu       sync.Mutex
	book     *Book
	earliest time.Time // nothing that is found out about the time before the start is acted on earlier

	running sync.WaitGroup // Run
	stop    chan struct{}
	stopped sync.Once

	telling sync.Mutex // held while withholds are on their way, so that they get there in order
	storing sync.Mutex // the same of changes
	unsaved []Change   // by storing
}

type counters struct{ cleared, moot, unable, looks, failures, withheld, storeFailures atomic.Uint64 }

// Stats are counts since the start, but for Stays and Withheld.
type Stats struct {
	Cleared       uint64 // memberships
	Moot          uint64 // participants that went and had no membership of ours left
	Unable        uint64 // of those, memberships that no privilege could read or clear
	Looks         uint64 // for the membership of a participant
	Failures      uint64 // tasks that a homeserver did not answer
	TimesWithheld uint64
	StoreFailures uint64

	Stays, Withheld int // devices in calls, or about to come or just gone; sessions that are not forwarded
}

// New loads what an earlier run left behind.
func New(ctx context.Context, o Options) (*Roster, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Withhold == nil {
		o.Withhold = func(string, string, bool) {}
	}
	if o.Held == nil {
		o.Held = func(string, string) bool { return false }
	}
	rules := Rules{Local: map[string]bool{}, Service: o.Service, Grace: o.Grace}
	r := &Roster{options: o, log: o.Logger, wake: make(chan struct{}, 1), stop: make(chan struct{}), rescan: map[string]chan struct{}{}}
	for name := range o.Homeservers {
		rules.Local[name] = true
		r.rescan[name] = make(chan struct{}, 1)
		r.Rescan(name)
	}
	r.book = NewBook(rules)
	now := time.Now()
	r.earliest = now.Add(returnTime)
	if o.Store == nil {
		return r, nil
	}
	records, err := o.Store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("load who was in a call: %w", err)
	}
	r.book.Resume(records, now)
	if len(records) > 0 {
		r.log.Info("participants of an earlier run are expected back", "devices", len(records))
	}
	return r, nil
}

// Stats returns what happened since the start.
func (r *Roster) Stats() Stats {
	c := &r.counters
	s := Stats{
		Cleared: c.cleared.Load(), Moot: c.moot.Load(), Unable: c.unable.Load(), Looks: c.looks.Load(),
		Failures: c.failures.Load(), TimesWithheld: c.withheld.Load(), StoreFailures: c.storeFailures.Load(),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Stays, s.Withheld = r.book.Counts()
	return s
}

// Issued says that a client got a token, and is about to come. A nil Roster does not listen.
func (r *Roster) Issued(p Presence) {
	if r != nil {
		r.do(func(now time.Time) { r.book.Issued(p, now) })
	}
}

// Joined says that a participant has come.
func (r *Roster) Joined(p Presence) {
	r.do(func(now time.Time) { r.book.Joined(p, now) })
}

// Left says that a session of a participant has ended.
func (r *Roster) Left(k Key, session string, why Why) {
	r.do(func(now time.Time) { r.book.Left(k, session, why, now) })
}

// Told says what a homeserver tells of a membership.
func (r *Roster) Told(room string, e member.Event) {
	r.do(func(now time.Time) { r.book.Told(room, e, r.earliest, now) })
}

// Rescan reads the rooms of a homeserver's sender again: events were missed.
func (r *Roster) Rescan(homeserver string) {
	select {
	case r.rescan[homeserver] <- struct{}{}:
	default:
	}
}

func (r *Roster) do(change func(now time.Time)) {
	r.mu.Lock()
	change(time.Now())
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Close ends Run and returns when it has ended. Closing twice is fine.
func (r *Roster) Close() error {
	r.mu.Lock()
	r.stopped.Do(func() { close(r.stop) })
	r.mu.Unlock()
	r.running.Wait()
	return r.save(context.Background())
}

// enter counts Run in; false once closed.
func (r *Roster) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.stop:
		return false
	default:
		r.running.Add(1)
		return true
	}
}

// Run works until ctx ends or Close is called, which is no error. It is called once.
func (r *Roster) Run(ctx context.Context) error {
	if !r.enter() {
		return nil
	}
	defer r.running.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var loops errgroup.Group
	loops.Go(func() error {
		defer cancel()
		select {
		case <-r.stop:
		case <-ctx.Done():
		}
		return nil
	})
	for name := range r.options.Homeservers {
		loops.Go(func() error {
			r.scanLoop(ctx, name)
			return nil
		})
	}
	r.runLoop(ctx)
	return loops.Wait()
}

func (r *Roster) runLoop(ctx context.Context) {
	var tasks errgroup.Group
	defer func() {
		_ = tasks.Wait() // none fails
		r.saveOrTell(ctx)
	}()
	tasks.SetLimit(atOnce)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.wake:
		}
		r.mu.Lock()
		due := r.book.Due(time.Now())
		r.mu.Unlock()
		r.tell()
		r.saveOrTell(ctx)
		for _, t := range due {
			tasks.Go(func() error {
				r.perform(ctx, t)
				return nil
			})
		}
		timer.Reset(r.pause())
	}
}

// pause is how long the loop has nothing to do.
func (r *Roster) pause() time.Duration {
	r.mu.Lock()
	next, any := r.book.Next()
	r.mu.Unlock()
	if !any {
		return time.Hour
	}
	return max(0, time.Until(next))
}

func (r *Roster) perform(ctx context.Context, t Task) {
	var m *member.Member
	var o Outcome
	var after time.Duration
	if t.Clear {
		o, after = r.clear(ctx, t)
	} else {
		m, o, after = r.lookFor(ctx, t)
	}
	r.count(t, o)
	r.do(func(now time.Time) { r.book.Result(t, o, m, after, now) })
	r.tell()
}

func (r *Roster) count(t Task, o Outcome) {
	c := &r.counters
	if !t.Clear {
		c.looks.Add(1)
	}
	switch {
	case o == Failed:
		c.failures.Add(1)
	case o == Blind && t.Clear:
		c.unable.Add(1)
	case o == Moot:
		c.moot.Add(1)
	case o == Cleared:
		c.cleared.Add(1)
		r.log.Info("membership cleared: its participant is gone", "room", t.Call)
	}
}

// tell tells the media server whom to withhold.
func (r *Roster) tell() {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.mu.Lock()
	withholds := r.book.Withholds()
	r.mu.Unlock()
	for _, w := range withholds {
		if w.On {
			r.counters.withheld.Add(1)
			r.log.Info("participant withheld: no membership names it", "room", w.Call, "participant", w.Session)
		}
		r.options.Withhold(w.Call, w.Session, w.On)
	}
}

// save brings the changes of the book to the store. What cannot be stored now is tried again with the next change.
func (r *Roster) save(ctx context.Context) error {
	r.storing.Lock()
	defer r.storing.Unlock()
	r.mu.Lock()
	r.unsaved = append(r.unsaved, r.book.Changes()...)
	r.mu.Unlock()
	if r.options.Store == nil || len(r.unsaved) == 0 {
		r.unsaved = nil
		return nil
	}
	r.unsaved = compacted(r.unsaved)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWithin)
	defer cancel()
	if err := r.options.Store.Apply(ctx, r.unsaved); err != nil {
		r.counters.storeFailures.Add(1)
		return fmt.Errorf("store who is in a call: %w", err)
	}
	r.unsaved = nil
	return nil
}

// compacted keeps the latest change of each stay.
func compacted(changes []Change) []Change {
	latest := map[Stay]int{}
	for i, c := range changes {
		latest[c.Record.Stay] = i
	}
	kept := changes[:0]
	for i, c := range changes {
		if latest[c.Record.Stay] == i {
			kept = append(kept, c)
		}
	}
	return kept
}

func (r *Roster) saveOrTell(ctx context.Context) {
	if err := r.save(ctx); err != nil {
		r.log.Error("a restart may leave memberships behind", "err", err)
	}
}
