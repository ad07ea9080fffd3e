package matrixrtc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// maxBody is the longest request body, in bytes.
const maxBody = 1 << 20

// The endpoints, below the prefix or without it. Everything else is answered 404 M_UNRECOGNIZED.
const (
	pathSFUGet             = "/sfu/get"
	pathGetToken           = "/get_token"
	pathDelegate           = "/delegate_delayed_leave"
	pathHealth             = "/healthz"
	pathTransports         = "/_matrix/client/v1/rtc/transports"
	pathTransportsUnstable = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports"
	pathWellKnown          = "/.well-known/matrix/client"
)

// Handler serves the endpoints. It cleans paths itself: a redirecting mux in front of it would turn POST into GET.
func (a *Authoriser) Handler() http.Handler { return http.HandlerFunc(a.serve) }

func (a *Authoriser) serve(w http.ResponseWriter, r *http.Request) {
	a.counters.requests.Add(1)
	path := collapse(r.URL.Path)
	if rest, ok := strings.CutPrefix(path, a.options.Prefix); ok && strings.HasPrefix(rest, "/") {
		path = rest
	}
	switch path {
	case pathSFUGet:
		a.serveToken(w, r, doorSFUGet)
	case pathGetToken:
		a.serveToken(w, r, doorGetToken)
	case pathDelegate:
		a.serveDelegation(w, r, doorGetToken)
	case clientPrefix + pathGetToken, clientPrefixUnstable + pathGetToken:
		a.serveToken(w, r, doorClient)
	case clientPrefix + pathDelegate, clientPrefixUnstable + pathDelegate:
		a.serveDelegation(w, r, doorClientDelegation)
	case federationPrefix + pathGetToken, federationPrefixUnstable + pathGetToken:
		a.serveToken(w, r, doorFederated)
	case pathTransports, pathTransportsUnstable:
		a.serveTransports(w, r)
	case pathWellKnown:
		a.serveWellKnown(w, r)
	case pathHealth:
		if allow(w, r, matrixCORS, http.MethodGet, http.MethodHead) {
			w.WriteHeader(http.StatusOK)
		}
	default:
		a.serveUnknown(w, r, path)
	}
}

// serveUnknown says "no such thing" in a way that a web page may read, or else a probe fails for another reason.
func (a *Authoriser) serveUnknown(w http.ResponseWriter, r *http.Request, path string) {
	c := tokenCORS
	if strings.HasPrefix(path, "/_matrix/") {
		c = matrixCORS
	}
	c.set(w.Header())
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return
	}
	refuse(w, &refusal{status: http.StatusNotFound, code: "M_UNRECOGNIZED", text: "Unrecognized request"})
}

// allow answers preflights and wrong methods, and reports whether the request is left to the caller.
func allow(w http.ResponseWriter, r *http.Request, c cors, methods ...string) bool {
	c.set(w.Header())
	if r.Method == http.MethodOptions {
		w.Header().Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusOK)
		return false
	}
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(append(methods, http.MethodOptions), ", "))
	refuse(w, &refusal{status: http.StatusMethodNotAllowed, code: "M_UNRECOGNIZED", text: "Method not allowed"})
	return false
}

func (a *Authoriser) serveToken(w http.ResponseWriter, r *http.Request, d door) {
	if !allow(w, r, d.cors, http.MethodPost) {
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	q, raw, err := a.authorise(w, r, d)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	body := struct {
		URL string `json:"url,omitempty"`
		JWT string `json:"jwt"`
	}{a.sfuURL(r), raw}
	if q.generation == unlinked { // such clients have named the media server themselves
		body.URL = ""
	}
	answer(w, http.StatusOK, body)
}

// authorise walks a token request through every check.
func (a *Authoriser) authorise(w http.ResponseWriter, r *http.Request, d door) (*request, string, error) {
	q, err := a.read(w, r, d)
	if err != nil {
		return nil, "", err
	}
	if err := a.identify(r, q, d); err != nil {
		return nil, "", q.attempt(err)
	}
	mint := a.mint
	if !a.here(q) {
		mint = a.relay
	}
	raw, err := mint(r.Context(), q, a.options.Now())
	return q, raw, q.attempt(err)
}

// read reads a request, by the cheap checks first.
func (a *Authoriser) read(w http.ResponseWriter, r *http.Request, d door) (*request, error) {
	if a.closing.Load() {
		return nil, &refusal{status: http.StatusServiceUnavailable, code: "M_UNKNOWN", text: "The server is shutting down"}
	}
	addr := a.options.ClientAddr(r)
	if a.proxied(r) == nil { // everybody comes from the address of a homeserver that hands requests on
		if err := a.limits.ofAddress(addr, a.options.Now()); err != nil {
			return nil, err
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, bodyRefusal(err)
	}
	q, err := d.parse(body)
	if err != nil {
		return nil, err
	}
	q.addr, q.body = addr, body
	if q.delay != "" && a.options.Leaves == nil {
		return nil, q.attempt(errNoDelegation)
	}
	return q, nil
}

// identify finds out beyond doubt who sent a request.
func (a *Authoriser) identify(r *http.Request, q *request, d door) (err error) {
	q.proof, err = d.prove(a, r, q, a.options.Now())
	return err
}

// mint takes over the leave of a proven user if it has one, and issues the token.
func (a *Authoriser) mint(ctx context.Context, q *request, now time.Time) (string, error) {
	who, err := a.enter(ctx, q, now)
	if err != nil {
		return "", err
	}
	if q.delay != "" {
		if err := a.delegate(ctx, q, who.user); err != nil {
			return "", err
		}
	}
	return a.issue(q, who)
}

// enter decides what a proven user gets. It is the same for every generation of clients.
func (a *Authoriser) enter(ctx context.Context, q *request, now time.Time) (admission, error) {
	if err := a.count(q, now); err != nil {
		return admission{}, err
	}
	return a.admit(ctx, q, now)
}

// count holds a proven user to the limits, and an OpenID token to its first use.
func (a *Authoriser) count(q *request, now time.Time) error {
	p := q.proof
	if _, listed := a.homeservers[p.server()]; listed { // the others were counted before they were asked
		if err := a.limits.ofServer(p.server(), now); err != nil {
			return err
		}
	}
	if err := a.limits.ofUser(p.user, now); err != nil {
		return err
	}
	if p.way == byOpenID {
		return a.replays.check(p.token, q.device, q.room, now)
	}
	return nil
}

func bodyRefusal(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &refusal{status: http.StatusRequestEntityTooLarge, code: "M_TOO_LARGE", text: "The body is too large"}
	}
	return &refusal{status: http.StatusBadRequest, code: "M_NOT_JSON", text: "The body could not be read", err: err}
}

// tell logs what users of a homeserver met. The record of the refusal says it too, so this is for developers.
func (a *Authoriser) tell(what, server string, err error) {
	a.options.Logger.Debug(what, "homeserver", server, "err", err)
}

// refuse answers an error. One that is not a refusal is ours, and goes to the log under the id that the listener gave
// the request, which the person sees too.
func (a *Authoriser) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var answer *refusal
	if !errors.As(err, &answer) {
		id := r.Header.Get("X-Request-Id")
		a.options.Logger.Error("token request failed", "request", id, "err", err)
		answer = &refusal{
			status: http.StatusInternalServerError, code: "M_UNKNOWN",
			text: "Something went wrong on the server (request " + id + ")",
		}
	}
	a.counters.refused(answer.status)
	a.auditRefusal(a.options.ClientAddr(r), err, answer)
	refuse(w, answer)
}

// collapse makes one slash of several and drops those at the end: clients join URLs by plain concatenation.
func collapse(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	return path
}
