package roster

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"callserver/signalling/matrixrtc/clerk"
	"callserver/signalling/matrixrtc/member"
)

const (
	atOnce    = 8                      // tasks at a time; the next one waits
	scanPause = 100 * time.Millisecond // between two rooms
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
	counters counters
	rescan   map[string]chan struct{} // by homeserver: read the rooms of its sender again; capacity 1
	book     *Book                    // by the clerk's lock
	clerk    *clerk.Clerk[Task, Change]
	earliest time.Time // nothing that is found out about the time before the start is acted on earlier

	telling sync.Mutex // held while withholds are on their way, so that they get there in order
}

type counters struct{ cleared, moot, unable, looks, failures, withheld atomic.Uint64 }

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
	r := &Roster{options: o, log: o.Logger, rescan: map[string]chan struct{}{}}
	for name := range o.Homeservers {
		rules.Local[name] = true
		r.rescan[name] = make(chan struct{}, 1)
		r.Rescan(name)
	}
	r.book = NewBook(rules)
	r.clerk = clerk.New(r.work())
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

// work is what the clerk does.
func (r *Roster) work() clerk.Options[Task, Change] {
	o := clerk.Options[Task, Change]{
		Book: r.book, Perform: r.perform, AtOnce: atOnce, Before: r.tell,
		Key:  func(c Change) any { return c.Record.Stay },
		What: "who is in a call",
		Lost: func(err error) { r.log.Error("a restart may leave memberships behind", "err", err) },
	}
	if r.options.Store != nil {
		o.Apply = r.options.Store.Apply
	}
	return o
}

// Stats returns what happened since the start.
func (r *Roster) Stats() Stats {
	c := &r.counters
	s := Stats{
		Cleared: c.cleared.Load(), Moot: c.moot.Load(), Unable: c.unable.Load(), Looks: c.looks.Load(),
		Failures: c.failures.Load(), TimesWithheld: c.withheld.Load(), StoreFailures: r.clerk.StoreFailures(),
	}
	r.clerk.Look(func() { s.Stays, s.Withheld = r.book.Counts() })
	return s
}

// Issued says that a client got a token, and is about to come. A nil Roster does not listen.
func (r *Roster) Issued(p Presence) {
	if r != nil {
		r.clerk.Do(func(now time.Time) { r.book.Issued(p, now) })
	}
}

// Joined says that a participant has come.
func (r *Roster) Joined(p Presence) {
	r.clerk.Do(func(now time.Time) { r.book.Joined(p, now) })
}

// Left says that a session of a participant has ended.
func (r *Roster) Left(k Key, session string, why Why) {
	r.clerk.Do(func(now time.Time) { r.book.Left(k, session, why, now) })
}

// Told says what a homeserver tells of a membership.
func (r *Roster) Told(room string, e member.Event) {
	r.clerk.Do(func(now time.Time) { r.book.Told(room, e, r.earliest, now) })
}

// Rescan reads the rooms of a homeserver's sender again: events were missed.
func (r *Roster) Rescan(homeserver string) {
	select {
	case r.rescan[homeserver] <- struct{}{}:
	default:
	}
}

// Close ends Run and returns when it has ended. Closing twice is fine.
func (r *Roster) Close() error { return r.clerk.Close() }

// Run works until ctx ends or Close is called, which is no error. It is called once.
func (r *Roster) Run(ctx context.Context) error {
	var loops []func(context.Context)
	for name := range r.options.Homeservers {
		loops = append(loops, func(ctx context.Context) { r.scanLoop(ctx, name) })
	}
	r.clerk.Run(ctx, loops...)
	return nil
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
	r.clerk.Do(func(now time.Time) { r.book.Result(t, o, m, after, now) })
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
	var withholds []Withhold
	r.clerk.Look(func() { withholds = r.book.Withholds() })
	for _, w := range withholds {
		if w.On {
			r.counters.withheld.Add(1)
			r.log.Info("participant withheld: no membership names it", "room", w.Call, "participant", w.Session)
		}
		r.options.Withhold(w.Call, w.Session, w.On)
	}
}
