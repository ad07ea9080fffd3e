package switchboard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/event"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/call"
	"callserver/signalling/matrix/standin"
)

const (
	tidyTime  = 10 * time.Second // for one call of an earlier run
	tidyPause = 5 * time.Second  // before one is tried again
	tidyTries = 10
	// tidyAtOnce is how many calls of an earlier run are hung up at a time: whichever room is slow holds up few others.
	tidyAtOnce = 16
)

// record is the conversation, as it is stored.
func (c *conversation) record() Record {
	p := c.plan.place
	return Record{
		Server: c.hs.Name(), Room: c.room, Call: c.id, Party: c.call.Party(), Version: c.call.Version(),
		Speaker: c.speaker.User(), Member: p.User, Device: p.Device,
	}
}

// keep has the call survive this server, for as long as it takes to hang it up.
func (c *conversation) keep(ctx context.Context) {
	if c.board.options.Store == nil || c.stored {
		return
	}
	c.stored = true
	if err := c.board.options.Store.Keep(ctx, c.record()); err != nil {
		c.log.Warn("call not stored: a restart would leave it hanging", "err", err)
	}
}

// forget ends what keep began.
func (c *conversation) forget(ctx context.Context) {
	if !c.stored {
		return
	}
	if err := c.board.options.Store.Forget(ctx, c.record()); err != nil {
		c.log.Warn("call not forgotten: it is hung up again at the next start", "err", err)
	}
}

// tidy hangs up the calls of an earlier run, whose media is lost, and clears the memberships that they had.
func (s *Switchboard) tidy(ctx context.Context) {
	left := s.left
	for try := 1; len(left) > 0 && try <= tidyTries; try++ {
		if try > 1 && !rest(ctx, tidyPause) {
			return
		}
		again := make([]bool, len(left))
		var work errgroup.Group
		work.SetLimit(tidyAtOnce)
		for i, r := range left {
			work.Go(func() error {
				again[i] = s.tidyAway(ctx, r)
				return nil
			})
		}
		_ = work.Wait() // none fails
		var failed []Record
		for i, r := range left {
			if again[i] {
				failed = append(failed, r)
			}
		}
		left = failed
	}
}

// tidyAway hangs a call of an earlier run up and forgets it, and reports whether that is to be tried again.
func (s *Switchboard) tidyAway(ctx context.Context, r Record) (again bool) {
	if err := s.tidyUp(ctx, r); err != nil {
		s.log.Warn("call of an earlier run not hung up", "matrix_room", r.Room, "err", err)
		if errors.Is(err, homeserver.ErrUnavailable) {
			return true
		}
	}
	if err := s.options.Store.Forget(ctx, r); err != nil {
		s.log.Warn("call of an earlier run not forgotten", "err", err)
	}
	return false
}

func (s *Switchboard) tidyUp(ctx context.Context, r Record) error {
	ctx, cancel := context.WithTimeout(ctx, tidyTime)
	defer cancel()
	for _, h := range s.options.Connections {
		if h.Name() != r.Server {
			continue
		}
		s.log.Info("hanging up a call of an earlier run", "matrix_room", r.Room, "call", r.Call)
		agent, err := h.As(r.Speaker)
		if err != nil {
			return err
		}
		head := call.Head{Call: r.Call, Party: r.Party, Version: r.Version}
		if r.Version == 0 {
			head.Party = ""
		}
		kind := event.Type{Type: call.TypeHangup, Class: event.MessageEventType}
		var content any = call.Hangup{Head: head, Reason: call.UnknownError}
		if r.Speaker == h.Sender() {
			if kind, content, err = s.bot.Seal(ctx, h, r.Room, kind, content); err != nil {
				return fmt.Errorf("%w: %w", homeserver.ErrUnavailable, err) // the keys may not be there yet
			}
		}
		_, err = agent.Send(ctx, r.Room, kind, "callserver-hangup-"+r.Party, content)
		err = errors.Join(err, standin.Clear(ctx, standin.Place{Homeserver: h, Room: r.Room, User: r.Member, Device: r.Device}))
		if r.Member == h.Sender() {
			s.rename(ctx, h, r.Room)
		}
		return err
	}
	return nil
}
