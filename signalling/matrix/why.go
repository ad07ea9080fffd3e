package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

// directs is the account data that says which rooms are for two (Client-Server API, Direct messaging).
const directs = "m.direct"

// A Refusal is why a user got no token for a call.
type Refusal struct {
	At     time.Time
	Words  string // what was wrong and what helps, as sentences
	Room   string // its id
	Device string
	Addr   netip.Addr // the user's, as this server saw it
}

// why tells the asker, and nobody else, why the last attempt to join failed: in a room for the two of them, because it
// names the asker's network.
func (b *Bot) why(ctx context.Context, o *order) (answer, error) {
	room, err := b.direct(ctx, o.hs, o.sender)
	switch {
	case err != nil:
		return answer{}, err
	case room == o.room:
		return b.reason(o.sender), nil
	case !b.send(ctx, o.hs, room, transaction(o.event, "why"), notice(b.reason(o.sender))):
		return say("I could not write to you alone. Try again in a moment."), nil
	}
	return say("I have written to you alone: look at your direct messages, or invitations."), nil
}

// reason is what is known of a user's last refusal.
func (b *Bot) reason(user id.UserID) answer {
	r, ok := b.options.Refusal(string(user))
	if !ok {
		return say("I know of no refusal of yours within a day, or since I was started. If a call did not begin, your client did not reach this server, or the connection for sound and picture failed: its own message says more.")
	}
	from := "an unknown address"
	if r.Addr.IsValid() {
		from = r.Addr.String()
	}
	device := ""
	if r.Device != "" {
		device = " with your device " + r.Device
	}
	return say(
		fmt.Sprintf("At %s you were not let into the call of the room %s, which you asked for%s from %s.", moment(r.At, b.now()), r.Room, device, from),
		r.Words,
	)
}

// direct returns the room that the bot made for itself and a user, or makes one. Rooms that others made may have more
// people in them later.
func (b *Bot) direct(ctx context.Context, h *homeserver.Homeserver, user id.UserID) (id.RoomID, error) {
	agent, err := h.As(h.Sender())
	if err != nil {
		return "", err
	}
	rooms := map[id.UserID][]id.RoomID{}
	if err := agent.AccountData(ctx, directs, &rooms); err != nil && homeserver.Code(err) != "M_NOT_FOUND" {
		return "", err
	}
	for _, room := range rooms[user] {
		if forTwo(ctx, agent, room, h.Sender(), user) {
			return room, nil
		}
	}
	room, err := agent.CreateDirectRoom(ctx, user)
	if err != nil {
		return "", err
	}
	rooms[user] = []id.RoomID{room}
	if err := agent.SetAccountData(ctx, directs, rooms); err != nil {
		b.log.Warn("the bot will not find the room for two again", "homeserver", h.Name(), "room", room, "err", err)
	}
	return room, nil
}

// forTwo reports whether nobody but the bot and the user is in a room, and the user is, or is invited.
func forTwo(ctx context.Context, agent homeserver.Agent, room id.RoomID, bot, user id.UserID) bool {
	members, err := agent.JoinedMembers(ctx, room)
	if err != nil || !slices.Contains(members, bot) {
		return false
	}
	if slices.ContainsFunc(members, func(m id.UserID) bool { return m != bot && m != user }) {
		return false
	}
	membership, err := agent.Membership(ctx, room, user)
	return err == nil && (membership == event.MembershipJoin || membership == event.MembershipInvite)
}
