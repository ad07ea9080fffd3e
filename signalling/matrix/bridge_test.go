package matrix

import (
	"context"
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

// A fakeBridge remembers what it was told.
type fakeBridge struct {
	rooms map[id.RoomID]bool
	users map[id.UserID]bool
}

func (f *fakeBridge) BridgeRoom(_ context.Context, room id.RoomID, on bool) error {
	f.rooms[room] = on
	return nil
}

func (f *fakeBridge) BridgeUser(_ context.Context, user id.UserID, on bool) error {
	f.users[user] = on
	return nil
}

func (f *fakeBridge) Bridged(room id.RoomID, encrypted bool) bool {
	on, said := f.rooms[room]
	return said && on || !said && !encrypted
}

func (f *fakeBridge) Agreed(user id.UserID) (on, refused bool) {
	on, said := f.users[user]
	return said && on, said && !on
}

func (f *fakeBridge) Hear(*homeserver.Homeserver, *event.Event) {}

// Moderators switch bridging for the room, everybody for themselves.
func TestBridge(t *testing.T) {
	bridge := &fakeBridge{rooms: map[id.RoomID]bool{}, users: map[id.UserID]bool{}}
	w := newWorld(t, false, func(o *Options) { o.Bridge = bridge })
	for _, tc := range []struct{ name, user, command, want string }{
		{"how it is", bob, "!call bridge", "Who calls in this room with an older client is put into its call."},
		{"off, by anybody", bob, "!call bridge off", "Only those whose power"},
		{"off", alice, "!call bridge off", "Calls of older clients are not put into"},
		{"on", alice, "!call bridge ON", "Who calls in this room"},
		{"me on", bob, "!call bridge me on", "You agreed that I speak for you"},
		{"me off", bob, "!call bridge me off", "You do not want to be bridged"},
		{"nonsense", bob, "!call bridge over troubled water", "Write !call bridge on or off"},
	} {
		if got := w.says(t, tc.user, tc.command); !strings.HasPrefix(got.body(), tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, got.body(), tc.want)
		}
	}
	if !bridge.rooms[room] || bridge.users[bob] {
		t.Errorf("got %v and %v", bridge.rooms, bridge.users)
	}
	if got := newWorld(t, false, nil).says(t, bob, "!call bridge"); got.body() != "Calls of older clients are not bridged on my server." {
		t.Errorf("without a bridge: %q", got.body())
	}
}

// Whoever bridges an encrypted call is told what that means.
func TestBridgeEncrypted(t *testing.T) {
	bridge := &fakeBridge{rooms: map[id.RoomID]bool{}, users: map[id.UserID]bool{}}
	w := newWorld(t, false, func(o *Options) { o.Bridge = bridge })
	w.matrix.set(func() { w.matrix.encrypted = true })
	said := func(words ...string) string { // whatever can be said in such a room
		a, err := w.bridge(t.Context(), &order{hs: w.hs, room: room, sender: alice, words: append([]string{"bridge"}, words...)})
		if err != nil {
			t.Fatal(err)
		}
		return a.plain()
	}
	if got := said(); !strings.HasPrefix(got, "Calls of older clients are not put into") {
		t.Errorf("got %q", got)
	}
	if got := said("on"); !strings.Contains(got, endsHere) {
		t.Errorf("got %q", got)
	}
}
