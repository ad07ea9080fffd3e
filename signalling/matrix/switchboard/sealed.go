package switchboard

import (
	"context"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/sfu"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/courier"
	"callserver/signalling/matrix/mediakeys"
	"callserver/signalling/matrixrtc/member"
)

// In encrypted rooms the bot alone has keys. So it is the bot who speaks to the older client, and its own device that is in
// the room's call: one bridged call at a time in each such room.

// keyQueue are media keys that wait for the leg; beyond it those that come later are lost, and a member is not heard until
// its next key.
const keyQueue = 256

// A Bot is this server's own user, as far as it speaks and has keys.
type Bot interface {
	// Say says something in a room, to people.
	Say(ctx context.Context, h *homeserver.Homeserver, room, text string)
	// Seal makes of an event what is sent into a room in the bot's name: the event itself where nothing is encrypted.
	Seal(ctx context.Context, h *homeserver.Homeserver, room id.RoomID, kind event.Type, content any) (event.Type, any, error)
	// Device is the bot's, empty if it has none.
	Device(h *homeserver.Homeserver) id.DeviceID
	// Courier has the bot take part in the media keys of a room's call.
	Courier(h *homeserver.Homeserver, o courier.Options) (*courier.Courier, *courier.Office, error)
}

// mute is no bot: it says nothing and has no keys.
type mute struct{}

func (mute) Say(context.Context, *homeserver.Homeserver, string, string) {}

func (mute) Seal(_ context.Context, _ *homeserver.Homeserver, _ id.RoomID, kind event.Type, content any) (event.Type, any, error) {
	return kind, content, nil
}

func (mute) Device(*homeserver.Homeserver) id.DeviceID { return "" }

func (mute) Courier(*homeserver.Homeserver, courier.Options) (*courier.Courier, *courier.Office, error) {
	return nil, nil, courier.ErrNoDevice
}

// Use says who speaks for this server. It is called at most once, before Run.
func (s *Switchboard) Use(b Bot) { s.bot = b }

// Hear takes an event that the bot has decrypted. It never waits; what there is no room for is lost.
func (s *Switchboard) Hear(h *homeserver.Homeserver, e *event.Event) {
	select {
	case s.opened <- opened{h, e}:
	default:
		s.counters.dropped.Add(1)
	}
}

// opened is a decrypted event.
type opened struct {
	hs    *homeserver.Homeserver
	event *event.Event
}

// openedLoop hears decrypted events as if they had come like that.
func (s *Switchboard) openedLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-s.opened:
			if c := s.hear(o.hs, o.event); c != nil {
				s.talks.Go(func() { c.callLoop(ctx) })
			}
		}
	}
}

// sendAs sends an event in a user's name; the bot's are encrypted where the room is.
func (c *conversation) sendAs(ctx context.Context, agent homeserver.Agent, kind event.Type, transaction string, content any) (id.EventID, error) {
	if c.plan.encrypted {
		var err error
		if kind, content, err = c.board.bot.Seal(ctx, c.hs, c.room, kind, content); err != nil {
			return "", err
		}
	}
	return agent.Send(ctx, c.room, kind, transaction, content)
}

// standSealed makes the bot's device the caller's in an encrypted room.
func (c *conversation) standSealed() error {
	device := c.board.bot.Device(c.hs)
	if device == "" {
		return refuse("the room is encrypted, and the bot has no keys: give data.file a file")
	}
	c.plan.place.User, c.plan.place.Device, c.plan.place.For = c.hs.Sender(), string(device), c.caller
	c.board.mu.Lock()
	defer c.board.mu.Unlock()
	for _, other := range c.board.calls[c.room] {
		crossed := (c.plan.atOnce || c.plan.crossed == other) && other.caller == c.caller // one of them ends, for the other
		if other != c && other.sealed.Load() && !crossed {
			c.plan.busy = true
			return nil
		}
	}
	c.sealed.Store(true)
	return nil
}

// engage has the bot's device take part in the media keys of the call, before its membership is known.
func (c *conversation) engage(ctx context.Context) error {
	p := c.plan.place
	keys, office, err := c.board.bot.Courier(c.hs, courier.Options{
		Room: c.room, Member: member.DeviceIdentity(string(p.User), p.Device),
		Own:    func(k mediakeys.Own) { c.hand(k) },
		Theirs: func(k mediakeys.Theirs) { c.hand(k) },
	})
	if err != nil {
		return err
	}
	c.keys = keys
	running, stop := context.WithCancel(ctx)
	c.dismiss = func() {
		office.Dismiss(keys)
		stop()
	}
	c.declaring.Go(func() {
		defer c.board.rescue(c.room)
		_ = keys.Run(running) // its end is no error
	})
	return nil
}

// hand puts a key where the conversation finds it.
func (c *conversation) hand(key any) {
	select {
	case c.handed <- key:
	default:
		c.board.counters.dropped.Add(1)
	}
}

// useKey gives a key to the leg, or keeps it until there is one.
func (c *conversation) useKey(key any) {
	if c.leg == nil {
		if len(c.parked) < keyQueue {
			c.parked = append(c.parked, key)
		}
		return
	}
	switch k := key.(type) {
	case mediakeys.Own:
		c.owns = append(c.owns, k)
		c.seal(c.board.now())
	case mediakeys.Theirs:
		if err := c.leg.SetKey(sfu.Identity(k.Identity), k.Index, k.Secret); err != nil {
			c.log.Warn("media key not used", "err", err)
		}
	}
}

// seal seals with the keys of our own whose time has come.
func (c *conversation) seal(now time.Time) {
	for len(c.owns) > 0 && !now.Before(c.owns[0].From) {
		if err := c.leg.SetOwnKey(c.owns[0].Index, c.owns[0].Secret); err != nil {
			c.log.Warn("media key not used", "err", err)
		}
		c.owns = c.owns[1:]
	}
}

// sealAt is when the next one's time comes; zero means never.
func (c *conversation) sealAt() time.Time {
	if len(c.owns) == 0 {
		return time.Time{}
	}
	return c.owns[0].From
}

// introduce tells the keys who is in the call.
func (c *conversation) introduce(ctx context.Context) {
	if c.keys == nil {
		return
	}
	agent, err := c.hs.As(c.hs.Sender())
	if err != nil {
		return
	}
	present, err := c.lookAtCall(ctx, agent)
	if err != nil {
		c.log.Warn("who gets the media keys of a call is not known", "err", err)
		return
	}
	all := make([]mediakeys.Member, 0, len(present))
	for _, m := range present {
		if m.Device == c.nodding {
			continue // nobody is there to get a key
		}
		all = append(all, mediakeys.Member{
			Peer: mediakeys.Peer{User: m.User, Device: m.Device}, Identity: m.Identity(), Created: m.Created,
		})
	}
	c.keys.Members(all)
}
