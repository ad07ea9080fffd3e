package matrixrtc

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"callserver/signalling/matrixrtc/standing"
)

// A reason says in one word why a request was refused: for the log, and as the label of a metric. They are few, and none
// comes from the outside.
type reason string

const (
	reasonMalformed    reason = "malformed"    // the request cannot be read, or is too large
	reasonAddress      reason = "address"      // too many requests of the address
	reasonServer       reason = "server"       // of the homeserver
	reasonUser         reason = "user"         // of the user
	reasonUnlisted     reason = "unlisted"     // of a homeserver whose users are refused
	reasonDenied       reason = "denied"       // of a homeserver that servers.deny names, or servers.allow does not
	reasonBarred       reason = "barred"       // of a homeserver that the room's server ACL denies
	reasonUnvouched    reason = "unvouched"    // the homeserver does not answer for the user
	reasonForged       reason = "forged"       // no signature of the homeserver that is said to ask, or not its user
	reasonReplayed     reason = "replayed"     // an OpenID token shown for another device or room
	reasonUnheld       reason = "unheld"       // of another homeserver, and no local user is in the call
	reasonElsewhere    reason = "elsewhere"    // refused by another homeserver whose media server was asked for
	reasonOutside      reason = "outside"      // not joined to the Matrix room
	reasonUnverifiable reason = "unverifiable" // nobody can tell
	reasonUnavailable  reason = "unavailable"  // the homeserver does not answer
	reasonFull         reason = "full"         // too many people in the call, or too many calls of the user
	reasonLocked       reason = "locked"       // a moderator locked the call
	reasonDelegation   reason = "delegation"   // the leave cannot be taken over
	reasonClosing      reason = "closing"      // this server stops
	reasonInternal     reason = "internal"     // our fault
	reasonOther        reason = "other"
)

var reasons = []reason{
	reasonMalformed, reasonAddress, reasonServer, reasonUser, reasonUnlisted, reasonDenied, reasonBarred,
	reasonUnvouched, reasonForged, reasonReplayed, reasonUnheld, reasonElsewhere,
	reasonOutside, reasonUnverifiable, reasonUnavailable, reasonFull, reasonLocked, reasonDelegation, reasonClosing, reasonInternal, reasonOther,
}

// Reasons are the words under which Stats counts refusals.
func Reasons() []string {
	words := make([]string, len(reasons))
	for i, r := range reasons {
		words[i] = string(r)
	}
	return words
}

// why is the reason of a refusal, its own or what its errcode says.
func (r *refusal) why() reason {
	switch {
	case slices.Contains(reasons, r.reason):
		return r.reason
	case r.code == "M_NOT_JSON", r.code == "M_BAD_JSON", r.code == "M_TOO_LARGE":
		return reasonMalformed
	case r.code == "M_UNAUTHORIZED", r.code == "M_UNKNOWN_TOKEN", r.code == "M_MISSING_TOKEN":
		return reasonUnvouched
	case r.status == http.StatusServiceUnavailable:
		return reasonClosing
	case r.status == http.StatusInternalServerError:
		return reasonInternal
	}
	return reasonOther
}

// A tally counts by reason. Its map is not written after it was made.
type tally map[reason]*atomic.Uint64

func newTally() tally {
	t := make(tally, len(reasons))
	for _, r := range reasons {
		t[r] = new(atomic.Uint64)
	}
	return t
}

func (t tally) snapshot() map[string]uint64 {
	counts := make(map[string]uint64, len(t))
	for r, n := range t {
		counts[string(r)] = n.Load()
	}
	return counts
}

// An attempt is what is known of a request by the time it is refused: for the record, never for the client.
type attempt struct {
	request *request
	err     error
}

func (a *attempt) Error() string { return a.err.Error() }
func (a *attempt) Unwrap() error { return a.err }

// attempt adds what is known of the request to an error. Nil is a request that was not understood.
func (r *request) attempt(err error) error {
	if err == nil || r == nil {
		return err
	}
	return &attempt{r, err}
}

// auditRefusal writes the one record of a request that was refused. Those that a limit refuses are written once a minute for
// each address, user or server: anybody can make any number of them.
func (a *Authoriser) auditRefusal(addr netip.Addr, err error, answer *refusal) {
	why := answer.why()
	a.counters.reasons[why].Add(1)
	var known attempt
	if found := (*attempt)(nil); errors.As(err, &found) {
		known = *found
	}
	a.remember(why, known.request, addr)
	args := append([]any{"reason", string(why), "errcode", answer.code, "status", answer.status}, known.request.describe(addr)...)
	if answer.err != nil {
		args = append(args, "err", answer.err)
	}
	if answer.status == http.StatusTooManyRequests && !a.first(why, addr, known.request) {
		return
	}
	a.options.Logger.Info("call access refused", args...)
}

// first reports whether a limit refuses that sender for the first time in a minute.
func (a *Authoriser) first(why reason, addr netip.Addr, q *request) bool {
	sender := addr.String()
	if q != nil && why == reasonUser {
		sender = q.proof.user
	} else if q != nil && why == reasonServer {
		sender = q.server()
	}
	now := a.options.Now()
	key := [2]string{string(why), sender}
	_, told := a.told.Get(key, now)
	if !told {
		a.told.Put(key, struct{}{}, now, now.Add(time.Minute))
	}
	return !told
}

// auditAdmission writes the one record of a token that was issued.
func (a *Authoriser) auditAdmission(q *request, who admission, may rights) {
	by := who.by
	if who.assumed {
		by = "nobody"
	}
	a.options.Logger.Info("call access granted", append([]any{
		"membership", by, "publish", may.publish, "opens", may.create, "moderates", may.admin,
	}, q.describe(q.addr)...)...)
}

// auditRelay writes the one record of a token that another homeserver issued.
func (a *Authoriser) auditRelay(q *request, found standing.Finding) {
	a.options.Logger.Info("call access granted elsewhere", append([]any{"membership", found.By, "by", q.target}, q.describe(q.addr)...)...)
}

// describe is what a record says of a request: how it came, and who, which and where, which the log shows only where the
// operator wants it (internal/telemetry). Nil is a request that was not understood.
func (r *request) describe(addr netip.Addr) []any {
	args := []any{slog.Any("addr", addr)}
	if r == nil {
		return args
	}
	args = append(args, "generation", int(r.generation), "homeserver", r.server(), "room", r.room, "device", r.device)
	if r.proof.user != "" {
		args = append(args, "proof", r.proof.way.String(), "user", r.proof.user)
	}
	return args
}

// server is the homeserver that the request names, or whose user it is.
func (r *request) server() string {
	if r.proof.user != "" {
		return r.proof.server()
	}
	return r.openID.ServerName
}
