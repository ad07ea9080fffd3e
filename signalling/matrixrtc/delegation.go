package matrixrtc

import (
	"context"
	"errors"
	"net/http"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/leave"
)

// errNoDelegation makes clients repeat the request without the delay fields.
var errNoDelegation error = &refusal{
	status: http.StatusBadRequest, code: "M_BAD_JSON", reason: reasonDelegation,
	text: "This server does not take over delayed leaves: leave out the delay fields",
}

// delegates reports whether delayed leaves can be delegated to us.
func (a *Authoriser) delegates() bool { return a.options.Leaves != nil && a.options.Leaves.Real() }

// serveDelegation answers the requests of clients that leave their leave to us. Clients probe it without a body or a token, and whatever is not
// 404 makes them rely on us: so it is there only while we can be relied on.
func (a *Authoriser) serveDelegation(w http.ResponseWriter, r *http.Request, d door) {
	if !a.delegates() {
		a.serveUnknown(w, r, collapse(r.URL.Path))
		return
	}
	if !allow(w, r, d.cors, http.MethodPost) {
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if err := a.takeOver(w, r, d); err != nil {
		a.refuse(w, r, err)
		return
	}
	answer(w, http.StatusOK, struct{}{})
}

// takeOver walks a delegation through every check that a token request has to pass.
func (a *Authoriser) takeOver(w http.ResponseWriter, r *http.Request, d door) error {
	q, err := a.read(w, r, d)
	if err != nil {
		return err
	}
	return q.attempt(a.takeOverOf(r, q, d))
}

func (a *Authoriser) takeOverOf(r *http.Request, q *request, d door) error {
	if q.delay == "" {
		return badJSON("delay_id is missing")
	}
	if err := a.identify(r, q, d); err != nil {
		return err
	}
	if !a.here(q) {
		return &refusal{status: http.StatusBadRequest, code: "M_INVALID_PARAM", reason: reasonDelegation, text: "Leaves are taken over for the media server here only"}
	}
	who, err := a.enter(r.Context(), q, a.options.Now())
	if err != nil {
		return err
	}
	if !who.full {
		return &refusal{status: http.StatusForbidden, code: "M_FORBIDDEN", reason: reasonDelegation, text: "Leaves of users of your homeserver are not taken over"}
	}
	if err := lookUp(r.Context(), q); err != nil {
		return err
	}
	return a.delegate(r.Context(), q, who.user)
}

// delegate takes the leave of a verified user over.
func (a *Authoriser) delegate(ctx context.Context, q *request, user string) error {
	err := a.options.Leaves.Delegate(ctx, leave.Delegation{
		User: user, Unlinked: q.generation == unlinked, Device: q.device, Member: q.member, Room: q.room, Slot: q.slot, Delay: q.delay, Length: q.length,
	})
	switch {
	case errors.Is(err, leave.ErrNotReal) && q.generation == unlinked:
		return refuseDelay(err)
	case errors.Is(err, leave.ErrNotReal):
		return errNoDelegation
	case errors.Is(err, leave.ErrForeign):
		return refuseDelay(err)
	}
	return err
}

// lookUp reads the delay that a client wants to delegate with its own token, where it came with that. Unknown and
// foreign ids are refused.
func lookUp(ctx context.Context, q *request) error {
	if q.proof.caller == nil {
		return nil
	}
	scheduled, err := q.proof.caller.Scheduled(ctx, id.DelayID(q.delay))
	switch {
	case err == nil && scheduled.Room == q.room:
		q.length = scheduled.Delay
	case err == nil, homeserver.Code(err) == "M_NOT_FOUND":
		return refuseDelay(err)
	}
	return nil // delegating will tell
}

func refuseDelay(err error) error {
	return &refusal{status: http.StatusBadRequest, code: "M_INVALID_PARAM", reason: reasonDelegation, text: "delay_id is not that of your leave from this room", err: err}
}
