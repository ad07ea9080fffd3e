package matrix

import (
	"context"
	"fmt"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
	"callserver/signalling/matrixrtc/standing"
)

const (
	ringTime = 30 * time.Second // that clients ring
	ringRest = time.Minute      // before the same person is rung again in the same room
)

var (
	typeMember       = event.Type{Type: member.TypeState, Class: event.StateEventType}
	typeNotification = event.Type{Type: member.TypeNotification, Class: event.MessageEventType}
)

// ring has the client of somebody in the room ring, in the name of the asker, who is in the call. Where this server may not
// speak for the asker, or the asker is in no call, or the room is encrypted, the bot asks by a message.
func (b *Bot) ring(ctx context.Context, o *order) (answer, error) {
	user, why := wanted(o)
	if user == "" {
		return why, nil
	}
	for _, p := range b.people(o.room) {
		if p.user == user {
			return say(string(user) + " is in the call already."), nil
		}
	}
	found, err := b.options.Standing(ctx, standing.Place{User: user, Room: o.room})
	switch {
	case err != nil:
		return answer{}, err
	case found.Standing != standing.Joined:
		return say(string(user) + " is not in this room."), nil
	}
	now, place := b.now(), standing.Place{User: user, Room: o.room}
	if _, lately := b.rung.Get(place, now); lately {
		return say(fmt.Sprintf("%s was asked within the last minute.", user)), nil
	}
	b.rung.Put(place, struct{}{}, now, now.Add(ringRest))
	if b.ringAs(ctx, o, user) {
		return say("Ringing " + string(user) + "."), nil
	}
	m := message{
		Type: "m.text", Format: "org.matrix.custom.html", Mentions: mentions{Users: []id.UserID{user}}, // a notice would make no sound
		Body: fmt.Sprintf("%s: %s asks you to join the call in this room.", user, o.sender),
	}
	m.HTML = answer{lines: []string{m.Body}}.html()
	if !b.send(ctx, o.hs, o.room, transaction(o.event, "ring"), m) {
		return say("The homeserver does not take the message. Try again in a moment."), nil
	}
	return answer{}, nil // the message says it
}

// wanted is whom an order means, or the answer that asks back.
func wanted(o *order) (id.UserID, answer) {
	if len(o.users) != 1 {
		return "", say(fmt.Sprintf("Whom? Write %s ring and one full user id, or mention somebody.", prefix))
	}
	return o.users[0], answer{}
}

// ringAs sends the ring, as the asker, and reports whether that was possible. Where the room is encrypted, the bot rings, who
// alone has keys; some clients may not heed who is in no call, so that is not enough.
func (b *Bot) ringAs(ctx context.Context, o *order, user id.UserID) (enough bool) {
	agent, err := o.hs.As(o.hs.Sender())
	if err != nil {
		return false
	}
	asker, ok := b.membership(ctx, agent, o)
	if !ok {
		return false
	}
	kind, content, err := b.seal(ctx, o.hs, agent, o.room, typeNotification, member.NewRing(string(user), asker.Event, asker.Intent, b.now(), ringTime))
	open := kind == typeNotification
	if err == nil && open {
		agent, err = o.hs.As(o.sender)
	}
	if err == nil {
		_, err = agent.Send(ctx, o.room, kind, transaction(o.event, "ringing"), content)
	}
	if err != nil {
		b.log.Debug("ring not sent", "homeserver", o.hs.Name(), "room", o.room, "err", err)
	}
	return err == nil && open
}

// membership finds by which membership event the asker is in the call.
func (b *Bot) membership(ctx context.Context, agent homeserver.Agent, o *order) (*member.Member, bool) {
	state, err := agent.AllState(ctx, o.room)
	if err != nil {
		return nil, false
	}
	for _, e := range state {
		if e.Type != typeMember || e.Sender != o.sender {
			continue
		}
		m, err := member.Parse(member.Event{
			Type: e.Type.Type, StateKey: e.StateKey, Sender: string(e.Sender), ID: string(e.ID),
			Content: e.Content.VeryRaw, Sent: time.UnixMilli(e.Timestamp),
		})
		if err == nil && !m.Expired(b.now()) && m.Event != "" {
			return m, true
		}
	}
	return nil, false
}
