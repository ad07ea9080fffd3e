package homeserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.mau.fi/util/retryafter"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

var (
	// ErrNoPrivilege means that no registration allows what was asked.
	ErrNoPrivilege = errors.New("no registration allows it")
	// ErrUnavailable means that the homeserver gave no usable answer now and may give one later: it is down, slow, or
	// limits our rate.
	ErrUnavailable = errors.New("the homeserver does not answer")
)

// An Error is what a homeserver answered, or why it did not. It never contains a token, a delay id or a query.
type Error struct {
	Op     string        // what was asked: read state of !room:example.org
	Status int           // HTTP; 0 if there was no answer
	Code   string        // Matrix errcode; empty if the answer had none
	Text   string        // for people, from the homeserver
	Retry  time.Duration // how long to wait, if the homeserver said so
	Err    error         // set if there was no answer, or one that could not be read
	room   id.RoomID     // that was asked about; empty if it was none
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Op + ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s: the homeserver answers %d %s: %.200q", e.Op, e.Status, e.Code, e.Text)
}

func (e *Error) Unwrap() error { return e.Err }

// Is makes every failure that may pass an [ErrUnavailable].
func (e *Error) Is(target error) bool { return target == ErrUnavailable && e.passing() }

func (e *Error) passing() bool {
	return e.Err != nil || e.Status == http.StatusTooManyRequests || e.Status >= http.StatusInternalServerError
}

// stalled is the room about which a homeserver that may well be there did not answer in time; empty if it is not about one, or
// nobody took the connection.
func (e *Error) stalled() id.RoomID {
	var at *net.OpError
	if !errors.Is(e.Err, context.DeadlineExceeded) || errors.As(e.Err, &at) && at.Op == "dial" {
		return ""
	}
	return e.room
}

// gone reports an answer of a proxy whose homeserver is not there.
func (e *Error) gone() bool {
	if e.Code == "M_BAD_STATUS" || strings.HasPrefix(e.Code, "M_CONNECTION_") {
		return false // of a ping: it is there, and does not reach us
	}
	return e.Status == http.StatusBadGateway || e.Status == http.StatusServiceUnavailable || e.Status == http.StatusGatewayTimeout
}

// Code returns the Matrix errcode of a homeserver's answer, or "".
func Code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Unrecognized reports that the homeserver has no such endpoint.
func Unrecognized(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Code == "M_UNRECOGNIZED" || e.Code == "" && (e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed))
}

func newDialer() *net.Dialer { return &net.Dialer{Timeout: dialTimeout} }

// An identity is in whose name a request is made.
type identity struct {
	token  string
	user   id.UserID   // asserted by an application service; empty for the token's own
	device id.DeviceID // of the user, also asserted; empty for none
	own    bool        // the token is the device's own: nothing is asserted
}

// request asks the homeserver for one thing and decodes the answer into out unless that is nil. The parts of the path
// are escaped; none may be a dot segment, which proxies resolve.
func (h *Homeserver) request(ctx context.Context, who identity, op, method string, query url.Values, in, out any, path ...any) error {
	err := h.once(ctx, who, op, method, query, in, out, path...)
	var answer *Error
	if errors.As(err, &answer) && answer.Code == "M_FORBIDDEN" && strings.Contains(answer.Text, "has not registered this user") && h.Own(who.user) {
		if h.register(ctx, who) == nil {
			return h.once(ctx, who, op, method, query, in, out, path...)
		}
	}
	return err
}

// register has the homeserver know a user of ours. One that it knows is fine.
func (h *Homeserver) register(ctx context.Context, who identity) error {
	localpart, _, _ := strings.Cut(strings.TrimPrefix(string(who.user), "@"), ":")
	err := h.once(ctx, identity{token: who.token}, "register a user", http.MethodPost, nil, map[string]any{
		"type": mautrix.AuthTypeAppservice, "username": localpart, "inhibit_login": true,
	}, nil, "v3", "register")
	if Code(err) == "M_USER_IN_USE" {
		return nil
	}
	return err
}

// once is request without that.
func (h *Homeserver) once(ctx context.Context, who identity, op, method string, query url.Values, in, out any, path ...any) error {
	if err := h.permit(op, path); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, h.options.Timeout)
	defer cancel()
	release, err := h.slots.take(wait, roomOf(path))
	if err != nil {
		h.breaker.abandoned()
		return &Error{Op: op, Err: err}
	}
	defer release()
	return h.attempt(ctx, wait, who, op, method, query, in, out, path)
}

// permit refuses what is no path, and what the breaker spares the homeserver.
func (h *Homeserver) permit(op string, path []any) error {
	for _, part := range path {
		if s := strings.TrimSpace(fmt.Sprint(part)); s == "." || s == ".." {
			return &Error{Op: op, Status: http.StatusBadRequest, Code: "M_INVALID_PARAM", Text: "an id is a dot segment"}
		}
	}
	if !h.breaker.allow(h.options.Now()) {
		h.counters.spared.Add(1)
		return &Error{Op: op, Err: fmt.Errorf("%w: it did not a moment ago", ErrUnavailable)}
	}
	return nil
}

// attempt sends what was permitted and notes how it ended. limited is the caller's context with the time-out.
func (h *Homeserver) attempt(caller, limited context.Context, who identity, op, method string, query url.Values, in, out any, path []any) error {
	h.counters.requests.Add(1)
	sent := h.breaker.mark()
	err := translate(op, h.send(limited, who, method, query, in, out, path))
	if err == nil {
		h.judge(caller, sent, nil)
		return nil
	}
	err.room = roomOf(path)
	h.judge(caller, sent, err)
	return err
}

func (h *Homeserver) send(ctx context.Context, who identity, method string, query url.Values, in, out any, path []any) error {
	client := Agent{h, who}.client()
	_, err := client.MakeFullRequest(ctx, mautrix.FullRequest{
		Method: method,
		URL: client.BuildURLWithFullQuery(mautrix.ClientURLPath(path), func(q url.Values) {
			for name, values := range query {
				q[name] = values
			}
		}),
		RequestJSON: in, ResponseJSON: out, MaxAttempts: 1, SensitiveContent: true,
	})
	return err
}

// client is who makes the agent's requests.
func (a Agent) client() *mautrix.Client {
	asserts := a.who.user != "" && !a.who.own
	return &mautrix.Client{
		HomeserverURL: a.hs.base, AccessToken: a.who.token, UserAgent: "callserver", Client: a.hs.http,
		UserID: a.who.user, SetAppServiceUserID: asserts, DeviceID: a.who.device, SetAppServiceDeviceID: asserts && a.who.device != "",
		ResponseSizeLimit: maxAnswer, IgnoreRateLimit: true,
	}
}

// judge keeps the breaker and the counters: sent is the breaker's mark at the time. That a caller went away says nothing about
// the homeserver.
func (h *Homeserver) judge(caller context.Context, sent mark, err *Error) {
	switch {
	case err != nil && caller.Err() != nil:
		h.breaker.abandoned()
	case err != nil && err.passing():
		h.counters.failures.Add(1)
		if (err.Err != nil || err.gone()) && h.breaker.failed(h.options.Now(), sent, err.stalled()) {
			h.log.Warn("homeserver does not answer", "err", err)
		} else if err.Err == nil && !err.gone() {
			h.breaker.succeeded() // it is there
		}
	default:
		h.breaker.succeeded()
	}
}

// translate makes our error of mautrix's, which may carry the URL.
func translate(op string, err error) *Error {
	if err == nil {
		return nil
	}
	var answer mautrix.HTTPError
	if !errors.As(err, &answer) {
		return &Error{Op: op, Err: bare(err)}
	}
	if answer.Response == nil || answer.WrappedError != nil {
		return &Error{Op: op, Err: bare(answer.WrappedError)}
	}
	e := &Error{Op: op, Status: answer.Response.StatusCode, Retry: retryafter.Parse(answer.Response.Header.Get("Retry-After"), 0)}
	if r := answer.RespError; r != nil {
		e.Code, e.Text = r.ErrCode, r.Err
		if ms, ok := r.ExtraData["retry_after_ms"].(float64); ok && e.Retry == 0 {
			e.Retry = time.Duration(ms) * time.Millisecond
		}
	}
	return e
}

// bare takes the URL out of an error: ids of users and delayed events are in it.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	if err == nil {
		return errors.New("no answer")
	}
	return err
}
