package matrixrtc

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"callserver/signalling"
)

// The whole table of who gets what.
func TestPolicy(t *testing.T) {
	const ours, lenient, open, theirs = "example.org", "lenient.example.org", "open.example.org", "example.com"
	homeservers := map[string]Homeserver{
		ours:    {ServerName: ours},
		lenient: {ServerName: lenient, Unverified: true},
		open:    {ServerName: open, PublishRemote: true},
	}
	p := policy{
		homeservers: homeservers, remote: RemoteSubscribe,
		every: RoomPolicy{Participants: 50},
		rooms: map[string]RoomPolicy{
			"!open:example.org":  {PublishRemote: true},
			"!quiet:example.org": {Sources: []string{"microphone"}, Participants: 5},
		},
	}
	refusing := policy{homeservers: homeservers}
	held := []holder{{server: ours}}
	for _, tc := range []struct {
		name   string
		policy policy
		who    applicant
		want   rights
		reason reason
	}{
		{"local", p, applicant{server: ours, verified: true}, rights{create: true, publish: true, participants: 50}, ""},
		{"local where others are refused", refusing, applicant{server: ours, verified: true}, rights{create: true, publish: true}, ""},
		{"local, unverified", p, applicant{server: ours}, rights{}, reasonUnverifiable},
		{"local, unverified and allowed", p, applicant{server: lenient}, rights{create: true, publish: true, participants: 50}, ""},
		{"local moderator", p, applicant{server: ours, verified: true, moderator: true}, rights{create: true, publish: true, admin: true, participants: 50}, ""},
		{"a moderator whom nobody verified", p, applicant{server: lenient, moderator: true}, rights{create: true, publish: true, participants: 50}, ""},
		{"local in a room without camera", p, applicant{server: ours, room: "!quiet:example.org", verified: true}, rights{create: true, publish: true, sources: []string{"microphone"}, participants: 5}, ""},

		{"remote where others are refused", refusing, applicant{server: theirs, verified: true, holders: held}, rights{}, reasonUnlisted},
		{"remote, nobody there", p, applicant{server: theirs, verified: true}, rights{}, reasonUnheld},
		{"remote, unverified", p, applicant{server: theirs, holders: held}, rights{}, reasonUnverifiable},
		{"remote, held by somebody nobody verified", p, applicant{server: theirs, verified: true, holders: []holder{{server: lenient, assumed: true}}}, rights{}, reasonUnheld},
		{"remote", p, applicant{server: theirs, verified: true, holders: held}, rights{participants: 50}, ""},
		{"remote moderator", p, applicant{server: theirs, verified: true, moderator: true, holders: held}, rights{admin: true, participants: 50}, ""},
		{"remote in an open room", p, applicant{server: theirs, room: "!open:example.org", verified: true, holders: held}, rights{publish: true, participants: 50}, ""},
		{"remote in an open room, nobody there", p, applicant{server: theirs, room: "!open:example.org", verified: true}, rights{}, reasonUnheld},
		{"remote, held by an open homeserver", p, applicant{server: theirs, verified: true, holders: []holder{{server: ours}, {server: open}}}, rights{publish: true, participants: 50}, ""},
		{"remote, an open homeserver nobody verified", p, applicant{server: theirs, verified: true, holders: []holder{{server: ours}, {server: open, assumed: true}}}, rights{participants: 50}, ""},
		{"a user of a server that looks like ours", p, applicant{server: "example.org:8448", verified: true, holders: held}, rights{participants: 50}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.policy.decide(tc.who)
			var refused *refusal
			if errors.As(err, &refused); err != nil && (refused == nil || refused.reason != tc.reason) || (err == nil) != (tc.reason == "") {
				t.Fatalf("refused with %v, want reason %q", err, tc.reason)
			}
			if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(rights{})); d != "" {
				t.Errorf("rights (-want +got):\n%s", d)
			}
		})
	}
}

// What the policy says is what the token says.
func TestPolicyInTheToken(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.EveryRoom = RoomPolicy{Participants: 9}
		o.MatrixRooms = map[string]RoomPolicy{"!abc:example.org": {Sources: []string{"microphone", "screen_share"}}}
	})
	g, _ := w.granted(t, w.do(t, "POST", "/sfu/get", sfuGetBody("T")))
	if d := cmp.Diff([]string{"microphone", "screen_share"}, g.CanPublishSources); d != "" || !g.CanPublish || g.RoomAdmin || !g.Origin.Assumed {
		t.Errorf("token grants %+v; sources (-want +got):\n%s", g, d)
	}
	if d := cmp.Diff([]int{9}, w.rooms.sizes); d != "" {
		t.Errorf("participants of the room (-want +got):\n%s", d)
	}
}

// Who may kick in the Matrix room administers its call, and nobody else does.
func TestModeratorsInTheToken(t *testing.T) {
	m := &matrix{
		members: map[string]string{"@alice:example.org": "join", "@bob:example.org": "join"},
		levels:  `{"users":{"@alice:example.org":50,"@bob:example.org":49},"kick":50}`,
	}
	_, connect := withMatrix(t, m, wide())
	w := newWorld(t, connect)
	w.now = time.Now()
	w.hs.users = map[string]string{"A": "@alice:example.org", "B": "@bob:example.org"}
	for token, want := range map[string]bool{"A": true, "B": false} {
		g, _ := w.granted(t, w.do(t, "POST", "/sfu/get", sfuGetBody(token)))
		if g.RoomAdmin != want || g.RoomCreate || g.RoomList {
			t.Errorf("token of %s: roomAdmin %t, want %t; create %t, list %t", g.Origin.User, g.RoomAdmin, want, g.RoomCreate, g.RoomList)
		}
	}
}

func TestFullCallRefusesTokens(t *testing.T) {
	w := newWorld(t, nil)
	w.calls.refuse = &signalling.Error{Code: signalling.Unavailable, Text: "room is full"}
	for _, r := range [][2]string{{"/sfu/get", sfuGetBody("T")}, {"/get_token", getTokenBody("T", "@alice:example.org")}} {
		expect(t, w.do(t, "POST", r[0], r[1]), 403, "M_USER_LIMIT_EXCEEDED")
	}
	if len(w.rooms.names()) > 0 {
		t.Errorf("rooms were created: %q", w.rooms.names())
	}
	w.calls.refuse = &signalling.Error{Code: signalling.RoomNotFound, Text: "requested room does not exist"} // it is created right after
	w.granted(t, w.do(t, "POST", "/sfu/get", sfuGetBody("T")))
}

// Clients say what is wrong when the media server refuses them, not when there is no token.
func TestOverloadedServerIssuesTokens(t *testing.T) {
	w := newWorld(t, nil)
	w.calls.refuse = &signalling.Error{Code: signalling.Overloaded, Text: "the server is at its limit"}
	w.granted(t, w.do(t, "POST", "/sfu/get", sfuGetBody("T")))
}
