package matrix

import (
	"context"
	"strings"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/standing"
)

// A Bridge puts the calls of older clients (m.call.*) into the rooms' calls, where people agree to that.
type Bridge interface {
	BridgeRoom(ctx context.Context, room id.RoomID, on bool) error
	BridgeUser(ctx context.Context, user id.UserID, on bool) error
	// Bridged says whether a room's calls are bridged if it is encrypted, or if it is not.
	Bridged(room id.RoomID, encrypted bool) bool
	// Agreed says whether a user agreed to be spoken for, or does not want to be bridged at all.
	Agreed(user id.UserID) (on, refused bool)
	// Hear takes a decrypted event that is no message.
	Hear(h *homeserver.Homeserver, e *event.Event)
}

var typeEncryption = event.Type{Type: "m.room.encryption", Class: event.StateEventType}

// endsHere is what people must know before they bridge a call that is encrypted.
const endsHere = "The call of an older client is decrypted at my server, which could listen: end-to-end encryption ends there for everybody in such a call."

// bridge says whether calls of older clients are bridged here, or changes it: for the room if its moderators want it, for
// themselves if people do.
func (b *Bot) bridge(ctx context.Context, o *order) (answer, error) {
	if b.options.Bridge == nil {
		return say("Calls of older clients are not bridged on my server."), nil
	}
	words := strings.ToLower(strings.Join(o.words[1:], " "))
	on := strings.HasSuffix(words, "on")
	switch words {
	case "":
		return b.bridged(ctx, o)
	case "on", "off":
		if may, err := b.moderates(ctx, o); err != nil || !may {
			return sayModeratorsOnly, err
		}
		if err := b.options.Bridge.BridgeRoom(ctx, o.room, on); err != nil {
			return answer{}, err
		}
		return b.bridged(ctx, o)
	case "me on", "me off":
		if err := b.options.Bridge.BridgeUser(ctx, o.sender, on); err != nil {
			return answer{}, err
		}
		return b.personal(o.sender), nil
	}
	return say("Write " + prefix + " bridge on or off for this room, or " + prefix + " bridge me on or off for yourself."), nil
}

// bridged says how things are.
func (b *Bot) bridged(ctx context.Context, o *order) (answer, error) {
	agent, err := o.hs.As(o.hs.Sender())
	if err != nil {
		return answer{}, err
	}
	var content struct{}
	err = agent.State(ctx, o.room, typeEncryption, "", &content)
	if err != nil && homeserver.Code(err) != "M_NOT_FOUND" {
		return answer{}, err
	}
	encrypted := err == nil
	a := b.personal(o.sender)
	if !b.options.Bridge.Bridged(o.room, encrypted) {
		return say(append([]string{"Calls of older clients are not put into the calls of this room."}, a.lines...)...), nil
	}
	lines := []string{"Who calls in this room with an older client is put into its call."}
	if encrypted {
		lines = append(lines, endsHere)
	}
	return say(append(lines, a.lines...)...), nil
}

// personal says what a user agreed to.
func (b *Bot) personal(user id.UserID) answer {
	switch on, refused := b.options.Bridge.Agreed(user); {
	case on:
		return say("You agreed that I speak for you: with an older client you are in calls under your own name, and it rings when somebody calls you.")
	case refused:
		return say("You do not want to be bridged, so nobody's call reaches you by another kind of client.")
	}
	return say("I speak for you only in my own name. " + prefix + " bridge me on lets me do so in yours, off leaves you out altogether.")
}

var sayModeratorsOnly = say("Only those whose power level lets them remove others from this room may do that.")

// moderates reports whether whoever gave an order may remove others from the room.
func (b *Bot) moderates(ctx context.Context, o *order) (bool, error) {
	found, err := b.options.Standing(ctx, standing.Place{User: o.sender, Room: o.room})
	return err == nil && found.Standing == standing.Joined && found.Moderator, err
}

// Say has the bot say something in a room of its own accord.
func (b *Bot) Say(ctx context.Context, h *homeserver.Homeserver, room, text string) {
	b.send(ctx, h, id.RoomID(room), transaction(id.EventID(b.now().String()), text), notice(say(text)))
}

// Seal makes of an event what is sent into a room in the bot's name: the event itself where nothing is encrypted.
func (b *Bot) Seal(ctx context.Context, h *homeserver.Homeserver, room id.RoomID, kind event.Type, content any) (event.Type, any, error) {
	agent, err := h.As(h.Sender())
	if err != nil {
		return event.Type{}, nil, err
	}
	return b.seal(ctx, h, agent, room, kind, content)
}

// Device is the bot's at a homeserver; empty while it has none.
func (b *Bot) Device(h *homeserver.Homeserver) id.DeviceID {
	if d := b.device(h); d != nil {
		return d.ID()
	}
	return ""
}
