package leave

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

const (
	room  = "!r:x"
	alice = "@a:x"
	key   = "_@a:x_D_m.call"
)

// A fake is a homeserver with delayed events.
type fake struct {
	mu     sync.Mutex
	events map[string]homeserver.Scheduled // by user and delay id
	asked  []string
	fail   error // of everything
	refuse error // of managing
	blind  bool  // no registration covers the users
	trial  error
}

func notFound() error { return &homeserver.Error{Op: "test", Status: 404, Code: "M_NOT_FOUND"} }

func (f *fake) Do(_ context.Context, v Verb, user, delay string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, v.String()+" "+delay)
	if f.fail != nil {
		return f.fail
	}
	if f.refuse != nil {
		return f.refuse
	}
	if _, ok := f.events[user+" "+delay]; !ok {
		return notFound()
	}
	if v != Restart {
		delete(f.events, user+" "+delay)
	}
	return nil
}

func (f *fake) Scheduled(_ context.Context, user, delay string) (homeserver.Scheduled, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.events[user+" "+delay]
	switch {
	case f.fail != nil:
		return s, f.fail
	case f.blind:
		return s, fmt.Errorf("test: %w", homeserver.ErrNoPrivilege)
	case !ok:
		return s, notFound()
	}
	return s, nil
}

func (f *fake) Try(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trial
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) schedule(delay string, s homeserver.Scheduled) {
	f.set(func() { f.events[alice+" "+delay] = s })
}

// requests returns what was asked since it was called last.
func (f *fake) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

func leaveEvent() homeserver.Scheduled {
	k := key
	return homeserver.Scheduled{Room: room, Type: member.TypeState, StateKey: &k, Content: json.RawMessage("{}"), Delay: time.Hour}
}

// A memory is a Store.
type memory struct {
	mu   sync.Mutex
	jobs map[ref]Job
	fail error
}

func (m *memory) Load(context.Context) ([]Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var jobs []Job
	for _, j := range m.jobs {
		jobs = append(jobs, j)
	}
	return jobs, m.fail
}

func (m *memory) Apply(_ context.Context, changes []Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	for _, c := range changes {
		if c.Over {
			delete(m.jobs, c.Job.ref())
		} else {
			m.jobs[c.Job.ref()] = c.Job
		}
	}
	return nil
}

// set has it fail from now on, or work again.
func (m *memory) set(fail error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fail
}

func (m *memory) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.jobs)
}

// run starts a Keeper in a bubble and returns how to end it.
func run(t *testing.T, s Store, hs map[string]Homeserver) (*Keeper, func()) {
	t.Helper()
	k, err := New(t.Context(), Options{Homeservers: hs, Store: s})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = k.Run(t.Context())
	}()
	synctest.Wait()
	return k, func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		<-done
	}
}

func delegation(delay string) Delegation {
	return Delegation{User: alice, Device: "D", Room: room, Slot: member.SlotRoom, Delay: delay, Length: time.Hour}
}

func wait(d time.Duration) {
	time.Sleep(d) // virtual
	synctest.Wait()
}

func asked(t *testing.T, f *fake, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, f.requests()); d != "" {
		t.Errorf("requests (-want +got)\n%s", d)
	}
}

// A client is killed: its leave is sent. The life of one delegation, and of the server that keeps it.
func TestKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hs, disk := &fake{events: map[string]homeserver.Scheduled{}}, &memory{jobs: map[ref]Job{}}
		all := map[string]Homeserver{"x": hs}
		call := member.RoomName(room, member.SlotRoom)
		k, end := run(t, disk, all)
		hs.schedule("1", leaveEvent())
		k.Joined(call, alice+":D", "s")
		if err := k.Delegate(t.Context(), delegation("1")); err != nil {
			t.Fatal(err)
		}
		asked(t, hs, "restart 1")
		wait(48 * time.Minute)
		asked(t, hs, "restart 1")
		end() // this server restarts, without a leave
		asked(t, hs)

		k, end = run(t, disk, all)
		wait(20 * time.Second)
		k.Joined(call, alice+":D", "s2")
		wait(time.Minute)
		asked(t, hs)
		k.Left(call, alice+":D", "s2", Lost)
		for _, identity := range []string{alice + ":D", member.Identities(alice, "D", "")[1]} {
			if !k.Holds(call, identity) || k.Holds("another call", identity) {
				t.Errorf("the leave of %s is not held", identity)
			}
		}
		wait(lossTime)
		asked(t, hs, "send 1")
		if k.Holds(call, alice+":D") {
			t.Error("the leave that was sent is held")
		}
		if s := k.Stats(); s.Sent != 1 || s.Held != 0 || s.Owed != 0 || disk.size() != 0 {
			t.Errorf("%+v, %d on disk", s, disk.size())
		}
		end()
	})
}

func TestRestartWithoutReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hs, disk := &fake{events: map[string]homeserver.Scheduled{}}, &memory{jobs: map[ref]Job{}}
		all := map[string]Homeserver{"x": hs}
		k, end := run(t, disk, all)
		hs.schedule("1", leaveEvent())
		if err := k.Delegate(t.Context(), delegation("1")); err != nil {
			t.Fatal(err)
		}
		end()
		hs.requests()
		hs.set(func() { hs.fail = &homeserver.Error{Op: "test", Err: errors.New("down")} })
		_, end = run(t, disk, all)
		wait(10 * time.Minute)
		hs.set(func() { hs.fail = nil })
		wait(maxRetry)
		if got := hs.requests(); !slices.Contains(got, "send 1") || len(hs.events) != 0 || disk.size() != 0 {
			t.Errorf("the leave owed is not sent once the homeserver is back: %v", got)
		}
		end()
	})
}

func TestDelegateRefuses(t *testing.T) {
	bob := "_@b:x_D_m.call"
	for _, tt := range []struct {
		name   string
		change func(*fake, *homeserver.Scheduled)
		with   func(*Delegation)
		want   error
	}{
		{name: "all is well"},
		{name: "unknown id", with: func(d *Delegation) { d.Delay = "9" }, want: ErrForeign},
		{name: "of another user", with: func(d *Delegation) { d.User = "@b:x" }, want: ErrForeign},
		{name: "another room", change: func(_ *fake, s *homeserver.Scheduled) { s.Room = "!other:x" }, want: ErrForeign},
		{name: "another type", change: func(_ *fake, s *homeserver.Scheduled) { s.Type = "m.room.name" }, want: ErrForeign},
		{name: "a message", change: func(_ *fake, s *homeserver.Scheduled) { s.StateKey = nil }, want: ErrForeign},
		{name: "a join", change: func(_ *fake, s *homeserver.Scheduled) { s.Content = json.RawMessage(`{"device_id":"D"}`) }, want: ErrForeign},
		{name: "another device", change: func(_ *fake, s *homeserver.Scheduled) { k := "_@a:x_E_m.call"; s.StateKey = &k }, want: ErrForeign},
		{name: "a key of another user", change: func(_ *fake, s *homeserver.Scheduled) { s.StateKey = &bob }, want: ErrForeign},
		{name: "a sticky leave", change: func(_ *fake, s *homeserver.Scheduled) {
			s.StateKey, s.Type, s.Content = nil, member.TypeSticky, json.RawMessage(`{"msc4354_sticky_key":"u"}`)
		}},
		{name: "nobody tells whose it is", change: func(f *fake, _ *homeserver.Scheduled) { f.blind = true }},
		{name: "nobody tells whose it is, and it is not there", change: func(f *fake, _ *homeserver.Scheduled) { f.blind = true },
			with: func(d *Delegation) { d.Delay = "9" }, want: ErrForeign},
		{name: "the homeserver does not answer", change: func(f *fake, _ *homeserver.Scheduled) { f.fail = &homeserver.Error{Op: "test", Status: 502} }},
		{name: "another server", with: func(d *Delegation) { d.User = "@a:y" }, want: ErrNotReal},
		{name: "the homeserver lets nobody but the user manage it", change: func(f *fake, _ *homeserver.Scheduled) {
			f.blind, f.refuse = true, &homeserver.Error{Op: "test", Status: 401, Code: "M_MISSING_TOKEN"}
		}, want: ErrNotReal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hs := &fake{events: map[string]homeserver.Scheduled{}}
				k, end := run(t, &memory{jobs: map[ref]Job{}}, map[string]Homeserver{"x": hs})
				defer end()
				s, d := leaveEvent(), delegation("1")
				if tt.change != nil {
					tt.change(hs, &s)
				}
				if tt.with != nil {
					tt.with(&d)
				}
				hs.schedule("1", s)
				if err := k.Delegate(t.Context(), d); !errors.Is(err, tt.want) {
					t.Errorf("error is %v, want %v", err, tt.want)
				}
				if held := k.Stats().Held; (held == 1) != (tt.want == nil) {
					t.Errorf("%d leaves are held", held)
				}
				if k.Real() != (hs.refuse == nil) {
					t.Errorf("clients are told %v", k.Real())
				}
			})
		})
	}
}

func TestReal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := &fake{}, &fake{trial: homeserver.ErrNoDelay}
		k, end := run(t, &memory{}, map[string]Homeserver{"x": one, "y": two})
		defer end()
		expect := func(want bool, when string) {
			t.Helper()
			if got := k.Real(); got != want {
				t.Errorf("%s: real is %v", when, got)
			}
		}
		expect(true, "one works, the other has none")
		one.set(func() { one.trial = errors.New("no") })
		wait(9 * time.Minute)
		expect(true, "within ten minutes of a success")
		wait(2 * time.Minute)
		expect(false, "after ten minutes")
		one.set(func() { one.trial = nil })
		wait(trialRetry)
		expect(true, "it works again")
		two.set(func() { two.trial = errors.New("no") })
		wait(trialRetry)
		expect(false, "the other fails")
		two.set(func() { two.trial = homeserver.ErrNoDelay })
		one.set(func() { one.trial = homeserver.ErrNoDelay })
		wait(trialEvery)
		expect(false, "none has any")
	})
	synctest.Test(t, func(t *testing.T) {
		k, end := run(t, &memory{}, map[string]Homeserver{"x": &fake{}, "z": &fake{trial: homeserver.ErrNoPrivilege}})
		defer end()
		if k.Real() {
			t.Error("real though nothing is known of one")
		}
	})
}

// A client that probed when the trial was good relies on us when it is not any more.
func TestDelegateAfterALapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hs := &fake{events: map[string]homeserver.Scheduled{}}
		k, end := run(t, &memory{jobs: map[ref]Job{}}, map[string]Homeserver{"x": hs})
		defer end()
		hs.set(func() { hs.trial = errors.New("no") })
		wait(lapseLife)
		if k.Real() {
			t.Fatal("real an hour after the last trial that succeeded")
		}
		for i, tt := range []struct {
			when  string
			since time.Duration // of the last good trial
			fail  error
			want  error
		}{
			{"the event can be restarted, which proves it", 2 * lapseLife, nil, nil},
			{"the homeserver does not answer, and did until lately", lapseLife - time.Second, &homeserver.Error{Op: "test", Status: 502}, nil},
			{"the homeserver does not answer, and did not for an hour", lapseLife, &homeserver.Error{Op: "test", Status: 502}, ErrNotReal},
		} {
			delay := fmt.Sprint(i)
			hs.schedule(delay, leaveEvent())
			hs.set(func() { hs.fail = tt.fail })
			k.trials["x"].held = time.Now().Add(-tt.since)
			if err := k.Delegate(t.Context(), delegation(delay)); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.when, err, tt.want)
			}
		}
	})
}

// What a homeserver did not grant while it was down is asked for as soon as a trial finds it, not after the next pause.
func TestHomeserverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hs := &fake{events: map[string]homeserver.Scheduled{}}
		k, end := run(t, &memory{jobs: map[ref]Job{}}, map[string]Homeserver{"x": hs})
		defer end()
		call := member.RoomName(room, member.SlotRoom)
		hs.schedule("1", leaveEvent())
		k.Joined(call, alice+":D", "s")
		if err := k.Delegate(t.Context(), delegation("1")); err != nil {
			t.Fatal(err)
		}
		hs.requests()
		down := &homeserver.Error{Op: "test", Err: errors.New("down")}
		hs.set(func() { hs.fail, hs.trial = down, down })
		k.Left(call, alice+":D", "s", ByItself)
		wait(10 * time.Minute)
		hs.set(func() { hs.fail, hs.trial = nil, nil })
		hs.requests()
		wait(trialRetry)
		asked(t, hs, "send 1")
	})
}

func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("disk full")
		hs, disk := &fake{events: map[string]homeserver.Scheduled{}}, &memory{jobs: map[ref]Job{}}
		k, end := run(t, disk, map[string]Homeserver{"x": hs})
		defer end()
		hs.schedule("1", leaveEvent())
		disk.set(full)
		if err := k.Delegate(t.Context(), delegation("1")); !errors.Is(err, full) {
			t.Errorf("a leave that is not stored is taken over: %v", err)
		}
		disk.set(nil)
		hs.schedule("2", leaveEvent())
		if err := k.Delegate(t.Context(), delegation("2")); err != nil {
			t.Error(err)
		}
		wait(time.Second)
		if disk.size() != 1 || k.Stats().StoreFailures == 0 {
			t.Errorf("%d on disk, %+v", disk.size(), k.Stats())
		}
	})
	if _, err := New(t.Context(), Options{Store: &memory{fail: errors.New("no")}}); err == nil {
		t.Error("started without the leaves of the last run")
	}
}
