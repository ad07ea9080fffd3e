package homeserver

import (
	"context"
	"testing"

	"maunium.net/go/mautrix/id"
)

// A room takes no more than its share, and what it has it gives back.
func TestSlots(t *testing.T) {
	s := newSlots()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	full := func(room id.RoomID) bool {
		// With a context that is over a free slot is still got half the time.
		for range 64 {
			if release, err := s.take(over, room); err == nil {
				release()
				return false
			}
		}
		return true
	}
	take := func(room id.RoomID) func() {
		t.Helper()
		release, err := s.take(t.Context(), room)
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	var held []func()
	for range maxOfRoom {
		held = append(held, take("!slow:example.org"))
	}
	if !full("!slow:example.org") || full("!other:example.org") || full("") {
		t.Error("a room takes more than its share, or from others")
	}
	for range maxAtOnce - maxOfRoom {
		held = append(held, take(""))
	}
	if !full("") || !full("!other:example.org") {
		t.Error("there are more than maxAtOnce")
	}
	for _, release := range held {
		release()
	}
	if full("!slow:example.org") || len(s.rooms) != 0 || len(s.all) != 0 {
		t.Errorf("not given back: %d of rooms, %d", len(s.rooms), len(s.all))
	}
}

func TestRoomOf(t *testing.T) {
	room := id.RoomID("!a:example.org")
	for _, path := range [][]any{{"v3", "rooms", room, "state"}, {"unstable", "io.element.msc4502", "rooms", room, "is_joined"}} {
		if got := roomOf(path); got != room {
			t.Errorf("%v is about %q", path, got)
		}
	}
	if got := roomOf([]any{"v3", "sync"}); got != "" {
		t.Errorf("sync is about %q", got)
	}
}
