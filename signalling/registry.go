package signalling

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"callserver/sfu"
	"callserver/signalling/token"
)

// A registry knows the sessions that have not left. Safe for concurrent use; the zero value is empty.
type registry struct {
	mu    sync.Mutex
	rooms map[string]map[*Session]struct{} // by the room of the grant
}

func (r *registry) add(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rooms == nil {
		r.rooms = make(map[string]map[*Session]struct{})
	}
	if r.rooms[s.grant.Room] == nil {
		r.rooms[s.grant.Room] = make(map[*Session]struct{})
	}
	r.rooms[s.grant.Room][s] = struct{}{}
}

func (r *registry) remove(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	in := r.rooms[s.grant.Room]
	delete(in, s)
	if len(in) == 0 {
		delete(r.rooms, s.grant.Room)
	}
}

// filter returns the sessions of a room, or of all rooms if it is empty, that fit.
func (r *registry) filter(room string, fits func(*Session) bool) (found []*Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, in := range r.rooms {
		if room != "" && name != room {
			continue
		}
		for s := range in {
			if fits(s) {
				found = append(found, s)
			}
		}
	}
	return found
}

// Origins returns the origins of the tokens with which people are in a room, or in any room if it is empty. Those whose
// token has none are left out.
func (s *Server) Origins(room string) []token.Origin {
	in := s.sessions.filter(room, func(sess *Session) bool { return sess.grant.Origin.User != "" && !sess.part.Closed() })
	origins := make([]token.Origin, len(in))
	for i, sess := range in {
		origins[i] = sess.grant.Origin
	}
	return origins
}

// An Attendee is one session of somebody who is in a call of a conversation.
type Attendee struct {
	Origin  token.Origin
	Call    sfu.RoomID
	Info    sfu.ParticipantInfo
	Quality sfu.ConnectionQuality
	Judged  bool // Quality is known
}

// Attendance returns who is in the calls of a conversation, the longest there first. Those whose token has no origin are
// left out.
func (s *Server) Attendance(conversation string) []Attendee {
	in := s.sessions.filter("", func(sess *Session) bool { return sess.grant.Origin.Conversation == conversation && !sess.part.Closed() })
	all := make([]Attendee, len(in))
	for i, sess := range in {
		a := Attendee{Origin: sess.grant.Origin, Call: sfu.RoomID(sess.grant.Room), Info: sess.part.Info()}
		a.Quality, a.Judged = sess.part.Quality()
		all[i] = a
	}
	slices.SortFunc(all, func(a, b Attendee) int {
		return cmp.Or(a.Info.JoinedAt.Compare(b.Info.JoinedAt), cmp.Compare(a.Info.SID, b.Info.SID))
	})
	return all
}

// Expel takes a user out of the calls of a conversation and makes the tokens for it worthless, so that only a new one lets
// the user in again. It returns how many sessions these were.
func (s *Server) Expel(user, conversation string) int {
	if s.revocations != nil {
		s.revocations.Revoke(user, conversation, time.Now())
	}
	return s.Evict(user, conversation)
}

// Withhold stops everything that a participant publishes from reaching anybody, or lets it through again; see
// sfu.Participant.Withhold. A session that has left is passed over.
func (s *Server) Withhold(room string, session sfu.SID, on bool) {
	if p := s.rooms.BySID(sfu.RoomID(room), session); p != nil {
		p.Withhold(on, time.Now())
	}
}

// roomsBeside counts the rooms, other than the grant's own, in which its person is. Nobody is one whom a token without
// origin names.
func (r *registry) roomsBeside(g token.Grant) int {
	if g.Origin.Person() == "" {
		return 0
	}
	rooms := map[string]struct{}{}
	for _, s := range r.filter("", func(s *Session) bool { return s.grant.Origin.Person() == g.Origin.Person() && !s.part.Closed() }) {
		rooms[s.grant.Room] = struct{}{}
	}
	delete(rooms, g.Room)
	return len(rooms)
}

// Evict takes everybody out whose token was issued to the user for the conversation, or who is there in that one's place, and returns how many these were.
// Their media stops before it returns; their clients are told by their edges.
func (s *Server) Evict(user, conversation string) int {
	out := s.sessions.filter("", func(sess *Session) bool {
		o := sess.grant.Origin
		return (o.User == user || o.For == user) && o.Conversation == conversation && !sess.part.Closed()
	})
	for _, sess := range out {
		sess.part.Leave(sfu.ParticipantRemoved, time.Now())
	}
	return len(out)
}
