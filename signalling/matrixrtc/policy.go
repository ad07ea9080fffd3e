package matrixrtc

import (
	"net/http"
	"slices"
)

// Remote says what users of other homeservers get.
type Remote uint8

const (
	RemoteRefuse    Remote = iota // nothing
	RemoteSubscribe               // a token that subscribes only and creates no room, while a local user is in the call
)

// RoomPolicy is what the operator decided about the calls of a Matrix room.
type RoomPolicy struct {
	PublishRemote bool     // users of other homeservers publish too
	Sources       []string // what may be published, in the words of tokens; empty means everything
	Participants  int      // people at once; 0 means no limit
}

// A policy is what the operator decided about all calls. Read-only after it was made.
type policy struct {
	homeservers map[string]Homeserver // whose users are local, by server name
	remote      Remote
	every       RoomPolicy
	rooms       map[string]RoomPolicy // in place of every, where set; by Matrix room id
}

// A holder is a local user who is in the call, or about to be, and so holds it open for users of other homeservers.
type holder struct {
	server  string
	assumed bool // nobody could verify it
}

// An applicant is all that counts for what a user gets, once it is known who it is and that nothing speaks against it.
type applicant struct {
	server    string
	room      string // Matrix room id
	verified  bool   // known to be joined to the room; otherwise nobody could tell
	moderator bool   // its power in the room suffices to kick
	holders   []holder
}

// rights are what the token of an admitted user says.
type rights struct {
	create       bool     // it opens the room
	publish      bool     // media and data
	sources      []string // of media, only these; empty means all
	admin        bool     // mutes and removes others, ends the call: in this room
	participants int      // that the room may have; 0 means as many as any
}

// decide is the whole policy about publishing, as a function of what is known:
//
//	user of       verified   holder that counts   publish: remote   gets
//	ours          yes        -                    -                 publish, create
//	ours          no         -                    -                 publish, create with unverified: allow, else nothing
//	another       no         -                    -                 nothing
//	another       yes        no                   -                 nothing
//	another       yes        yes                  no                subscribe
//	another       yes        yes                  yes               publish
//
// A holder counts whose own membership is verified; publish: remote is that of the room or of a holder's homeserver.
// A moderator administers the room in every row that gives something, and sources hold for everybody.
func (p *policy) decide(a applicant) (rights, error) {
	room := p.room(a.room)
	got := rights{admin: a.moderator && a.verified, sources: room.Sources, participants: room.Participants}
	if home, local := p.homeservers[a.server]; local {
		if !a.verified && !home.Unverified {
			return rights{}, refuseUnverifiable(nil)
		}
		got.create, got.publish = true, true
		return got, nil
	}
	holders := slices.DeleteFunc(slices.Clone(a.holders), func(h holder) bool { return h.assumed })
	switch {
	case p.remote == RemoteRefuse:
		return rights{}, refuseUnlisted()
	case !a.verified:
		return rights{}, refuseUnverifiable(nil)
	case len(holders) == 0:
		return rights{}, refuseUnheld()
	}
	got.publish = room.PublishRemote || slices.ContainsFunc(holders, func(h holder) bool { return p.homeservers[h.server].PublishRemote })
	return got, nil
}

// room is what holds for the calls of a Matrix room: what its entry sets, and otherwise what holds for all.
func (p *policy) room(id string) RoomPolicy {
	r, listed := p.rooms[id]
	if !listed {
		return p.every
	}
	r.PublishRemote = r.PublishRemote || p.every.PublishRemote
	if len(r.Sources) == 0 {
		r.Sources = p.every.Sources
	}
	if r.Participants == 0 {
		r.Participants = p.every.Participants
	}
	return r
}

func refuseUnlisted() error {
	return &refusal{status: http.StatusForbidden, code: "M_FORBIDDEN", reason: reasonUnlisted, text: "Users of your homeserver may not use this server"}
}

func refuseUnheld() error {
	return &refusal{status: http.StatusForbidden, code: "M_FORBIDDEN", reason: reasonUnheld, text: "No user of this server is in the call"}
}

func refuseUnverifiable(err error) error {
	return &refusal{status: http.StatusForbidden, code: "M_FORBIDDEN", reason: reasonUnverifiable, text: "This server cannot verify that you are in the room", err: err}
}
