package signalling

import (
	"slices"
	"strings"
	"time"

	"callserver/internal/expiring"
	"callserver/sfu/rtc"
	"callserver/signalling/token"
)

const (
	// shortLived is how long media must last to count as working. Firewalls that let UDP begin, and end it, do so within seconds.
	shortLived = 90 * time.Second
	// ladderMemory is how long a client goes the way that its network was found to need. Networks change, and UDP is better where it works.
	ladderMemory = 10 * time.Minute
	// maxLadder bounds the clients that are remembered; more push out others, which find out again.
	maxLadder = 10_000
)

// A step says which ways the next negotiation is about.
type step uint8

const (
	allWays step = iota
	tcpAlone
	relayAlone
)

// String is what a log calls it.
func (s step) String() string { return [...]string{"all ways", "tcp alone", "relay alone"}[s] }

// A ladder remembers who loses media over a way while all else goes on: to them the next negotiations are about the next way alone, until the
// memory fades. UDP that is blocked from the start costs nothing and is not remembered: clients try all ways at once.
//
//	          UDP ended within         TCP ended so, or is not
//	          90 s of its beginning    connected by the next negotiation
//	all ways ----------------> TCP alone ----------------> relay alone
//	   ^                        |  (where there is one)     |
//	   +------------------------+---------------------------+
//	        not connected by the next negotiation, or after ten minutes
//
// The relay is reached by TCP or TLS then, see withoutUDP.
//
// Safe for concurrent use.
type ladder struct {
	relay bool // there is one
	lower *expiring.Map[stay, rung]
}

// stay is whom a ladder remembers, over reconnects of every kind.
type stay struct{ room, identity string }

// rung is where a client stands that is not on top.
type rung struct {
	step  step
	tried bool      // it was negotiated, and has not connected yet
	until time.Time // then it is forgotten
}

func newLadder(relay bool) *ladder {
	return &ladder{relay: relay, lower: expiring.New[stay, rung](maxLadder)}
}

func stayOf(g token.Grant) stay { return stay{g.Room, g.Identity} }

// next says what the next negotiation of a client is about.
func (l *ladder) next(s stay, now time.Time) step {
	r, low := l.lower.Get(s, now)
	switch {
	case !low:
		return allWays
	case r.tried && r.step == tcpAlone && l.relay:
		r.step = relayAlone
	case r.tried:
		l.lower.Drop(s)
		return allWays
	}
	r.tried = true
	l.lower.Put(s, r, now, r.until)
	return r.step
}

// connected notes that media is up.
func (l *ladder) connected(s stay, now time.Time) {
	if r, low := l.lower.Get(s, now); low {
		r.tried = false
		l.lower.Put(s, r, now, r.until)
	}
}

// lost notes that media ended which had begun at some time and had gone some way, and returns what that has the next negotiation be about; allWays
// where it changes nothing.
func (l *ladder) lost(s stay, w rtc.Way, began, now time.Time) step {
	if now.Sub(began) > shortLived {
		return allWays
	}
	next := allWays
	switch r, low := l.lower.Get(s, now); {
	case w == rtc.UDP:
		next = tcpAlone
	case w == rtc.TCP && low && r.step == tcpAlone && l.relay:
		next = relayAlone
	}
	if next != allWays {
		until := now.Add(ladderMemory)
		l.lower.Put(s, rung{step: next, until: until}, now, until)
	}
	return next
}

// withoutUDP leaves out what clients reach over UDP, unless there is nothing else. Clients prefer a relay over UDP to any other, and where flows of
// UDP end soon the one to the relay does too, again and again.
func withoutUDP(servers []ICEServer) []ICEServer {
	var kept []ICEServer
	for _, s := range servers {
		s.URLs = slices.DeleteFunc(slices.Clone(s.URLs), func(url string) bool {
			return !strings.HasPrefix(url, "turns:") && !strings.HasSuffix(url, "?transport=tcp") // RFC 7065 §3.1
		})
		if len(s.URLs) > 0 {
			kept = append(kept, s)
		}
	}
	if len(kept) == 0 {
		return servers
	}
	return kept
}
