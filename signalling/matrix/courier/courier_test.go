package courier

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

	"go.uber.org/goleak"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/matrix/device"
	"callserver/signalling/matrix/mediakeys"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const room = id.RoomID("!room:example.org")

// A party is somebody in the call with a courier, whose mail reaches the others at once, unless it is down.
type party struct {
	name    string
	others  *[]*party
	office  Office
	courier *Courier
	stop    context.CancelFunc

	mu   sync.Mutex
	down bool
	told []string // keys, in order
}

func (m *party) User() id.UserID { return id.UserID("@" + m.name + ":example.org") }
func (m *party) ID() id.DeviceID { return id.DeviceID(m.name) }

func (m *party) Send(_ context.Context, kind string, to []device.Recipient, content json.RawMessage) (missed []device.Recipient, err error) {
	m.mu.Lock()
	down := m.down
	m.mu.Unlock()
	if down {
		return nil, errors.New("down")
	}
	for _, r := range to {
		reached := false
		for _, other := range *m.others {
			if other.ID() == r.Device {
				other.office.Deliver(device.Letter{Type: kind, Sender: m.User(), Content: content})
				reached = true
			}
		}
		if !reached {
			missed = append(missed, r)
		}
	}
	return missed, nil
}

func (m *party) tell(format string, values ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told = append(m.told, fmt.Sprintf(format, values...))
}

// heard returns what was told since the last call; who was first is a matter of luck.
func (m *party) heard() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := m.told
	m.told = nil
	slices.Sort(told)
	return told
}

// A call is members that know of each other.
type call struct {
	t       *testing.T
	began   time.Time
	members []*party
}

func (c *call) join(name string) *party {
	m := &party{name: name, others: &c.members}
	var err error
	m.courier, err = m.office.Engage(Options{
		Device: m, Room: room, Member: "@" + name + ":example.org:" + name,
		Own:    func(k mediakeys.Own) { m.tell("own %d +%s", k.Index, time.Until(k.From)) },
		Theirs: func(k mediakeys.Theirs) { m.tell("%s %d", k.Identity, k.Index) },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	var ctx context.Context
	ctx, m.stop = context.WithCancel(c.t.Context())
	go func() { _ = m.courier.Run(ctx) }()
	c.members = append(c.members, m)
	c.seen()
	return m
}

// seen has everybody see who is there.
func (c *call) seen() {
	var all []mediakeys.Member
	for _, m := range c.members {
		all = append(all, mediakeys.Member{Peer: mediakeys.Peer{User: string(m.User()), Device: m.name}, Identity: m.name, Created: c.began})
	}
	for _, m := range c.members {
		m.courier.Members(all)
	}
	synctest.Wait()
}

func expect(t *testing.T, m *party, want ...string) {
	t.Helper()
	if got := m.heard(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s was told %q, want %q", m.name, got, want)
	}
}

func TestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &call{t: t, began: time.Now()}
		a := c.join("a")
		expect(t, a, "own 0 +0s")
		b := c.join("b")
		expect(t, a, "b 0")
		expect(t, b, "a 0", "own 0 +0s")

		time.Sleep(time.Minute)
		x := c.join("x")
		expect(t, a, "b 1", "own 1 +1s", "x 0")
		expect(t, x, "a 1", "b 1", "own 0 +0s")
		b.heard()

		b.mu.Lock()
		b.down = true
		b.mu.Unlock()
		c.members = []*party{a, b}
		x.stop()
		c.seen()
		expect(t, a, "own 2 +1s")
		expect(t, b, "a 2", "own 2 +1s") // used although nobody has it: who left must not read on
		b.mu.Lock()
		b.down = false
		b.mu.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, a, "b 2")

		a.office.Dismiss(a.courier)
		a.office.Deliver(device.Letter{Type: mediakeys.Type, Sender: b.User(), Content: json.RawMessage(`{}`)})
		if a.office.Dropped() != 1 {
			t.Errorf("%d letters dropped, want 1", a.office.Dropped())
		}
		a.stop()
		b.stop()
	})
}

type nobody struct{ party }

func (*nobody) ID() id.DeviceID { return "" }

func TestNoDevice(t *testing.T) {
	var o Office
	if _, err := o.Engage(Options{Device: &nobody{}}); !errors.Is(err, ErrNoDevice) {
		t.Errorf("got %v", err)
	}
}
