package roster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

const (
	room    = "!r:x"
	alice   = "@a:x"
	device  = "D"
	key     = "_@a:x_D_m.call"
	service = "https://rtc.x/livekit/jwt"
)

var (
	call  = member.RoomName(room, member.SlotRoom)
	stay1 = Stay{Room: room, Call: call, User: alice, Device: device}
)

// A fake is a homeserver with the state of one room.
type fake struct {
	mu      sync.Mutex
	state   map[string]member.Event // by state key
	sent    int
	asked   []string
	fail    error           // of everything
	outside map[string]bool // who may not see the room; "" is the sender
	weak    map[string]bool // who may not write there
	sticky  bool
	onRead  func(n int) // after the nth read since the client was lost, without the lock
	reads   int
	behind  time.Duration // its clock is
}

func newFake() *fake {
	return &fake{state: map[string]member.Event{}, outside: map[string]bool{"": true}, weak: map[string]bool{}}
}

func failure(status int, code string) error {
	return &homeserver.Error{Op: "test", Status: status, Code: code}
}

func (f *fake) ask(what, as string) error {
	f.asked = append(f.asked, strings.TrimSpace(what+" "+as))
	switch {
	case f.fail != nil:
		return f.fail
	case as == "" && f.outside[""]:
		return fmt.Errorf("test: %w", homeserver.ErrNoPrivilege)
	case f.outside[as]:
		return failure(403, "M_FORBIDDEN")
	}
	return nil
}

func (f *fake) Membership(_ context.Context, as, _, key string) (member.Event, error) {
	f.mu.Lock()
	err := f.ask("read "+key, as)
	e, ok := f.state[key]
	after := f.onRead
	f.reads++
	n := f.reads
	f.mu.Unlock()
	if after != nil {
		after(n)
	}
	if err == nil && !ok {
		err = failure(404, "M_NOT_FOUND")
	}
	return e, err
}

func (f *fake) Memberships(_ context.Context, as, _ string) ([]member.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ask("read all", as); err != nil {
		return nil, err
	}
	var all []member.Event
	for _, k := range slices.Sorted(maps.Keys(f.state)) {
		all = append(all, f.state[k])
	}
	return all, nil
}

func (f *fake) Clear(_ context.Context, as, _, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ask("clear "+key, as); err != nil {
		return err
	}
	if f.weak[as] {
		return failure(403, "M_FORBIDDEN")
	}
	f.sendLocked(key, f.state[key].Sender, "{}")
	return nil
}

func (f *fake) Rooms(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.fail != nil:
		return nil, f.fail
	case f.outside[""]:
		return nil, fmt.Errorf("test: %w", homeserver.ErrNoPrivilege)
	}
	return []string{room}, nil
}

func (f *fake) Sticky(context.Context) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sticky, f.fail
}

func (f *fake) sendLocked(key, sender, content string) {
	f.sent++
	f.state[key] = member.Event{
		Type: member.TypeState, StateKey: &key, Sender: sender, ID: fmt.Sprintf("$%d", f.sent),
		Content: json.RawMessage(content), Sent: time.Now().Add(-f.behind),
	}
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// send is what a client does when it joins.
func (f *fake) send(key, sender, content string) {
	f.set(func() { f.sendLocked(key, sender, content) })
}

func (f *fake) empty(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.state[key]
	return !ok || string(e.Content) == "{}"
}

// requests returns what was asked since it was called last.
func (f *fake) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

// membership is what Element Call sends; each pair replaces a part of it.
func membership(pairs ...string) string {
	return strings.NewReplacer(pairs...).Replace(`{"application":"m.call","call_id":"","scope":"m.room","device_id":"D","membershipID":"@a:x:D",` +
		`"expires":14400000,"focus_active":{"type":"livekit","focus_selection":"multi_sfu"},` +
		`"foci_preferred":[{"type":"livekit","livekit_service_url":"` + service + `","livekit_alias":"!r:x"}]}`)
}

// A memory is a Store.
type memory struct {
	mu      sync.Mutex
	records map[Stay]Record
	fail    error
}

func (m *memory) Load(context.Context) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.records)), m.fail
}

func (m *memory) Apply(_ context.Context, changes []Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	for _, c := range changes {
		if c.Over {
			delete(m.records, c.Record.Stay)
		} else {
			m.records[c.Record.Stay] = c.Record
		}
	}
	return nil
}

func (m *memory) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.records)
}

// A world is a roster, one homeserver and what the media server was told.
type world struct {
	*Roster
	t    *testing.T
	hs   *fake
	disk *memory
	stop func()

	mu       sync.Mutex
	withheld map[string]bool
	leaves   map[string]bool // identities whose delegated leave is not over
}

func newWorld(t *testing.T, change func(*Options)) *world {
	w := &world{t: t, hs: newFake(), disk: &memory{records: map[Stay]Record{}}, withheld: map[string]bool{}, leaves: map[string]bool{}}
	w.start(change)
	return w
}

// start begins a run of the server, with what an earlier one left behind.
func (w *world) start(change func(*Options)) {
	w.t.Helper()
	o := Options{
		Homeservers: map[string]Homeserver{"x": w.hs}, Service: service, Grace: DefaultGrace, Store: w.disk,
		Withhold: func(_, session string, on bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.withheld[session] = on
		},
		Held: func(_, identity string) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.leaves[identity]
		},
	}
	if change != nil {
		change(&o)
	}
	r, err := New(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Roster = r
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	w.stop = func() {
		cancel()
		running.Wait()
	}
}

func (w *world) holds(session string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.withheld[session]
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func someone(session string) Presence {
	return Presence{Stay: stay1, Identity: alice + ":" + device, Session: session, Publishes: true}
}

// onRead does something after the nth reading of a membership.
func (w *world) onRead(n int, do func()) {
	w.hs.set(func() {
		w.hs.onRead = func(at int) {
			if at == n {
				do()
			}
		}
	})
}

func (w *world) leave(p Presence) { w.Left(Key{p.Call, p.Identity}, p.Session, Lost) }

// expectCleared checks whether the membership is still there.
func (w *world) expectCleared(when string, want bool) {
	w.t.Helper()
	if got := w.hs.empty(key); got != want {
		w.t.Errorf("%s: the membership is gone: %t, want %t (asked %q)", when, got, want, w.hs.requests())
	}
}
