package signalling

import (
	"errors"
	"time"

	"callserver/sfu"
	"callserver/signalling/token"
)

// comeback is how long after the start those come back who were here before it.
const comeback = time.Minute

// Overload has newcomers refused from now on, or admitted again. Whoever is in a call is not concerned: resumes never are, and
// who joins anew may, as long as the former session is there, or when this server has just been started again.
func (s *Server) Overload(on bool) { s.overloaded.Store(on) }

// TurnedAway is how often somebody was refused for overload.
func (s *Server) TurnedAway() uint64 { return s.turnedAway.Load() }

func (s *Server) count(refusal error) {
	if errors.Is(refusal, errOverloaded) {
		s.turnedAway.Add(1)
	}
}

// returning reports whether the bearer of a grant is no newcomer.
func (s *Server) returning(g token.Grant, m sfu.Member) bool {
	if s.rooms.Present(sfu.RoomID(g.Room), m) {
		return true
	}
	before := !g.IssuedAt.IsZero() && g.IssuedAt.Before(s.started.Truncate(time.Second))
	return before && time.Since(s.started) < comeback
}
