package switchboard

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/call"
	"callserver/signalling/matrix/standin"
	"callserver/signalling/matrixrtc/member"
)

// leastRing is for how long an older client is called at least, so that it does not take the call for too late; it is given
// up when the ring is over.
const leastRing = time.Minute

// rung begins a call if a ring in a room for two may be for a user of the old calls.
func (s *Switchboard) rung(h *homeserver.Homeserver, e *event.Event) *conversation {
	now := s.now()
	ring, err := member.ParseNotification(told(e))
	if err != nil || !ring.Ring || e.StateKey != nil || !now.Before(ring.Expires) || s.own(e.Sender) || s.ours(e.RoomID, e.Sender) {
		return nil // what we ring ourselves must not come back to us
	}
	user, may := s.rungUser(h, ring)
	if !may || !s.first(e.ID) {
		return nil
	}
	c := s.newConversation(h, e.RoomID, unique(""), user)
	c.plan.outgoing, c.plan.other, c.plan.ring, c.plan.gives = true, e.Sender, e.ID, ring.Expires
	c.plan.video = ring.Intent != "audio"
	c.unanswered.Store(true)
	if !s.begin(c) {
		return nil
	}
	return c
}

// rungUser is the user of the old calls whom a ring names. Element Call names nobody and means everybody: then nobody is
// returned, and who the other one in the room is remains to be found out.
func (s *Switchboard) rungUser(h *homeserver.Homeserver, ring member.Notification) (user id.UserID, may bool) {
	for _, name := range ring.Users {
		if user := id.UserID(name); h.Local(user) && s.old(user) && user != id.UserID(ring.Sender) {
			return user, true
		}
	}
	return "", ring.Room
}

// old reports whether a user is known to use the old calls: by agreeing to be bridged, or from what was heard.
func (s *Switchboard) old(user id.UserID) bool {
	if s.consent.refuses(user) {
		return false
	}
	_, known := s.users.Get(user, s.now())
	return known || s.consent.user(user)
}

// ours reports whether a user is in a room's call only by us.
func (s *Switchboard) ours(room id.RoomID, user id.UserID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.calls[room], func(c *conversation) bool { return c.caller == user })
}

// beginOut calls a user of the old calls whom somebody rings by MatrixRTC.
func (c *conversation) beginOut(ctx context.Context, s *scene) error {
	if err := c.find(s); err != nil {
		return err
	}
	if err := c.permits(s); err != nil {
		return err
	}
	self := c.hs.Sender()
	switch {
	case !s.encrypted && c.hs.Local(c.plan.other) && c.mayBe(c.plan.other):
		self = c.plan.other
	case !s.bot:
		return refuse("whoever rings did not agree to be spoken for, and the bot is not in the room")
	}
	if err := c.stand(s, c.caller); err != nil {
		return err
	}
	if c.plan.busy {
		return refuse("another older client is in the call of this encrypted room")
	}
	if err := c.speakAs(self); err != nil {
		return err
	}
	c.plan.place.Intent = intent(c.plan.video)
	if !rest(ctx, settleTime) {
		return ctx.Err()
	}
	if err := c.wanted(ctx); err != nil {
		return err
	}
	now := c.board.now()
	c.call = call.Outgoing(call.Options{
		ID: c.id, Party: unique("callserver-"), Self: string(self), Peer: string(c.caller), Invitee: string(c.caller),
		Lifetime: max(leastRing, c.plan.gives.Sub(now)),
	}, now)
	if c.drain(ctx); c.call.State() == call.Ended {
		return nil
	}
	if err := c.join(ctx); err != nil {
		c.refuse(err)
		return nil
	}
	d, err := c.leg.Offer(ctx)
	if err != nil {
		c.fail("no offer", err)
		return nil
	}
	c.keep(ctx)
	c.describe("offer", d)
	c.placed.Store(true)
	if self != c.plan.other {
		c.pending = &call.Identity{ID: string(c.plan.other), DisplayName: s.name(c.plan.other)}
	}
	return nil
}

// find finds out whom a ring calls.
func (c *conversation) find(s *scene) error {
	user := s.other(c.plan.other)
	switch {
	case user == "" || s.other(user) != c.plan.other || c.caller != "" && c.caller != user:
		return refuse("the room is not one for these two")
	case !c.hs.Local(user) || !c.board.old(user):
		return refuse("the one who is rung is not known to use older calls")
	case !c.board.claim(c, user):
		return refuse("the one who is rung has a call in this room, or too many")
	}
	c.plan.placed = true
	c.board.counters.placed.Add(1)
	return nil
}

// wanted checks that whoever rings is in the call, here, and that the one who is rung is not yet.
func (c *conversation) wanted(ctx context.Context) error {
	present, err := c.lookAtCall(ctx, c.witness)
	if err != nil {
		return err
	}
	here := false
	for _, m := range present {
		if m.User == string(c.caller) {
			return refuse("the one who is called has joined")
		}
		if m.User == string(c.plan.other) {
			t, ok := m.Effective(present)
			here = ok && t.Service == c.board.options.Standin.Service
		}
	}
	if !here {
		return refuse("whoever rings is in no call on this server")
	}
	return nil
}

// Element Call takes whichever other member of the room comes first for the one it rings, the bot as well as the user who is
// called, and heeds that one alone: a decline of that one's, or a membership. If there is neither before the ring is over, it
// leaves, though it be in the midst of a call. So both speak, where both may.

// nodTime is for how long the one of the two who is not in the call is a member of it, so that the ring counts as answered.
const nodTime = 3 * time.Second

// decline tells whoever rings that the one who was called does not want to. What is said in the user's name is never
// encrypted, for want of keys; but for its type, all of it would be legible if it were.
func (c *conversation) decline(ctx context.Context) {
	refusal := member.NewRefusal(string(c.plan.ring))
	var failures []error
	if agent, err := c.hs.As(c.caller); err == nil && c.mayBe(c.caller) {
		_, err = agent.Send(ctx, c.room, typeDecline, unique("decline-"), refusal)
		failures = append(failures, err)
	}
	if agent, err := c.hs.As(c.hs.Sender()); err == nil && c.plan.bot {
		_, err = c.sendAs(ctx, agent, typeDecline, unique("decline-"), refusal)
		failures = append(failures, err)
	}
	if err := errors.Join(failures...); err != nil {
		c.log.Warn("ring not declined", "err", err)
	}
}

// nod makes the one who is not in the call a member of it for a moment, if it is known that a ring is answered.
func (c *conversation) nod(ctx context.Context) {
	p := c.plan.place
	switch {
	case p.User == c.caller && c.plan.bot:
		p.User, p.Device = c.hs.Sender(), unique("CALL")
	case p.User != c.caller && c.mayBe(c.caller):
		p.User, p.Device = c.caller, pretended
	default:
		return
	}
	resting, nodded := context.WithCancel(ctx) // not for the write: one that is cut off may come after that which takes it back
	c.nodding, c.nodded = p.Device, nodded
	c.declaring.Go(func() {
		defer c.board.rescue(c.room)
		_, err := standin.Rules{Service: c.board.options.Standin.Service}.Declare(ctx, p)
		if err == nil {
			rest(resting, nodTime)
		}
		clear, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTime)
		defer cancel()
		err = errors.Join(err, standin.Clear(clear, p))
		if err != nil {
			c.log.Warn("whoever rings may not know that the call is answered", "err", err)
		}
	})
}

// hasVideo reports whether an offer has a picture.
func hasVideo(sdp string) bool {
	for _, line := range strings.Split(sdp, "\n") {
		if rest, ok := strings.CutPrefix(line, "m=video "); ok && !strings.HasPrefix(rest, "0 ") {
			return true
		}
	}
	return false
}

// intent is what MatrixRTC calls a call with or without pictures.
func intent(video bool) string {
	if video {
		return "video"
	}
	return "audio"
}
