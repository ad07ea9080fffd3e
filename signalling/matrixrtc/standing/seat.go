package standing

import (
	"context"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

const (
	// seatsLife is how often the rooms of a sender are listed again: its own events tell sooner.
	seatsLife = 30 * time.Second
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

// seated follows the sender's own memberships. Accepting invitations is not this package's.
func (m *Members) seated(h *homeserver.Homeserver, p Place, membership event.Membership) {
	if p.User == h.Sender() && p.User != "" {
		m.sit(seat{h, p.Room}, membership == event.MembershipJoin)
	}
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
