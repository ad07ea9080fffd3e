package token

import (
	"sync"
	"time"
)

const (
	// RevokedLife is how long a revocation is remembered: longer than any token lives that was issued before.
	RevokedLife = 2 * time.Hour
	// maxRevoked bounds the memory. When it is reached, every token of our authoriser that was verified up to then is
	// revoked in place of the single ones: its bearers prove themselves anew.
	maxRevoked = 100_000
)

// A membership is what is revoked: a user's place in a conversation.
type membership struct{ user, conversation string }

// Revocations make tokens of our own authoriser worthless before they expire: those that were verified up to the moment
// at which a user lost the place in a conversation. Safe for concurrent use; the zero value revokes nothing, as does nil.
type Revocations struct {
	mu    sync.Mutex
	cuts  map[membership]time.Time
	all   time.Time // what was verified up to then is revoked, whoever's it is
	swept time.Time

	news    map[membership]time.Time // since Take; nil: nobody keeps them over a restart
	changed chan struct{}            // capacity 1
}

// A Revocation is one of a [Revocations], for whoever keeps it over a restart.
type Revocation struct {
	User         string // empty: everybody's
	Conversation string
	At           time.Time // what was verified up to then is worthless
}

// Expired reports whether every token that was revoked has expired by itself.
func (r Revocation) Expired(now time.Time) bool { return now.Sub(r.At) > RevokedLife }

// Keep takes over what an earlier run revoked. From then on the channel tells when there is something to Take: at most
// as much as is remembered, the latest about each place. Call it before anything is revoked, and once.
func (r *Revocations) Keep(former []Revocation, now time.Time) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range former {
		if !f.Expired(now) {
			r.cutLocked(membership{f.User, f.Conversation}, f.At)
		}
	}
	r.news, r.changed = make(map[membership]time.Time), make(chan struct{}, 1)
	return r.changed
}

// Take returns what was revoked since it was called last.
func (r *Revocations) Take() []Revocation {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := make([]Revocation, 0, len(r.news))
	for m, at := range r.news {
		taken = append(taken, Revocation{m.user, m.conversation, at})
	}
	clear(r.news)
	return taken
}

// cutLocked remembers a revocation; the membership of nobody stands for everybody's.
func (r *Revocations) cutLocked(m membership, at time.Time) {
	if r.cuts == nil {
		r.cuts = make(map[membership]time.Time)
	}
	if m == (membership{}) {
		r.all = at
	} else {
		r.cuts[m] = at
	}
	if r.news == nil {
		return
	}
	r.news[m] = at
	select {
	case r.changed <- struct{}{}:
	default: // told already
	}
}

// Revoke makes the user's tokens for the conversation worthless, as far as they were verified up to now.
func (r *Revocations) Revoke(user, conversation string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cuts) >= maxRevoked || now.Sub(r.swept) > RevokedLife {
		r.sweepLocked(now)
	}
	r.cutLocked(membership{user, conversation}, now)
}

func (r *Revocations) sweepLocked(now time.Time) {
	r.swept = now
	for m, cut := range r.cuts {
		if now.Sub(cut) > RevokedLife {
			delete(r.cuts, m)
		}
	}
	if len(r.cuts) >= maxRevoked {
		clear(r.cuts)
		clear(r.news)
		r.cutLocked(membership{}, now)
	}
}

// Revoked reports whether an origin was verified before it was revoked. Tokens that others issued have none.
func (r *Revocations) Revoked(o Origin) bool {
	if r == nil || o.User == "" {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	cut, known := r.cuts[membership{o.User, o.Conversation}]
	return known && !o.Verified.After(cut) || !r.all.IsZero() && !o.Verified.After(r.all)
}
