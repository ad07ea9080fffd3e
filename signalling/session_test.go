package signalling

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"callserver/sfu"
	"callserver/sfu/rtc"
	"callserver/signalling/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newServer(t *testing.T, o sfu.Options) *Server {
	t.Helper()
	engine, err := rtc.New(rtc.Options{TCPPort: -1, Loopback: true, Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return New(Options{Rooms: sfu.New(o), Engine: engine})
}

// next waits for an event that satisfies ok and returns all until then.
func next(t *testing.T, s *Session, what string, ok func(Event) bool) (seen []Event) {
	t.Helper()
	for deadline := time.After(10 * time.Second); ; {
		for _, e := range s.Events() {
			if seen = append(seen, e); ok(e) {
				return seen
			}
		}
		select {
		case <-s.Ready():
		case <-deadline:
			t.Fatalf("no %s in %v", what, seen)
		}
	}
}

func TestJoinRefused(t *testing.T) {
	s := newServer(t, sfu.Options{MaxParticipants: 1})
	s.Rooms().Create("full", sfu.RoomOptions{}, time.Now())
	first, err := s.Join(t.Context(), token.Join("full", "alice"), PeerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Leave(sfu.ClientInitiated)

	for _, tt := range []struct {
		room string
		want Code
	}{{"missing", RoomNotFound}, {"full", Unavailable}} {
		_, err := s.Join(t.Context(), token.Join(tt.room, "bob"), PeerOptions{})
		var refusal *Error
		if !errors.As(err, &refusal) || refusal.Code != tt.want {
			t.Errorf("join %s: %v, want %v", tt.room, err, tt.want)
		}
		if err := s.Check(token.Join(tt.room, "bob")); !errors.As(err, &refusal) || refusal.Code != tt.want {
			t.Errorf("check %s: %v, want %v", tt.room, err, tt.want)
		}
	}
	creator := token.Join("missing", "bob")
	creator.FullAccess = true
	if err := s.Check(creator); err != nil {
		t.Errorf("check with the right to create: %v", err)
	}
}

// Two sessions see each other, and a session that is replaced is told why it ends.
func TestSessionEvents(t *testing.T) {
	s := newServer(t, sfu.Options{AutoCreate: true})
	join := func(identity string, single bool) *Session {
		sess, err := s.Join(t.Context(), token.Join("room", identity), PeerOptions{Single: single, AutoSubscribe: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sess.Leave(sfu.ClientInitiated) })
		return sess
	}
	alice := join("alice", true)
	alice.Snapshot()
	bob := join("bob", false)
	next(t, alice, "news of bob", func(e Event) bool {
		change, ok := e.(sfu.ParticipantsChanged)
		return ok && change.Participants[0].SID == bob.SID()
	})
	next(t, bob, "offer to a client with two connections", func(e Event) bool {
		offer, ok := e.(Offer)
		return ok && offer.SDP != ""
	})
	join("alice", true)
	next(t, alice, "end", func(e Event) bool {
		closed, ok := e.(sfu.Closed)
		return ok && closed.Reason == sfu.DuplicateIdentity
	})
	if _, err := alice.Offer(1, "nonsense"); err == nil {
		t.Error("an offer of nonsense was answered")
	}
	alice.Leave(sfu.ClientInitiated)
	alice.Leave(sfu.ClientInitiated)
}

func TestMember(t *testing.T) {
	g := token.Join("room", "alice")
	g.Name, g.Metadata, g.Kind, g.Attributes = "Alice", "token", "agent", map[string]string{"a": "1", "b": "1"}
	g.CanPublishSources = []string{"microphone", "screen_share"}
	got := member(g, PeerOptions{Metadata: "url", Attributes: map[string]string{"b": "2"}, AutoSubscribe: true})
	want := sfu.Member{
		Identity: "alice", Name: "Alice", Metadata: "url", Attributes: map[string]string{"a": "1", "b": "2"}, Kind: sfu.KindAgent,
		AutoSubscribe: true,
		Permission: sfu.Permission{
			CanSubscribe: true, CanPublish: true, CanPublishData: true,
			CanPublishSources: []sfu.TrackSource{sfu.Microphone, sfu.ScreenShare},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if g.Attributes["b"] != "1" {
		t.Error("the grant was changed")
	}
	g.CanPublishSources = []string{"of a later protocol"}
	if member(g, PeerOptions{}).Permission.CanPublish {
		t.Error("a list of unknown sources allows all")
	}
}

// A user is in as many calls as allowed, whichever device; tokens that name no user are not counted.
func TestCallsOfOneUser(t *testing.T) {
	engine, err := rtc.New(rtc.Options{TCPPort: -1, Loopback: true, Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	s := New(Options{Rooms: sfu.New(sfu.Options{AutoCreate: true}), Engine: engine, UserRooms: 2})
	grant := func(room, identity, user string) token.Grant {
		g := token.Join(room, identity)
		g.Origin = token.Origin{User: user, Conversation: "!" + room, Verified: time.Now()}
		return g
	}
	join := func(g token.Grant) (*Session, Code, bool) {
		checked := s.Check(g)
		sess, err := s.Join(t.Context(), g, PeerOptions{})
		if (checked == nil) != (err == nil) {
			t.Errorf("%s in %s: check says %v, joining %v", g.Identity, g.Room, checked, err)
		}
		var refusal *Error
		if errors.As(err, &refusal) {
			return nil, refusal.Code, false
		}
		t.Cleanup(func() { sess.Leave(sfu.ClientInitiated) })
		return sess, 0, true
	}
	first, _, _ := join(grant("one", "alice:1", "@alice"))
	for _, step := range []struct {
		g  token.Grant
		ok bool
	}{
		{grant("two", "alice:1", "@alice"), true},
		{grant("one", "alice:2", "@alice"), true},
		{grant("three", "alice:1", "@alice"), false},
		{grant("three", "bob:1", "@bob"), true},
		{token.Join("three", "alice:1"), true},
	} {
		if _, code, ok := join(step.g); ok != step.ok || !ok && code != Unavailable {
			t.Errorf("%s in %s: admitted %v (%v), want %v", step.g.Identity, step.g.Room, ok, code, step.ok)
		}
	}
	first.Leave(sfu.ClientInitiated)
	if _, _, ok := join(grant("three", "alice:3", "@alice")); ok {
		t.Error("a device that stays does not count any more")
	}
}
