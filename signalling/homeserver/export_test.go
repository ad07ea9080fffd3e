package homeserver

import (
	"context"
	"net/http"

	"maunium.net/go/mautrix/id"
)

// Act does to a room what an agent of ours never needs to: invite, kick, ban, unban.
func (a Agent) Act(ctx context.Context, room id.RoomID, what string, user id.UserID) error {
	body := map[string]string{"user_id": string(user)}
	return a.hs.request(ctx, a.who, what, http.MethodPost, nil, body, nil, "v3", "rooms", room, what)
}
