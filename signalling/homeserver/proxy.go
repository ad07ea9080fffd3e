package homeserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// relayTimeout is for a request that the homeserver makes to another one for us.
const relayTimeout = 20 * time.Second

// proxyErrors is how the errcodes of MSC4512 begin: about the other homeserver, not about this one.
const proxyErrors = "IO.ELEMENT.MSC4512."

// ProxyOf finds the homeserver that hands a request on to us as to its application service (MSC4512), by the hs_token
// that it shows, in a time that depends on neither. Nil means that the token is none of theirs: nothing that the
// request says about users and origins may be believed then.
func ProxyOf(token string, homeservers ...*Homeserver) *Homeserver {
	return owner(homeservers, token, (*Registration).proxied)
}

// proxied reports whether the homeserver hands requests on to the registration.
func (r *Registration) proxied() bool { return r.ProxyPrefix != "" }

// Relays reports whether a registration lets us speak to other homeservers through this one (MSC4512).
func (h *Homeserver) Relays() bool { return h.registration((*Registration).proxied) != nil }

// Relay has the homeserver post content to another one, signed by itself, and returns what that one answered, whatever
// its status is. The path must lie below the registration's prefix. [Unrecognized] means that the homeserver does not do
// this; any other error that there was no answer.
func (h *Homeserver) Relay(ctx context.Context, to, path string, content map[string]any) (int, json.RawMessage, error) {
	r := h.registration((*Registration).proxied)
	op := "send to " + to
	if r == nil {
		return 0, nil, fmt.Errorf("%s: %w", op, ErrNoPrivilege)
	}
	if !h.breaker.allow(h.options.Now()) {
		h.counters.spared.Add(1)
		return 0, nil, &Error{Op: op, Err: fmt.Errorf("%w: it did not a moment ago", ErrUnavailable)}
	}
	wait, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	var answer struct {
		Status  int             `json:"status"`
		Content json.RawMessage `json:"content"`
	}
	h.counters.requests.Add(1)
	sent := h.breaker.mark()
	err := translate(op, h.send(wait, identity{token: r.AppToken}, http.MethodPost, nil,
		map[string]any{"destination": to, "method": http.MethodPost, "path": path, "body": content}, &answer,
		[]any{"unstable", "io.element.msc4512", "appservice", "fed_proxy"}))
	switch {
	case err == nil:
		h.breaker.succeeded()
		return answer.Status, answer.Content, nil
	case err.Status != 0 && (strings.HasPrefix(err.Code, proxyErrors) || !err.gone()):
		h.breaker.succeeded() // it is there: the other one is not, or it will not ask it
	case errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil:
		h.breaker.abandoned() // the other one may be slow
	default:
		h.judge(ctx, sent, err)
	}
	return 0, nil, err
}
