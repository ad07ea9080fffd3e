package standing

import (
	"context"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

const (
	// maxPolls bounds the rooms that are followed by polls. Beyond it rooms are asked about in the rounds.
	maxPolls = 500
	// startsAtOnce is how many polls begin in one tick.
	startsAtOnce = 8
	// Between polls that the homeserver does not answer.
	firstPause = time.Second
	maxPause   = 10 * time.Second
)

// A follow is a room that is followed by a poll, as one of the local users who are in its call.
//
//	starting --(the first answer)--> live --(the user left the room, or may not poll)--> ended: another user's takes its place
//
// One that is not wanted any more ends with the answer that it waits for, half a minute later at most. It is not cut off:
// Dendrite on SQLite, if it is built without cgo, leaves its database locked when a client goes away while it computes an answer.
type follow struct {
	eyes homeserverUser

	mu      sync.Mutex
	since   time.Time // nothing is missed from then on; zero while starting
	ended   bool
	retired bool // not wanted any more
}

// live tells since when nothing is missed.
func (f *follow) live() (since time.Time, yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.since, !f.since.IsZero() && !f.ended
}

func (f *follow) note(since time.Time, ended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since, f.ended = since, ended
}

func (f *follow) retire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = true
}

func (f *follow) wanted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.retired
}

func (f *follow) over() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended
}

// tend sees to it that a room with a running call is followed, if that is possible, and reports whether a poll begins.
func (r *rounds) tend(ctx context.Context, room id.RoomID, users map[id.UserID]time.Time) (started bool) {
	f := r.follows[room]
	if _, seated := r.m.seatedSince(room); seated {
		r.unfollow(room)
		return false
	}
	if f != nil {
		if _, here := users[f.eyes.user]; here && !f.over() {
			return false
		}
		r.unfollow(room)
		if f.over() {
			r.suspect(Place{f.eyes.user, room})
		}
	}
	if r.m.counters.polls.Load() >= maxPolls {
		return false
	}
	eyes := r.chosen(room, users)
	if eyes.user == "" {
		return false
	}
	agent, err := eyes.hs.As(eyes.user)
	if err != nil {
		return false
	}
	f = &follow{eyes: eyes}
	r.follows[room] = f
	r.m.counters.polls.Add(1)
	poll := agent.Poll(room, followed...)
	r.work.Go(func() {
		defer r.m.counters.polls.Add(-1)
		r.m.followLoop(ctx, f, poll)
	})
	return true
}

func (r *rounds) unfollow(room id.RoomID) {
	if f := r.follows[room]; f != nil {
		f.retire()
		delete(r.follows, room)
	}
}

// suspect has somebody asked about at once, whose eyes see the room no longer, and looks through others meanwhile.
func (r *rounds) suspect(p Place) {
	now := r.m.options.Now()
	r.blind[p] = now.Add(r.every.patience)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doubt[p.Room] = now
}

// chosen is a local user in the call as whom a room can be seen; the zero value if there is none.
func (r *rounds) chosen(room id.RoomID, users map[id.UserID]time.Time) (eyes homeserverUser) {
	now := r.m.options.Now()
	for user := range users {
		if eyes.user != "" && eyes.user < user || now.Before(r.blind[Place{user, room}]) {
			continue
		}
		if i := slices.IndexFunc(r.m.options.Connections, func(h *homeserver.Homeserver) bool { _, err := h.As(user); return err == nil }); i >= 0 {
			eyes = homeserverUser{r.m.options.Connections[i], user}
		}
	}
	return eyes
}

// followLoop hands the events of a room to the watch, until ctx ends, or the poll is not wanted, or the user sees the room no longer.
func (m *Members) followLoop(ctx context.Context, f *follow, poll *homeserver.Poll) {
	pause := firstPause
	for f.wanted() {
		b, err := poll.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case b.Gone, blind(err), homeserver.Code(err) == "M_UNKNOWN_TOKEN", homeserver.Unrecognized(err):
			f.note(time.Time{}, true)
			return
		case err != nil: // the poll goes on from the same place, so that nothing is missed
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, maxPause)
			continue
		case b.Started, b.Gap:
			f.note(m.options.Now(), false)
		}
		pause = firstPause
	}
}
