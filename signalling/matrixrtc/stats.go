package matrixrtc

import (
	"callserver/signalling/matrixrtc/standing"
	"net/http"
	"sync/atomic"

	"callserver/signalling/federation"
)

// Stats are the counts since the start.
type Stats struct {
	Requests     uint64 // to any endpoint, unknown ones included
	Tokens       uint64 // issued with full access
	Restricted   uint64 // issued to subscribe only
	Relayed      uint64 // issued by other homeservers, for users of ours
	BadRequests  uint64 // answered 400 or 413
	Unauthorized uint64 // answered 401: the homeserver does not vouch for the user
	Forbidden    uint64 // answered 403: no user of that homeserver gets in
	RateLimited  uint64 // answered 429
	Failures     uint64 // answered 500, 502 or 503
	RoomFailures uint64 // rooms that could not be created

	Federation federation.Stats
	Members    MemberStats
	Refusals   map[string]uint64 // by reason
}

// MemberStats count what came of the question whether a user is in the Matrix room.
type MemberStats struct {
	Outside      uint64 // refused: not in the room
	Unverifiable uint64 // refused: nobody could tell
	Unverified   uint64 // let in although nobody could tell, as configured
	Unavailable  uint64 // refused: the homeserver did not answer

	standing.Stats // what became of those who got in
}

type counters struct {
	reasons tally

	requests, tokens, restricted, relayed                       atomic.Uint64
	badRequests, unauthorized, forbidden, rateLimited, failures atomic.Uint64
	roomFailures                                                atomic.Uint64

	outsiders, unverifiable, unverified, unavailable atomic.Uint64
}

func (c *counters) refused(status int) {
	switch status {
	case http.StatusUnauthorized:
		c.unauthorized.Add(1)
	case http.StatusForbidden:
		c.forbidden.Add(1)
	case http.StatusTooManyRequests:
		c.rateLimited.Add(1)
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable:
		c.failures.Add(1)
	default:
		c.badRequests.Add(1)
	}
}

func (c *counters) snapshot() Stats {
	return Stats{
		Requests: c.requests.Load(), Tokens: c.tokens.Load(), Restricted: c.restricted.Load(), Relayed: c.relayed.Load(),
		BadRequests: c.badRequests.Load(), Unauthorized: c.unauthorized.Load(), Forbidden: c.forbidden.Load(),
		RateLimited: c.rateLimited.Load(), Failures: c.failures.Load(), RoomFailures: c.roomFailures.Load(),
		Members: MemberStats{
			Outside: c.outsiders.Load(), Unverifiable: c.unverifiable.Load(), Unverified: c.unverified.Load(),
			Unavailable: c.unavailable.Load(),
		},
		Refusals: c.reasons.snapshot(),
	}
}
