package homeserver_test

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/internal/testnet/realserver"
	"callserver/signalling/homeserver"
)

// listen serves the pushes of the homeserver until the test ends.
func listen(t *testing.T, w *realserver.World, h *homeserver.Homeserver) {
	t.Helper()
	l, err := net.Listen("tcp", w.Listen)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: homeserver.Handler(h), ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
}

func must(t *testing.T) func(homeserver.Agent, error) homeserver.Agent {
	return func(a homeserver.Agent, err error) homeserver.Agent {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
}

// act does to a room what an agent of ours never needs to: invite, kick, ban, unban.
func act(t *testing.T, a homeserver.Agent, room id.RoomID, what string, user id.UserID) {
	t.Helper()
	if err := a.Act(t.Context(), room, what, user); err != nil {
		t.Fatal(err)
	}
}

// next waits for the membership of a user to change to what is wanted.
func next(t *testing.T, s *homeserver.Subscription, user id.UserID, want event.Membership) time.Duration {
	t.Helper()
	begin := time.Now()
	late := time.NewTimer(10 * time.Second)
	defer late.Stop()
	for {
		select {
		case <-s.Ready():
		case <-late.C:
			t.Fatalf("no event says that %s is %s", user, want)
		}
		events, _ := s.Take()
		for _, e := range events {
			if e.GetStateKey() == string(user) && e.Content.Raw["membership"] == string(want) {
				return time.Since(begin)
			}
		}
	}
}

func TestRealMembership(t *testing.T) {
	w := realserver.Read(t)
	h := w.ConnectAll(t)
	ctx := t.Context()
	alice, bob, carol := w.Users[0], w.Users[1], w.Users[2]
	room := w.Rooms[1]

	account, err := h.Bearer(alice.Token).Whoami(ctx)
	if want := (homeserver.Account{User: alice.ID, Device: alice.Device}); err != nil || account != want {
		t.Errorf("whoami with alice's token: %v, %v; want %v", account, err, want)
	}
	if _, err := h.Bearer("made-up").Whoami(ctx); homeserver.Code(err) != "M_UNKNOWN_TOKEN" {
		t.Errorf("whoami with a made-up token: %v", err)
	}
	members, err := h.Bearer(bob.Token).JoinedMembers(ctx, room)
	if want := []id.UserID{alice.ID, bob.ID}; err != nil || !slices.Equal(members, want) {
		t.Errorf("members with bob's token: %v, %v; want %v", members, err, want)
	}
	if _, err := h.Bearer(carol.Token).JoinedMembers(ctx, room); homeserver.Code(err) != "M_FORBIDDEN" {
		t.Errorf("members with the token of carol, who is not in the room: %v", err)
	}

	as := func(user id.UserID) homeserver.Agent { t.Helper(); return must(t)(h.As(user)) }
	if members, err := as(alice.ID).JoinedMembers(ctx, room); err != nil || len(members) != 2 {
		t.Errorf("members as alice: %v, %v", members, err)
	}
	check := func(when string, user id.UserID, want event.Membership) {
		t.Helper()
		m, err := as(user).Membership(ctx, room, user)
		if (want == event.MembershipJoin) != (m == event.MembershipJoin && err == nil) || err != nil && homeserver.Code(err) != "M_FORBIDDEN" {
			t.Errorf("%s: %s reads the own membership as %q, %v; want %q", when, user, m, err, want)
		}
		if m, err := as(alice.ID).Membership(ctx, room, user); err != nil || m != want {
			t.Errorf("%s: alice reads the membership of %s as %q, %v; want %q", when, user, m, err, want)
		}
		joined, err := h.IsJoined(ctx, room, user)
		if w.MemberQuery && (err != nil || joined != (want == event.MembershipJoin)) || !w.MemberQuery && !homeserver.Unrecognized(err) {
			t.Errorf("%s: is_joined of %s: %v, %v", when, user, joined, err)
		}
	}
	check("at first", alice.ID, event.MembershipJoin)
	check("at first", bob.ID, event.MembershipJoin)
	check("at first", carol.ID, "")
	act(t, as(alice.ID), room, "invite", carol.ID)
	check("invited", carol.ID, event.MembershipInvite)
	act(t, as(alice.ID), room, "kick", bob.ID)
	check("kicked", bob.ID, event.MembershipLeave)
	act(t, as(alice.ID), room, "ban", bob.ID)
	check("banned", bob.ID, event.MembershipBan)
	act(t, as(alice.ID), room, "unban", bob.ID)
	act(t, as(alice.ID), room, "invite", bob.ID)
	if err := as(bob.ID).Join(ctx, room); err != nil {
		t.Fatal(err)
	}
	check("back", bob.ID, event.MembershipJoin)
}

func TestRealEvents(t *testing.T) {
	w := realserver.Read(t)
	h := w.ConnectAll(t)
	listen(t, w, h)
	alice, bob, room := w.Users[0].ID, w.Users[1].ID, w.Rooms[0]
	as := must(t)
	s := h.Subscribe(100, event.StateMember)
	defer s.Close()
	if h.Pushes() {
		t.Error("the homeserver has reached us before anything happened")
	}
	if err := h.Ping(t.Context()); err != nil && !homeserver.Unrecognized(err) { // Dendrite has no such question
		t.Error(err)
	} else if err == nil && !h.Pushes() {
		t.Error("the homeserver has reached us, and nobody noticed")
	}

	act(t, as(h.As(alice)), room, "invite", h.Sender())
	next(t, s, h.Sender(), event.MembershipInvite)
	sender := as(h.As(h.Sender()))
	if err := sender.Join(t.Context(), room); err != nil {
		t.Fatal(err)
	}
	next(t, s, h.Sender(), event.MembershipJoin)
	if m, err := sender.Membership(t.Context(), room, bob); err != nil || m != event.MembershipJoin {
		t.Errorf("the sender reads the membership of bob as %q, %v", m, err)
	}
	if events, err := sender.AllState(t.Context(), room); err != nil || len(events) < 5 {
		t.Errorf("the sender reads a state of %d events, %v", len(events), err)
	}
	for _, tc := range []struct {
		act  string
		want event.Membership
	}{{"kick", event.MembershipLeave}, {"ban", event.MembershipBan}, {"unban", event.MembershipLeave}} {
		act(t, as(h.As(alice)), room, tc.act, bob)
		if took := next(t, s, bob, tc.want); took > 2*time.Second {
			t.Errorf("%s arrived after %v, want 2 s", tc.act, took)
		} else {
			t.Logf("%s arrived %v after the request", tc.act, took)
		}
	}
	// In rooms without the sender nothing is pushed, in spite of the wide registration: had it been, it would have come
	// before what happens afterwards in the room that is seen.
	act(t, as(h.As(alice)), w.Rooms[1], "invite", "@nobody:"+id.UserID(h.Name()))
	act(t, as(h.As(alice)), room, "invite", bob)
	for seen := false; !seen; {
		<-s.Ready()
		events, _ := s.Take()
		for _, e := range events {
			if e.RoomID != room {
				t.Errorf("%s of %s is pushed", e.Type.Type, e.RoomID)
			}
			seen = seen || e.GetStateKey() == string(bob)
		}
	}
	if s := h.Stats(); s.BadEvents != 0 || s.Dropped != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestRealDelayedEvents(t *testing.T) {
	w := realserver.Read(t)
	h := w.ConnectAll(t)
	ctx, room, alice := t.Context(), w.Rooms[1], w.Users[0].ID
	member := event.Type{Type: "org.matrix.msc3401.call.member", Class: event.StateEventType}
	key := "_" + string(alice) + "_DEVICE_m.call"
	a := must(t)(h.As(alice))
	if _, err := a.SendState(ctx, room, member, key, map[string]any{"device_id": "DEVICE"}); err != nil {
		t.Fatal(err)
	}
	content := func() map[string]any {
		t.Helper()
		var c map[string]any
		if err := a.State(ctx, room, member, key, &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	delay, err := a.DelayState(ctx, room, member, key, struct{}{}, time.Hour)
	if !w.DelayedEvents {
		if !errors.Is(err, homeserver.ErrNoDelay) || len(content()) != 1 {
			t.Errorf("delayed event: %v, content %v; want nothing sent", err, content())
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := a.RestartDelayed(ctx, delay); err != nil {
		t.Error(err)
	}
	if err := h.Anyone().RestartDelayed(ctx, delay); err != nil {
		t.Error(err)
	}
	if err := a.CancelDelayed(ctx, delay); err != nil || len(content()) != 1 {
		t.Errorf("cancel: %v, content %v", err, content())
	}
	if err := a.RestartDelayed(ctx, delay); homeserver.Code(err) != "M_NOT_FOUND" {
		t.Errorf("restart of a cancelled event: %v", err)
	}
	if delay, err = a.DelayState(ctx, room, member, key, struct{}{}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := a.SendDelayed(ctx, delay); err != nil || len(content()) != 0 {
		t.Errorf("send: %v, content %v", err, content())
	}
	if err := h.Anyone().SendDelayed(ctx, "made-up"); homeserver.Code(err) != "M_NOT_FOUND" {
		t.Errorf("made-up delay id: %v", err)
	}
	if _, err := a.DelayState(ctx, room, member, key, struct{}{}, 1000*time.Hour); err == nil || errors.Is(err, homeserver.ErrUnavailable) {
		t.Errorf("a delay beyond the homeserver's bound: %v", err)
	} else {
		t.Logf("a delay beyond the homeserver's bound: %v", err)
	}
}
