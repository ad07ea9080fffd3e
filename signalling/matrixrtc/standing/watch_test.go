package standing

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

// pushing is a watched room whose sender is in it.
func pushing(t *testing.T) (*watched, *homeserver.Registration) {
	t.Helper()
	n := narrow()
	return watch(t, newMatrix(map[string]string{sender: "join", alice: "join", bob: "join"}), slow, n), n
}

// push has the homeserver tell of memberships: user, membership, and so on.
func (w *watched) push(t *testing.T, r *homeserver.Registration, pairs ...string) {
	t.Helper()
	var events []string
	for i := 0; i < len(pairs); i += 2 {
		events = append(events, fmt.Sprintf(`{"type":"m.room.member","state_key":%q,"content":{"membership":%q}}`, pairs[i], pairs[i+1]))
	}
	w.pushEvents(t, r, events...)
}

// pushEvents completes what is missing of the events.
func (w *watched) pushEvents(t *testing.T, reg *homeserver.Registration, events ...string) {
	t.Helper()
	for i := range events {
		w.events++
		rest := fmt.Sprintf(`"event_id":"$p%d","room_id":%q`, w.events, room)
		if !strings.Contains(events[i], `"sender"`) {
			rest += `,"sender":"@admin:example.org"`
		}
		events[i] = strings.TrimSuffix(events[i], "}") + "," + rest + "}"
	}
	r := httptest.NewRequest("PUT", fmt.Sprint("/_matrix/app/v1/transactions/", w.events), strings.NewReader(`{"events":[`+strings.Join(events, ",")+`]}`))
	r.Header.Set("Authorization", "Bearer "+reg.ServerToken)
	rec := httptest.NewRecorder()
	homeserver.Handler(w.hs).ServeHTTP(rec, r)
	if rec.Code != 200 {
		t.Fatalf("transaction: %d %s", rec.Code, rec.Body)
	}
}

func TestKickedMeansDisconnected(t *testing.T) {
	w, n := pushing(t)
	ask := func() Finding {
		t.Helper()
		f, err := w.Check(t.Context(), Place{alice, room}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	before := time.Now()
	if f := ask(); f.Standing != Joined || f.By != bySender {
		t.Fatalf("alice: %+v", f)
	}
	w.matrix.set(func() { w.matrix.members[alice] = "leave" })
	w.push(t, n, alice, "leave")
	w.outOf(t, alice)
	if !w.revoked(alice, before) {
		t.Error("the token is still good")
	}
	if f := ask(); f.Standing != Outside { // in spite of the positive answer a moment ago
		t.Errorf("after the kick: %+v", f)
	}
	w.matrix.set(func() { w.matrix.members[alice] = "join" })
	w.push(t, n, alice, "invite", alice, "join")
	if f := ask(); f.Standing != Joined || !w.Believed(Place{alice, room}, f.Verified) {
		t.Errorf("after the return: %+v", f)
	}
	if got := w.Stats().Evicted; got != 1 {
		t.Errorf("%d evicted, want 1", got)
	}
}

func TestOldDeparture(t *testing.T) {
	w, n := pushing(t)
	w.push(t, n, alice, "leave") // but she is there again
	w.matrix.set(func() { w.matrix.members[bob] = "ban" })
	w.push(t, n, bob, "leave", bob, "ban")
	w.outOf(t, bob)
	if len(w.calls.Origins("")) != 1 {
		t.Error("a member was taken out for an old event")
	}
}

func TestDepartureWithHomeserverDown(t *testing.T) {
	w, n := pushing(t)
	w.matrix.set(func() { w.matrix.down = true })
	w.push(t, n, alice, "leave")
	w.outOf(t, alice)
	if len(w.calls.Origins("")) != 1 {
		t.Error("somebody else was taken out too")
	}
}

func TestMissedDepartures(t *testing.T) {
	n := narrow()
	w := watch(t, newMatrix(map[string]string{sender: "join", alice: "join", bob: "join"}),
		intervals{tick: 5 * time.Millisecond, patience: time.Hour, assurance: time.Hour, retry: 20 * time.Millisecond}, n)
	w.matrix.set(func() { w.matrix.members[bob] = "leave" })
	var flood []string
	for i := range watchQueue {
		flood = append(flood, fmt.Sprintf("@u%d:example.org", i), "join")
	}
	w.push(t, n, append(flood, "@x:example.org", "join", bob, "leave")...)
	w.outOf(t, bob)
	if len(w.calls.Origins("")) != 1 {
		t.Error("somebody else was taken out too")
	}
}

func TestServerACLPutsOut(t *testing.T) {
	w, n := pushing(t)
	w.calls.hold(rob, time.Now())
	before := time.Now()
	acl := `{"allow":["*"],"deny":["*.com"]}`
	w.matrix.set(func() { w.matrix.members[rob] = "join"; w.matrix.state["m.room.server_acl"] = acl })
	w.pushEvents(t, n, `{"type":"m.room.server_acl","state_key":"","content":`+acl+`}`)
	w.outOf(t, rob)
	if !w.revoked(rob, before) || w.revoked(alice, before) {
		t.Error("the wrong tokens are worthless")
	}
	if f, err := w.Check(t.Context(), Place{rob, room}, nil); f.Standing != Barred || err != nil {
		t.Errorf("rob: %+v, %v", f, err)
	}
	w.matrix.set(func() { delete(w.matrix.state, "m.room.server_acl") })
	w.pushEvents(t, n, `{"type":"m.room.server_acl","state_key":"","content":{"allow":["*"]}}`)
	eventually(t, "rob is admitted again", func() bool {
		f, _ := w.Check(t.Context(), Place{rob, room}, nil)
		return f.Standing == Joined
	})
}

// An ACL that cannot be read again counts as the event has it.
func TestServerACLWithHomeserverDown(t *testing.T) {
	w, n := pushing(t)
	w.calls.hold(rob, time.Now())
	w.matrix.set(func() { w.matrix.down = true })
	w.pushEvents(t, n, `{"type":"m.room.server_acl","state_key":"","content":{"allow":["example.org"]}}`)
	w.outOf(t, rob)
}

// The sender's own memberships say where events come from. Whether it follows an invitation is not decided here.
func TestSeats(t *testing.T) {
	n := narrow()
	w := watch(t, newMatrix(map[string]string{sender: "invite", alice: "join", bob: "join"}), slow, n)
	w.push(t, n, sender, "invite")
	w.matrix.set(func() { w.matrix.members[bob] = "leave" })
	w.push(t, n, bob, "leave") // the next event, which tells that the first was dealt with
	w.outOf(t, bob)
	w.push(t, n, sender, "join")
	eventually(t, "the sender is known to be in the room", func() bool { return w.seatedAt(w.hs, room) })
	w.push(t, n, sender, "ban")
	eventually(t, "the sender is known to be out", func() bool { return !w.seatedAt(w.hs, id.RoomID(room)) })
}
