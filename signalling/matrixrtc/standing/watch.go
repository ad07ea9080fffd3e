package standing

import (
	"context"
	"encoding/json"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

const (
	watchQueue     = 4096        // events waiting; beyond it, every session is checked instead
	confirmTime    = time.Second // how long a homeserver may take to say that a user is back already
	confirmsAtOnce = 16          // questions at a time
)

// Followed are the events that polls ask for: what this package acts upon, and the members of calls for others.
var followed = []event.Type{
	event.StateMember, event.StateServerACL, event.StatePowerLevels,
	event.NewEventType("org.matrix.msc3401.call.member"),
	event.NewEventType("org.matrix.msc4143.rtc.member"), event.NewEventType("m.rtc.member"),
}

// Run follows everybody who is in a call, until ctx ends, which is no error: who leaves a Matrix room, or is kicked or
// banned, or whose server is, is taken out of its calls, and the tokens become worthless.
func (m *Members) Run(ctx context.Context) error {
	var loops errgroup.Group
	for _, h := range m.options.Connections {
		s := h.Subscribe(watchQueue, event.StateMember, event.StateServerACL, event.StatePowerLevels)
		loops.Go(func() error {
			defer s.Close()
			m.watchLoop(ctx, h, s)
			return nil
		})
		if h.Sender() != "" {
			loops.Go(func() error {
				m.greet(ctx, h)
				return nil
			})
		}
	}
	loops.Go(func() error {
		m.roundLoop(ctx)
		return nil
	})
	return loops.Wait()
}

func (m *Members) watchLoop(ctx context.Context, h *homeserver.Homeserver, s *homeserver.Subscription) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Ready():
		}
		events, lost := s.Take()
		m.take(ctx, h, events)
		if lost > 0 {
			m.options.Logger.Warn("membership events missed: checking every session", "homeserver", h.Name(), "events", lost)
			m.Forget() // the rounds ask about everybody again
		}
	}
}

// take acts on events, the latest about each place.
func (m *Members) take(ctx context.Context, h *homeserver.Homeserver, events []*event.Event) {
	latest := map[Place]event.Membership{}
	denials := map[id.RoomID]*event.Event{}
	for _, e := range events {
		switch e.Type {
		case event.StateMember:
			p := Place{id.UserID(e.GetStateKey()), e.RoomID}
			latest[p] = membershipOf(e)
			m.seated(h, p, latest[p])
		case event.StateServerACL:
			denials[e.RoomID] = e
			m.outdate(e.RoomID)
		case event.StatePowerLevels:
			m.outdate(e.RoomID)
		}
	}
	m.departures(ctx, latest)
	for room, e := range denials {
		m.denied(ctx, room, e)
	}
}

func membershipOf(e *event.Event) event.Membership {
	var content struct {
		Membership event.Membership `json:"membership"`
	}
	_ = json.Unmarshal(e.Content.VeryRaw, &content) // what cannot be read is no join
	return content.Membership
}

// present are those who are in a call, by their Matrix rooms: since when each is verified, the longest ago of several stays.
func (m *Members) present() map[id.RoomID]map[id.UserID]time.Time {
	rooms := map[id.RoomID]map[id.UserID]time.Time{}
	for _, o := range m.options.Sessions.Origins("") {
		room, user := id.RoomID(o.Conversation), id.UserID(o.User)
		users := rooms[room]
		if users == nil {
			users = map[id.UserID]time.Time{}
			rooms[room] = users
		}
		if verified, ok := users[user]; !ok || o.Verified.Before(verified) {
			users[user] = o.Verified
		}
	}
	return rooms
}

func (m *Members) departures(ctx context.Context, latest map[Place]event.Membership) {
	present := m.present()
	var confirms errgroup.Group
	confirms.SetLimit(confirmsAtOnce)
	for p, membership := range latest {
		_, here := present[p.Room][p.User]
		_, known := m.known.Get(p, m.options.Now())
		switch {
		case membership == event.MembershipJoin:
		case !here && !known:
			m.remove(p, string(membership))
		default:
			confirms.Go(func() error {
				if !m.back(ctx, p, witnessesOf(present[p.Room], p.User)) {
					m.remove(p, string(membership))
				}
				return nil
			})
		}
	}
	_ = confirms.Wait() // none fails
}

// witnessesOf are the others who are in the call.
func witnessesOf(users map[id.UserID]time.Time, except id.UserID) []id.UserID {
	all := make([]id.UserID, 0, len(users))
	for user := range users {
		if user != except {
			all = append(all, user)
		}
	}
	return all
}

// back reports whether a user who left is a member again: the homeserver may tell us of old events after a pause. When
// it does not answer, the event counts.
func (m *Members) back(ctx context.Context, p Place, witnesses []id.UserID) bool {
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	f, err := m.ask(ctx, p, witnesses)
	return err == nil && f.Standing == Joined
}

// denied puts out those whose servers a new server ACL denies. Where it cannot be read again, the event counts.
func (m *Members) denied(ctx context.Context, room id.RoomID, e *event.Event) {
	users := m.present()[room]
	if len(users) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	r, err := m.rulesOf(ctx, room, witnessesOf(users, ""))
	if err != nil || r.read.IsZero() {
		r = rules{acl: parseACL(e.Content.VeryRaw)}
	}
	for user := range users {
		if !r.permits(user) {
			m.remove(Place{user, room}, "server ACL")
		}
	}
}

// remove makes the tokens worthless first, so that nobody comes back with one.
func (m *Members) remove(p Place, why string) {
	m.options.Revocations.Revoke(string(p.User), string(p.Room), m.options.Now())
	m.known.Drop(p)
	if n := m.options.Sessions.Evict(string(p.User), string(p.Room)); n > 0 {
		m.counters.evicted.Add(uint64(n))
		m.options.Logger.Info("participants removed: no longer in the Matrix room", "membership", why, "participants", n)
	}
}
