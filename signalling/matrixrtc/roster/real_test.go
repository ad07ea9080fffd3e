package roster

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/internal/testnet/realserver"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

// A realDevice is one of a user's, with a membership of its own.
type realDevice struct {
	Presence
	key string
}

// The memberships of devices that are gone are taken back, in each user's name, or in the sender's where that is all we
// may do; those of others stay. Who publishes without a membership is withheld until it has one.
func TestRealRoster(t *testing.T) {
	w := realserver.Read(t)
	alice, bob := w.Connect(t).Bearer(w.Users[0].Token), w.Connect(t).Bearer(w.Users[1].Token)
	t.Run("in the users' names", func(t *testing.T) {
		play(t, w, w.ConnectAll(t), alice, bob)
	})
	t.Run("in the sender's name", func(t *testing.T) {
		h := w.Connect(t, w.Registrations.Narrow)
		sender, err := h.As(h.Sender())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := alice.SendState(t.Context(), w.Rooms[1], event.StateMember, string(h.Sender()), map[string]string{"membership": "invite"}); err != nil {
			t.Fatal(err)
		}
		if err := sender.Join(t.Context(), w.Rooms[1]); err != nil {
			t.Fatal(err)
		}
		play(t, w, h, alice, bob)
	})
}

func play(t *testing.T, w *realserver.World, h *homeserver.Homeserver, clients ...homeserver.Agent) {
	alice, bob, room := w.Users[0], w.Users[1], w.Rooms[1]
	var mu sync.Mutex
	withheld := map[string]bool{}
	r, err := New(t.Context(), Options{
		Homeservers: map[string]Homeserver{w.ServerName: Of(h)}, Service: service, Grace: 2 * time.Second,
		Withhold: func(_, session string, on bool) {
			mu.Lock()
			defer mu.Unlock()
			withheld[session] = on
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	defer func() { cancel(); running.Wait() }()

	device := func(user id.UserID, device string) realDevice {
		s := Stay{Room: string(room), Call: member.RoomName(string(room), member.SlotRoom), User: string(user), Device: device}
		return realDevice{
			Presence{Stay: s, Identity: string(user) + ":" + device, Session: string(user) + device, Publishes: true},
			"_" + string(user) + "_" + device + "_m.call",
		}
	}
	gone, elsewhere := device(alice.ID, "GONE_1"), device(alice.ID, "ELSEWHERE")
	here, silent := device(bob.ID, "HERE"), device(bob.ID, "SILENT")
	for _, d := range []realDevice{gone, elsewhere, here, silent} {
		r.Joined(d.Presence)
	}
	announce(t, clients[0], room, gone, service)
	announce(t, clients[0], room, elsewhere, "https://sfu.example.org/livekit/jwt")
	announce(t, clients[1], room, here, service)
	holds := func(d realDevice) bool {
		mu.Lock()
		defer mu.Unlock()
		return withheld[d.Session]
	}
	eventually(t, "the silent one is withheld", func() bool { return holds(silent) })
	announce(t, clients[1], room, silent, service)
	eventually(t, "it is let through once it has a membership", func() bool { return !holds(silent) })
	if holds(here) || holds(gone) || holds(elsewhere) {
		t.Errorf("withheld %v, though all these have memberships", withheld)
	}

	empty := func(d realDevice) bool {
		var content map[string]any
		if err := clients[0].State(t.Context(), room, stateMember, d.key, &content); err != nil {
			t.Fatal(err)
		}
		return len(content) == 0
	}
	for _, d := range []realDevice{gone, elsewhere, silent} {
		r.Left(Key{d.Call, d.Identity}, d.Session, Lost)
	}
	eventually(t, "all is done about those who are gone", func() bool { return r.Stats().Stays == 1 })
	for d, want := range map[*realDevice]bool{&gone: true, &silent: true, &elsewhere: false, &here: false} {
		if empty(*d) != want {
			t.Errorf("the membership of %s was taken back: %t, want %t", d.Session, !want, want)
		}
	}
	if s := r.Stats(); s.Cleared != 2 || s.Failures != 0 || s.Unable != 0 {
		t.Errorf("stats %+v, want two memberships cleared and no failure", s)
	}
	if _, err := clients[1].SendState(t.Context(), room, stateMember, here.key, struct{}{}); err != nil {
		t.Fatal(err)
	}
}

func announce(t *testing.T, client homeserver.Agent, room id.RoomID, d realDevice, at string) {
	t.Helper()
	content := json.RawMessage(membership(`"D"`, `"`+d.Device+`"`, "@a:x:D", d.Identity, service, at))
	if _, err := client.SendState(t.Context(), room, stateMember, d.key, content); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what must be so within 10 s: a membership is cleared 3 s after its participant is gone.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so: %s", what)
		}
	}
}
