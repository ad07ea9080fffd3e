package switchboard

import (
	"cmp"
	"context"
	"strings"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/matrix/call"
)

// shows tells the other end what it hears and sees now, and whose that is.
func (c *conversation) shows(ctx context.Context, s signalling.Shown) {
	dark := s.Muted || s.Identity == ""
	for id, stream := range c.sent {
		switch {
		case stream.Screen != (s.Source == sfu.ScreenShare):
			continue
		case s.Source == sfu.Microphone:
			stream.AudioMuted = dark
		default:
			stream.VideoMuted = dark
		}
		c.sent[id] = stream
	}
	c.call.Changed(metadata(c.sent))
	switch s.Source {
	case sfu.Microphone:
		c.heardNow = s.Identity
	case sfu.Camera:
		c.seenNow = s.Identity
	}
	c.assert(ctx)
}

// assert tells the other end whose voice it hears, or whose picture it sees while there is no voice.
func (c *conversation) assert(ctx context.Context) {
	who := cmp.Or(c.heardNow, c.seenNow)
	if who == "" || who == c.shown {
		return
	}
	for _, p := range c.leg.Others() {
		if p.Identity == who {
			user := c.userOf(who)
			c.shown = who
			c.call.Assert(call.Identity{ID: user, DisplayName: c.nameOf(ctx, user, p.Name)})
		}
	}
}

// userOf is the user behind an identity, or the identity itself.
func (c *conversation) userOf(identity sfu.Identity) string {
	for _, a := range c.board.options.Media.Attendance(string(c.room)) {
		if a.Info.Identity == identity {
			return a.Origin.Person()
		}
	}
	return string(identity)
}

// nameOf is how the room calls a user. Who is none has the name with which it joined the call.
func (c *conversation) nameOf(ctx context.Context, user, joined string) string {
	if !strings.HasPrefix(user, "@") {
		return joined
	}
	name, known := c.names[id.UserID(user)]
	if !known {
		var shown struct {
			Name string `json:"displayname"`
		}
		if err := c.witness.State(ctx, c.room, event.StateMember, user, &shown); err != nil {
			c.log.Info("name of a member not known", "err", err)
		}
		if name = shown.Name; name == "" {
			name = id.UserID(user).Localpart()
		}
		c.names[id.UserID(user)] = name
	}
	return name
}
