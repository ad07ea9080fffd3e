package matrixrtc

import (
	"context"
	"errors"
	"net/http"

	"callserver/signalling/matrixrtc/leave"
)

// errNoDelegation makes clients repeat the request without the delay fields.
var errNoDelegation error = &refusal{
	status: http.StatusBadRequest, code: "M_BAD_JSON", reason: reasonDelegation,
	text: "This server does not take over delayed leaves: leave out the delay fields",
}

// delegates reports whether delayed leaves can be delegated to us.
func (a *Authoriser) delegates() bool { return a.options.Leaves != nil && a.options.Leaves.Real() }

// serveDelegation answers POST /delegate_delayed_leave. Clients probe it without a body or a token, and whatever is not
// 404 makes them rely on us: so it is there only while we can be relied on.
func (a *Authoriser) serveDelegation(w http.ResponseWriter, r *http.Request) {
	if !a.delegates() {
		a.serveUnknown(w, r, pathDelegate)
		return
	}
	if !allow(w, r, tokenCORS, http.MethodPost) {
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	q, who, err := a.verify(w, r, doorGetToken)
	switch {
	case err != nil:
	case q.delay == "":
		err = badJSON("delay_id is missing")
	case !who.full:
		err = &refusal{status: http.StatusForbidden, code: "M_FORBIDDEN", text: "Leaves of users of your homeserver are not taken over"}
	default:
		err = a.delegate(r.Context(), q, who.user)
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	answer(w, http.StatusOK, struct{}{})
}

// delegate takes the leave of a verified user over.
func (a *Authoriser) delegate(ctx context.Context, q *request, user string) error {
	err := a.options.Leaves.Delegate(ctx, leave.Delegation{
		User: user, Device: q.device, Member: q.member, Room: q.room, Slot: q.slot, Delay: q.delay, Length: q.length,
	})
	switch {
	case errors.Is(err, leave.ErrNotReal):
		return errNoDelegation
	case errors.Is(err, leave.ErrForeign):
		return &refusal{status: http.StatusBadRequest, code: "M_INVALID_PARAM", reason: reasonDelegation, text: "delay_id is not that of your leave from this room", err: err}
	}
	return err
}
