package livekit

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/coder/websocket"

	"callserver/signalling"
	"callserver/signalling/token"
)

const (
	maxIdentity   = 256       // bytes of an identity, a name or a room name
	maxMetadata   = 512 << 10 // bytes
	maxAttributes = 64 << 10  // bytes of all keys and values together

	// requestID names the header by which the listener numbers requests.
	requestID = "X-Request-Id"

	// firstMessage is how long a session may take to say its first word before the client is refused.
	firstMessage = 10 * time.Second
)

// statuses maps refusals to what clients of the LiveKit protocol make of an HTTP status. 404 is for a missing room
// alone: with any other text a client concludes that there is no server of this protocol and tries an older path.
var statuses = map[signalling.Code]int{
	signalling.Unauthenticated: http.StatusUnauthorized,
	signalling.NotAllowed:      http.StatusUnauthorized,
	signalling.Invalid:         http.StatusBadRequest,
	signalling.RoomNotFound:    http.StatusNotFound,
	signalling.Unavailable:     http.StatusServiceUnavailable,
	signalling.Overloaded:      http.StatusServiceUnavailable,
	signalling.Internal:        http.StatusInternalServerError,
}

// An admission is a client that passed authentication and validation.
type admission struct {
	grant token.Grant
	hello hello
}

// ServeHTTP serves the protocol relative to where it is mounted: /, /rtc, /rtc/v1, their validate paths and the
// RoomService. Doubled slashes are tolerated, since clients with a trailing slash in their URL send them.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	allowOrigin(w, r)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	path := "/" + strings.Join(strings.FieldsFunc(r.URL.Path, func(c rune) bool { return c == '/' }), "/")
	switch path {
	case "/":
		plain(w, http.StatusOK, "OK")
	case "/rtc":
		e.serveJoin(w, r, false)
	case "/rtc/v1":
		e.serveJoin(w, r, true)
	case "/rtc/validate":
		e.serveValidate(w, r, false)
	case "/rtc/v1/validate":
		e.serveValidate(w, r, true)
	default:
		if method, ok := strings.CutPrefix(path, twirpPrefix); ok {
			e.serveTwirp(w, r, method)
			return
		}
		http.NotFound(w, r)
	}
}

// allowOrigin lets pages of any origin call: the token is the authority, and no cookie is ever looked at.
func allowOrigin(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "*")
	if r.Method != http.MethodOptions {
		return
	}
	h.Set("Access-Control-Allow-Methods", "OPTIONS, HEAD, GET, POST, PATCH, DELETE")
	h.Set("Access-Control-Max-Age", "86400")
	// The wildcard does not cover Authorization (Fetch §4.9), so the headers asked for are named.
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
		h.Set("Vary", "Access-Control-Request-Headers")
	}
}

// serveValidate runs the checks of a join without its effects. Browsers hide the status of a failed upgrade, so
// their clients ask here why it failed.
func (e *Edge) serveValidate(w http.ResponseWriter, r *http.Request, v1 bool) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		plain(w, http.StatusMethodNotAllowed, "method not allowed")
		return
	}
	a, err := e.admit(r, v1)
	if err == nil {
		err = e.server.Check(a.grant)
	}
	if err != nil {
		e.refuse(w, r, err)
		return
	}
	plain(w, http.StatusOK, "success")
}

// serveJoin connects a client to a new or an existing session. The order matters to clients: everything that can
// fail does so before the upgrade, with an HTTP status, and the first message follows the upgrade at once.
func (e *Edge) serveJoin(w http.ResponseWriter, r *http.Request, v1 bool) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		if v1 { // not 404: clients would take it for a server without this path
			plain(w, http.StatusUpgradeRequired, "this is a websocket")
			return
		}
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if !e.enter() {
		e.refuse(w, r, errDraining)
		return
	}
	defer e.leave()

	a, err := e.admit(r, v1)
	if err != nil {
		e.refuse(w, r, err)
		return
	}
	c, err := e.open(r.Context(), a)
	if err != nil {
		e.refuse(w, r, err)
		return
	}
	first, err := receiveFirst(r.Context(), c)
	if err != nil {
		c.Close()
		e.refuse(w, r, signalling.Wrong(err))
		return
	}
	// Any Origin may connect: see allowOrigin.
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil { // Accept has answered
		c.Close()
		e.log.Debug("websocket refused", "err", err)
		return
	}
	ws.SetReadLimit(maxMessage)
	if write(e.alive, ws, first) != nil {
		c.Close()
		_ = ws.CloseNow()
		return
	}
	// The handler does not stay: its stack is deep, and holds the request. It is counted in itself until these are.
	e.running.Go(func() {
		defer e.recovered()
		pump(e.alive, ws, c)
	})
}

// recovered is deferred where the bytes of a websocket are read: what they make go wrong ends this websocket and no other.
func (e *Edge) recovered() {
	if what := recover(); what != nil {
		e.counts.panics.Add(1)
		e.log.Error("panic in websocket", "panic", what, "stack", string(debug.Stack()))
	}
}

func receiveFirst(ctx context.Context, c conn) (frame, error) {
	ctx, cancel := context.WithTimeout(ctx, firstMessage)
	defer cancel()
	return c.Receive(ctx)
}

// admit authenticates and validates a join without side effects.
func (e *Edge) admit(r *http.Request, v1 bool) (admission, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return admission{}, &signalling.Error{Code: signalling.Invalid, Text: "cannot parse query"}
	}
	grant, err := e.authenticate(r, query)
	if err != nil {
		return admission{}, err
	}
	if !grant.RoomJoin {
		return admission{}, errDenied
	}
	h, err := parseHello(query, v1)
	if err != nil {
		return admission{}, &signalling.Error{Code: signalling.Invalid, Text: err.Error()}
	}
	if h.companion != "" {
		grant.Identity += "#" + h.companion
		grant.CanSubscribe = false
	}
	if err := checkLimits(grant, h); err != nil {
		return admission{}, err
	}
	if (h.Metadata != "" || len(h.ParticipantAttributes) > 0) && !grant.CanUpdateOwnMetadata {
		return admission{}, errDenied
	}
	return admission{grant: grant, hello: h}, nil
}

// authenticate verifies the token of the Authorization header, or else of the query. Neither the token nor any part
// of it appears in the answer or in a log.
func (e *Edge) authenticate(r *http.Request, query url.Values) (token.Grant, error) {
	raw := query.Get("access_token")
	if auth := r.Header.Get("Authorization"); auth != "" {
		scheme, rest, _ := strings.Cut(auth, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return token.Grant{}, errDenied
		}
		raw = strings.TrimSpace(rest)
	}
	if raw == "" {
		return token.Grant{}, errDenied
	}
	grant, err := e.keys.Verify(raw, time.Now())
	if err != nil {
		return token.Grant{}, &signalling.Error{Code: signalling.Unauthenticated, Text: "invalid token: " + err.Error()}
	}
	return grant, nil
}

func checkLimits(g token.Grant, h hello) error {
	invalid := func(text string) error { return &signalling.Error{Code: signalling.Invalid, Text: text} }
	switch {
	case g.Identity == "":
		return invalid("participant identity cannot be empty")
	case len(g.Identity) > maxIdentity:
		return invalid("participant identity exceeds 256 bytes")
	case g.Room == "":
		return invalid("no room name")
	case len(g.Room) > maxIdentity:
		return invalid("room name exceeds 256 bytes")
	case len(g.Name) > maxIdentity:
		return invalid("participant name exceeds 256 bytes")
	case len(g.Metadata) > maxMetadata, len(h.Metadata) > maxMetadata:
		return invalid("metadata exceeds 512 kB")
	case attributesSize(g.Attributes) > maxAttributes, attributesSize(h.ParticipantAttributes) > maxAttributes:
		return invalid("attributes exceed 64 kB")
	}
	return nil
}

func attributesSize(attributes map[string]string) (n int) {
	for k, v := range attributes {
		n += len(k) + len(v)
	}
	return n
}

// refuse answers with the status and the plain text that clients match on.
func (e *Edge) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var refusal *signalling.Error
	if !errors.As(err, &refusal) {
		refusal = signalling.Wrong(err)
	}
	status := statuses[refusal.Code]
	e.counts.refused.Add(1)
	level := e.log.Debug
	if refusal.Code == signalling.Internal {
		level = e.log.Error
	}
	id := r.Header.Get(requestID)
	level("client refused", "path", r.URL.Path, "status", status, "request", id, "err", refusal)
	text := refusal.Text
	if refusal.Code == signalling.Internal && id != "" {
		text += " (request " + id + ")"
	}
	plain(w, status, text)
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}
