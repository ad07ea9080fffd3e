package matrix

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/standing"
)

// Where clients look up which members are no people (MSC4171).
var functionalMembers = event.Type{Type: "io.element.functional_members", Class: event.StateEventType}

const (
	joinTries = 3
	joinPause = 2 * time.Second
	// crowdLife is how long a count of members is believed.
	crowdLife = 24 * time.Hour
	// crowdSlack is how many departures may have been counted already when the members were listed.
	crowdSlack = 4
)

// A seat is a room at a homeserver whose bot is in it.
type seat struct {
	hs   *homeserver.Homeserver
	room id.RoomID
}

// moved acts on a change of a membership: invitations of the bot, and the departure of others.
func (b *Bot) moved(ctx context.Context, in inbox, e *event.Event) {
	var content struct {
		Membership event.Membership `json:"membership"`
	}
	_ = json.Unmarshal(e.Content.VeryRaw, &content)
	h, s := in.hs, seat{in.hs, e.RoomID}
	if in.device != nil && content.Membership == event.MembershipJoin {
		if err := in.device.Changed(ctx, id.UserID(e.GetStateKey())); err != nil && ctx.Err() == nil {
			b.log.Warn("devices of a user are not looked at again", "user", e.GetStateKey(), "err", err)
		}
	}
	switch who := id.UserID(e.GetStateKey()); {
	case who == h.Sender() && content.Membership == event.MembershipInvite:
		b.enqueue(ctx, string(e.RoomID), "", func(ctx context.Context) { b.invited(ctx, s, e.Sender) })
	case who == h.Sender() || content.Membership != event.MembershipLeave && content.Membership != event.MembershipBan:
	case b.deserted(s):
		b.enqueue(ctx, string(e.RoomID), "leave", func(ctx context.Context) { b.leaveIfAlone(ctx, s) })
	}
}

// welcome reports whether somebody may invite the bot of a homeserver.
func (b *Bot) welcome(h *homeserver.Homeserver, inviter id.UserID) bool {
	if !isUser(inviter) || !b.options.Servers.Permits(homeserver.ServerOf(inviter)) {
		return false
	}
	if len(b.options.Invite) == 0 {
		return h.Local(inviter)
	}
	return standing.Match(b.options.Invite, string(inviter))
}

// invited follows or declines an invitation.
func (b *Bot) invited(ctx context.Context, s seat, inviter id.UserID) {
	agent, err := s.hs.As(s.hs.Sender())
	if err != nil {
		return // no registration of ours has the sender; nobody can have invited it
	}
	if !b.welcome(s.hs, inviter) {
		b.counters.declined.Add(1)
		b.log.Info("invitation declined: bot.invite does not name who invites", "homeserver", s.hs.Name(), "server", homeserver.ServerOf(inviter))
		if err := agent.Leave(ctx, s.room, "You may not invite me here. The operator of my server decides who may."); err != nil {
			b.log.Debug("invitation not declined", "homeserver", s.hs.Name(), "err", err)
		}
		return
	}
	for try := 1; ; try++ {
		if err = agent.Join(ctx, s.room); err == nil {
			break
		}
		if try == joinTries || !errors.Is(err, homeserver.ErrUnavailable) || !pause(ctx, err, time.Duration(try)*joinPause) {
			b.counters.failures.Add(1)
			b.log.Warn("the bot cannot join a room that it is invited to: invite it again", "homeserver", s.hs.Name(), "room", s.room, "err", err)
			return
		}
	}
	b.counters.joined.Add(1)
	b.log.Info("the bot joined a room", "homeserver", s.hs.Name(), "room", s.room)
	b.introduce(ctx, agent, s)
}

// introduce marks the bot as no person, where it is beside people and may: clients then do not count it. In a room for two
// it is the other one.
func (b *Bot) introduce(ctx context.Context, agent homeserver.Agent, s seat) {
	members, err := agent.JoinedMembers(ctx, s.room)
	if err != nil || len(members) < 3 {
		return
	}
	var content struct {
		Members []id.UserID `json:"service_members"`
	}
	err = agent.State(ctx, s.room, functionalMembers, "", &content)
	if err != nil && homeserver.Code(err) != "M_NOT_FOUND" || slices.Contains(content.Members, s.hs.Sender()) {
		return
	}
	content.Members = append(content.Members, s.hs.Sender())
	if _, err := agent.SendState(ctx, s.room, functionalMembers, "", content); err != nil {
		b.log.Debug("the bot is not listed among the functional members", "homeserver", s.hs.Name(), "room", s.room, "err", err)
	}
}

// deserted counts a departure, and reports whether as many are gone as were there.
func (b *Bot) deserted(s seat) bool {
	now := b.now()
	left, known := b.crowds.Get(s, now)
	if !known || left <= 1 {
		return true
	}
	b.crowds.Put(s, left-1, now, now.Add(crowdLife))
	return false
}

// leaveIfAlone leaves a room in which nobody is and to which nobody is invited.
func (b *Bot) leaveIfAlone(ctx context.Context, s seat) {
	agent, err := s.hs.As(s.hs.Sender())
	if err != nil {
		return
	}
	members, err := agent.JoinedMembers(ctx, s.room)
	if err != nil || !slices.Contains(members, s.hs.Sender()) {
		return // not our room: it was seen through somebody else's eyes
	}
	others := 0
	for _, user := range members {
		if !b.one(user) {
			others++
		}
	}
	if others > 0 {
		now := b.now()
		b.crowds.Put(s, others-crowdSlack, now, now.Add(crowdLife))
		return
	}
	if awaited, err := b.awaitsOthers(ctx, agent, s.room); err != nil || awaited {
		return
	}
	if err := agent.Leave(ctx, s.room, ""); err != nil {
		b.counters.failures.Add(1)
		b.log.Warn("the bot cannot leave an empty room", "homeserver", s.hs.Name(), "room", s.room, "err", err)
		return
	}
	b.counters.left.Add(1)
	b.log.Info("the bot left an empty room", "homeserver", s.hs.Name(), "room", s.room)
}

// awaitsOthers reports whether somebody is invited.
func (b *Bot) awaitsOthers(ctx context.Context, agent homeserver.Agent, room id.RoomID) (bool, error) {
	state, err := agent.AllState(ctx, room)
	if err != nil {
		return false, err
	}
	for _, e := range state {
		var content struct {
			Membership event.Membership `json:"membership"`
		}
		if e.Type == event.StateMember && json.Unmarshal(e.Content.VeryRaw, &content) == nil && content.Membership == event.MembershipInvite {
			return true, nil
		}
	}
	return false, nil
}
