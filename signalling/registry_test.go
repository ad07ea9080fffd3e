package signalling

import (
	"errors"
	"slices"
	"testing"
	"time"

	"callserver/sfu"
	"callserver/signalling/token"
)

func TestEvict(t *testing.T) {
	s := newServer(t, sfu.Options{AutoCreate: true})
	s.revocations = &token.Revocations{}
	verified := time.Now().Add(-time.Minute)
	grant := func(room, identity, user, conversation string) token.Grant {
		g := token.Join(room, identity)
		g.Origin = token.Origin{User: user, Conversation: conversation, Verified: verified}
		return g
	}
	var sessions []*Session
	for _, g := range []token.Grant{
		grant("room", "a1", "@a:x", "!r:x"), grant("room", "a2", "@a:x", "!r:x"), grant("slot", "a3", "@a:x", "!r:x"),
		grant("other", "a4", "@a:x", "!other:x"), grant("room", "b", "@b:x", "!r:x"), token.Join("room", "guest"),
	} {
		sess, err := s.Join(t.Context(), g, PeerOptions{Single: true})
		if err != nil {
			t.Fatal(err)
		}
		defer sess.Leave(sfu.ClientInitiated)
		sessions = append(sessions, sess)
	}
	if got := len(s.Origins("room")); got != 3 {
		t.Errorf("%d origins in the room, want those of a twice and b", got)
	}
	var there []string
	for _, a := range s.Attendance("!r:x") {
		there = append(there, string(a.Call)+" "+a.Origin.User+" "+string(a.Info.Identity))
	}
	if want := []string{"room @a:x a1", "room @a:x a2", "slot @a:x a3", "room @b:x b"}; !slices.Equal(there, want) {
		t.Errorf("attendance %q, want %q", there, want)
	}
	if got := s.Expel("@a:x", "!r:x"); got != 3 {
		t.Errorf("%d expelled, want 3", got)
	}
	if got := s.Attendance("!r:x"); len(got) != 1 {
		t.Errorf("still there: %v", got)
	}
	for i, sess := range sessions {
		if got, want := sess.part.Closed(), i < 3; got != want {
			t.Errorf("%s is out: %v, want %v", sess.grant.Identity, got, want)
		}
	}
	if s.Evict("@a:x", "!r:x") != 0 || len(s.Origins("")) != 2 {
		t.Errorf("who is out is still there: %v", s.Origins(""))
	}
	var refusal *Error
	dead := grant("room", "a5", "@a:x", "!r:x")
	if _, err := s.Join(t.Context(), dead, PeerOptions{}); !errors.As(err, &refusal) || refusal.Code != NotAllowed {
		t.Errorf("join with a revoked token: %v", err)
	}
	if err := s.Check(dead); !errors.As(err, &refusal) || refusal.Code != NotAllowed {
		t.Errorf("check of a revoked token: %v", err)
	}
	dead.Origin.Verified = time.Now().Add(time.Second)
	sess, err := s.Join(t.Context(), dead, PeerOptions{})
	if err != nil {
		t.Fatalf("verified anew: %v", err)
	}
	sess.Leave(sfu.ClientInitiated)
	for _, sess := range sessions {
		sess.Leave(sfu.ClientInitiated)
	}
	if len(s.sessions.rooms) != 0 {
		t.Errorf("the registry holds sessions that left: %v", s.sessions.rooms)
	}
}

func TestWithhold(t *testing.T) {
	var heard listener
	s := newServer(t, sfu.Options{AutoCreate: true})
	s.watcher = &heard
	g := token.Join("room", "alice")
	g.Origin = token.Origin{User: "@a:x", Conversation: "!r:x", Device: "D", Verified: time.Now()}
	sess, err := s.Join(t.Context(), g, PeerOptions{Single: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(heard.joined) != 1 || heard.joined[0].Origin != g.Origin {
		t.Errorf("the watcher heard of %+v, want the grant's origin", heard.joined)
	}
	s.Withhold("other", sess.SID(), true)
	s.Withhold("room", "PA_other", true)
	if got := s.Rooms().Stats().Withheld; got != 0 {
		t.Errorf("%d withheld, want none", got)
	}
	s.Withhold("room", sess.SID(), true)
	if got := s.Rooms().Stats().Withheld; got != 1 {
		t.Errorf("%d withheld, want 1", got)
	}
	s.Withhold("room", sess.SID(), false)
	if got := s.Rooms().Stats().Withheld; got != 0 {
		t.Errorf("%d withheld, want none again", got)
	}
	sess.Leave(sfu.ClientInitiated)
	if heard.left != sfu.ClientInitiated {
		t.Errorf("the watcher heard of %v", heard.left)
	}
	s.Withhold("room", sess.SID(), true)
}

// A listener keeps what it heard.
type listener struct {
	joined []token.Grant
	left   sfu.Reason
}

func (l *listener) Joined(g token.Grant, _ sfu.SID)             { l.joined = append(l.joined, g) }
func (l *listener) Left(_ token.Grant, _ sfu.SID, w sfu.Reason) { l.left = w }

// Who is there in the place of others is so many people: each counts for one call, needs an own place in a locked one, and can be taken out alone.
func TestInPlaceOfOthers(t *testing.T) {
	s := newServer(t, sfu.Options{AutoCreate: true})
	s.userRooms = 1
	join := func(room, identity, in string) (*Session, error) {
		g := token.Join(room, identity)
		g.Origin = token.Origin{User: "@bot:x", For: in, Conversation: "!" + room + ":x", Verified: time.Now()}
		return s.Join(t.Context(), g, PeerOptions{Single: true})
	}
	var sessions []*Session
	for _, c := range []struct{ room, identity, in string }{{"one", "1", "@a:x"}, {"one", "2", "@b:x"}, {"two", "3", "@c:x"}} {
		sess, err := join(c.room, c.identity, c.in)
		if err != nil {
			t.Fatalf("%s: %v", c.in, err)
		}
		defer sess.Leave(sfu.ClientInitiated)
		sessions = append(sessions, sess)
	}
	if _, err := join("two", "4", "@a:x"); !errors.Is(err, errTooManyRooms) {
		t.Errorf("a second call of one of them: %v", err)
	}
	if err := s.Rooms().Lock("one", true); err != nil {
		t.Fatal(err)
	}
	if _, err := join("one", "5", "@d:x"); err == nil {
		t.Error("one more in a locked call")
	}
	if got := s.Evict("@a:x", "!one:x"); got != 1 || !sessions[0].part.Closed() || sessions[1].part.Closed() {
		t.Errorf("%d taken out, want the one", got)
	}
	if got := s.Evict("@bot:x", "!one:x"); got != 1 || !sessions[1].part.Closed() || sessions[2].part.Closed() {
		t.Errorf("%d taken out with the user, want the other", got)
	}
}
