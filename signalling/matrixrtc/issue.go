package matrixrtc

import (
	"errors"
	"net/http"

	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
	"callserver/signalling/matrixrtc/roster"
	"callserver/signalling/token"
)

// issue mints the token of an admitted user, and creates its room if it may.
func (a *Authoriser) issue(q *request, who admission) (string, error) {
	may, err := a.policy.decide(applicant{
		server: homeserver.ServerOf(who.user), room: q.room,
		verified: !who.assumed, moderator: who.moderator, holders: who.holders,
	})
	if err != nil {
		return "", err
	}
	g := grant(q, who, may)
	if err := a.vacant(g); err != nil {
		return "", err
	}
	raw, err := a.options.Keys.Mint(a.options.Key, g, TokenLife, a.options.Now())
	if err != nil {
		return "", err
	}
	a.options.Roster.Issued(roster.Presence{
		Stay: roster.Stay{Room: q.room, Call: g.Room, User: who.user, Device: q.device},
		Slot: q.slot, Member: q.member, Identity: g.Identity, Publishes: g.CanPublish,
	})
	if !may.create {
		a.counters.restricted.Add(1)
		a.auditAdmission(q, who, may)
		return raw, nil
	}
	err = a.options.Rooms.CreateRoom(g.Room, sfu.RoomOptions{
		EmptyTimeout: EmptyTimeout, DepartureTimeout: DepartureTimeout, MaxParticipants: may.participants,
	})
	if err != nil {
		a.counters.roomFailures.Add(1)
		return "", err
	}
	a.counters.tokens.Add(1)
	a.auditAdmission(q, who, may)
	return raw, nil
}

// grant is the content of the token.
func grant(q *request, who admission, may rights) token.Grant {
	g := token.Join(member.RoomName(q.room, q.slot), q.identity(who.user))
	g.FullAccess, g.RoomAdmin = may.create, may.admin
	g.CanPublish, g.CanPublishData = may.publish, may.publish
	if may.publish {
		g.CanPublishSources = may.sources
	}
	g.Origin = token.Origin{
		User: who.user, Conversation: q.room, Device: q.device, Member: q.member, Verified: who.verified, Assumed: who.assumed,
	}
	return g
}

// vacant refuses a token for a call that is locked or full, or that is one too many for its user. The media server
// refuses the same to whoever gets past here at the same time as another.
func (a *Authoriser) vacant(g token.Grant) error {
	err := a.options.Sessions.Check(g)
	if errors.Is(err, sfu.ErrRoomLocked) {
		return &refusal{status: http.StatusForbidden, code: "M_FORBIDDEN", reason: reasonLocked, text: "The call is locked"}
	}
	var full *signalling.Error
	if !errors.As(err, &full) || full.Code != signalling.Unavailable {
		// Whatever else is wrong by then, joining says. So it is with a server that is overloaded: clients explain a refusal
		// by the media server as one, and take a token endpoint that answers anything but a token for misconfigured.
		return nil
	}
	return &refusal{status: http.StatusForbidden, code: "M_USER_LIMIT_EXCEEDED", reason: reasonFull, text: full.Text}
}
