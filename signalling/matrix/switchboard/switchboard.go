// A Switchboard connects the calls of clients that speak the Client-Server API's VoIP events (m.call.*) with the call of
// the Matrix room, which is MatrixRTC and on this server. Package switchboard owns who is connected with whom and why: the
// consent of users and rooms, the three ways in which a call comes about, what becomes of it, and its end.
// It never touches media, which its legs do, and never says anything in a user's name who did not ask for that.
//
// # The three ways
//
//   - To the bot: somebody calls in a room where the bot is and which is not just for two. The caller is put into the
//     room's call at once.
//   - In: somebody calls the other one in a room for two. A stand-in for the caller is declared in the room's call and
//     rings the other one's MatrixRTC clients; the call is answered once one of them joins.
//   - Out: somebody starts the room's call in a room for two and rings the other one, who is known to use the old calls:
//     that one is called, and put into the call upon answering.
//
// # Who speaks
//
// A caller is in the room's call as a device of his own that this server pretends (package standin), if he agreed to that
// and the wide registration is there; else as a device of the bot. What the client at the other end hears comes from the
// other one of the two, if that one agreed, or else from the bot.
//
// # Who waits for whom
//
// Each call is a goroutine of its own ([conversation.callLoop]) with a bounded inbox. Whoever hands events over never
// waits: a call whose inbox is full ends. A homeserver that hangs holds up those calls alone that ask it something.
package switchboard

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/internal/expiring"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/call"
	"callserver/signalling/matrix/standin"
	"callserver/signalling/matrixrtc/member"
	"callserver/signalling/matrixrtc/standing"
)

const (
	inboxQueue = 8192 // events waiting of one homeserver; beyond it they are lost, and the log says so
	maxCalls   = 1000 // at a time
	maxOfUser  = 4    // calls that one user begins at a time
	maxKnown   = 10_000
	maxSeen    = 20_000           // events that are known again
	seenLife   = 15 * time.Minute // for longer than anything rings
	// knownLife is for how long somebody who used the old calls counts as one who does.
	knownLife = 30 * 24 * time.Hour
	// pretended is the device that a user who agreed has in calls.
	pretended = "CALLBRIDGE"
)

// Options of a Switchboard. Connections and Media are required.
type Options struct {
	Connections []*homeserver.Homeserver // at those without a sender nothing is heard
	Media       Media
	Standin     standin.Rules
	Servers     standing.Servers // whose users may use this server at all
	Store       Store            // nil: consent and calls are forgotten at a restart

	Now    func() time.Time // nil means time.Now
	Logger *slog.Logger     // nil means none
}

// A Switchboard is safe for concurrent use; made by [New].
type Switchboard struct {
	options  Options
	log      *slog.Logger
	now      func() time.Time
	consent  consent
	inboxes  []inbox
	users    *expiring.Map[id.UserID, struct{}]  // of the old calls
	seen     *expiring.Map[id.EventID, struct{}] // what began a call, or might have
	counters counters
	left     []Record // calls of an earlier run

	bot     Bot
	opened  chan opened    // decrypted events; full: later ones are lost
	talks   sync.WaitGroup // conversations, which the inboxes begin
	agreed  chan struct{}  // somebody agreed, or takes it back; capacity 1
	closing chan struct{}
	close   func()        // closes it, once
	begun   atomic.Bool   // Run was called
	over    chan struct{} // and has returned

	mu    sync.Mutex
	calls map[id.RoomID][]*conversation
	count int
}

// An inbox is what a homeserver pushes.
type inbox struct {
	hs     *homeserver.Homeserver
	events *homeserver.Subscription
}

var (
	typeMember       = event.Type{Type: member.TypeState, Class: event.StateEventType}
	typeNotification = event.Type{Type: member.TypeNotification, Class: event.MessageEventType}
	typeDecline      = event.Type{Type: member.TypeDecline, Class: event.MessageEventType}
)

// heard are the types of events that matter.
func heard() []event.Type {
	all := []event.Type{
		typeMember, typeNotification, typeDecline, event.StateMember,
		{Type: member.TypeNotificationStable, Class: event.MessageEventType}, {Type: member.TypeDeclineStable, Class: event.MessageEventType},
	}
	for _, name := range call.Types {
		all = append(all, event.Type{Type: name, Class: event.MessageEventType})
	}
	return all
}

// New loads what is stored, and returns a Switchboard that hears from now on and does nothing until Run is called, which
// must be.
func New(ctx context.Context, o Options) (*Switchboard, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Switchboard{
		options: o, log: o.Logger, now: o.Now, bot: mute{}, opened: make(chan opened, inboxQueue),
		agreed: make(chan struct{}, 1), closing: make(chan struct{}), over: make(chan struct{}),
		users: expiring.New[id.UserID, struct{}](maxKnown),
		seen:  expiring.New[id.EventID, struct{}](maxSeen),
		calls: map[id.RoomID][]*conversation{},
	}
	s.close = sync.OnceFunc(func() { close(s.closing) })
	if o.Store != nil {
		var err error
		if s.left, err = o.Store.Calls(ctx); err != nil {
			return nil, err
		}
		if err = s.consent.load(ctx, o.Store); err != nil {
			return nil, err
		}
	}
	for _, h := range o.Connections {
		if h.Sender() != "" {
			s.inboxes = append(s.inboxes, inbox{h, h.Subscribe(inboxQueue, heard()...)})
		}
	}
	return s, nil
}

// Run connects calls until ctx ends or Close is called, which is no error. It returns after the last call. It is called once.
func (s *Switchboard) Run(ctx context.Context) error {
	s.begun.Store(true)
	defer close(s.over)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var loops sync.WaitGroup
	loops.Go(func() {
		select {
		case <-s.closing:
		case <-ctx.Done():
		}
		cancel()
	})
	loops.Go(func() { s.tidy(ctx) })
	loops.Go(func() { s.followersLoop(ctx) })
	loops.Go(func() { s.openedLoop(ctx) })
	for _, in := range s.inboxes {
		loops.Go(func() {
			defer in.events.Close()
			s.inboxLoop(ctx, in)
		})
	}
	loops.Wait()
	s.talks.Wait()
	return nil
}

// Close hangs up every call, and returns when they have ended or ctx has. Closing twice is fine.
func (s *Switchboard) Close(ctx context.Context) error {
	s.close()
	if !s.begun.Load() {
		return nil
	}
	select {
	case <-s.over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Switchboard) inboxLoop(ctx context.Context, in inbox) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-in.events.Ready():
		}
		events, lost := in.events.Take()
		var begun []*conversation
		for _, e := range events {
			if c := s.hear(in.hs, e); c != nil {
				begun = append(begun, c)
			}
		}
		// What came together with an invitation is in its inbox already, and may be that it is taken back.
		for _, c := range begun {
			s.talks.Go(func() { c.callLoop(ctx) })
		}
		if lost > 0 {
			s.counters.dropped.Add(uint64(lost))
			s.log.Warn("events of calls missed: calls may not begin, or not end before their media does", "homeserver", in.hs.Name(), "events", lost)
		}
	}
}

// hear hands an event to the calls of its room, and returns a new one if it begins one.
func (s *Switchboard) hear(h *homeserver.Homeserver, e *event.Event) (begun *conversation) {
	defer s.rescue(e.RoomID)
	switch e.Type {
	case typeMember, typeNotification, typeDecline, event.StateMember:
		return s.hearRoom(h, e)
	}
	m, err := call.Parse(call.Event{Type: e.Type.Type, ID: string(e.ID), Sender: string(e.Sender), Age: s.age(e), Content: e.Content.VeryRaw})
	switch {
	case e.StateKey != nil, err != nil && !errors.Is(err, call.ErrForeign):
		s.counters.malformed.Add(1)
		return nil
	case err != nil:
		return nil
	}
	if s.tellCall(e.RoomID, m) || m.Type != call.TypeInvite || !s.first(e.ID) {
		return nil
	}
	return s.invited(h, e.RoomID, m)
}

// first reports whether an event that begins a call is heard for the first time: homeservers repeat themselves, and several
// ways lead here from one room.
func (s *Switchboard) first(e id.EventID) bool {
	now := s.now()
	_, again := s.seen.Get(e, now)
	if !again {
		s.seen.Put(e, struct{}{}, now, now.Add(seenLife))
	}
	return !again
}

// tellCall hands a message to its call, and reports whether there is one.
func (s *Switchboard) tellCall(room id.RoomID, m call.Message) (known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls[room] {
		if c.id == m.Call {
			c.tell(m)
			known = true
		}
	}
	return known
}

// age is how old an event is: the homeserver's word where it gives it, or else by its sender's clock.
func (s *Switchboard) age(e *event.Event) time.Duration {
	if e.Unsigned.Age > 0 {
		return time.Duration(e.Unsigned.Age)*time.Millisecond + s.now().Sub(e.Mautrix.ReceivedAt)
	}
	return max(0, s.now().Sub(time.UnixMilli(e.Timestamp)))
}

// begin enters a call if there is room for it.
func (s *Switchboard) begin(c *conversation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count >= maxCalls || s.ofLocked(c.caller, c.plan.other) >= maxOfUser {
		s.counters.refused.Add(1)
		return false
	}
	s.count++
	s.calls[c.room] = append(s.calls[c.room], c)
	return true
}

// ofLocked counts the calls of a client's user; of nobody yet, those that the same ringer began.
func (s *Switchboard) ofLocked(caller, ringer id.UserID) (n int) {
	for _, calls := range s.calls {
		for _, other := range calls {
			if other.caller == caller && (caller != "" || other.plan.other == ringer) {
				n++
			}
		}
	}
	return n
}

// claim enters whom a call of ours is for, unless that one has another in the room, or too many.
func (s *Switchboard) claim(c *conversation, user id.UserID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	has := func(other *conversation) bool { return other != c && other.caller == user }
	if slices.ContainsFunc(s.calls[c.room], has) || c.caller == "" && s.ofLocked(user, "") >= maxOfUser {
		return false
	}
	c.caller = user
	return true
}

// end forgets a call.
func (s *Switchboard) end(c *conversation) {
	defer close(c.gone)
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls[c.room]
	for i, other := range calls {
		if other == c {
			s.calls[c.room] = append(calls[:i:i], calls[i+1:]...)
			s.count--
		}
	}
	if len(s.calls[c.room]) == 0 {
		delete(s.calls, c.room)
	}
}

// rescue ends what panicked over something that strangers wrote.
func (s *Switchboard) rescue(room id.RoomID) {
	if cause := recover(); cause != nil {
		s.counters.panics.Add(1)
		s.log.Error("panic in a call", "room", room, "cause", cause, "stack", string(debug.Stack()))
	}
}

// unique makes an id that nobody guesses.
func unique(prefix string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return prefix + hex.EncodeToString(b[:])
}

type counters struct {
	invited, answered, placed, ended, failed, refused, malformed, ignored, dropped, overrun, panics, sendFailures atomic.Uint64
}

// Stats are counts since the start, but for Calls.
type Stats struct {
	Invited      uint64 // invitations to calls of ours
	Answered     uint64 // calls answered, by us or the other side
	Placed       uint64 // calls of ours
	Ended        uint64
	Failed       uint64 // of these, those that no side hung up
	Refused      uint64 // invitations without consent, or beyond a bound
	Malformed    uint64 // events of calls that cannot be read
	Ignored      uint64 // events that mean nothing in the state of their call, or from somebody else
	Dropped      uint64 // events that there was no room for
	Overrun      uint64 // calls ended because theirs was full
	Panics       uint64
	SendFailures uint64 // events that a homeserver did not take
	Calls        int    // now
}

// Stats returns what happened since the start.
func (s *Switchboard) Stats() Stats {
	c := &s.counters
	s.mu.Lock()
	calls := s.count
	s.mu.Unlock()
	return Stats{
		Invited: c.invited.Load(), Answered: c.answered.Load(), Placed: c.placed.Load(), Ended: c.ended.Load(), Failed: c.failed.Load(),
		Refused: c.refused.Load(), Malformed: c.malformed.Load(), Ignored: c.ignored.Load(), Dropped: c.dropped.Load(),
		Overrun: c.overrun.Load(), Panics: c.panics.Load(), SendFailures: c.sendFailures.Load(), Calls: calls,
	}
}
