package call

import (
	"errors"
	"maps"
	"slices"
	"time"
)

// How long things may take.
const (
	ringGrace     = 3 * time.Second  // of an invitation's life that is left out: nobody would get to answer it
	inviteTime    = 60 * time.Second // life of our invitation
	describeTime  = 10 * time.Second // until our own description is there
	selectTime    = 10 * time.Second // until a caller says whom it selected, unless media flows
	connectTime   = 30 * time.Second // until media flows, at first or again
	negotiateTime = 30 * time.Second // until a negotiation is answered

	inviteBatch = 2 * time.Second        // candidates that are gathered are sent so long after an invitation,
	answerBatch = 500 * time.Millisecond // and so long after an answer or the last batch
)

// Bounds of what is kept.
const (
	maxParties = 8  // whose candidates wait for us to choose
	maxSeen    = 64 // events that are known again
)

// A State of a Call.
type State uint8

// The states, in their order. A call may end in each of them.
//
//	incoming:  Invited --Accept--> Answering --Described--+
//	                                                      +--> Connecting --Connected--> Up --> Ended
//	outgoing:  Placing --Described--> Ringing --answer----+
//
// A call that is Up stays so while it is negotiated anew, or while its media is lost for a moment.
const (
	Invited    State = iota + 1 // somebody calls, and nobody has accepted
	Answering                   // our answer is being made
	Placing                     // our invitation is being made
	Ringing                     // it is sent
	Connecting                  // answered
	Up                          // media has flown
	Ended
)

var (
	// ErrStale means that an invitation is over, or too soon for anybody to answer.
	ErrStale = errors.New("the invitation has expired")
	// ErrNotMeant means that an invitation is for somebody else, or our own.
	ErrNotMeant = errors.New("the invitation is for somebody else")
)

// Options of a Call.
type Options struct {
	ID      string // call id, of an outgoing call; opaque
	Party   string // ours: unique to this call
	Self    string // the user in whose name we speak
	Peer    string // the user at the other end, of an outgoing call
	Invitee string // who is to answer an outgoing call; empty means whoever is in the room

	Lifetime time.Duration // of an outgoing invitation; 0 means 60 s
}

// Effects of what happened, to be carried out in their order.
type (
	// An Effect is one of the types below.
	Effect any

	// Send asks for an event to be sent to the room.
	Send struct {
		Type    string
		Content any
	}

	// TakeOffer hands over the other side's offer, which is to be answered by Described. Our own offer that is not
	// answered is void then.
	TakeOffer struct {
		SDP   string
		Again bool // in a call that was negotiated before
	}

	// TakeAnswer hands over the answer to our offer.
	TakeAnswer struct{ SDP string }

	// TakeCandidates hands over candidates of the other side. They follow its description.
	TakeCandidates struct{ Candidates []Candidate }

	// TakeStreams says what the other side's streams are, all of them.
	TakeStreams struct{ Streams Streams }

	// Rollback says that our offer is void.
	Rollback struct{}

	// Over says that the call has ended. Nothing follows it.
	Over struct {
		Reason Reason
		Ours   bool // we ended it
	}
)

// A Call is passive: what happens is told to it with the time, and Effects says what is to be done. Caller's goroutine
// only; made by [Incoming] or [Outgoing].
type Call struct {
	o        Options
	outgoing bool
	state    State
	version  Version
	effects  []Effect

	party    string // of the other end, once there is one; never read in version 0
	chosen   bool   // there is one
	selected bool   // the caller said that it takes our answer
	offer    string // of the invitation, until it is accepted
	waiting  []Candidate
	buffered map[string][]Candidate // of parties that may answer
	seen     []string               // events, the oldest first

	ours, theirs Streams
	offering     bool   // our offer is not answered
	answering    bool   // theirs is not
	next         string // their offer that came meanwhile

	gathered []Candidate
	final    bool
	flushAt  time.Time

	expires  time.Time // the invitation
	describe time.Time // until when our description is expected
	choose   time.Time
	connect  time.Time
	renew    time.Time // until when our new offer is to be answered
}

// Incoming begins a call with an invitation. The error is ErrStale or ErrNotMeant.
func Incoming(m Message, o Options, now time.Time) (*Call, error) {
	switch {
	case m.Sender == o.Self || m.Invitee != "" && m.Invitee != o.Self:
		return nil, ErrNotMeant
	case m.Age > m.Lifetime-ringGrace:
		return nil, ErrStale
	}
	o.ID, o.Peer = m.Call, m.Sender
	c := &Call{
		o: o, state: Invited, version: m.Version, party: m.Party, chosen: true, offer: m.Description.SDP,
		seen: []string{m.Event}, expires: now.Add(m.Lifetime - m.Age),
	}
	c.heardStreams(m.Streams)
	return c, nil
}

// Outgoing begins a call of ours; Described sends the invitation.
func Outgoing(o Options, now time.Time) *Call {
	if o.Lifetime == 0 {
		o.Lifetime = inviteTime
	}
	return &Call{o: o, outgoing: true, state: Placing, version: 1, describe: now.Add(describeTime), buffered: map[string][]Candidate{}}
}

// ID is the call id.
func (c *Call) ID() string { return c.o.ID }

// Party is our party id.
func (c *Call) Party() string { return c.o.Party }

// Self is the user in whose name we speak, Peer the one at the other end.
func (c *Call) Self() string { return c.o.Self }

// Peer is the user at the other end.
func (c *Call) Peer() string { return c.o.Peer }

// State is where the call is.
func (c *Call) State() State { return c.state }

// Version is the other side's.
func (c *Call) Version() Version { return c.version }

// Streams are the other side's: nil if it never said.
func (c *Call) Streams() Streams { return maps.Clone(c.theirs) }

// Effects returns what is to be done since the last call.
func (c *Call) Effects() []Effect {
	e := c.effects
	c.effects = nil
	return e
}

// Accept answers an invitation: the leg gets its offer, and Described is expected.
func (c *Call) Accept(now time.Time) {
	if c.state != Invited {
		return
	}
	c.state, c.describe = Answering, now.Add(describeTime)
	c.effects = append(c.effects, TakeOffer{SDP: c.offer})
	c.offer = ""
	c.takeCandidates(c.waiting)
	c.waiting = nil
}

// Described says how our side describes itself: the answer to an offer that it was handed, or else an offer.
func (c *Call) Described(d Description, streams Streams, now time.Time) {
	c.ours = streams
	switch {
	case c.state == Answering && d.Type == "answer":
		c.sendAnswer(d.SDP)
		c.connecting(now)
		if c.version > 0 {
			c.choose = now.Add(selectTime)
		}
		c.flushAt = now.Add(answerBatch)
	case c.state == Placing && d.Type == "offer":
		c.sendInvite(d.SDP)
		c.state, c.describe, c.expires = Ringing, time.Time{}, now.Add(c.o.Lifetime)
		c.flushAt = now.Add(inviteBatch)
	case c.talking():
		c.negotiated(d, now)
	}
}

// connecting waits for media.
func (c *Call) connecting(now time.Time) {
	c.state, c.describe, c.expires = Connecting, time.Time{}, time.Time{}
	c.connect = now.Add(connectTime)
}

// talking reports whether both sides have described themselves.
func (c *Call) talking() bool { return c.state == Connecting || c.state == Up }

// negotiated sends a description of ours in a call that was negotiated before.
func (c *Call) negotiated(d Description, now time.Time) {
	switch {
	case d.Type == "answer" && c.answering:
		c.answering = false
		c.sendNegotiate("answer", d.SDP)
		if offer := c.next; offer != "" {
			c.next = ""
			c.takeOffer(offer)
		}
	case d.Type == "answer":
	case c.version == 0 || c.answering || c.offering:
		c.effects = append(c.effects, Rollback{}) // the other side cannot, or is quicker
	default:
		c.offering, c.renew = true, now.Add(negotiateTime)
		c.sendNegotiate("offer", d.SDP)
	}
}

// Gathered has candidates of ours sent. Final says that there are no more of this gathering.
func (c *Call) Gathered(all []Candidate, final bool, now time.Time) {
	if c.state == Ended {
		return
	}
	c.gathered, c.final = append(c.gathered, all...), c.final || final
	if c.flushAt.IsZero() && c.state >= Ringing && (len(c.gathered) > 0 || c.final) {
		c.flushAt = now.Add(answerBatch)
	}
}

// Connected says that media flows, for the first time or again.
func (c *Call) Connected(time.Time) {
	if c.talking() {
		c.state, c.connect, c.choose = Up, time.Time{}, time.Time{}
	}
}

// Lost says that media flows no more. The other side may bring it back by negotiating anew.
func (c *Call) Lost(now time.Time) {
	if c.state == Up && c.connect.IsZero() {
		c.connect = now.Add(connectTime)
	}
}

// Changed says that streams of ours were muted or unmuted.
func (c *Call) Changed(streams Streams) {
	if maps.Equal(c.ours, streams) {
		return
	}
	c.ours = streams
	if c.talking() && c.version > 0 {
		c.send(TypeStreams, StreamsChanged{c.head(), streams})
	}
}

// Assert tells the other side who is really on the line.
func (c *Call) Assert(who Identity) {
	if c.talking() && c.version > 0 {
		c.send(TypeIdentity, Asserted{c.head(), who})
	}
}

// Hangup ends the call. One whose caller has not heard our answer is rejected: clients heed no other word of who is not yet at
// their other end.
func (c *Call) Hangup(why Reason) {
	switch {
	case c.state == Ended:
		return
	case (c.state == Invited || c.state == Answering) && c.version > 0:
		r := Reject{Head: c.head()}
		if why != UserHangup {
			r.Reason = why
		}
		c.send(TypeReject, r)
	case c.state != Placing:
		c.send(TypeHangup, Hangup{c.head(), why})
	}
	c.over(why, true)
}

// Drop ends the call without a word.
func (c *Call) Drop(why Reason) {
	if c.state != Ended {
		c.over(why, true)
	}
}

func (c *Call) over(why Reason, ours bool) {
	c.state = Ended
	c.effects = append(c.effects, Over{why, ours})
}

// Next is when Tick is to be called, at the latest; zero means never.
func (c *Call) Next() (next time.Time) {
	if c.state == Ended {
		return next
	}
	for _, at := range c.timers() {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

func (c *Call) timers() []time.Time {
	return []time.Time{c.flushAt, c.expires, c.describe, c.choose, c.connect, c.renew}
}

// Tick does what is due.
func (c *Call) Tick(now time.Time) {
	due := func(at time.Time) bool { return !at.IsZero() && !now.Before(at) }
	switch {
	case c.state == Ended:
	case c.state == Invited && due(c.expires):
		c.Drop(InviteTimeout) // the caller hangs up by itself
	case c.state == Ringing && due(c.expires):
		c.Hangup(InviteTimeout)
	case due(c.describe):
		c.Hangup(UserMediaFailed)
	case due(c.choose):
		c.Hangup(ICETimeout)
	case due(c.connect) && c.state == Connecting:
		c.Hangup(ICETimeout)
	case due(c.connect):
		c.Hangup(ICEFailed)
	default:
		if due(c.renew) {
			c.offering, c.renew = false, time.Time{}
			c.effects = append(c.effects, Rollback{})
		}
		if due(c.flushAt) {
			c.flush()
		}
	}
}

// Calling reports whether this is a call of ours that nobody has answered.
func (c *Call) Calling() bool { return c.state == Placing || c.state == Ringing }

// repeated reports whether an event was heard before.
func (c *Call) repeated(event string) bool {
	if slices.Contains(c.seen, event) {
		return true
	}
	if len(c.seen) == maxSeen {
		c.seen = slices.Delete(c.seen, 0, 1)
	}
	c.seen = append(c.seen, event)
	return false
}
