package homeserver

import (
	"context"
	"net/http"

	"maunium.net/go/mautrix"
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
