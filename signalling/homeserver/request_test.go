package homeserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

func TestAgents(t *testing.T) {
	w := newWorld(t, func(r *http.Request) (int, string) {
		if strings.HasSuffix(r.URL.Path, "/whoami") {
			return 200, `{"user_id":"@alice:example.org","device_id":"D"}`
		}
		return 200, `{"joined":{"@bob:example.org":{},"@alice:example.org":{"display_name":5}},"membership":"join","event_id":"$e"}`
	}, nil)
	as := func(user id.UserID) Agent {
		t.Helper()
		a, err := w.As(user)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	ctx := t.Context()
	users, err := as(alice).JoinedMembers(ctx, room)
	if err != nil || len(users) != 2 || users[0] != alice {
		t.Errorf("JoinedMembers: %v, %v", users, err)
	}
	if m, err := as(w.Sender()).Membership(ctx, room, "@bob:two.example"); err != nil || m != event.MembershipJoin {
		t.Errorf("Membership: %q, %v", m, err)
	}
	if e, err := as(alice).SendState(ctx, room, event.Type{Type: "x.y"}, "_k/é", struct{}{}); err != nil || e != "$e" {
		t.Errorf("SendState: %q, %v", e, err)
	}
	if err := as(w.Sender()).Join(ctx, room); err != nil {
		t.Error(err)
	}
	account, err := w.Bearer("secret").Whoami(ctx)
	if want := (Account{User: alice, Device: "D"}); err != nil || account != want {
		t.Errorf("Whoami: %v, %v", account, err)
	}
	wide, narrow := "Bearer "+w.wide.AppToken, "Bearer "+w.narrow.AppToken
	const at = "/_matrix/client/v3/rooms/%21room:example.org"
	got := w.remote.requests()
	for i, want := range []string{
		"GET " + at + "/joined_members?user_id=%40alice%3Aexample.org " + wide + " ",
		"GET " + at + "/state/m.room.member/@bob:two.example?user_id=%40_callserver%3Aexample.org " + narrow + " ",
		"PUT " + at + "/state/x.y/_k%2F%C3%A9?user_id=%40alice%3Aexample.org " + wide + " {}",
		"POST " + at + "/join?user_id=%40_callserver%3Aexample.org " + narrow + " {}",
		"GET /_matrix/client/v3/account/whoami Bearer secret ",
	} {
		if got[i] != want {
			t.Errorf("request %d is\n%s, want\n%s", i, got[i], want)
		}
	}
}

func TestPrivileges(t *testing.T) {
	w := newWorld(t, always(200, `{"joined":true}`), func(o *Options) { o.Registrations = o.Registrations[:1] })
	for _, user := range []id.UserID{alice, "@_callserver:two.example", "@_callserver", "_callserver_x:example.org", ""} {
		if _, err := w.As(user); !errors.Is(err, ErrNoPrivilege) {
			t.Errorf("As(%q) without the wide registration: %v", user, err)
		}
	}
	for _, user := range []id.UserID{w.Sender(), "@_callserver_bob:example.org"} {
		if _, err := w.As(user); err != nil {
			t.Error(err)
		}
	}
	if joined, err := w.IsJoined(t.Context(), room, "@bob:two.example"); err != nil || !joined {
		t.Errorf("IsJoined with the scope: %v, %v", joined, err)
	}
	if got := w.remote.requests(); len(got) != 1 || !strings.Contains(got[0], "/io.element.msc4502/rooms/%21room:example.org/is_joined?mxid=%40bob%3Atwo.example Bearer "+w.narrow.AppToken) {
		t.Errorf("asked %q", got)
	}
	none := newWorld(t, always(200, `{}`), func(o *Options) { o.Registrations = nil })
	if _, err := none.IsJoined(t.Context(), room, alice); !errors.Is(err, ErrNoPrivilege) || none.Sender() != "" {
		t.Errorf("without registrations: IsJoined %v, sender %q", err, none.Sender())
	}
	if got := none.remote.requests(); len(got) != 0 {
		t.Errorf("asked without a privilege: %q", got)
	}
}

func TestAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		status       int
		body         string
		unavailable  bool
		unrecognized bool
		code         string
	}{
		"forbidden":         {403, `{"errcode":"M_FORBIDDEN","error":"no"}`, false, false, "M_FORBIDDEN"},
		"rate limit":        {429, `{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":2000}`, true, false, "M_LIMIT_EXCEEDED"},
		"own failure":       {500, `{"errcode":"M_UNKNOWN"}`, true, false, "M_UNKNOWN"},
		"proxy":             {502, `<html>`, true, false, ""},
		"unrecognized":      {404, `{"errcode":"M_UNRECOGNIZED"}`, false, true, "M_UNRECOGNIZED"},
		"a page":            {404, `<html>`, false, true, ""},
		"redirect":          {302, ``, false, false, ""},
		"not JSON":          {200, `<html>`, true, false, ""},
		"another shape":     {200, `[]`, true, false, ""},
		"too large":         {200, `{"x":"` + strings.Repeat("x", maxAnswer) + `"}`, true, false, ""},
		"large error":       {403, strings.Repeat("x", 1<<20), true, false, ""},
		"errcode no string": {403, `{"errcode":5}`, false, false, ""},
	} {
		w := newWorld(t, always(tc.status, tc.body), nil)
		_, err := w.Bearer("secret").JoinedMembers(t.Context(), room)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: error %v is no *Error", name, err)
			continue
		}
		if got := errors.Is(err, ErrUnavailable); got != tc.unavailable || Unrecognized(err) != tc.unrecognized || Code(err) != tc.code {
			t.Errorf("%s: unavailable %v, unrecognized %v, code %q; want %v, %v, %q (%v)", name, got, Unrecognized(err), Code(err), tc.unavailable, tc.unrecognized, tc.code, err)
		}
		if name == "rate limit" && e.Retry != 2*time.Second {
			t.Errorf("rate limit: retry after %v", e.Retry)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the token: %v", name, err)
		}
	}
}

func TestWhoamiOfAnotherServer(t *testing.T) {
	for _, user := range []string{"@alice:two.example", "@alice", "", "alice:example.org", "@alice:example.org:8448"} {
		w := newWorld(t, always(200, `{"user_id":`+text(t, user)+`}`), nil)
		if account, err := w.Bearer("secret").Whoami(t.Context()); err == nil {
			t.Errorf("%q passes as a user of %s: %v", user, server, account)
		}
	}
}

func TestMembershipOfNobody(t *testing.T) {
	w := newWorld(t, always(404, `{"errcode":"M_NOT_FOUND"}`), nil)
	if m, err := w.Bearer("x").Membership(t.Context(), room, alice); m != "" || err != nil {
		t.Errorf("got %q, %v; want nothing", m, err)
	}
}

func TestDotSegmentsAreNotSent(t *testing.T) {
	w := newWorld(t, always(200, `{}`), nil)
	for _, bad := range []string{".", "..", " .. "} {
		if err := w.Bearer("x").SendDelayed(t.Context(), id.DelayID(bad)); Code(err) != "M_INVALID_PARAM" {
			t.Errorf("delay id %q: %v", bad, err)
		}
		if _, err := w.Bearer("x").JoinedMembers(t.Context(), id.RoomID(bad)); Code(err) != "M_INVALID_PARAM" {
			t.Errorf("room id %q: %v", bad, err)
		}
	}
	if got := w.remote.requests(); len(got) > 0 {
		t.Errorf("sent %q", got)
	}
	_ = w.Bearer("x").SendDelayed(t.Context(), "../../x")
	if got := w.remote.requests(); len(got) != 1 || !strings.Contains(got[0], "/delayed_events/..%2F..%2Fx/send ") {
		t.Errorf("sent %q, want the slashes escaped", got)
	}
}

func TestAllState(t *testing.T) {
	w := newWorld(t, always(200, `[
		{"type":"m.room.member","state_key":"@alice:example.org","sender":"@alice:example.org","event_id":"$1","content":{"membership":"join"}},
		5, {"type":"m.room.message","sender":"@alice:example.org","content":{}}, {"state_key":""}]`), nil)
	events, err := w.Bearer("x").AllState(t.Context(), room)
	if err != nil || len(events) != 1 || events[0].Type != event.StateMember || events[0].RoomID != room {
		t.Errorf("got %v, %v", events, err)
	}
	if got := w.Stats().BadEvents; got != 3 {
		t.Errorf("%d bad events, want 3", got)
	}
}

func TestSlowHomeserver(t *testing.T) {
	held := make(chan struct{})
	w := newWorld(t, func(r *http.Request) (int, string) {
		select {
		case <-held:
		case <-r.Context().Done():
		}
		return 200, `{}`
	}, func(o *Options) { o.Timeout = 20 * time.Millisecond })
	defer close(held)
	if _, err := w.Bearer("x").JoinedMembers(t.Context(), room); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 * tolerated { // callers that went away say nothing about the homeserver
		if _, err := w.Bearer("x").JoinedMembers(ctx, room); err == nil {
			t.Error("an answer for a caller that is gone")
		}
	}
	if s := w.Stats(); s.Spared != 0 || s.Failures != 1 {
		t.Errorf("stats %+v, want one failure and nothing spared", s)
	}
}

// Requests about one room that nobody answers in time keep nobody from asking about others.
func TestSlowRoom(t *testing.T) {
	held := make(chan struct{})
	defer close(held)
	w := newWorld(t, func(r *http.Request) (int, string) {
		if strings.Contains(r.URL.Path, "/!slow:example.org/") {
			select {
			case <-held:
			case <-r.Context().Done():
			}
		}
		return 200, `{"joined":{}}`
	}, func(o *Options) { o.Timeout = 50 * time.Millisecond })
	ask := func(room id.RoomID) error {
		_, err := w.Bearer("x").JoinedMembers(t.Context(), room)
		return err
	}
	var stuck errgroup.Group
	for range 2 * tolerated {
		stuck.Go(func() error {
			if err := ask("!slow:example.org"); !errors.Is(err, ErrUnavailable) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		})
	}
	if err := stuck.Wait(); err != nil {
		t.Error(err)
	}
	w.options.Timeout = requestTimeout
	if err := ask(room); err != nil || w.Stats().Spared != 0 {
		t.Errorf("of another room: %v, %d spared", err, w.Stats().Spared)
	}
}

func TestHomeserverComesBack(t *testing.T) {
	up := false
	w := newWorld(t, func(*http.Request) (int, string) {
		if up {
			return 200, `{"joined":{}}`
		}
		return 503, ``
	}, nil)
	ask := func() error {
		_, err := w.Bearer("x").JoinedMembers(t.Context(), room)
		return err
	}
	for range 10 {
		if err := ask(); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if got := len(w.remote.requests()); got != tolerated {
		t.Errorf("a homeserver that is down was asked %d times at once, want %d", got, tolerated)
	}
	w.pass(firstPause * 5 / 4)
	_ = ask()
	_ = ask() // the pause is longer now
	if got := len(w.remote.requests()); got != tolerated+1 {
		t.Errorf("after the pause it was asked %d times, want once", got-tolerated)
	}
	up = true
	w.pass(maxPause * 5 / 4)
	for range 3 {
		if err := ask(); err != nil {
			t.Errorf("it is back: %v", err)
		}
	}
	if s := w.Stats(); s.Failures != tolerated+1 || s.Spared != 8 {
		t.Errorf("stats %+v", s)
	}
}

func TestBreakerPauses(t *testing.T) {
	var b breaker
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for range 20 {
		if !b.allow(now) {
			t.Fatal("not allowed after the pause")
		}
		b.failed(now, 0, "")
		b.failed(now, 0, "") // of before
		if b.failures >= tolerated && b.allow(now) {
			t.Fatal("allowed in the pause")
		}
		now = now.Add(maxPause * 5 / 4)
	}
	if b.pause != maxPause {
		t.Errorf("the pause grew to %v, want %v", b.pause, maxPause)
	}
	if !b.allow(now) || b.allow(now) {
		t.Error("not exactly one request after the pause")
	}
	b.abandoned()
	if !b.allow(now) {
		t.Error("an abandoned request keeps the others out")
	}
}

// What opens the breaker, by failures in a row: of the homeserver as such, or about rooms.
func TestBreakerRooms(t *testing.T) {
	for name, tc := range map[string]struct {
		rooms    []id.RoomID
		answered int // before this failure somebody else is answered
		open     bool
	}{
		"nobody is there":   {[]id.RoomID{"", "", ""}, -1, true},
		"one room":          {[]id.RoomID{"!a", "!a", "!a", "!a", "!a"}, -1, false},
		"three rooms":       {[]id.RoomID{"!a", "!b", "!a", "!c"}, -1, true},
		"a room and others": {[]id.RoomID{"!a", "", ""}, -1, true},
		"overtaken":         {[]id.RoomID{"", "", "", "", ""}, 0, false},
		"rooms overtaken":   {[]id.RoomID{"!a", "!b", "!c", "!d"}, 2, false},
	} {
		var b breaker
		now, sent := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), b.mark()
		for i, room := range tc.rooms {
			if i == tc.answered {
				b.succeeded()
			}
			b.failed(now, sent, room)
		}
		if open := !b.closed(); open != tc.open {
			t.Errorf("%s: open is %v", name, open)
		}
	}
}

func TestDelayedEvents(t *testing.T) {
	member := event.Type{Type: "org.matrix.msc3401.call.member", Class: event.StateEventType}
	t.Run("not where they would be sent at once", func(t *testing.T) {
		w := newWorld(t, always(200, `{"versions":["v1.11"],"unstable_features":{"org.matrix.msc4140":false}}`), nil)
		for range 2 {
			if _, err := w.Bearer("x").DelayState(t.Context(), room, member, "k", struct{}{}, time.Hour); !errors.Is(err, ErrNoDelay) {
				t.Errorf("got %v", err)
			}
		}
		if got := w.remote.requests(); len(got) != 1 || !strings.HasPrefix(got[0], "GET /_matrix/client/versions ") {
			t.Errorf("asked %q, want only for the features, once", got)
		}
	})
	t.Run("scheduled and managed", func(t *testing.T) {
		old := false
		w := newWorld(t, func(r *http.Request) (int, string) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/versions"):
				return 200, `{"unstable_features":{"org.matrix.msc4140":true}}`
			case r.Method == http.MethodPut:
				return 200, `{"delay_id":"syd_1"}`
			case old && !strings.HasSuffix(r.URL.Path, "/syd_1"):
				return 404, `{"errcode":"M_UNRECOGNIZED"}`
			}
			return 200, `{}`
		}, nil)
		a, err := w.As(alice)
		if err != nil {
			t.Fatal(err)
		}
		delay, err := a.DelayState(t.Context(), room, member, "k", struct{}{}, time.Hour)
		if err != nil || delay != "syd_1" {
			t.Fatalf("got %q, %v", delay, err)
		}
		old = true
		for _, act := range []func(context.Context, id.DelayID) error{a.RestartDelayed, w.Anyone().SendDelayed, a.CancelDelayed} {
			if err := act(t.Context(), delay); err != nil {
				t.Error(err)
			}
		}
		got := strings.Join(w.remote.requests(), "\n")
		for _, want := range []string{
			"org.matrix.msc4140.delay=3600000&user_id=%40alice%3Aexample.org Bearer " + w.wide.AppToken + " {}",
			"POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/syd_1/restart?user_id=",
			`delayed_events/syd_1?user_id=%40alice%3Aexample.org Bearer ` + w.wide.AppToken + ` {"action":"restart"}`,
			`delayed_events/syd_1  {"action":"send"}`,
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not among the requests:\n%s", want, got)
			}
		}
	})
	t.Run("no delay id", func(t *testing.T) {
		w := newWorld(t, always(200, `{"unstable_features":{"org.matrix.msc4140":true},"event_id":"$sent"}`), nil)
		if _, err := w.Bearer("x").DelayState(t.Context(), room, member, "k", struct{}{}, time.Hour); err == nil {
			t.Error("an event that was sent at once passes as scheduled")
		}
	})
}
