package signalling

import (
	"errors"
	"testing"
	"time"

	"callserver/sfu"
	"callserver/signalling/token"
)

func TestOverload(t *testing.T) {
	s := newServer(t, sfu.Options{AutoCreate: true})
	grant := func(identity, user string, issued time.Time) token.Grant {
		g := token.Join("room", identity)
		g.Origin.User, g.IssuedAt = user, issued
		return g
	}
	now, before := s.started.Add(5*time.Second), s.started.Add(-time.Minute)
	alice, err := s.Join(t.Context(), grant("alice:1", "@alice", now), PeerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alice.Leave(sfu.ClientInitiated) })

	s.Overload(true)
	for _, tc := range []struct {
		name string
		g    token.Grant
		ok   bool
	}{
		{"a newcomer", grant("bob:1", "@bob", now), false},
		{"a newcomer without a Matrix account", grant("zoe", "", now), false},
		{"a newcomer whose token says nothing of its time", grant("zoe", "", time.Time{}), false},
		{"who is in, by another device", grant("alice:2", "@alice", now), true},
		{"who is in, anew", grant("alice:1", "@alice", now), true},
		{"who was here before the start", grant("carol:1", "@carol", before), true},
	} {
		checked, turned := s.Check(tc.g), s.TurnedAway()
		sess, err := s.Join(t.Context(), tc.g, PeerOptions{})
		var refusal *Error
		switch {
		case (checked == nil) != (err == nil):
			t.Errorf("%s: check says %v, joining %v", tc.name, checked, err)
		case tc.ok != (err == nil), !tc.ok && (!errors.As(err, &refusal) || refusal.Code != Overloaded):
			t.Errorf("%s: %v", tc.name, err)
		case !tc.ok && s.TurnedAway() != turned+1, tc.ok && s.TurnedAway() != turned:
			t.Errorf("%s: %d turned away, %d before", tc.name, s.TurnedAway(), turned)
		}
		if sess != nil {
			t.Cleanup(func() { sess.Leave(sfu.ClientInitiated) })
		}
	}

	s.started = s.started.Add(-2 * comeback)
	if err := s.Check(grant("dave:1", "@dave", before.Add(-2*comeback))); !errors.Is(err, errOverloaded) {
		t.Errorf("an old token, long after the start: %v", err)
	}
	s.Overload(false)
	if err := s.Check(grant("bob:1", "@bob", now)); err != nil {
		t.Errorf("after the overload: %v", err)
	}
}
