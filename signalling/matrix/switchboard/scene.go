package switchboard

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

var (
	typeEncryption = event.Type{Type: "m.room.encryption", Class: event.StateEventType}
	typeFunctional = event.Type{Type: "io.element.functional_members", Class: event.StateEventType}
)

// errNobodySees means that this server has nobody in a room.
var errNobodySees = errors.New("nobody of this server sees the room")

// A scene is a room, as far as it matters to a call that begins.
type scene struct {
	encrypted bool
	bot       bool                             // is there
	people    map[id.UserID]homeserver.Profile // joined, without those that are no people
}

// look reads a room through the bot's eyes, or those of a user for whom this server may act.
func (c *conversation) look(ctx context.Context) (scene, error) {
	user := c.caller
	if user == "" {
		user = c.plan.other
	}
	for _, user := range []id.UserID{c.hs.Sender(), user} {
		agent, err := c.hs.As(user)
		if err != nil {
			continue
		}
		s, err := c.lookAs(ctx, agent)
		if homeserver.Code(err) == "M_FORBIDDEN" {
			continue
		}
		s.bot, c.witness = user == c.hs.Sender(), agent
		return s, err
	}
	return scene{}, errNobodySees
}

func (c *conversation) lookAs(ctx context.Context, agent homeserver.Agent) (s scene, err error) {
	var functional struct {
		Members []id.UserID `json:"service_members"`
	}
	var questions errgroup.Group
	questions.Go(func() (err error) {
		s.people, err = agent.JoinedProfiles(ctx, c.room)
		return err
	})
	questions.Go(func() error {
		var content struct{}
		err := agent.State(ctx, c.room, typeEncryption, "", &content)
		s.encrypted = err == nil
		return absent(err)
	})
	questions.Go(func() error { return absent(agent.State(ctx, c.room, typeFunctional, "", &functional)) })
	if err := questions.Wait(); err != nil {
		return scene{}, err
	}
	for user := range s.people {
		if slices.Contains(functional.Members, user) || c.board.own(user) {
			delete(s.people, user)
		}
	}
	return s, nil
}

// lookAtCall reads who is in the call of a room for two: few events, in a small state.
func (c *conversation) lookAtCall(ctx context.Context, agent homeserver.Agent) ([]*member.Member, error) {
	state, err := agent.AllState(ctx, c.room)
	if err != nil {
		return nil, err
	}
	var all []*member.Member
	for _, e := range state {
		if e.Type == typeMember {
			if m, err := member.Parse(told(e)); err == nil {
				all = append(all, m)
			}
		}
	}
	return member.Session(all, member.SlotRoom, c.board.now()), nil
}

// absent takes the word that there is no such state for no error.
func absent(err error) error {
	if homeserver.Code(err) == "M_NOT_FOUND" {
		return nil
	}
	return err
}

// told takes over what is needed of an event.
func told(e *event.Event) member.Event {
	return member.Event{
		Type: e.Type.Type, StateKey: e.StateKey, Sender: string(e.Sender), ID: string(e.ID),
		Content: e.Content.VeryRaw, Sent: time.UnixMilli(e.Timestamp),
	}
}

// other is the one besides a user in a room for two; empty if it is none.
func (s *scene) other(than id.UserID) (other id.UserID) {
	if len(s.people) != 2 {
		return ""
	}
	for user := range s.people {
		if user != than {
			other = user
		}
	}
	return other
}

// name is how a user is shown.
func (s *scene) name(user id.UserID) string {
	if name := s.people[user].Name; name != "" {
		return name
	}
	return user.Localpart()
}

// own reports whether a user is one of this server's own.
func (s *Switchboard) own(user id.UserID) bool {
	return slices.ContainsFunc(s.options.Connections, func(h *homeserver.Homeserver) bool { return h.Own(user) })
}
