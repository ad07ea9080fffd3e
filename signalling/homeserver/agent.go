package homeserver

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// An Agent makes requests in the name of one user. It is a value, for as many requests as one likes. Errors of its
// methods are [*Error]; see [ErrUnavailable].
type Agent struct {
	hs  *Homeserver
	who identity
}

// As returns an agent for the sender user of a registration or for a user that one covers, or [ErrNoPrivilege].
func (h *Homeserver) As(user id.UserID) (Agent, error) {
	if !h.Local(user) {
		return Agent{}, fmt.Errorf("act as %s: %w: it is no user of %s", user, ErrNoPrivilege, h.Name())
	}
	r := h.registration(func(r *Registration) bool { return id.NewUserID(r.SenderLocalpart, h.Name()) == user })
	for _, covers := range []func(*Registration, id.UserID) bool{(*Registration).owns, (*Registration).covers} {
		if r == nil {
			r = h.registration(func(r *Registration) bool { return covers(r, user) })
		}
	}
	if r == nil {
		return Agent{}, fmt.Errorf("act as %s: %w", user, ErrNoPrivilege)
	}
	// Always with user_id: without it Dendrite knows no full user id for the sender.
	return Agent{h, identity{token: r.AppToken, user: user}}, nil
}

// User is in whose name the agent acts; empty if only its token says.
func (a Agent) User() id.UserID { return a.who.user }

// Bearer returns an agent for the owner of an access token, which it neither keeps nor logs.
func (h *Homeserver) Bearer(token string) Agent { return Agent{h, identity{token: token}} }

// Anyone returns an agent without a token. Homeservers let it manage delayed events, whose ids are secrets, at a rate
// that is limited by address.
func (h *Homeserver) Anyone() Agent { return Agent{hs: h} }

// An Account is whose a token is.
type Account struct {
	User   id.UserID
	Device id.DeviceID // empty for application services
	Guest  bool
}

// Whoami asks whose token the agent's is. An answer that names a user of another server is an error.
func (a Agent) Whoami(ctx context.Context) (Account, error) {
	var r struct {
		User   id.UserID   `json:"user_id"`
		Device id.DeviceID `json:"device_id"`
		Guest  bool        `json:"is_guest"`
	}
	const op = "ask whose token it is"
	if err := a.hs.request(ctx, a.who, op, http.MethodGet, nil, nil, &r, "v3", "account", "whoami"); err != nil {
		return Account{}, err
	}
	if !a.hs.Local(r.User) {
		return Account{}, &Error{Op: op, Err: fmt.Errorf("the answer %q is no user of %s", r.User, a.hs.Name())}
	}
	return Account{r.User, r.Device, r.Guest}, nil
}

// A Profile is how a user is shown in a room.
type Profile struct {
	Name string `json:"display_name"`
}

// JoinedProfiles lists who is in the room, and how they are shown there. The agent must be in it.
func (a Agent) JoinedProfiles(ctx context.Context, room id.RoomID) (map[id.UserID]Profile, error) {
	var r struct {
		Joined map[id.UserID]json.RawMessage `json:"joined"`
	}
	if err := a.hs.request(ctx, a.who, "list members of "+string(room), http.MethodGet, nil, nil, &r, "v3", "rooms", room, "joined_members"); err != nil {
		return nil, err
	}
	profiles := make(map[id.UserID]Profile, len(r.Joined))
	for user, raw := range r.Joined {
		var p Profile
		_ = json.Unmarshal(raw, &p) // whatever users wrote there, they are in the room
		profiles[user] = p
	}
	return profiles, nil
}

// JoinedMembers lists who is in the room. The agent must be in it.
func (a Agent) JoinedMembers(ctx context.Context, room id.RoomID) ([]id.UserID, error) {
	joined, err := a.JoinedProfiles(ctx, room)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(joined)), nil
}

// Membership reads the membership of one user in the room, at a cost that does not depend on its size. It is empty for
// somebody who never was in it. An agent that may not see the room gets M_FORBIDDEN.
func (a Agent) Membership(ctx context.Context, room id.RoomID, user id.UserID) (event.Membership, error) {
	var m struct {
		Membership event.Membership `json:"membership"`
	}
	err := a.State(ctx, room, event.StateMember, string(user), &m)
	if Code(err) == "M_NOT_FOUND" {
		return "", nil
	}
	return m.Membership, err
}

// State reads the content of one state event into out. M_NOT_FOUND means that there is none.
func (a Agent) State(ctx context.Context, room id.RoomID, kind event.Type, key string, out any) error {
	return a.hs.request(ctx, a.who, "read "+kind.Type+" of "+string(room), http.MethodGet, nil, nil, out,
		"v3", "rooms", room, "state", kind.Type, key)
}

// StateEvent reads one state event whole: who sent it counts in the creation event. M_NOT_FOUND means that there is none.
func (a Agent) StateEvent(ctx context.Context, room id.RoomID, kind event.Type, key string) (*event.Event, error) {
	var raw json.RawMessage
	op := "read " + kind.Type + " of " + string(room)
	err := a.hs.request(ctx, a.who, op, http.MethodGet, url.Values{"format": {"event"}}, nil, &raw, "v3", "rooms", room, "state", kind.Type, key)
	if err != nil {
		return nil, err
	}
	e, err := parseEvent(raw, event.StateEventType)
	if err != nil {
		return nil, &Error{Op: op, Err: err}
	}
	return e, nil
}

// AllState reads the current state of the room. Events that are none are left out and counted.
func (a Agent) AllState(ctx context.Context, room id.RoomID) ([]*event.Event, error) {
	var raw []json.RawMessage
	if err := a.hs.request(ctx, a.who, "read state of "+string(room), http.MethodGet, nil, nil, &raw, "v3", "rooms", room, "state"); err != nil {
		return nil, err
	}
	events := make([]*event.Event, 0, len(raw))
	for _, r := range raw {
		e, err := parseEvent(r, event.StateEventType)
		if err != nil || e.StateKey == nil {
			a.hs.counters.badEvents.Add(1)
			continue
		}
		e.RoomID = room // not in the answer of every homeserver
		events = append(events, e)
	}
	return events, nil
}

// SendState writes a state event and returns its id.
func (a Agent) SendState(ctx context.Context, room id.RoomID, kind event.Type, key string, content any) (id.EventID, error) {
	var r mautrix.RespSendEvent
	err := a.hs.request(ctx, a.who, "write "+kind.Type+" in "+string(room), http.MethodPut, nil, content, &r,
		"v3", "rooms", room, "state", kind.Type, key)
	return r.EventID, err
}

// Join brings the agent into a room that it is invited to or that is open to it.
func (a Agent) Join(ctx context.Context, room id.RoomID) error {
	return a.hs.request(ctx, a.who, "join "+string(room), http.MethodPost, nil, nil, nil, "v3", "rooms", room, "join")
}

// Ping has the homeserver reach this server (Client-Server API, Application Services), upon which it also pushes what it
// kept back while it could not. M_CONNECTION_FAILED, M_CONNECTION_TIMEOUT and M_BAD_STATUS mean that it cannot.
func (h *Homeserver) Ping(ctx context.Context) error {
	r := h.receiver()
	if r == nil {
		return fmt.Errorf("ping: %w", ErrNoPrivilege)
	}
	err := h.request(ctx, identity{token: r.AppToken}, "have the homeserver reach this server", http.MethodPost, nil, struct{}{}, nil, "v1", "appservice", r.ID, "ping")
	if err == nil {
		h.heard.Store(true)
	}
	return err
}

// JoinedRooms lists the rooms that the agent is in.
func (a Agent) JoinedRooms(ctx context.Context) ([]id.RoomID, error) {
	var r mautrix.RespJoinedRooms
	err := a.hs.request(ctx, a.who, "list rooms", http.MethodGet, nil, nil, &r, "v3", "joined_rooms")
	return r.JoinedRooms, err
}

// IsJoined asks whether any user, of this homeserver or another, is in a room that the homeserver is in (MSC4502). It
// fails with [ErrNoPrivilege] if no registration has the scope; [Unrecognized] and M_FORBIDDEN mean that the homeserver
// does not know the question or did not grant the scope.
func (h *Homeserver) IsJoined(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	r := h.registration(func(r *Registration) bool { return slices.Contains(r.Scopes, scopeIsJoined) })
	if r == nil {
		return false, fmt.Errorf("ask whether %s is in %s: %w", user, room, ErrNoPrivilege)
	}
	var joined struct {
		Joined bool `json:"joined"`
	}
	err := h.request(ctx, identity{token: r.AppToken}, "ask who is in "+string(room), http.MethodGet,
		url.Values{"mxid": {string(user)}}, nil, &joined,
		"unstable", "io.element.msc4502", "rooms", room, "is_joined")
	return joined.Joined && err == nil, err
}
