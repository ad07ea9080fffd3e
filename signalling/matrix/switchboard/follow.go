package switchboard

import (
	"context"
	"errors"
	"slices"
	"sync"
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
// own eyes. What is heard twice counts once. Where the wide registration is missing nothing is heard.
func (s *Switchboard) followersLoop(ctx context.Context) {
	var follows sync.WaitGroup
	defer follows.Wait()
	followed := map[id.UserID]context.CancelFunc{}
	for {
		agreed := s.consent.agreed()
		for user, stop := range followed {
			if !slices.Contains(agreed, user) {
				stop()
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
			following, stop := context.WithCancel(ctx)
			followed[user] = stop
			follows.Go(func() {
				defer stop()
				s.followLoop(following, agent, user)
			})
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

func (s *Switchboard) followLoop(ctx context.Context, agent homeserver.Agent, user id.UserID) {
	poll := agent.PollRooms(heard()...)
	for pause := followPause; ; {
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
