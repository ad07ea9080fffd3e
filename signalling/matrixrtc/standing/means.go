package standing

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

// The means, as Finding.By has them.
const (
	byQuery   = "MSC4502"
	byOwnEyes = "own eyes"
	bySender  = "sender"
	byToken   = "own token"
	byWitness = "witness"
)

// ask asks the user's own homeserver, or for users of others every homeserver of ours: one of them is in the room.
func (m *Members) ask(ctx context.Context, p Place, witnesses []id.UserID) (Finding, error) {
	return m.askAs(ctx, p, witnesses, nil)
}

func (m *Members) askAs(ctx context.Context, p Place, witnesses []id.UserID, caller *homeserver.Agent) (Finding, error) {
	connections := m.options.Connections
	if i := slices.IndexFunc(connections, func(h *homeserver.Homeserver) bool { return h.Local(p.User) }); i >= 0 {
		return m.askOne(ctx, connections[i], p, witnesses, caller)
	}
	var found Finding
	var errs []error
	for _, h := range connections {
		f, err := m.askOne(ctx, h, p, witnesses, nil)
		if f.Standing == Joined {
			return f, nil
		}
		if found.Standing == Unknown {
			found = f
		}
		errs = append(errs, err)
	}
	if found.Standing == Unknown {
		return found, errors.Join(errs...)
	}
	return found, nil
}

// A means is one way to find out; it answers Unknown where it is not allowed to see.
type means struct {
	name string
	look func(context.Context, *homeserver.Homeserver, Place) (Standing, error)
}

// askOne tries the means in the order of what they can see. The first that can see decides.
func (m *Members) askOne(ctx context.Context, h *homeserver.Homeserver, p Place, witnesses []id.UserID, caller *homeserver.Agent) (Finding, error) {
	all := []means{{byQuery, m.query}}
	if h.Local(p.User) {
		all = append(all, means{byOwnEyes, ownEyes})
	}
	var others []means
	for _, w := range onlookers(h, p.User, witnesses) {
		if w == h.Sender() {
			all = append(all, means{bySender, eyesOf(w)})
		} else {
			others = append(others, means{byWitness, eyesOf(w)})
		}
	}
	if caller != nil {
		all = append(all, means{byToken, func(ctx context.Context, _ *homeserver.Homeserver, p Place) (Standing, error) {
			return ofOneself(ctx, *caller, p)
		}})
	}
	all = append(all, others...)
	var errs []error
	for _, one := range all {
		s, err := one.look(ctx, h, p)
		if s != Unknown {
			return Finding{Standing: s, By: one.name}, nil
		}
		if errors.Is(err, homeserver.ErrUnavailable) {
			return Finding{}, err // the others would ask the same server
		}
		if err != nil && !errors.Is(err, homeserver.ErrNoPrivilege) {
			errs = append(errs, err)
		}
	}
	return Finding{}, errors.Join(errs...)
}

// onlookers are the users of a homeserver who may be able to see another one: its sender and a few witnesses.
func onlookers(h *homeserver.Homeserver, user id.UserID, witnesses []id.UserID) (all []id.UserID) {
	if sender := h.Sender(); sender != "" {
		all = append(all, sender)
	}
	tried := 0
	for _, w := range witnesses {
		if tried < maxWitnesses && w != user && h.Local(w) {
			tried++
			all = append(all, w)
		}
	}
	return all
}

// query asks by MSC4502, which needs a scope only.
func (m *Members) query(ctx context.Context, h *homeserver.Homeserver, p Place) (Standing, error) {
	if _, not := m.unsupported.Get(h, m.options.Now()); not {
		return Unknown, nil
	}
	in, err := h.IsJoined(ctx, p.Room, p.User)
	switch code := homeserver.Code(err); {
	case err == nil && in:
		return Joined, nil
	case err == nil, code == "M_INVALID_PARAM":
		return Outside, nil
	case homeserver.Unrecognized(err), code == "M_FORBIDDEN", code == "M_UNKNOWN_TOKEN":
		now := m.options.Now()
		m.unsupported.Put(h, struct{}{}, now, now.Add(unsupportedLife))
		return Unknown, nil
	}
	return Unknown, err
}

// ownEyes looks as the user in question.
func ownEyes(ctx context.Context, h *homeserver.Homeserver, p Place) (Standing, error) {
	agent, err := h.As(p.User)
	if err != nil {
		return Unknown, err
	}
	return ofOneself(ctx, agent, p)
}

// ofOneself looks with an agent of the user in question. Who may not see a room is not in it.
func ofOneself(ctx context.Context, agent homeserver.Agent, p Place) (Standing, error) {
	membership, err := agent.Membership(ctx, p.Room, p.User)
	switch code := homeserver.Code(err); {
	case err == nil && membership == event.MembershipJoin:
		return Joined, nil
	case err == nil, code == "M_FORBIDDEN", code == "M_INVALID_PARAM", code == "M_NOT_FOUND", code == "M_USER_DEACTIVATED":
		return Outside, nil
	}
	return Unknown, fmt.Errorf("look as %s: %w", p.User, err)
}

// eyesOf looks as somebody else whom a registration covers, and who must be in the room.
func eyesOf(user id.UserID) func(context.Context, *homeserver.Homeserver, Place) (Standing, error) {
	return func(ctx context.Context, h *homeserver.Homeserver, p Place) (Standing, error) {
		agent, err := h.As(user)
		if err != nil {
			return Unknown, err
		}
		own, err := agent.Membership(ctx, p.Room, user)
		if err == nil && own != event.MembershipJoin || blind(err) {
			return Unknown, nil
		}
		var membership event.Membership
		if err == nil {
			membership, err = agent.Membership(ctx, p.Room, p.User)
		}
		switch {
		case blind(err):
			return Unknown, nil
		case err != nil:
			return Unknown, fmt.Errorf("look as %s: %w", user, err)
		case membership == event.MembershipJoin:
			return Joined, nil
		}
		return Outside, nil
	}
}

// blind reports whether the homeserver does not let somebody see a room, as an answer.
func blind(err error) bool {
	switch homeserver.Code(err) {
	case "M_FORBIDDEN", "M_NOT_FOUND", "M_INVALID_PARAM", "M_USER_DEACTIVATED":
		return true
	}
	return false
}
