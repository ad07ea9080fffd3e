package matrixrtc

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	mautrix "maunium.net/go/mautrix/federation"

	"callserver/signalling/federation"
	"callserver/signalling/homeserver"
)

// The endpoints of MSC4195 that are the homeserver's by their path. They come to us by one of two ways: handed on by the
// homeserver, which has checked who asks (MSC4512), or by a reverse proxy in front of it.
const (
	clientPrefix             = "/_matrix/client/v1/rtc/livekit"
	clientPrefixUnstable     = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit"
	federationPrefix         = "/_matrix/federation/v1/rtc/livekit"
	federationPrefixUnstable = "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit"
)

var (
	doorClient           = door{matrixCORS, parseHosted, (*Authoriser).proveToHomeserver}
	doorClientDelegation = door{matrixCORS, parseHostedDelegation, (*Authoriser).proveToHomeserver}
	doorFederated        = door{matrixCORS, parseFederated, (*Authoriser).proveFederated}
)

// proxied is the homeserver that hands the request on, by its hs_token; nil if none does. Whatever the request says
// about its user and origin is believed from it alone.
func (a *Authoriser) proxied(r *http.Request) *homeserver.Homeserver {
	token, ok := bearer(r)
	if !ok {
		return nil
	}
	return homeserver.ProxyOf(token, a.connections()...)
}

func (a *Authoriser) connections() (all []*homeserver.Homeserver) {
	for _, name := range a.names {
		if c := a.homeservers[name].Connection; c != nil {
			all = append(all, c)
		}
	}
	return all
}

// bearer is the access token of a request. One in the query is not read: it would be in the logs of every proxy.
func bearer(r *http.Request) (string, bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}

// proveToHomeserver believes the homeserver about who asks: what it says when it hands the request on, or what it
// answers about the caller's own token, which goes to it and nowhere else.
func (a *Authoriser) proveToHomeserver(r *http.Request, q *request, _ time.Time) (proof, error) {
	var p proof
	if h := a.proxied(r); h != nil {
		user := r.Header.Get("X-Matrix-User-Identifier")
		if server, ok := federation.ParseUser(user); !ok || server != h.Name() {
			return proof{}, &refusal{status: http.StatusForbidden, code: "M_FORBIDDEN", reason: reasonForged, text: "The homeserver names no user of its own"}
		}
		p = proof{user: user, way: byHomeserver}
	} else {
		var err error
		if p, err = a.proveByToken(r); err != nil {
			return proof{}, err
		}
	}
	if q.target == "" {
		q.target = p.server()
	}
	return p, a.checkURL(r, q)
}

// proveByToken asks the homeserver whose token it is. Guests are users like any other.
func (a *Authoriser) proveByToken(r *http.Request) (proof, error) {
	token, ok := bearer(r)
	if !ok {
		return proof{}, &refusal{status: http.StatusUnauthorized, code: "M_MISSING_TOKEN", reason: reasonUnvouched, text: "Missing access token"}
	}
	h := a.addressed(r)
	if h == nil {
		return proof{}, &refusal{
			status: http.StatusNotFound, code: "M_UNRECOGNIZED", reason: reasonUnvouched, text: "No homeserver is known here by this name",
			err: fmt.Errorf("no homeserver to ask at %.100q - have the reverse proxy pass on the Host that clients ask, and set homeservers[].client_api to it", r.Host),
		}
	}
	agent := h.Bearer(token)
	account, err := agent.Whoami(r.Context())
	var answer *homeserver.Error
	switch {
	case err == nil:
		return proof{user: string(account.User), way: byToken, caller: &agent}, nil
	case !errors.Is(err, homeserver.ErrUnavailable) && errors.As(err, &answer) && (answer.Status == http.StatusUnauthorized || answer.Status == http.StatusForbidden):
		code := answer.Code
		if code == "" { // a proxy in front of it says so
			code = "M_FORBIDDEN"
		}
		return proof{}, &refusal{status: answer.Status, code: code, reason: reasonUnvouched, text: "The homeserver does not accept the access token", err: err}
	}
	a.counters.unavailable.Add(1)
	return proof{}, &refusal{status: http.StatusBadGateway, code: "M_UNKNOWN", reason: reasonUnavailable, text: "The homeserver does not answer: try again", err: err}
}

// addressed is the homeserver that a client meant to ask: the one whose API or name has the host, or the only one.
func (a *Authoriser) addressed(r *http.Request) *homeserver.Homeserver {
	for _, name := range a.names {
		h := a.homeservers[name]
		api, err := url.Parse(h.ClientAPI)
		if strings.EqualFold(r.Host, name) || err == nil && strings.EqualFold(r.Host, api.Host) || strings.EqualFold(hostOf(r.Host), hostOf(name)) {
			return h.Connection
		}
	}
	if len(a.names) == 1 {
		return a.homeservers[a.names[0]].Connection
	}
	return nil
}

func hostOf(name string) string {
	if host, _, err := net.SplitHostPort(name); err == nil {
		return host
	}
	return name
}

// here reports whether a request is for the media server of ours.
func (a *Authoriser) here(q *request) bool {
	_, ours := a.homeservers[q.target]
	return ours || q.target == ""
}

// checkURL refuses a request for a media server that is not the one we have, or a server that can be none.
func (a *Authoriser) checkURL(r *http.Request, q *request) error {
	if !a.here(q) {
		if _, _, ok := mautrix.ParseServerName(q.target); !ok {
			return &refusal{status: http.StatusBadRequest, code: "M_INVALID_PARAM", text: "server_name is no server name"}
		}
		return nil
	}
	if sameURL(q.url, a.sfuURL(r)) {
		return nil
	}
	return &refusal{status: http.StatusBadRequest, code: "M_INVALID_PARAM", text: "url is not that of the media server here"}
}

// sameURL is liberal about the slash at the end, the case of the host, and the scheme: http for ws.
func sameURL(a, b string) bool {
	normal := func(raw string) (string, bool) {
		u, err := url.Parse(strings.TrimRight(raw, "/"))
		if err != nil || u.Host == "" {
			return "", false
		}
		switch u.Scheme {
		case "http", "https":
			u.Scheme = "ws" + strings.TrimPrefix(u.Scheme, "http")
		}
		u.Host = strings.ToLower(u.Host)
		return u.String(), true
	}
	left, ok := normal(a)
	right, alsoOK := normal(b)
	return ok && alsoOK && left == right
}
