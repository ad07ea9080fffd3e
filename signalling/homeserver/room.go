package homeserver

import (
	"context"
	"net/http"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// RoomOf resolves an alias. M_NOT_FOUND means that there is none.
func (a Agent) RoomOf(ctx context.Context, alias id.RoomAlias) (id.RoomID, error) {
	var r mautrix.RespAliasResolve
	err := a.hs.request(ctx, a.who, "resolve "+string(alias), http.MethodGet, nil, nil, &r, "v3", "directory", "room", alias)
	return r.RoomID, err
}

// CreatePrivateRoom makes a room that only the agent is in, and that stays on this homeserver.
func (a Agent) CreatePrivateRoom(ctx context.Context, alias, name string) (id.RoomID, error) {
	var r mautrix.RespCreateRoom
	err := a.hs.request(ctx, a.who, "create a room", http.MethodPost, nil, &mautrix.ReqCreateRoom{
		RoomAliasName: alias, Name: name, Preset: "private_chat", CreationContent: map[string]any{"m.federate": false},
	}, &r, "v3", "createRoom")
	return r.RoomID, err
}

// CreateDirectRoom makes a room for the agent and one other user, who is invited and sees everything from the invitation
// on. Nobody but the agent may invite others into it.
func (a Agent) CreateDirectRoom(ctx context.Context, user id.UserID) (id.RoomID, error) {
	var r mautrix.RespCreateRoom
	visible := &event.Event{Type: event.StateHistoryVisibility, Content: event.Content{
		Parsed: &event.HistoryVisibilityEventContent{HistoryVisibility: event.HistoryVisibilityInvited},
	}}
	err := a.hs.request(ctx, a.who, "create a room for two", http.MethodPost, nil, &mautrix.ReqCreateRoom{
		Preset: "private_chat", IsDirect: true, Invite: []id.UserID{user}, InitialState: []*event.Event{visible},
		PowerLevelOverride: &event.PowerLevelsEventContent{InvitePtr: new(100)},
	}, &r, "v3", "createRoom")
	return r.RoomID, err
}

// Leave takes the agent out of a room, or declines an invitation. The reason is for people; it may be empty.
func (a Agent) Leave(ctx context.Context, room id.RoomID, reason string) error {
	body := map[string]string{}
	if reason != "" {
		body["reason"] = reason
	}
	return a.hs.request(ctx, a.who, "leave "+string(room), http.MethodPost, nil, body, nil, "v3", "rooms", room, "leave")
}

// Rename changes the name that the user of an agent that [Homeserver.As] made has in one room. Empty: it has the same there as everywhere else.
func (a Agent) Rename(ctx context.Context, room id.RoomID, name string) error {
	var member map[string]any
	if err := a.State(ctx, room, event.StateMember, string(a.who.user), &member); err != nil {
		return err
	}
	if member["membership"] != string(event.MembershipJoin) {
		return nil // nobody sees it
	}
	if name == "" {
		var profile struct {
			Name string `json:"displayname"`
		}
		err := a.hs.request(ctx, a.who, "read the name of "+string(a.who.user), http.MethodGet, nil, nil, &profile, "v3", "profile", a.who.user, "displayname")
		if err != nil && Code(err) != "M_NOT_FOUND" {
			return err
		}
		name = profile.Name
	}
	if was, _ := member["displayname"].(string); was == name {
		return nil
	}
	delete(member, "displayname")
	if name != "" {
		member["displayname"] = name
	}
	_, err := a.SendState(ctx, room, event.StateMember, string(a.who.user), member)
	return err
}

// Send sends an event that is no state and returns its id. Sending again under the same transaction id sends nothing and
// returns the same, for as long as the homeserver remembers it.
func (a Agent) Send(ctx context.Context, room id.RoomID, kind event.Type, transaction string, content any) (id.EventID, error) {
	var r mautrix.RespSendEvent
	err := a.hs.request(ctx, a.who, "send "+kind.Type+" to "+string(room), http.MethodPut, nil, content, &r,
		"v3", "rooms", room, "send", kind.Type, transaction)
	return r.EventID, err
}

// AccountData reads what the user of an agent that [Homeserver.As] made keeps at the homeserver under a name. M_NOT_FOUND
// means nothing.
func (a Agent) AccountData(ctx context.Context, name string, out any) error {
	return a.hs.request(ctx, a.who, "read account data "+name, http.MethodGet, nil, nil, out, "v3", "user", a.who.user, "account_data", name)
}

// SetAccountData replaces it.
func (a Agent) SetAccountData(ctx context.Context, name string, content any) error {
	return a.hs.request(ctx, a.who, "write account data "+name, http.MethodPut, nil, content, nil, "v3", "user", a.who.user, "account_data", name)
}
