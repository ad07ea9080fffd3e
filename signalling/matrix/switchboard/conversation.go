package switchboard

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/call"
	"callserver/signalling/matrix/courier"
	"callserver/signalling/matrix/mediakeys"
	"callserver/signalling/matrix/standin"
)

const (
	inboxSize    = 64               // events waiting for one call; beyond it the call ends
	prepareTime  = 20 * time.Second // until it is known what becomes of a call
	hangUpTime   = time.Second      // in which a hang-up that was heard is dealt with
	farewellTime = 4 * time.Second  // for hanging up when this server goes
	clearTime    = 30 * time.Second // for clearing up after a call
	sendTries    = 5
	sendPause    = 500 * time.Millisecond // before the second try, doubled with each
	aloneTime    = 15 * time.Second       // that a bridged caller stays in a call that everybody else has left
)

// A conversation is one call, from its invitation to its end: its state machine, its media, and its member of the room's
// call. It belongs to its goroutine, but for id, room, caller, ends, gone and tell.
type conversation struct {
	board  *Switchboard
	hs     *homeserver.Homeserver
	room   id.RoomID
	id     string    // call id
	caller id.UserID // whose client is at the other end; of a call of ours empty until that is known
	inbox  chan any  // call.Message or hint
	full   atomic.Bool
	over   chan struct{} // capacity 1: the inbox was full
	ends   chan struct{} // closed: it is over, but for what it leaves behind
	gone   chan struct{} // closed: nothing is left of it
	log    *slog.Logger

	heard      time.Time    // when it began
	invitation call.Message // of an incoming call
	unanswered atomic.Bool  // a call of ours that nobody has answered; safe for concurrent use
	placed     atomic.Bool  // its invitation is sent; safe for concurrent use
	call       *call.Call
	plan       plan
	speaker    homeserver.Agent // as call.Self
	witness    homeserver.Agent // who sees the room: the bot, or the caller
	leg        Leg
	member     bool                            // of the room's call, or about to be
	nodding    string                          // device of a member for a moment
	nodded     context.CancelFunc              // ends that
	sent       map[string]signalling.LegStream // what the leg sends
	heardNow   sfu.Identity                    // by the other end
	seenNow    sfu.Identity                    // likewise
	shown      sfu.Identity                    // who is on the line, as the other end was told
	pending    *call.Identity                  // to be told once media flows
	names      map[id.UserID]string            // as the room calls who was on the line
	named      atomic.Bool                     // the bot is there in the caller's place, and says so; safe for concurrent use
	company    bool                            // somebody else was in the room's call
	alone      time.Time                       // since when nobody is
	stored     bool
	unsaid     bool // that it is over: the other end does not know

	// In an encrypted room; see sealed.go.
	sealed  atomic.Bool // it has the bot's device; safe for concurrent use
	keys    *courier.Courier
	dismiss func()
	handed  chan any        // keys from there; full: later ones are lost
	parked  []any           // keys that wait for the leg
	owns    []mediakeys.Own // keys of our own whose time comes

	declaring sync.WaitGroup // what goes on beside it and ends with it
	declared  chan declared  // capacity 1
}

func (s *Switchboard) newConversation(h *homeserver.Homeserver, room id.RoomID, callID string, caller id.UserID) *conversation {
	return &conversation{
		board: s, hs: h, room: room, id: callID, caller: caller, inbox: make(chan any, inboxSize), over: make(chan struct{}, 1), declared: make(chan declared, 1), handed: make(chan any, keyQueue),
		ends: make(chan struct{}), gone: make(chan struct{}), names: map[id.UserID]string{}, log: s.log.With("matrix_room", room, "call", callID), heard: s.now(),
	}
}

// tell hands something over without waiting. Safe for concurrent use.
func (c *conversation) tell(what any) {
	select {
	case c.inbox <- what:
	default:
		if !c.full.Swap(true) {
			c.board.counters.overrun.Add(1)
			c.over <- struct{}{}
		}
	}
}

// callLoop runs the conversation to its end.
func (c *conversation) callLoop(ctx context.Context) {
	defer c.board.end(c)
	defer c.board.rescue(c.room)
	defer c.finish(ctx)
	defer close(c.ends)
	if !c.begin(ctx) {
		return
	}
	for c.carryOut(ctx); c.call.State() != call.Ended; c.carryOut(ctx) {
		c.wait(ctx)
	}
}

// wait takes the next thing that happens.
func (c *conversation) wait(ctx context.Context) {
	var ready <-chan struct{}
	if c.leg != nil {
		ready = c.leg.Ready()
	}
	timer := time.NewTimer(c.nap())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		c.call.Hangup(call.UserHangup)
	case <-c.over:
		c.log.Warn("call ended: more events came than could be dealt with")
		c.call.Hangup(call.UnknownError)
	case what := <-c.inbox:
		c.take(ctx, what)
	case <-ready:
		c.media(ctx)
	case d := <-c.declared:
		c.isDeclared(ctx, d)
	case key := <-c.handed:
		c.useKey(key)
	case <-timer.C:
	}
	now := c.board.now()
	c.call.Tick(now)
	c.seal(now)
	if until := c.until(); !until.IsZero() && !now.Before(until) {
		c.timeUp()
	}
}

// nap is how long nothing needs to be done.
func (c *conversation) nap() time.Duration {
	next := c.call.Next()
	for _, at := range []time.Time{c.until(), c.sealAt()} {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if next.IsZero() {
		return time.Hour
	}
	return max(0, next.Sub(c.board.now()))
}

// until is when the call ends for a reason that the state machine does not know.
func (c *conversation) until() time.Time {
	if !c.alone.IsZero() {
		return c.alone.Add(aloneTime)
	}
	return c.plan.gives
}

// take deals with an event of the room.
func (c *conversation) take(ctx context.Context, what any) {
	switch what := what.(type) {
	case call.Message:
		if !c.call.Heard(what, c.board.now()) {
			c.board.counters.ignored.Add(1)
		}
	case hint:
		c.hinted(what)
		if what.member != nil || what.left != "" {
			c.introduce(ctx)
		}
	}
}

// carryOut does what the state machine asks for, until it asks for nothing.
func (c *conversation) carryOut(ctx context.Context) {
	for effects := c.call.Effects(); len(effects) > 0; effects = c.call.Effects() {
		for _, e := range effects {
			switch e := e.(type) {
			case call.Send:
				c.send(ctx, e)
			case call.TakeOffer:
				c.answer(ctx, e)
			case call.TakeAnswer:
				c.accept(ctx, e)
			case call.TakeCandidates:
				c.candidates(e.Candidates)
			case call.TakeStreams:
				if c.leg != nil {
					c.leg.Streams(streams(e.Streams))
				}
			case call.Rollback: // the leg takes its offer back when it answers, or makes another
			case call.Over:
				c.ended(ctx, e)
			}
		}
	}
}

// accept gives the leg the answer to its offer: to the first one, somebody picked up.
func (c *conversation) accept(ctx context.Context, a call.TakeAnswer) {
	if err := c.leg.Accept(a.SDP); err != nil {
		c.fail("answer not usable", err)
		return
	}
	if c.unanswered.Swap(false) {
		c.board.counters.answered.Add(1)
		c.declare(ctx)
	}
}

// fail hangs up for a reason that lies here.
func (c *conversation) fail(what string, err error) {
	c.log.Warn("call failed: "+what, "err", err)
	c.board.counters.failed.Add(1)
	c.call.Hangup(call.UserMediaFailed)
}

// answer has the leg answer the other side's offer. The leg joins with the first.
func (c *conversation) answer(ctx context.Context, offer call.TakeOffer) {
	if c.leg == nil {
		if err := c.join(ctx); err != nil {
			c.refuse(err)
			return
		}
	}
	d, err := c.leg.Answer(ctx, offer.SDP)
	switch {
	case err != nil && offer.Again: // as it was
		c.log.Info("new offer of a call refused", "err", err)
		return
	case err != nil:
		c.fail("offer not usable", err)
		return
	}
	c.describe("answer", d)
	if !offer.Again {
		c.board.counters.answered.Add(1)
		c.keep(ctx)
		if !c.member {
			c.declare(ctx)
		}
	}
}

// refuse ends a call whose leg may not join: the room is full or locked, or the server is at its limit.
func (c *conversation) refuse(err error) {
	c.log.Info("call not put into the room's", "err", err)
	c.board.counters.failed.Add(1)
	c.call.Hangup(call.UserBusy)
}

// join makes the leg.
func (c *conversation) join(ctx context.Context) error {
	leg, err := c.board.options.Media.JoinLeg(ctx, c.plan.place.Grant(c.board.now()), signalling.LegOptions{
		Client: sfu.ClientInfo{}, Video: c.plan.video, Screens: c.plan.outgoing || len(c.call.Streams()) > 0, Encrypted: c.plan.encrypted,
	})
	if err != nil {
		return err
	}
	c.leg = leg
	for _, key := range c.parked {
		c.useKey(key)
	}
	c.parked = nil
	if s := c.call.Streams(); s != nil {
		leg.Streams(streams(s))
	}
	return nil
}

// describe tells the state machine what the leg says of itself.
func (c *conversation) describe(kind string, d signalling.LegDescription) {
	c.sent = d.Streams
	c.call.Described(call.Description{Type: kind, SDP: d.SDP}, metadata(d.Streams), c.board.now())
	c.call.Gathered(nil, true, c.board.now()) // they are in the description
}

func (c *conversation) candidates(all []call.Candidate) {
	for _, one := range all {
		if text, err := json.Marshal(one); err == nil && c.leg != nil {
			c.leg.Candidate(string(text))
		}
	}
}

// media deals with what the leg has to say.
func (c *conversation) media(ctx context.Context) {
	for _, e := range c.leg.Events() {
		switch e := e.(type) {
		case signalling.Connected:
			c.connected()
		case signalling.Interrupted:
			c.call.Lost(c.board.now())
		case signalling.TransportFailed:
			c.call.Hangup(call.ICEFailed)
		case signalling.Broken:
			c.fail("media broke", e.Err)
		case signalling.OfferWanted:
			c.offerAgain(ctx)
		case signalling.Shown:
			c.shows(ctx, e)
		case sfu.ParticipantsChanged:
			c.company = c.company || c.others() > 0
			c.lonely()
		case sfu.Closed:
			c.call.Hangup(call.UserHangup)
		}
	}
}

func (c *conversation) connected() {
	if c.pending != nil {
		c.call.Assert(*c.pending)
		c.pending = nil
	}
	if c.call.State() == call.Connecting {
		c.log.Info("call connected", "caller", c.caller)
	}
	c.call.Connected(c.board.now())
	c.lonely()
}

// offerAgain offers what the leg sends by now.
func (c *conversation) offerAgain(ctx context.Context) {
	if c.call.State() != call.Up && c.call.State() != call.Connecting || c.call.Version() == 0 {
		return
	}
	d, err := c.leg.Offer(ctx)
	if err != nil {
		c.log.Info("call not negotiated anew", "err", err)
		return
	}
	c.describe("offer", d)
}

// lonely notes since when everybody else has left.
func (c *conversation) lonely() {
	switch {
	case c.others() > 0:
		c.company, c.alone = true, time.Time{}
	case c.company && c.alone.IsZero():
		c.alone = c.board.now()
	}
}

// others counts who else is in the room's call and would be missed.
func (c *conversation) others() (n int) {
	for _, p := range c.leg.Others() {
		if p.State != sfu.Disconnected && !p.Permission.Hidden {
			n++
		}
	}
	return n
}

// send sends an event, several times if need be. What cannot be sent ends the call, but for what only informs.
func (c *conversation) send(ctx context.Context, s call.Send) {
	if ctx.Err() != nil { // this server goes: a last word
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTime)
		defer cancel()
		ctx = bounded
	}
	kind, txn := event.Type{Type: s.Type, Class: event.MessageEventType}, unique("call-")
	var err error
	for try, pause := 1, sendPause; ; try, pause = try+1, 2*pause {
		if _, err = c.sendAs(ctx, c.speaker, kind, txn, s.Content); err == nil {
			return
		}
		var answer *homeserver.Error
		if errors.As(err, &answer) {
			pause = max(pause, min(answer.Retry, 10*time.Second))
		}
		if try == sendTries || !errors.Is(err, homeserver.ErrUnavailable) || !rest(ctx, pause) {
			break
		}
	}
	c.board.counters.sendFailures.Add(1)
	c.log.Warn("event of a call not sent", "type", s.Type, "err", err)
	c.unsaid = s.Type == call.TypeHangup
	if s.Type == call.TypeInvite || s.Type == call.TypeAnswer || s.Type == call.TypeNegotiate {
		c.call.Hangup(call.SignallingFailed)
	}
}

func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// ended says so, and declines the ring for the one who rejected the call.
func (c *conversation) ended(ctx context.Context, o call.Over) {
	c.log.Info("call ended", "reason", o.Reason, "by_us", o.Ours)
	if c.unanswered.Swap(false) && !o.Ours && (o.Reason == call.Rejected || o.Reason == call.UserBusy || o.Reason == call.UserHangup) {
		c.decline(ctx)
	}
}

// finish leaves the room's call, whatever became of this one, and forgets it.
func (c *conversation) finish(ctx context.Context) {
	if !c.plan.outgoing || c.plan.placed {
		c.board.counters.ended.Add(1)
	}
	limit := clearTime
	if ctx.Err() != nil {
		limit = farewellTime
	}
	if c.leg != nil {
		c.leg.Leave(sfu.ClientInitiated)
	}
	for _, stop := range []func(){c.dismiss, c.nodded} {
		if stop != nil {
			stop()
		}
	}
	c.declaring.Wait()
	clear, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	err := c.withdraw(clear)
	if c.named.Swap(false) {
		c.board.rename(clear, c.hs, c.room)
	}
	if err != nil {
		c.log.Warn("membership of a call not withdrawn: it is cleared later", "err", err)
		return
	}
	if c.unsaid {
		return // the next start says it
	}
	c.forget(clear)
}

// withdraw takes the membership back, several times if need be.
func (c *conversation) withdraw(ctx context.Context) (err error) {
	if !c.member {
		return nil
	}
	for pause := sendPause; ; pause *= 2 {
		err = standin.Clear(ctx, c.plan.place)
		if err == nil || !errors.Is(err, homeserver.ErrUnavailable) || !rest(ctx, pause) {
			return err
		}
	}
}
