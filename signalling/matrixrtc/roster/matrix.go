package roster

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

// watchQueue is how many membership events may wait; beyond it, the sender's rooms are read again.
const watchQueue = 4096

// featureSticky is how a homeserver says that it has sticky events.
const featureSticky = "org.matrix.msc4354"

var stateMember = event.Type{Type: member.TypeState, Class: event.StateEventType}

// A Matrix is a Homeserver by a connection to a real one.
type Matrix struct{ hs *homeserver.Homeserver }

// Of returns the Homeserver at the other end of a connection.
func Of(h *homeserver.Homeserver) Matrix { return Matrix{h} }

// agent acts as a user, or as the sender.
func (m Matrix) agent(as string) (homeserver.Agent, error) {
	user := id.UserID(as)
	if as == "" {
		user = m.hs.Sender()
	}
	if user == "" {
		return homeserver.Agent{}, fmt.Errorf("act as the sender: %w", homeserver.ErrNoPrivilege)
	}
	return m.hs.As(user)
}

// Membership implements Homeserver.
func (m Matrix) Membership(ctx context.Context, as, room, key string) (member.Event, error) {
	agent, err := m.agent(as)
	if err != nil {
		return member.Event{}, err
	}
	e, err := agent.StateEvent(ctx, id.RoomID(room), stateMember, key)
	if err == nil && e.ID == "" {
		err = fmt.Errorf("%s does not say which event it is: %w", m.hs.Name(), homeserver.ErrNoPrivilege)
	}
	if err != nil {
		return member.Event{}, err
	}
	return told(e), nil
}

// Memberships implements Homeserver.
func (m Matrix) Memberships(ctx context.Context, as, room string) ([]member.Event, error) {
	agent, err := m.agent(as)
	if err != nil {
		return nil, err
	}
	state, err := agent.AllState(ctx, id.RoomID(room))
	if err != nil {
		return nil, err
	}
	var events []member.Event
	for _, e := range state {
		if e.Type == stateMember {
			events = append(events, told(e))
		}
	}
	return events, nil
}

// Clear implements Homeserver.
func (m Matrix) Clear(ctx context.Context, as, room, key string) error {
	agent, err := m.agent(as)
	if err != nil {
		return err
	}
	_, err = agent.SendState(ctx, id.RoomID(room), stateMember, key, struct{}{})
	return err
}

// Rooms implements Homeserver.
func (m Matrix) Rooms(ctx context.Context) ([]string, error) {
	agent, err := m.agent("")
	if err != nil {
		return nil, err
	}
	joined, err := agent.JoinedRooms(ctx)
	rooms := make([]string, len(joined))
	for i, room := range joined {
		rooms[i] = string(room)
	}
	return rooms, err
}

// Sticky implements Homeserver.
func (m Matrix) Sticky(ctx context.Context) (bool, error) { return m.hs.Supports(ctx, featureSticky) }

// told takes over what is needed of an event.
func told(e *event.Event) member.Event {
	return member.Event{
		Type: e.Type.Type, StateKey: e.StateKey, Sender: string(e.Sender), ID: string(e.ID),
		Content: e.Content.VeryRaw, Sent: time.UnixMilli(e.Timestamp),
	}
}

// Follow tells the roster of the membership events that homeservers push, until ctx ends, which is no error.
func (r *Roster) Follow(ctx context.Context, homeservers ...*homeserver.Homeserver) error {
	var follows errgroup.Group
	for _, h := range homeservers {
		s := h.Subscribe(watchQueue, stateMember)
		follows.Go(func() error {
			defer s.Close()
			r.followLoop(ctx, h.Name(), s)
			return nil
		})
	}
	return follows.Wait()
}

func (r *Roster) followLoop(ctx context.Context, name string, s *homeserver.Subscription) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Ready():
		}
		events, lost := s.Take()
		for _, e := range events {
			r.Told(string(e.RoomID), told(e))
		}
		r.tell()
		if lost > 0 {
			r.log.Warn("membership events missed: reading the sender's rooms again", "homeserver", name, "events", lost)
			r.Rescan(name)
		}
	}
}
