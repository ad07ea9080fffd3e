package matrixrtc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"callserver/internal/canonical"
	"callserver/signalling/federation"
	"callserver/signalling/homeserver"
)

// proveFederated believes a homeserver about its own users, and nobody about those of others. Which homeserver it is, the
// one in front of us says that handed the request on, or its signature under the request proves.
func (a *Authoriser) proveFederated(r *http.Request, q *request, now time.Time) (proof, error) {
	if err := a.checkURL(r, q); err != nil {
		return proof{}, err
	}
	vouches := func(origin string) error {
		if server, ok := federation.ParseUser(q.claimedUser); !ok || server != origin {
			return &refusal{status: http.StatusForbidden, code: "M_FORBIDDEN", reason: reasonForged, text: "user_id is no user of the homeserver that asks"}
		}
		return a.welcome(origin, now)
	}
	p := proof{user: q.claimedUser, way: bySignature}
	if a.proxied(r) != nil {
		return p, vouches(r.Header.Get("X-Matrix-Origin"))
	}
	claims, err := federation.Claims(r.Header.Values("Authorization"))
	if err == nil && len(claims) == 0 {
		err = errors.New("no X-Matrix header")
	}
	if err != nil {
		return proof{}, refuseForged(err)
	}
	for _, c := range claims[:min(len(claims), maxClaims)] {
		if err = vouches(c.Origin); err != nil {
			return proof{}, err // before a question to a server that gets nothing here
		}
		if err = a.verifySigned(r, q, c, now); err == nil {
			return p, nil
		}
	}
	return proof{}, refuseForged(err)
}

// maxClaims bounds the headers that are looked at: a server has few keys.
const maxClaims = 3

// verifySigned checks a signature over the request as it came.
func (a *Authoriser) verifySigned(r *http.Request, q *request, c federation.Claim, now time.Time) error {
	m := federation.Message{Method: r.Method, URI: r.RequestURI, Destination: c.Destination}
	if m.Destination == "" && len(a.names) == 1 {
		m.Destination = a.names[0]
	}
	if _, ours := a.homeservers[m.Destination]; !ours {
		return fmt.Errorf("the request is for %.300q, which is not listed under homeservers", c.Destination)
	}
	content, err := canonical.Parse(q.body)
	if err != nil {
		return err
	}
	m.Content, _ = content.(map[string]any)
	return a.options.Directory.Verify(r.Context(), c, m, now)
}

func refuseForged(err error) error {
	return &refusal{status: http.StatusUnauthorized, code: "M_UNAUTHORIZED", reason: reasonForged, text: "The request is not signed by the homeserver that it is said to come from", err: err}
}

// relay asks the homeserver of another media server for a token there, in the name of a user of ours who is in the room.
func (a *Authoriser) relay(ctx context.Context, q *request, now time.Time) (string, error) {
	if err := a.count(q, now); err != nil {
		return "", err
	}
	found, err := a.stands(ctx, q, nil)
	if err != nil {
		return "", err
	}
	status, reply, err := a.ask(ctx, q, now)
	switch {
	case err == nil && status == http.StatusOK && reply.JWT != "":
		a.counters.relayed.Add(1)
		a.auditRelay(q, found)
		return reply.JWT, nil
	case err == nil && (status == http.StatusForbidden || status == http.StatusBadRequest):
		if reply.Code == "" {
			reply.Code = map[int]string{http.StatusForbidden: "M_FORBIDDEN", http.StatusBadRequest: "M_INVALID_PARAM"}[status]
		}
		return "", &refusal{status: status, code: reply.Code, reason: reasonElsewhere, text: reply.Text}
	case err == nil:
		err = fmt.Errorf("the answer is %d %.100s", status, reply.Code)
	}
	return "", &refusal{
		status: http.StatusBadGateway, code: "M_UNKNOWN", reason: reasonElsewhere,
		text: "The other homeserver gives no token", err: fmt.Errorf("ask %s for a token: %w", q.target, err),
	}
}

// A reply is what another homeserver answers: a token, or an error.
type reply struct {
	JWT  string `json:"jwt"`
	Code string `json:"errcode"`
	Text string `json:"error"`
}

// ask asks the other homeserver at the path that is out there, and then at the one that is to come.
func (a *Authoriser) ask(ctx context.Context, q *request, now time.Time) (status int, r reply, err error) {
	p := q.proof
	content := map[string]any{"user_id": p.user, "url": q.url, "room_id": q.room, "slot_id": q.slot, "member_id": q.member}
	for _, prefix := range []string{federationPrefixUnstable, federationPrefix} {
		var body []byte
		status, body, err = a.send(ctx, p.server(), q.target, prefix+pathGetToken, content, now)
		if err != nil || status != http.StatusNotFound {
			if json.Unmarshal(body, &r) != nil {
				r = reply{}
			}
			break
		}
	}
	return status, r, err
}

// errNoSignature is for the operator.
var errNoSignature = errors.New("nothing to sign the request with - set homeservers[].signing_key_file, or have Synapse send it (registration with io.element.msc4512.proxy_prefix)")

// send has our homeserver speak to the other one, or speaks in its name with its key.
func (a *Authoriser) send(ctx context.Context, from, to, path string, content map[string]any, now time.Time) (int, []byte, error) {
	h := a.homeservers[from]
	if h.Connection != nil && h.Connection.Relays() {
		status, body, err := h.Connection.Relay(ctx, to, path, content)
		if !homeserver.Unrecognized(err) || h.SigningKey == nil {
			return status, body, err
		}
	}
	if h.SigningKey == nil {
		return 0, nil, errNoSignature
	}
	return a.options.Directory.Send(ctx, from, h.SigningKey, to, path, content, now)
}
