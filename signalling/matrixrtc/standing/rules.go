package standing

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

// rulesLife is how long the rules of a room are believed. Events end it earlier.
const rulesLife = 20 * time.Second

// Rules are what a room's state says about everybody in it. The zero value is that of a room nobody can see: it
// permits everybody, and nobody is a moderator.
type rules struct {
	read     time.Time // when they were asked for
	acl      *ServerACL
	levels   *powerLevels
	creators []id.UserID // with more power than any level (room version 12), or with 100 while there are no levels
	infinite bool
}

func (r *rules) permits(user id.UserID) bool { return r.acl.Permits(homeserver.ServerOf(user)) }

// moderator reports whether a user may kick others.
func (r *rules) moderator(user id.UserID) bool {
	for _, creator := range r.creators {
		if creator == user && (r.infinite || r.levels == nil) {
			return true
		}
	}
	return r.levels != nil && r.levels.of(user) >= r.levels.kick
}

// rulesOf reads the rules of a room by whoever of the users, or of the senders, is in it. An error means that a homeserver
// did not answer.
func (m *Members) rulesOf(ctx context.Context, room id.RoomID, users []id.UserID) (rules, error) {
	start := m.options.Now()
	if r, ok := m.rules.Get(room, start); ok && m.current(room, r.read) {
		return r, nil
	}
	for _, h := range m.options.Connections {
		eyes := onlookers(h, "", users)
		slices.Reverse(eyes) // whoever is in the call is in the room; the sender may not be
		for _, user := range eyes {
			r, err := readRulesAs(ctx, h, user, room)
			if errors.Is(err, homeserver.ErrUnavailable) {
				return rules{}, err
			}
			if err != nil {
				continue // this one cannot see it
			}
			r.read = start
			m.rules.Put(room, r, start, start.Add(rulesLife))
			return r, nil
		}
	}
	return rules{}, nil
}

// rulesBy reads the rules of a room with the access token of somebody who is in it, where nobody else could.
func (m *Members) rulesBy(ctx context.Context, caller homeserver.Agent, p Place) (rules, error) {
	start := m.options.Now()
	r, err := readRules(ctx, caller, p.User, p.Room)
	switch {
	case err == nil:
		r.read = start
		m.rules.Put(p.Room, r, start, start.Add(rulesLife))
		return r, nil
	case errors.Is(err, homeserver.ErrUnavailable):
		return rules{}, err
	}
	return rules{}, nil // it cannot see it either
}

// current reports whether rules that were read at that moment still count.
func (m *Members) current(room id.RoomID, read time.Time) bool {
	changed, ok := m.changed.Get(room, m.options.Now())
	return m.fresh(read) && (!ok || read.After(changed))
}

// outdate makes the rules read so far worthless.
func (m *Members) outdate(room id.RoomID) {
	now := m.options.Now()
	m.changed.Put(room, now, now, now.Add(rulesLife))
}

// errBlind means that somebody is not in a room.
var errBlind = errors.New("not in the room")

func readRulesAs(ctx context.Context, h *homeserver.Homeserver, eyes id.UserID, room id.RoomID) (rules, error) {
	agent, err := h.As(eyes)
	if err != nil {
		return rules{}, err
	}
	return readRules(ctx, agent, eyes, room)
}

// readRules asks for everything at once: whoever a new rule denies is to be out within two seconds of it, of which a busy
// homeserver may need most to answer.
func readRules(ctx context.Context, agent homeserver.Agent, eyes id.UserID, room id.RoomID) (r rules, err error) {
	var asked sync.WaitGroup
	var errs [rulesCost]error
	asked.Go(func() {
		membership, err := agent.Membership(ctx, room, eyes)
		if err == nil && membership != event.MembershipJoin {
			err = errBlind
		}
		errs[0] = err
	})
	read := func(slot int, kind event.Type, take func(*event.Event)) {
		asked.Go(func() {
			e, err := agent.StateEvent(ctx, room, kind, "")
			switch {
			case err == nil:
				take(e)
			case homeserver.Code(err) != "M_NOT_FOUND":
				errs[slot] = err
			}
		})
	}
	read(1, event.StateServerACL, func(e *event.Event) { r.acl = parseACL(e.Content.VeryRaw) })
	read(2, event.StatePowerLevels, func(e *event.Event) { r.levels = parseLevels(e.Content.VeryRaw) })
	read(3, event.StateCreate, func(e *event.Event) { r.creators, r.infinite = parseCreators(e) })
	asked.Wait()
	return r, errors.Join(errs[:]...)
}
