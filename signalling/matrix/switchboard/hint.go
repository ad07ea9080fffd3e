package switchboard

import (
	"encoding/json"
	"errors"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/call"
	"callserver/signalling/matrixrtc/member"
)

// A hint is something in the room that a call depends on.
type hint struct {
	member   *member.Member // somebody is in the room's call
	left     id.UserID      // with a device
	device   string
	declined id.EventID // the ring, by
	by       id.UserID
	departed id.UserID // from the room
	replaced bool      // by a call that crossed it
}

// hearRoom hands an event of a room to its calls, and begins one if it rings somebody who has the old calls alone.
func (s *Switchboard) hearRoom(h *homeserver.Homeserver, e *event.Event) *conversation {
	var what hint
	switch e.Type {
	case typeMember:
		m, err := member.Parse(told(e))
		switch {
		case err == nil && m.Slot == member.SlotRoom:
			what.member = m
		case errors.Is(err, member.ErrLeft) && e.StateKey != nil:
			what.left, what.device = e.Sender, *e.StateKey
		default:
			return nil
		}
	case event.StateMember:
		if m := e.Content; e.StateKey != nil && !joined(m.VeryRaw) {
			what.departed = id.UserID(*e.StateKey)
		} else {
			return nil
		}
	case typeDecline:
		ring, err := member.ParseDecline(told(e))
		if err != nil {
			return nil
		}
		what.declined, what.by = id.EventID(ring), e.Sender
	default:
		return s.rung(h, e)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls[e.RoomID] {
		c.tell(what)
	}
	return nil
}

// hinted acts on what happens in the room.
func (c *conversation) hinted(h hint) {
	now := c.board.now()
	other := string(c.plan.other)
	switch {
	case h.replaced:
		c.call.Hangup(call.Replaced)
	case h.departed == c.caller || h.departed != "" && h.departed == c.plan.other:
		c.call.Hangup(call.UserHangup)
	case other == "":
	case c.plan.crossed != nil:
	case h.member != nil && h.member.User == other && !c.plan.outgoing:
		c.plan.gives = time.Time{}
		c.call.Accept(now)
	case h.member != nil && c.plan.outgoing && h.member.User == string(c.caller) && h.member.Device != c.plan.place.Device && c.call.State() < call.Connecting:
		c.call.Hangup(call.AnsweredElsewhere) // by a client of MatrixRTC
	case h.left != "" && string(h.left) == other && (c.plan.outgoing || c.call.State() > call.Invited):
		c.call.Hangup(call.UserHangup)
	case h.declined != "" && h.declined == c.plan.ring && string(h.by) == other && c.call.State() == call.Invited:
		c.call.Hangup(call.UserHangup)
	case h.declined != "" && h.declined == c.plan.ring && h.by == c.caller && c.plan.outgoing && c.call.Calling():
		c.call.Hangup(call.UserHangup)
	}
}

// timeUp ends a call for which nobody waits any more.
func (c *conversation) timeUp() {
	c.plan.gives = time.Time{}
	switch {
	case !c.alone.IsZero():
		c.alone = time.Time{}
		c.call.Hangup(call.UserHangup)
	case c.plan.crossed != nil:
		c.outlive()
	case c.call.State() == call.Invited:
		c.call.Drop(call.InviteTimeout)
	case c.call.Calling():
		c.call.Hangup(call.InviteTimeout)
	}
}

// outlive takes the place of the call of ours that this one crossed, if nobody has answered that.
func (c *conversation) outlive() {
	if !c.plan.crossed.unanswered.Load() {
		c.call.Hangup(call.Replaced)
		return
	}
	c.plan.crossed.tell(hint{replaced: true})
	c.plan.crossed = nil
	c.call.Accept(c.board.now())
}

// joined reports whether a membership of the room is that of somebody in it.
func joined(content json.RawMessage) bool {
	var c struct {
		Membership event.Membership `json:"membership"`
	}
	return json.Unmarshal(content, &c) == nil && c.Membership == event.MembershipJoin
}
