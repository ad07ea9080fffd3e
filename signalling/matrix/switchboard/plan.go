package switchboard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/call"
	"callserver/signalling/matrix/standin"
	"callserver/signalling/matrixrtc/member"
)

// settleTime is how long after a ring the one who is rung may join by a client of MatrixRTC before being called, too.
const settleTime = 1500 * time.Millisecond

// crossTime is how long a call that crossed one of ours with a smaller id waits for its client to give it up.
const crossTime = 3 * time.Second

// A plan is why there is a conversation, and what ends it besides its two sides.
type plan struct {
	place     standin.Place
	video     bool
	encrypted bool
	bot       bool // is in the room
	outgoing  bool
	placed    bool            // it is outgoing, and known for whom
	busy      bool            // it is turned away
	rings     bool            // the caller is declared before it is answered, and then the other is rung
	atOnce    bool            // answered whatever else: it takes the place of another that crossed it
	former    []*conversation // of the same caller here: this one is turned away unless they are over
	crossed   *conversation   // of ours, with the smaller id: it lives if the client knows that rule
	other     id.UserID       // at the other side of a room for two, in MatrixRTC
	ring      id.EventID      // of the other, by us or to us
	gives     time.Time       // when it is given up; zero means never
}

// invited makes a conversation of an invitation, or nothing if that cannot be.
func (s *Switchboard) invited(h *homeserver.Homeserver, room id.RoomID, m call.Message) *conversation {
	caller := id.UserID(m.Sender)
	if !h.Local(caller) || s.own(caller) || !s.options.Servers.Permits(homeserver.ServerOf(caller)) {
		return nil // another server may bridge its own users
	}
	now := s.now()
	s.users.Put(caller, struct{}{}, now, now.Add(knownLife))
	c := s.newConversation(h, room, m.Call, caller)
	c.invitation = m
	s.meet(c)
	if !s.begin(c) {
		return nil
	}
	s.counters.invited.Add(1)
	return c
}

// meet sets an invitation beside the calls that its sender has in the room. Of two that crossed the smaller id lives, where
// the client sees that they did: clients look whom they called and who calls, which is the bot here in place of the other
// one, or not at all. So theirs waits, and lives after all if its client keeps it and answers none of ours.
func (s *Switchboard) meet(c *conversation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.calls[c.room] {
		switch {
		case other.caller != c.caller:
		case !other.plan.outgoing || !other.unanswered.Load():
			c.plan.former = append(c.plan.former, other)
		case other.placed.Load() && other.id < c.id:
			c.plan.crossed = other
		default:
			other.tell(hint{replaced: true})
			c.plan.atOnce = true
		}
	}
}

// begin finds out what is to become of a call. It reports false if nothing is.
func (c *conversation) begin(ctx context.Context) bool {
	c.plan.busy = !c.outlasts(ctx)
	prepare, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	began := c.board.now()
	s, err := c.look(prepare)
	c.plan.bot = s.bot
	if err == nil {
		if c.plan.outgoing {
			err = c.beginOut(prepare, &s)
		} else {
			err = c.beginIn(prepare, &s)
		}
	}
	var no *refusal
	switch {
	case err == nil:
	case errors.As(err, &no) && c.caller == "": // a ring that nobody here is for, as most are
		c.log.Debug("ring not bridged", "why", no.why)
		return false
	case errors.As(err, &no):
		c.board.counters.refused.Add(1)
		c.log.Info("call not bridged", "why", no.why)
		return c.call != nil
	default:
		c.board.counters.failed.Add(1)
		c.log.Warn("call not bridged", "err", err)
		return false
	}
	if c.plan.rings {
		c.declare(ctx)
	}
	c.log.Info("call begins", "caller", c.caller, "room_for_two", c.plan.other != "", "outgoing", c.plan.outgoing, "as", c.plan.place.User, "prepared", c.board.now().Sub(began))
	return true
}

// outlasts waits for the end of former calls, and reports whether there was one. Whoever hangs up and calls again at once has no other call; but the
// member that the former one was may be this one's.
func (c *conversation) outlasts(ctx context.Context) bool {
	bounded, cancel := context.WithTimeout(ctx, hangUpTime)
	defer cancel()
	for _, former := range c.plan.former {
		select {
		case <-former.ends:
		case <-bounded.Done():
			return false
		}
	}
	for _, former := range c.plan.former {
		select {
		case <-former.gone: // which takes clearTime at most
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// A refusal is why a call is not bridged, though it could be.
type refusal struct{ why string }

func (r *refusal) Error() string { return r.why }

func refuse(format string, of ...any) error { return &refusal{fmt.Sprintf(format, of...)} }

// permits says whether a room's calls are bridged, as an error if they are not.
func (c *conversation) permits(s *scene) error {
	on, set := c.board.consent.room(c.room)
	switch {
	case set && !on:
		return refuse("it is switched off in this room")
	case s.encrypted && !on:
		return refuse("the room is encrypted, and nobody with the power to do so switched it on")
	}
	return nil
}

// beginIn accepts an invitation, or rings whom it is for.
func (c *conversation) beginIn(ctx context.Context, s *scene) error {
	m, other := c.invitation, s.other(c.caller)
	bot := c.hs.Sender()
	self := bot
	if _, here := s.people[c.caller]; !here {
		return refuse("the caller is not in the room")
	}
	toBot := m.Invitee == string(bot) || m.Invitee == "" && other == ""
	if err := c.permits(s); err != nil {
		return c.turnAway(m, toBot && m.Invitee != "", err)
	}
	switch {
	case toBot && !s.bot:
		return refuse("the bot is not in the room")
	case toBot:
	case other == "" || m.Invitee != "" && m.Invitee != string(other):
		return refuse("it is for somebody else in a room of many")
	case c.board.consent.refuses(c.caller) || c.board.consent.refuses(other):
		return refuse("one of the two does not want it")
	default:
		c.plan.other = other
		if !s.encrypted && c.mayBe(other) {
			self = other
		} else if !s.bot {
			return refuse("the one who is called did not agree to be spoken for, and the bot is not in the room")
		}
	}
	if err := c.stand(s, c.caller); err != nil {
		return err
	}
	if err := c.speakAs(self); err != nil {
		return err
	}
	m.Invitee = "" // it is for whom we speak
	m.Age += c.board.now().Sub(c.heard)
	incoming, err := call.Incoming(m, call.Options{Party: unique("callserver-"), Self: string(self)}, c.board.now())
	if err != nil {
		return refuse("%s", err)
	}
	c.call = incoming
	c.plan.video = hasVideo(m.Description.SDP)
	c.plan.place.Intent = intent(c.plan.video)
	if c.drain(ctx); c.call.State() == call.Ended {
		return nil
	}
	switch {
	case c.plan.busy:
		c.call.Hangup(call.UserBusy)
	case c.plan.crossed != nil:
		c.plan.gives = c.board.now().Add(crossTime)
	case c.plan.other == "" || c.plan.atOnce:
		c.call.Accept(c.board.now())
	default:
		return c.ringOther(ctx)
	}
	return nil
}

// turnAway rejects a call that was meant for the bot alone; any other may be answered by people.
func (c *conversation) turnAway(m call.Message, meant bool, why error) error {
	if !meant {
		return why
	}
	if err := c.speakAs(c.hs.Sender()); err != nil {
		return err
	}
	m.Invitee = ""
	incoming, err := call.Incoming(m, call.Options{Party: unique("callserver-"), Self: string(c.hs.Sender())}, c.board.now())
	if err != nil {
		return refuse("%s", err)
	}
	c.call = incoming
	c.call.Hangup(call.UserHangup)
	return why
}

// drain takes what came together with the invitation.
func (c *conversation) drain(ctx context.Context) {
	for {
		select {
		case what := <-c.inbox:
			c.take(ctx, what)
		default:
			return
		}
	}
}

// mayBe reports whether this server may and shall speak for a user.
func (c *conversation) mayBe(user id.UserID) bool {
	if !c.board.consent.user(user) {
		return false
	}
	_, err := c.hs.As(user)
	return err == nil
}

// stand chooses as whom somebody is in the room's call.
func (c *conversation) stand(s *scene, user id.UserID) error {
	p := standin.Place{Homeserver: c.hs, Room: c.room, User: user, Device: pretended, Name: s.name(user)}
	if s.encrypted {
		c.plan.place, c.plan.encrypted = p, true
		return c.standSealed()
	}
	if !c.mayBe(user) {
		if !s.bot {
			return refuse("%s did not agree to be stood in for, and the bot is not in the room", user)
		}
		p.User, p.Device, p.For = c.hs.Sender(), unique("CALL"), user
	}
	c.plan.place = p
	return nil
}

func (c *conversation) speakAs(user id.UserID) (err error) {
	c.speaker, err = c.hs.As(user)
	return err
}

// ringOther declares the caller in the room's call and rings the other one, unless that one is there already.
func (c *conversation) ringOther(ctx context.Context) error {
	present, err := c.lookAtCall(ctx, c.witness)
	if err != nil {
		return err
	}
	for _, m := range present {
		if m.User == string(c.plan.other) {
			c.call.Accept(c.board.now())
			return nil
		}
	}
	c.plan.gives = c.board.now().Add(c.invitation.Lifetime - c.invitation.Age)
	c.plan.rings = true
	return nil
}

// declared is what became of a declaration.
type declared struct {
	event id.EventID // its membership
	err   error
}

// declare makes the caller a member of the room's call, without waiting for it.
func (c *conversation) declare(ctx context.Context) {
	c.keep(ctx)
	c.member = true
	if c.plan.encrypted {
		if err := c.engage(ctx); err != nil {
			c.fail("no media keys", err)
			return
		}
	}
	c.declaring.Go(func() {
		defer c.board.rescue(c.room)
		ctx, cancel := context.WithTimeout(ctx, clearTime)
		defer cancel()
		if c.plan.place.For != "" {
			c.named.Store(true)
			c.board.rename(ctx, c.hs, c.room)
		}
		event, err := c.board.options.Standin.Declare(ctx, c.plan.place)
		c.declared <- declared{event, err}
		if err == nil && c.plan.encrypted {
			c.board.bot.Say(ctx, c.hs, string(c.room), c.plan.place.Name+" is in the call with an older client. That part of the call is decrypted at my server: end-to-end encryption ends there.")
		}
	})
}

// isDeclared goes on once the caller is a member.
func (c *conversation) isDeclared(ctx context.Context, d declared) {
	if d.err != nil {
		c.fail("the caller cannot be a member of the room's call", d.err)
		if homeserver.Code(d.err) == "M_FORBIDDEN" {
			c.board.bot.Say(ctx, c.hs, string(c.room), "I cannot put a caller into this room's call: the power level for "+member.TypeState+" is too high.")
		}
		return
	}
	c.introduce(ctx)
	if c.plan.outgoing {
		c.nod(ctx)
	}
	if c.call.State() != call.Invited || c.plan.other == "" {
		return
	}
	now := c.board.now()
	content := member.NewRing(string(c.plan.other), string(d.event), c.plan.place.Intent, now, c.plan.gives.Sub(now))
	agent, err := c.hs.As(c.plan.place.User)
	if err == nil {
		c.plan.ring, err = c.sendAs(ctx, agent, typeNotification, unique("ring-"), content)
	}
	if err != nil {
		c.fail("the one who is called cannot be rung", err)
	}
}
