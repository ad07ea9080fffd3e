package matrixrtc

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
	watchQueue     = 4096            // membership events waiting; beyond it, every session is checked instead
	confirmTime    = time.Second     // how long a homeserver may take to say that a user is back already
	recheckTime    = 5 * time.Second // the same for one of many
	confirmsAtOnce = 16              // questions at a time
)

// Run follows the memberships that the homeservers tell of, until ctx ends, which is no error: who leaves a Matrix room,
// or is kicked or banned, is taken out of its calls, and the tokens become worthless.
func (a *Authoriser) Run(ctx context.Context) error {
	var watches errgroup.Group
	for _, h := range a.members.connections {
		if h.Sender() == "" {
			continue // nothing is pushed
		}
		s := h.Subscribe(watchQueue, event.StateMember)
		watches.Go(func() error {
			defer s.Close()
			a.watchLoop(ctx, h, s)
			return nil
		})
	}
	return watches.Wait()
}

func (a *Authoriser) watchLoop(ctx context.Context, h *homeserver.Homeserver, s *homeserver.Subscription) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Ready():
		}
		events, lost := s.Take()
		a.departures(ctx, h, events)
		if lost > 0 {
			a.options.Logger.Warn("membership events missed: checking every session", "homeserver", h.Name(), "events", lost)
			a.members.forget()
			a.recheck(ctx)
		}
	}
}

// departures acts on membership events, the latest about each place.
func (a *Authoriser) departures(ctx context.Context, h *homeserver.Homeserver, events []*event.Event) {
	latest := map[place]event.Membership{}
	for _, e := range events {
		var content struct {
			Membership event.Membership `json:"membership"`
		}
		_ = json.Unmarshal(e.Content.VeryRaw, &content) // what cannot be read is no join
		latest[place{id.UserID(e.GetStateKey()), e.RoomID}] = content.Membership
	}
	present := map[place]bool{}
	for _, o := range a.options.Sessions.Origins("") {
		present[place{id.UserID(o.User), id.RoomID(o.Conversation)}] = true
	}
	var confirms errgroup.Group
	confirms.SetLimit(confirmsAtOnce)
	for p, membership := range latest {
		switch {
		case membership == event.MembershipJoin:
		case !present[p]:
			a.remove(p, string(membership))
		default:
			confirms.Go(func() error {
				if !back(ctx, h, p) {
					a.remove(p, string(membership))
				}
				return nil
			})
		}
	}
	_ = confirms.Wait() // none fails
}

// back reports whether a user who left is a member again: the homeserver may tell us of old events after a pause. When
// it does not answer, the event counts.
func back(ctx context.Context, h *homeserver.Homeserver, p place) bool {
	sender, err := h.As(h.Sender())
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	membership, err := sender.Membership(ctx, p.room, p.user)
	return err == nil && membership == event.MembershipJoin
}

// remove makes the tokens worthless first, so that nobody comes back with one.
func (a *Authoriser) remove(p place, why string) {
	a.options.Revocations.Revoke(string(p.user), string(p.room), a.options.Now())
	if n := a.options.Sessions.Evict(string(p.user), string(p.room)); n > 0 {
		a.counters.evicted.Add(uint64(n))
		a.options.Logger.Info("participants removed: no longer in the Matrix room", "membership", why, "participants", n)
	}
}

// recheck asks about everybody who is in a call. Who is surely outside goes; an unanswered question ends no call.
func (a *Authoriser) recheck(ctx context.Context) {
	var checks errgroup.Group
	checks.SetLimit(confirmsAtOnce)
	for _, o := range a.options.Sessions.Origins("") {
		checks.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, recheckTime)
			defer cancel()
			p := place{id.UserID(o.User), id.RoomID(o.Conversation)}
			if s, _, _ := a.members.check(ctx, p, nil); s == outside {
				a.remove(p, "unknown")
			}
			return nil
		})
	}
	_ = checks.Wait() // none fails
}
