package roster

import (
	"context"
	"errors"
	"time"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

// A view is a user of a homeserver, in whose name a room is read or written.
type view struct {
	hs Homeserver
	as string // empty for the sender
}

// views are through whose eyes a stay's room can be seen: its own user's, those of others in the call, the senders'.
func (r *Roster) views(t Task) (views []view) {
	if own := r.options.Homeservers[homeserver.ServerOf(t.User)]; own != nil {
		return []view{{own, t.User}, {own, ""}}
	}
	for _, user := range t.Eyes {
		if hs := r.options.Homeservers[homeserver.ServerOf(user)]; hs != nil {
			views = append(views, view{hs, user})
		}
	}
	for _, hs := range r.options.Homeservers {
		views = append(views, view{hs, ""})
	}
	return views
}

// errBlind means that nobody can see or write what is asked for.
var errBlind = errors.New("no privilege suffices")

// through asks by the first view that is allowed to. It fails with errBlind, homeserver.ErrUnavailable, or what a
// homeserver answered to one who is.
func through(views []view, ask func(view) error) error {
	for _, v := range views {
		err := ask(v)
		switch {
		case err == nil, errors.Is(err, homeserver.ErrUnavailable):
			return err
		case errors.Is(err, homeserver.ErrNoPrivilege), denied(err):
			continue
		}
		return err
	}
	return errBlind
}

// denied reports whether a homeserver does not let somebody see or do something.
func denied(err error) bool {
	switch homeserver.Code(err) {
	case "M_FORBIDDEN", "M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_EXCLUSIVE", "M_GUEST_ACCESS_FORBIDDEN", "M_INVALID_PARAM":
		return true
	}
	return false
}

func notFound(err error) bool { return homeserver.Code(err) == "M_NOT_FOUND" }

// read finds the event of a stay under the keys that it may have. It reports false if there is none.
func (r *Roster) read(ctx context.Context, t Task, views []view) (e member.Event, found bool, err error) {
	keys := member.StateKeys(t.User, t.Device, t.Slot)
	if t.Key != "" {
		keys = []string{t.Key}
	}
	for _, key := range keys {
		err = through(views, func(v view) (err error) {
			e, err = v.hs.Membership(ctx, v.as, t.Room, key)
			return err
		})
		switch {
		case err == nil:
			return e, true, nil
		case !notFound(err):
			return e, false, err
		}
	}
	return e, false, nil
}

// clear clears the membership of a stay that is gone, if every condition holds.
func (r *Roster) clear(ctx context.Context, t Task) (Outcome, time.Duration) {
	if r.held(t) && time.Since(t.Since) < leaveTime {
		return Later, heldRetry
	}
	views := r.views(t)
	e, found, err := r.read(ctx, t, views)
	if err != nil || !found {
		return ended(err, Moot)
	}
	m, err := member.Parse(e)
	if err != nil || !m.State || m.Device != t.Device || member.RoomName(t.Room, m.Slot) != t.Call {
		return Moot, 0
	}
	ours, err := r.ours(ctx, t, m, views)
	if err != nil || !ours {
		return ended(err, Moot)
	}
	if !r.confirm(t, m, e) {
		return Later, 0
	}
	t.Key = m.Key
	again, found, err := r.read(ctx, t, views)
	switch {
	case err != nil || !found:
		return ended(err, Moot)
	case again.ID != e.ID:
		if m, err := member.Parse(again); err == nil {
			r.confirm(t, m, again)
		}
		return Later, firstRetry
	case !r.confirm(t, m, again):
		return Later, 0
	}
	err = through(views, func(v view) error { return v.hs.Clear(ctx, v.as, t.Room, m.Key) })
	return ended(err, Cleared)
}

// held reports whether a delegated leave is on its way.
func (r *Roster) held(t Task) bool {
	for _, identity := range t.Identities {
		if r.options.Held(t.Call, identity) {
			return true
		}
	}
	return false
}

func (r *Roster) confirm(t Task, m *member.Member, e member.Event) (yes bool) {
	r.clerk.Look(func() { yes = r.book.Confirm(t.Stay, m, e.Sent, time.Now()) })
	return yes
}

// ours reports whether a member publishes on this server. Where it follows the oldest member, the others are read too.
func (r *Roster) ours(ctx context.Context, t Task, m *member.Member, views []view) (bool, error) {
	session := []*member.Member{m}
	if m.Oldest {
		all, err := r.all(ctx, t, views)
		if err != nil {
			return false, err
		}
		session = member.Session(all, m.Slot, time.Now())
	}
	transport, any := m.Effective(session)
	return any && transport.LiveKit() && transport.Service == r.options.Service, nil
}

func (r *Roster) all(ctx context.Context, t Task, views []view) (all []*member.Member, err error) {
	var events []member.Event
	err = through(views, func(v view) (err error) {
		events, err = v.hs.Memberships(ctx, v.as, t.Room)
		return err
	})
	for _, e := range events {
		if m, err := member.Parse(e); err == nil {
			all = append(all, m)
		}
	}
	return all, err
}

// ended says how a task ended, if a request of it failed, or as it should.
func ended(err error, good Outcome) (Outcome, time.Duration) {
	var answer *homeserver.Error
	switch {
	case err == nil:
		return good, 0
	case errors.As(err, &answer) && answer.Is(homeserver.ErrUnavailable):
		return Failed, answer.Retry
	case errors.Is(err, homeserver.ErrUnavailable):
		return Failed, 0
	}
	return Blind, 0
}

// lookFor looks for the membership of a participant who is here.
func (r *Roster) lookFor(ctx context.Context, t Task) (*member.Member, Outcome, time.Duration) {
	if t.Slot == "" {
		return nil, Blind, 0 // its state key is anybody's guess
	}
	views := r.views(t)
	e, found, err := r.read(ctx, t, views)
	if err != nil {
		o, after := ended(err, Absent)
		return nil, o, after
	}
	if found {
		if m, o := names(e, t); o != Absent {
			return m, o, 0
		}
	}
	if t.Sticky {
		may, err := r.sticky(ctx, t)
		if may || err != nil {
			o, after := ended(err, Blind)
			return nil, o, after
		}
	}
	if !t.Fresh {
		return nil, Absent, 0
	}
	return r.lookWider(ctx, t, views)
}

// names reports whether an event of the user declares the membership of a stay, or perhaps does.
func names(e member.Event, t Task) (*member.Member, Outcome) {
	m, err := member.Parse(e)
	switch {
	case err == nil && m.Device == t.Device:
		return m, Seen
	case errors.Is(err, member.ErrNotMember):
		return nil, Blind
	}
	return nil, Absent
}

// sticky reports whether the user's membership may be a sticky event, which is not in the state of the room and may be
// encrypted.
func (r *Roster) sticky(ctx context.Context, t Task) (bool, error) {
	own := r.options.Homeservers[homeserver.ServerOf(t.User)]
	if own == nil {
		return true, nil
	}
	return own.Sticky(ctx)
}

// lookWider reads every membership in the room before somebody is withheld for the first time: clients may use keys that
// nobody knows, and whoever declares a membership in whatever form gets the benefit of the doubt.
func (r *Roster) lookWider(ctx context.Context, t Task, views []view) (*member.Member, Outcome, time.Duration) {
	var events []member.Event
	err := through(views, func(v view) (err error) {
		events, err = v.hs.Memberships(ctx, v.as, t.Room)
		return err
	})
	if err != nil {
		o, after := ended(err, Absent)
		return nil, o, after
	}
	for _, e := range events {
		if e.Sender != t.User {
			continue
		}
		if m, o := names(e, t); o != Absent {
			return m, o, 0
		}
	}
	return nil, Absent, 0
}

// scanLoop reads the rooms of a homeserver's sender at the start, and whenever events were missed: memberships whose
// participants are not here may have been left behind.
func (r *Roster) scanLoop(ctx context.Context, name string) {
	hs := r.options.Homeservers[name]
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.rescan[name]:
		}
		rooms := patiently(ctx, func() (rooms []string, err error) { return hs.Rooms(ctx) })
		for _, room := range rooms {
			events := patiently(ctx, func() ([]member.Event, error) { return hs.Memberships(ctx, "", room) })
			for _, e := range events {
				r.Told(room, e)
			}
			rest(ctx, scanPause)
		}
	}
}

// patiently asks until there is an answer; a refusal is one, and empty.
func patiently[T any](ctx context.Context, ask func() ([]T, error)) []T {
	for failures := 1; ; failures++ {
		answer, err := ask()
		if err == nil {
			return answer
		}
		if ctx.Err() != nil || !errors.Is(err, homeserver.ErrUnavailable) {
			return nil
		}
		rest(ctx, backoff(failures, maxRetry))
	}
}

func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
