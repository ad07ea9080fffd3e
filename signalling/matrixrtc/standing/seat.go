package standing

import (
	"context"
	"errors"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

const (
	// seatsLife is how often the rooms of a sender are listed again: its own events tell sooner.
	seatsLife = 30 * time.Second
	// joinTries is how often the sender tries to follow an invitation.
	joinTries = 3
	// greetings is how often a homeserver is asked at the start to reach this server.
	greetings = 4
)

// A seat is a room that the sender of a homeserver's registration is in, so that its events are pushed.
type seat struct {
	hs   *homeserver.Homeserver
	room id.RoomID
}

// seatedSince tells since when some sender is known to be in a room, of a homeserver whose events reach us.
func (m *Members) seatedSince(room id.RoomID) (since time.Time, seated bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.options.Connections {
		if since, ok := m.seats[seat{h, room}]; ok && h.Pushes() {
			return since, true
		}
	}
	return time.Time{}, false
}

// greet has a homeserver push what it kept back while this server was not there: Synapse otherwise waits up to 8 minutes.
// Homeservers without the question do it by themselves.
func (m *Members) greet(ctx context.Context, h *homeserver.Homeserver) {
	for try := 1; ; try++ {
		err := h.Ping(ctx)
		if err == nil || ctx.Err() != nil || homeserver.Unrecognized(err) {
			return
		}
		if try == greetings {
			m.options.Logger.Warn("homeserver does not reach this server: it pushes no events - check the url of the registration", "homeserver", h.Name(), "err", err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(try) * time.Second): // we may be starting
		}
	}
}

func (m *Members) seatedAt(h *homeserver.Homeserver, room id.RoomID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, seated := m.seats[seat{h, room}]
	return seated
}

// sit notes that a sender is in a room or no longer is. What was known before stays: the room has been followed since.
func (m *Members) sit(s seat, in bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !in {
		delete(m.seats, s)
		return
	}
	if _, ok := m.seats[s]; !ok {
		m.seats[s] = m.options.Now()
	}
}

// seated follows the sender's own memberships, and accepts the invitations of its homeserver's users.
func (m *Members) seated(ctx context.Context, h *homeserver.Homeserver, p Place, e *event.Event) {
	if p.User != h.Sender() || p.User == "" {
		return
	}
	membership := membershipOf(e)
	m.sit(seat{h, p.Room}, membership == event.MembershipJoin)
	if membership != event.MembershipInvite {
		return
	}
	if !h.Local(e.Sender) {
		m.options.Logger.Info("invitation not accepted: only the homeserver's own users may invite the sender user", "homeserver", h.Name(), "server", homeserver.ServerOf(e.Sender))
		return
	}
	m.joining.Go(func() { m.accept(ctx, h, p.Room) })
}

func (m *Members) accept(ctx context.Context, h *homeserver.Homeserver, room id.RoomID) {
	sender, err := h.As(h.Sender())
	for try := 1; err == nil; try++ {
		if err = sender.Join(ctx, room); err == nil {
			m.options.Logger.Info("sender user joined a room", "homeserver", h.Name(), "room", room)
			return
		}
		if !errors.Is(err, homeserver.ErrUnavailable) || try == joinTries {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(try) * 2 * time.Second):
			err = nil
		}
	}
	m.options.Logger.Warn("sender user cannot join a room that it is invited to: invite it again", "homeserver", h.Name(), "room", room, "err", err)
}

// list asks which rooms a sender is in. Without an answer, what is known stays.
func (m *Members) list(ctx context.Context, h *homeserver.Homeserver) {
	sender, err := h.As(h.Sender())
	if err != nil {
		return
	}
	start := m.options.Now()
	rooms, err := sender.JoinedRooms(ctx)
	if err != nil {
		return
	}
	in := make(map[id.RoomID]bool, len(rooms))
	for _, room := range rooms {
		in[room] = true
		m.sit(seat{h, room}, true)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for s, since := range m.seats {
		if s.hs == h && !in[s.room] && since.Before(start) {
			delete(m.seats, s)
		}
	}
}
