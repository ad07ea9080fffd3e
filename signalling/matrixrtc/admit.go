package matrixrtc

import (
	"context"
	"errors"
	"net/http"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
	"callserver/signalling/matrixrtc/standing"
	"callserver/signalling/token"
)

// expected is how long a local user who got a token counts as being in the call, until the connection is there.
const expected = 30 * time.Second

// Sessions are the running calls.
type Sessions interface {
	standing.Sessions
	// Check fails as joining with the grant would, now: a *signalling.Error, of code Unavailable where there is no place in the room
	// and Overloaded where there is none on the server.
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
	by       string    // the means that told (standing.Finding.By); empty if assumed

	moderator bool     // its power in the room suffices to kick
	holders   []holder // who holds the call open
}

// admit decides about a proven user.
func (a *Authoriser) admit(ctx context.Context, q *request, now time.Time) (admission, error) {
	user, server := q.proof.user, q.proof.server()
	if err := a.permitted(server); err != nil {
		return admission{}, err
	}
	_, local := a.homeservers[server]
	call := member.RoomName(q.room, q.slot)
	holders := a.holders(call, q.room, now)
	if !local && len(holders) == 0 {
		return admission{}, refuseUnheld() // which the policy says too, but before a question to a homeserver
	}
	found, err := a.stands(ctx, q, holders)
	if err != nil {
		return admission{}, err
	}
	who := admission{user: user, full: local, verified: found.Verified, by: found.By, moderator: found.Moderator}
	if found.Standing != standing.Joined {
		who.assumed, who.verified = true, now
	}
	for _, h := range holders {
		who.holders = append(who.holders, holder{server: homeserver.ServerOf(h)})
	}
	if local && !who.assumed {
		a.expect(call, user, now)
	}
	return who, nil
}

// stands finds out how a proven user stands in the Matrix room, and refuses who is not in it. An answer that an event overtook is asked for once more:
// that event may be older than the answer, as where somebody leaves, comes back and joins the call.
func (a *Authoriser) stands(ctx context.Context, q *request, holders []id.UserID) (standing.Finding, error) {
	p := standing.Place{User: id.UserID(q.proof.user), Room: id.RoomID(q.room)}
	found, err := a.members.CheckAs(ctx, p, holders, q.proof.caller)
	if found.Standing == standing.Joined && !a.members.Believed(p, found.Verified) {
		found, err = a.members.CheckAs(ctx, p, holders, q.proof.caller)
	}
	return found, a.judge(p, found, err)
}

// permitted refuses users of homeservers that the operator does not want.
func (a *Authoriser) permitted(server string) error {
	if a.options.Servers.Permits(server) {
		return nil
	}
	a.tell("user of a denied homeserver refused", server, nil)
	return &refusal{status: http.StatusForbidden, code: "M_FORBIDDEN", reason: reasonDenied, text: "Users of your homeserver may not use this server"}
}

// judge refuses whoever does not stand in the room.
func (a *Authoriser) judge(p standing.Place, found standing.Finding, err error) error {
	server := homeserver.ServerOf(p.User)
	forbid := func(why reason, text string) error {
		a.counters.outsiders.Add(1)
		return &refusal{status: http.StatusForbidden, code: "M_FORBIDDEN", reason: why, text: text}
	}
	switch {
	case found.Standing == standing.Joined && !a.members.Believed(p, found.Verified):
		return forbid(reasonOutside, "Your membership of the room has just changed: try again")
	case found.Standing == standing.Joined:
	case found.Standing == standing.Outside:
		return forbid(reasonOutside, "You are not in the room")
	case found.Standing == standing.Barred:
		return forbid(reasonBarred, "The room does not admit your homeserver")
	case errors.Is(err, homeserver.ErrUnavailable):
		a.counters.unavailable.Add(1)
		a.tell("membership not verified", server, err)
		return &refusal{status: http.StatusBadGateway, code: "M_UNKNOWN", reason: reasonUnavailable, text: "The homeserver does not answer: try again", err: err}
	case a.homeservers[server].Unverified:
		a.counters.unverified.Add(1)
	default:
		a.counters.unverifiable.Add(1)
		if err == nil {
			err = errNoMeans
		}
		a.tell("membership cannot be verified", server, err)
		return refuseUnverifiable(err)
	}
	return nil
}

var errNoMeans = errors.New("no privilege to see who is in the room - set homeservers[].registration, or homeservers[].unverified: allow")

// holders are the verified local users who are in the call now, or about to be: they hold it open for users of other
// servers.
func (a *Authoriser) holders(call, room string, now time.Time) []id.UserID {
	var users []id.UserID
	seen := map[string]bool{}
	add := func(user string) {
		if _, local := a.homeservers[homeserver.ServerOf(user)]; local && !seen[user] {
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
