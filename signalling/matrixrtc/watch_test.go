package matrixrtc

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"callserver/signalling/homeserver"
	"callserver/signalling/token"
)

// A watched world has a homeserver whose sender is in the room, with alice and bob in a call.
type watched struct {
	*world
	matrix *matrix
	hs     *homeserver.Homeserver
	secret string // hs_token
	events int
}

func watch(t *testing.T) *watched {
	t.Helper()
	n := narrow()
	m := &matrix{members: map[string]string{
		"@_callserver:example.org": "join", "@alice:example.org": "join", "@bob:example.org": "join",
	}}
	h, connect := withMatrix(t, m, n)
	w := &watched{matrix: m, hs: h, secret: n.ServerToken}
	w.world = newWorld(t, func(o *Options) { connect(o); o.Revocations = &token.Revocations{} })
	w.calls.hold("@alice:example.org")
	w.calls.hold("@bob:example.org")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	started := make(chan struct{})
	go func() { close(started); done <- w.Run(ctx) }()
	<-started
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// push has the homeserver tell of memberships: user, membership, and so on.
func (w *watched) push(t *testing.T, pairs ...string) {
	t.Helper()
	var events []string
	for i := 0; i < len(pairs); i += 2 {
		w.events++
		events = append(events, fmt.Sprintf(`{"type":"m.room.member","state_key":%q,"sender":"@admin:example.org","event_id":"$%d",
			"room_id":"!abc:example.org","content":{"membership":%q}}`, pairs[i], w.events, pairs[i+1]))
	}
	r := httptest.NewRequest("PUT", fmt.Sprint("/_matrix/app/v1/transactions/", w.events), strings.NewReader(`{"events":[`+strings.Join(events, ",")+`]}`))
	r.Header.Set("Authorization", "Bearer "+w.secret)
	rec := httptest.NewRecorder()
	homeserver.Handler(w.hs).ServeHTTP(rec, r)
	if rec.Code != 200 {
		t.Fatalf("transaction: %d %s", rec.Code, rec.Body)
	}
}

// out waits until exactly these were taken out.
func (w *watched) out(t *testing.T, want ...string) {
	t.Helper()
	for deadline := time.After(5 * time.Second); ; {
		w.calls.mu.Lock()
		got := slices.Clone(w.calls.evicted)
		w.calls.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("taken out: %q, want %q", got, want)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestKickedMeansDisconnected(t *testing.T) {
	const alice = "@alice:example.org"
	w := watch(t)
	ask := func() *httptest.ResponseRecorder { return w.do(t, "POST", "/sfu/get", sfuGetBody("T")) }
	expect(t, ask(), 200, "")
	before := token.Origin{User: alice, Conversation: "!abc:example.org", Verified: time.Now()}

	w.matrix.set(func() { w.matrix.members[alice] = "leave" })
	w.push(t, alice, "leave")
	w.out(t, alice)
	if !w.options.Revocations.Revoked(before) {
		t.Error("the token is still good")
	}
	expect(t, ask(), 403, "M_FORBIDDEN") // in spite of the positive answer a moment ago

	w.matrix.set(func() { w.matrix.members[alice] = "join" })
	w.push(t, alice, "invite", alice, "join")
	expect(t, ask(), 200, "") // verified anew
	w.out(t, alice)
	if got := w.Stats().Members.Evicted; got != 1 {
		t.Errorf("%d evicted, want 1", got)
	}
}

func TestOldDeparture(t *testing.T) {
	w := watch(t)
	w.push(t, "@alice:example.org", "leave") // but she is there again
	w.matrix.set(func() { w.matrix.members["@bob:example.org"] = "ban" })
	w.push(t, "@bob:example.org", "leave", "@bob:example.org", "ban")
	w.out(t, "@bob:example.org")
	if len(w.calls.Origins("")) != 1 {
		t.Error("a member was taken out for an old event")
	}
}

func TestDepartureWithHomeserverDown(t *testing.T) {
	w := watch(t)
	w.matrix.set(func() { w.matrix.down = true })
	w.push(t, "@alice:example.org", "leave")
	w.out(t, "@alice:example.org")
	if len(w.calls.Origins("")) != 1 {
		t.Error("somebody else was taken out too")
	}
}

func TestMissedDepartures(t *testing.T) {
	w := watch(t)
	w.matrix.set(func() { w.matrix.members["@bob:example.org"] = "leave" })
	var flood []string
	for i := range watchQueue {
		flood = append(flood, fmt.Sprintf("@u%d:example.org", i), "join")
	}
	w.push(t, append(flood, "@x:example.org", "join", "@bob:example.org", "leave")...)
	w.out(t, "@bob:example.org")
	if len(w.calls.Origins("")) != 1 {
		t.Error("somebody else was taken out too")
	}
}
