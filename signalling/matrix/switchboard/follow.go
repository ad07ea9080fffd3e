package switchboard

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

const (
	maxFollowed = 500 // users whose rooms are followed at a time
	followPause = time.Second
	maxPause    = time.Minute
)

// followersLoop has the calls of users who agreed to be spoken for heard in rooms where the bot is not, too, through their
// own eyes. What is heard twice counts once. Where the wide registration is missing nothing is heard. A poll that is not wanted
// any more ends with the answer that it waits for, as those of [callserver/signalling/matrixrtc/standing] do, and for the same reason.
func (s *Switchboard) followersLoop(ctx context.Context) {
	var follows sync.WaitGroup
	defer follows.Wait()
	followed := map[id.UserID]*atomic.Bool{} // wanted
	for {
		agreed := s.consent.agreed()
		for user, wanted := range followed {
			if !slices.Contains(agreed, user) {
				wanted.Store(false)
				delete(followed, user)
			}
		}
		for _, user := range agreed {
			agent, ok := s.eyesOf(user)
			if !ok || followed[user] != nil {
				continue
			}
			if len(followed) == maxFollowed {
				s.log.Warn("the calls of some users are noticed only in rooms with the bot: too many agreed to be spoken for", "at most", maxFollowed)
				break
			}
			wanted := new(atomic.Bool)
			wanted.Store(true)
			followed[user] = wanted
			follows.Go(func() { s.followLoop(ctx, agent, user, wanted) })
		}
		select {
		case <-s.agreed:
		case <-ctx.Done():
			return
		}
	}
}

// eyesOf are a user's own, if this server may see through them.
func (s *Switchboard) eyesOf(user id.UserID) (homeserver.Agent, bool) {
	for _, h := range s.options.Connections {
		if agent, err := h.As(user); err == nil {
			return agent, true
		}
	}
	return homeserver.Agent{}, false
}

func (s *Switchboard) followLoop(ctx context.Context, agent homeserver.Agent, user id.UserID, wanted *atomic.Bool) {
	poll := agent.PollRooms(heard()...)
	for pause := followPause; wanted.Load(); {
		_, err := poll.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pause = followPause
			continue
		case !errors.Is(err, homeserver.ErrUnavailable):
			s.log.Warn("the calls of a user are noticed only in rooms with the bot", "user", user, "err", err)
			pause = maxPause
		}
		if !rest(ctx, pause) {
			return
		}
		pause = min(2*pause, maxPause)
	}
}
