package homeserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// featureDelayed is how a homeserver says that it has delayed events (MSC4140). One that has not ignores the delay and
// sends the event at once.
const featureDelayed = "org.matrix.msc4140"

// ErrNoDelay means that the homeserver has no delayed events.
var ErrNoDelay = errors.New("the homeserver has no delayed events (MSC4140)")

// versionsLife is how long an answer about features is believed.
const versionsLife = 10 * time.Minute

// versions remembers what the homeserver says it can do.
type versions struct {
	mu    sync.Mutex
	known mautrix.RespVersions
	until time.Time
}

// Supports reports whether the homeserver advertises an unstable feature, by its name in /versions.
func (h *Homeserver) Supports(ctx context.Context, feature string) (bool, error) {
	now := h.options.Now()
	h.versions.mu.Lock()
	known, fresh := h.versions.known, now.Before(h.versions.until)
	h.versions.mu.Unlock()
	if !fresh {
		known = mautrix.RespVersions{}
		if err := h.request(ctx, identity{}, "ask for features", http.MethodGet, nil, nil, &known, "versions"); err != nil {
			return false, err
		}
		h.versions.mu.Lock()
		h.versions.known, h.versions.until = known, now.Add(versionsLife)
		h.versions.mu.Unlock()
	}
	return known.UnstableFeatures[feature], nil
}

// Delays reports whether the homeserver has delayed events.
func (h *Homeserver) Delays(ctx context.Context) (bool, error) {
	return h.Supports(ctx, featureDelayed)
}

// DelayState schedules a state event (MSC4140), or fails with [ErrNoDelay]. For a delay that is longer than it allows,
// Synapse answers 400 ORG.MATRIX.MSC4140_DELAY_TOO_LARGE (1.163), or 403 M_FORBIDDEN.
func (a Agent) DelayState(ctx context.Context, room id.RoomID, kind event.Type, key string, content any, delay time.Duration) (id.DelayID, error) {
	op := "schedule " + kind.Type + " in " + string(room)
	able, err := a.hs.Supports(ctx, featureDelayed)
	if err != nil {
		return "", err
	}
	if !able {
		return "", fmt.Errorf("%s: %w", op, ErrNoDelay)
	}
	var r mautrix.RespSendEvent
	query := url.Values{"org.matrix.msc4140.delay": {strconv.FormatInt(delay.Milliseconds(), 10)}}
	if err := a.hs.request(ctx, a.who, op, http.MethodPut, query, content, &r, "v3", "rooms", room, "state", kind.Type, key); err != nil {
		return "", err
	}
	if r.UnstableDelayID == "" {
		return "", &Error{Op: op, Err: errors.New("the answer has no delay id: the event was sent at once")}
	}
	return r.UnstableDelayID, nil
}

// What can be done with a delayed event. Once it is sent or cancelled, all of them answer M_NOT_FOUND.

// RestartDelayed begins the delay anew.
func (a Agent) RestartDelayed(ctx context.Context, delay id.DelayID) error {
	return a.manage(ctx, delay, event.DelayActionRestart)
}

// CancelDelayed forgets the event.
func (a Agent) CancelDelayed(ctx context.Context, delay id.DelayID) error {
	return a.manage(ctx, delay, event.DelayActionCancel)
}

// SendDelayed sends the event at once.
func (a Agent) SendDelayed(ctx context.Context, delay id.DelayID) error {
	return a.manage(ctx, delay, event.DelayActionSend)
}

func (a Agent) manage(ctx context.Context, delay id.DelayID, action event.DelayAction) error {
	op := string(action) + " a delayed event"
	if delay == "" {
		return &Error{Op: op, Status: http.StatusBadRequest, Code: "M_INVALID_PARAM", Text: "no delay id"}
	}
	path := []any{"unstable", "org.matrix.msc4140", "delayed_events", delay}
	err := a.hs.request(ctx, a.who, op, http.MethodPost, nil, nil, nil, append(path, action)...)
	if Unrecognized(err) { // before the summer of 2026 the action was in the body
		err = a.hs.request(ctx, a.who, op, http.MethodPost, nil, mautrix.ReqUpdateDelayedEvent{Action: action}, nil, path...)
	}
	return err
}

// A Scheduled is a delayed event that has been neither sent nor cancelled.
type Scheduled struct {
	Room     string
	Type     string
	StateKey *string // nil if it is no state event
	Content  json.RawMessage
	Delay    time.Duration
}

// Scheduled reads a delayed event. M_NOT_FOUND means that the agent's user has none with this id.
func (a Agent) Scheduled(ctx context.Context, delay id.DelayID) (Scheduled, error) {
	const op = "read a delayed event"
	if delay == "" {
		return Scheduled{}, &Error{Op: op, Status: http.StatusBadRequest, Code: "M_INVALID_PARAM", Text: "no delay id"}
	}
	var r struct {
		Room     string          `json:"room_id"`
		Type     string          `json:"type"`
		StateKey *string         `json:"state_key"`
		Content  json.RawMessage `json:"content"`
		Delay    int64           `json:"delay_ms"`
	}
	err := a.hs.request(ctx, a.who, op, http.MethodGet, nil, nil, &r, "unstable", "org.matrix.msc4140", "delayed_events", delay)
	return Scheduled{r.Room, r.Type, r.StateKey, r.Content, time.Duration(r.Delay) * time.Millisecond}, err
}
