package matrixrtc

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
	"callserver/signalling/token"
)

// expected is how long a local user who got a token counts as being in the call, until the connection is there.
const expected = 30 * time.Second

// Sessions are the running calls.
type Sessions interface {
	// Origins returns the origins of the tokens with which people are in a room, or in any room if it is empty.
	Origins(room string) []token.Origin
	// Evict takes everybody out whose token was issued to the user for the Matrix room, and returns how many.
	Evict(user, conversation string) int
	// Check fails as joining with the grant would, now: a *signalling.Error of code Unavailable where there is no place.
	Check(token.Grant) error
}

// nobody is in a call.
type nobody struct{}

func (nobody) Origins(string) []token.Origin { return nil }
func (nobody) Evict(string, string) int      { return 0 }
func (nobody) Check(token.Grant) error       { return nil }

// An admission is what a verified user gets.
type admission struct {
	user     string
	full     bool      // may publish, and creates the room
	verified time.Time // since when that is known; for those whom the operator lets in unverified, now
	assumed  bool      // nobody could tell, and the operator lets such users in

	moderator bool     // its power in the room suffices to kick
	holders   []holder // who holds the call open
}

// admit decides about a user whom the homeserver vouches for.
func (a *Authoriser) admit(ctx context.Context, q *request, user string, now time.Time) (admission, error) {
	server := serverOf(user)
	home, local := a.homeservers[server]
	call := member.RoomName(q.room, q.slot)
	holders := a.holders(call, q.room, now)
	if !local && len(holders) == 0 {
		return admission{}, refuseUnheld() // which the policy says too, but before a question to a homeserver
	}
	who := admission{user: user, full: local}
	for _, h := range holders {
		who.holders = append(who.holders, holder{server: serverOf(string(h))})
	}
	s, verified, err := a.members.check(ctx, place{id.UserID(user), id.RoomID(q.room)}, holders)
	switch {
	case s == joined && !a.members.believed(place{id.UserID(user), id.RoomID(q.room)}, verified):
		a.counters.outsiders.Add(1)
		return admission{}, &refusal{status: http.StatusForbidden, code: "M_FORBIDDEN", reason: reasonOutside, text: "Your membership of the room has just changed: try again"}
	case s == joined:
	case s == outside:
		a.counters.outsiders.Add(1)
		return admission{}, &refusal{status: http.StatusForbidden, code: "M_FORBIDDEN", reason: reasonOutside, text: "You are not in the room"}
	case errors.Is(err, homeserver.ErrUnavailable):
		a.counters.unavailable.Add(1)
		a.tell(now, "membership not verified", server, err)
		return admission{}, &refusal{status: http.StatusBadGateway, code: "M_UNKNOWN", reason: reasonUnavailable, text: "The homeserver does not answer: try again", err: err}
	case home.Unverified:
		who.assumed = true
		a.counters.unverified.Add(1)
	default:
		a.counters.unverifiable.Add(1)
		if err == nil {
			err = errNoMeans
		}
		a.tell(now, "membership cannot be verified", server, err)
		return admission{}, refuseUnverifiable(err)
	}
	if local && !who.assumed {
		a.expect(call, user, now)
	}
	who.verified = verified
	return who, nil
}

var errNoMeans = errors.New("no privilege to see who is in the room - set homeservers[].registration, or homeservers[].unverified: allow")

// holders are the verified local users who are in the call now, or about to be: they hold it open for users of other
// servers.
func (a *Authoriser) holders(call, room string, now time.Time) []id.UserID {
	var users []id.UserID
	seen := map[string]bool{}
	add := func(user string) {
		if _, local := a.homeservers[serverOf(user)]; local && !seen[user] {
			seen[user] = true
			users = append(users, id.UserID(user))
		}
	}
	for _, o := range a.options.Sessions.Origins(call) {
		if o.Conversation == room && !o.Assumed {
			add(o.User)
		}
	}
	if user, ok := a.expected.Get(call, now); ok {
		add(user)
	}
	return users
}

// expect remembers one local user who is about to connect; one is enough to hold a call open.
func (a *Authoriser) expect(call, user string, now time.Time) {
	a.expected.Put(call, user, now, now.Add(expected))
}

func serverOf(user string) string {
	_, server, _ := strings.Cut(user, ":")
	return server
}
