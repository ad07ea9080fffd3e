package leave

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"

	"callserver/internal/testnet/realserver"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

// alice's client joins a call, delegates its leave and is gone: the membership is taken back, also when this server was
// started anew in between. Nobody can delegate what is not theirs.
func TestRealLeave(t *testing.T) {
	w := realserver.Read(t)
	h := w.ConnectAll(t)
	if !w.DelayedEvents {
		if err := Of(h).Try(t.Context()); !errors.Is(err, homeserver.ErrNoDelay) {
			t.Fatalf("trial without delayed events: %v", err)
		}
		return
	}
	if err := errors.Join(Of(h).Try(t.Context()), Of(h).Try(t.Context())); err != nil { // creates the room, and finds it
		t.Fatal(err)
	}
	db := open(t, filepath.Join(t.TempDir(), "callserver.db"))
	t.Cleanup(func() { _ = db.Close() })
	table, err := NewTable(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	start := func() *Keeper {
		k, err := New(t.Context(), Options{Homeservers: map[string]Homeserver{w.ServerName: Of(h)}, Store: table})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = k.Run(t.Context()) }()
		t.Cleanup(func() { _ = k.Close() })
		for deadline := time.Now().Add(10 * time.Second); !k.Real(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the trial does not end well")
			}
		}
		return k
	}
	k := start()
	alice, bob, room := w.Users[0], w.Users[1], w.Rooms[0]
	client := h.Bearer(alice.Token)
	kind := event.Type{Type: member.TypeState, Class: event.StateEventType}
	key := "_" + string(alice.ID) + "_" + string(alice.Device) + "_m.call"
	join := func() Delegation {
		t.Helper()
		delay, err := client.DelayState(t.Context(), room, kind, key, struct{}{}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.SendState(t.Context(), room, kind, key, map[string]any{"application": "m.call", "call_id": "", "device_id": alice.Device}); err != nil {
			t.Fatal(err)
		}
		return Delegation{User: string(alice.ID), Device: string(alice.Device), Room: string(room), Slot: member.SlotRoom, Delay: string(delay), Length: time.Hour}
	}
	cleared := func(within time.Duration) {
		t.Helper()
		begin := time.Now()
		for {
			var content map[string]any
			if err := client.State(t.Context(), room, kind, key, &content); err != nil {
				t.Fatal(err)
			}
			if len(content) == 0 {
				t.Logf("cleared after %v", time.Since(begin).Round(time.Millisecond))
				return
			}
			if time.Since(begin) > within {
				t.Fatalf("a ghost is left: %v", content)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	d := join()
	foreign := d
	foreign.User, foreign.Device = string(bob.ID), string(bob.Device)
	if err := k.Delegate(t.Context(), foreign); !errors.Is(err, ErrForeign) {
		t.Errorf("bob delegates alice's leave: %v", err)
	}
	elsewhere := d
	elsewhere.Room = string(w.Rooms[1])
	if err := k.Delegate(t.Context(), elsewhere); !errors.Is(err, ErrForeign) {
		t.Errorf("alice delegates it for another room: %v", err)
	}
	call, identity := member.RoomName(string(room), member.SlotRoom), member.DeviceIdentity(string(alice.ID), string(alice.Device))
	k.Joined(call, identity, "1")
	if err := k.Delegate(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	k.Left(call, identity, "1", ByItself)
	cleared(5 * time.Second)

	old := join()
	k.Joined(call, identity, "2")
	if err := errors.Join(k.Delegate(t.Context(), old), k.Delegate(t.Context(), join())); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); k.Stats().Cancelled == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the leave that was replaced is not cancelled")
		}
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	k = start()
	k.Joined(call, identity, "3")
	k.Left(call, identity, "3", Lost)
	cleared(lossTime + 5*time.Second)
}
