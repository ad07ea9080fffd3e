package token

import (
	"sync"
	"time"
)

const (
	// revokedLife is longer than any token lives that was issued before it was revoked.
	revokedLife = 2 * time.Hour
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
}

// Revoke makes the user's tokens for the conversation worthless, as far as they were verified up to now.
func (r *Revocations) Revoke(user, conversation string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cuts == nil {
		r.cuts = make(map[membership]time.Time)
	}
	if len(r.cuts) >= maxRevoked || now.Sub(r.swept) > revokedLife {
		r.sweepLocked(now)
	}
	r.cuts[membership{user, conversation}] = now
}

func (r *Revocations) sweepLocked(now time.Time) {
	r.swept = now
	for m, cut := range r.cuts {
		if now.Sub(cut) > revokedLife {
			delete(r.cuts, m)
		}
	}
	if len(r.cuts) >= maxRevoked {
		clear(r.cuts)
		r.all = now
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
