package matrixrtc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/internal/expiring"
	"callserver/signalling/homeserver"
	"callserver/signalling/token"
)

const (
	// memberLife is how long a positive answer is believed: for the several requests of one join. Events end it earlier.
	memberLife = 20 * time.Second
	// unsupportedLife is how long a homeserver that does not know MSC4502 is not asked for it again.
	unsupportedLife = 10 * time.Minute
	maxMembers      = 50_000
	// maxWitnesses is how many local participants are tried as the eyes into a room.
	maxWitnesses = 3
)

// A standing is what is known about a user and a room.
type standing uint8

const (
	unknown standing = iota // nobody can tell
	joined
	outside
)

func (s standing) String() string { return [...]string{"unknown", "joined", "outside"}[s] }

// A place is somebody's in a Matrix room.
type place struct {
	user id.UserID
	room id.RoomID
}

// members finds out who is in a Matrix room, by the privileges that the homeservers gave us. Safe for concurrent use.
type members struct {
	connections []*homeserver.Homeserver
	revocations *token.Revocations
	now         func() time.Time

	known       *expiring.Map[place, time.Time] // joined, since when verified
	unsupported *expiring.Map[*homeserver.Homeserver, struct{}]

	mu    sync.Mutex
	floor time.Time // what was verified up to then is not believed
}

func newMembers(connections []*homeserver.Homeserver, r *token.Revocations, now func() time.Time) *members {
	return &members{
		connections: connections, revocations: r, now: now,
		known:       expiring.New[place, time.Time](maxMembers),
		unsupported: expiring.New[*homeserver.Homeserver, struct{}](64),
	}
}

// forget makes every answer so far worthless: events about them were missed.
func (m *members) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.floor = m.now()
}

// believed reports whether an answer of that moment still counts: no event has spoken against it since.
func (m *members) believed(p place, verified time.Time) bool {
	m.mu.Lock()
	floor := m.floor
	m.mu.Unlock()
	return verified.After(floor) &&
		!m.revocations.Revoked(token.Origin{User: string(p.user), Conversation: string(p.room), Verified: verified})
}

// check tells whether the user is joined to the room, and since when that is known. Witnesses are local users in the
// call, who may be able to see. An error means that a homeserver that could have told did not answer.
func (m *members) check(ctx context.Context, p place, witnesses []id.UserID) (standing, time.Time, error) {
	start := m.now()
	if verified, ok := m.known.Get(p, start); ok && m.believed(p, verified) {
		return joined, verified, nil
	}
	s, err := m.ask(ctx, p, witnesses)
	if s == joined {
		m.known.Put(p, start, start, start.Add(memberLife))
	}
	return s, start, err
}

// ask asks the user's own homeserver, or for users of others every homeserver of ours: one of them is in the room.
func (m *members) ask(ctx context.Context, p place, witnesses []id.UserID) (standing, error) {
	if i := slices.IndexFunc(m.connections, func(h *homeserver.Homeserver) bool { return h.Local(p.user) }); i >= 0 {
		return m.askOne(ctx, m.connections[i], p, witnesses)
	}
	found := unknown
	var errs []error
	for _, h := range m.connections {
		s, err := m.askOne(ctx, h, p, witnesses)
		if s == joined {
			return joined, nil
		}
		found = max(found, s)
		errs = append(errs, err)
	}
	if found == unknown {
		return unknown, errors.Join(errs...)
	}
	return found, nil
}

// A means is one way to find out; it answers unknown where it is not allowed to see.
type means func(context.Context, *homeserver.Homeserver, place) (standing, error)

// askOne tries the means in the order of what they can see. The first that can see decides.
func (m *members) askOne(ctx context.Context, h *homeserver.Homeserver, p place, witnesses []id.UserID) (standing, error) {
	all := []means{m.query}
	if h.Local(p.user) {
		all = append(all, eyesOf(p.user, true))
	}
	if sender := h.Sender(); sender != "" {
		all = append(all, eyesOf(sender, false))
	}
	tried := 0
	for _, w := range witnesses {
		if tried < maxWitnesses && w != p.user && h.Local(w) {
			tried++
			all = append(all, eyesOf(w, false))
		}
	}
	var errs []error
	for _, look := range all {
		s, err := look(ctx, h, p)
		if s != unknown {
			return s, nil
		}
		if errors.Is(err, homeserver.ErrUnavailable) {
			return unknown, err // the others would ask the same server
		}
		if err != nil && !errors.Is(err, homeserver.ErrNoPrivilege) {
			errs = append(errs, err)
		}
	}
	return unknown, errors.Join(errs...)
}

// query asks by MSC4502, which needs a scope only.
func (m *members) query(ctx context.Context, h *homeserver.Homeserver, p place) (standing, error) {
	if _, not := m.unsupported.Get(h, m.now()); not {
		return unknown, nil
	}
	in, err := h.IsJoined(ctx, p.room, p.user)
	switch code := homeserver.Code(err); {
	case err == nil && in:
		return joined, nil
	case err == nil, code == "M_INVALID_PARAM":
		return outside, nil
	case homeserver.Unrecognized(err), code == "M_FORBIDDEN", code == "M_UNKNOWN_TOKEN":
		now := m.now()
		m.unsupported.Put(h, struct{}{}, now, now.Add(unsupportedLife))
		return unknown, nil
	}
	return unknown, err
}

// eyesOf looks as a user whom a registration covers. Who may not see a room is not in it: for the user in question that
// is an answer, for another it is none.
func eyesOf(user id.UserID, own bool) means {
	return func(ctx context.Context, h *homeserver.Homeserver, p place) (standing, error) {
		agent, err := h.As(user)
		if err != nil {
			return unknown, err
		}
		membership, err := agent.Membership(ctx, p.room, p.user)
		switch code := homeserver.Code(err); {
		case err == nil && membership == event.MembershipJoin:
			return joined, nil
		case err == nil, own && (code == "M_FORBIDDEN" || code == "M_INVALID_PARAM" || code == "M_NOT_FOUND"):
			return outside, nil
		case code == "M_FORBIDDEN":
			return unknown, nil
		}
		return unknown, fmt.Errorf("look as %s: %w", user, err)
	}
}
