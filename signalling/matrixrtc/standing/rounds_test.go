package standing

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

// Without events somebody who left is noticed in the rounds: by MSC4502, by own eyes, by the sender.
func TestRounds(t *testing.T) {
	for _, tc := range []struct {
		name         string
		query        bool
		sender       string
		registration *homeserver.Registration
	}{
		{"MSC4502", true, "leave", narrow()},
		{"the sender, whose events do not reach us", false, "join", narrow()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMatrix(map[string]string{sender: tc.sender, alice: "join", bob: "join"})
			m.query = tc.query
			w := watch(t, m, quick, tc.registration)
			before := time.Now()
			m.set(func() { m.members[bob] = "ban" }) // nobody tells
			w.outOf(t, bob)
			if !w.revoked(bob, before) || w.revoked(alice, before) {
				t.Error("the wrong tokens are worthless")
			}
			if len(w.calls.Origins("")) != 1 {
				t.Error("alice was taken out too")
			}
		})
	}
}

// A sender whose events never reach us does not keep a room from being polled.
func TestSenderWithoutEvents(t *testing.T) {
	tick := intervals{tick: 5 * time.Millisecond, patience: time.Hour, assurance: time.Hour, retry: 20 * time.Millisecond}
	m := newMatrix(map[string]string{sender: "join", alice: "join", bob: "join"})
	m.mute = true
	n := narrow()
	w := watch(t, m, tick, n, wide())
	eventually(t, "a poll", func() bool { return w.Stats().Polls == 1 })
	m.become(bob, "leave")
	w.outOf(t, bob)
	w.push(t, n, "@x:example.org", "join") // they reach us after all
	eventually(t, "no poll", func() bool {
		m.set(func() { m.tell("m.room.topic", "", "{}") }) // it is not cut off: it ends with an answer
		return w.Stats().Polls == 0
	})
}

// A homeserver that is down ends no call, however often it is asked; when it is back, the rounds go on.
func TestRoundsWithHomeserverDown(t *testing.T) {
	m := newMatrix(map[string]string{alice: "join", bob: "leave"})
	m.query, m.down = true, true
	w := watch(t, m, quick, narrow())
	eventually(t, "several questions", func() bool { return w.Stats().Questions > 6 })
	if out := w.calls.out(); len(out) > 0 {
		t.Fatalf("taken out by a homeserver that is down: %q", out)
	}
	m.set(func() { m.down = false })
	w.outOf(t, bob)
}

// Where nobody can tell, nobody is put out.
func TestRoundsWithoutMeans(t *testing.T) {
	m := newMatrix(map[string]string{alice: "join"})
	w := watch(t, m, quick, narrow())
	eventually(t, "several questions", func() bool { return w.Stats().Questions > 4 })
	if out := w.calls.out(); len(out) > 0 {
		t.Errorf("taken out: %q", out)
	}
}

// The budget of the rounds: who waits longest comes first, and nobody is asked about twice before everybody was.
func TestRoundsBudget(t *testing.T) {
	const people = 2000
	r := &rounds{m: New(Options{}), every: usual, budget: questionBurst, filled: time.Now(), follows: map[id.RoomID]*follow{}, stays: map[Place]*stay{}, doubt: map[id.RoomID]time.Time{}}
	start := time.Now()
	present := map[id.RoomID]map[id.UserID]time.Time{room: {}}
	for i := range people {
		present[room][id.UserID(fmt.Sprintf("@%d:example.org", i))] = start
	}
	asked := map[id.UserID]int{}
	requests, seconds := 0, 0
	now := start
	for ; len(asked) < people && seconds < 1000; seconds++ {
		now = now.Add(time.Second)
		due := r.due(present, now)
		for _, q := range due[:min(len(due), questionRate)] { // what the budget of a second allows
			requests++
			for _, user := range q.users {
				asked[user]++
				r.settle(Place{user, room}, Joined, nil, now)
			}
		}
	}
	if requests != people || len(asked) != people {
		t.Errorf("%d requests about %d people, want %d", requests, len(asked), people)
	}
	if want := 28 + people/questionRate; seconds > want {
		t.Errorf("%d people took %d s, want at most %d", people, seconds, want)
	}
	if r.spend(questionBurst) != true || r.spend(questionBurst) != false {
		t.Error("the budget is no bound")
	}
}

// With the wide registration a poll tells of everybody, as one local user who is replaced when gone.
func TestFollow(t *testing.T) {
	tick := intervals{tick: 5 * time.Millisecond, patience: time.Hour, assurance: time.Hour, retry: 20 * time.Millisecond}
	m := newMatrix(map[string]string{alice: "join", bob: "join", rob: "join"})
	w := watch(t, m, tick, wide())
	w.calls.hold(rob, time.Now())
	eventually(t, "alice polls", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return slices.Equal(m.polls, []string{alice}) })
	before := time.Now()
	m.become(rob, "ban")
	w.outOf(t, rob)
	m.become(alice, "leave") // whose eyes they are
	w.outOf(t, rob, alice)
	if !w.revoked(alice, before) || !w.revoked(rob, before) || w.revoked(bob, before) {
		t.Error("the wrong tokens are worthless")
	}
	eventually(t, "bob polls", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return slices.Equal(m.polls, []string{alice, bob})
	})
	m.become(bob, "leave")
	w.outOf(t, rob, alice, bob)
	eventually(t, "nobody polls", func() bool { return w.Stats().Polls == 0 })
}

// What happened before a room was followed counts too: a token from before the kick is of no use afterwards.
func TestFollowChecksWhoWasVerifiedBefore(t *testing.T) {
	tick := intervals{tick: 5 * time.Millisecond, patience: time.Hour, assurance: time.Hour, retry: 20 * time.Millisecond}
	m := newMatrix(map[string]string{alice: "join", bob: "leave", "@carol:example.org": "leave"})
	w := watch(t, m, tick, wide())
	w.outOf(t, bob)
	w.calls.hold("@carol:example.org", time.Now().Add(-time.Minute)) // the room is followed by now
	w.outOf(t, bob, "@carol:example.org")
	if len(w.calls.Origins("")) != 1 {
		t.Error("alice was taken out too")
	}
}

// A poll goes on where it was when the homeserver is back.
func TestFollowWithHomeserverDown(t *testing.T) {
	tick := intervals{tick: 5 * time.Millisecond, patience: time.Hour, assurance: time.Hour, retry: 20 * time.Millisecond}
	m := newMatrix(map[string]string{alice: "join", bob: "join"})
	w := watch(t, m, tick, wide())
	eventually(t, "a poll", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.polls) == 1 })
	m.set(func() { m.down = true })
	m.become(bob, "leave")
	m.set(func() { m.tell("m.room.topic", "", "{}") })
	if out := w.calls.out(); len(out) > 0 {
		t.Errorf("taken out by a homeserver that is down: %q", out)
	}
	m.set(func() { m.down = false })
	w.outOf(t, bob)
}
