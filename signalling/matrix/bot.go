// A Bot is this server's own user in Matrix rooms: the sender user of an application service registration, one at each
// homeserver that pushes events here. Package matrix owns what that user does of its own accord: which invitations it
// follows, when it leaves, and what it answers to commands (!call help). It never touches media, decides nobody's power in
// a room, and tells nobody about somebody else's network.
//
// # What it hears
//
// Everything that a homeserver pushes of the rooms that the bot is in: as much as strangers like to write. Of that, only
// commands, invitations of the bot and departures become work, each a job in the queue of its room ([lines]). A job is
// done once: a command is known again by its event, and its answer is sent under a transaction id made of it, so that
// the same answer is not sent twice even across a restart. What is older than a few minutes is left alone: it was meant
// for a call that may be over.
//
// # Encrypted rooms
//
// Where there is a [device.Vault] the bot has a device at each homeserver, reads commands in encrypted rooms, and answers them
// encrypted. Nothing is ever sent unencrypted into an encrypted room.
package matrix

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/internal/expiring"
	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/courier"
	"callserver/signalling/matrix/device"
	"callserver/signalling/matrixrtc/standing"
)

const (
	inboxQueue = 4096            // events waiting of one homeserver; beyond it they are lost, and the log says so
	stale      = 5 * time.Minute // a command that is older is not obeyed
	jobTime    = 30 * time.Second
	maxHeard   = 20_000 // commands that are known again
	perMinute  = 20     // commands of one user
	maxUsers   = 10_000 // whose commands are counted
)

// Sessions are the running calls.
type Sessions interface {
	// Attendance returns who is in the calls of a Matrix room.
	Attendance(room string) []signalling.Attendee
	// Expel takes a user out of the calls of a Matrix room, tokens included.
	Expel(user, room string) int
}

// Options of a Bot. Sessions, Rooms and Standing are required.
type Options struct {
	Connections []*homeserver.Homeserver // at those without a sender there is no bot
	Sessions    Sessions
	Rooms       *sfu.Rooms
	Standing    func(context.Context, standing.Place) (standing.Finding, error)
	Refusal     func(user string) (Refusal, bool) // why a user was refused last; nil means that nobody knows

	Bridge Bridge        // nil: nobody bridges
	Vault  *device.Vault // for keys; nil means that the bot reads and says nothing in encrypted rooms

	Invite      []string         // who may invite the bot: globs of user ids; none means the users of its own homeserver
	Servers     standing.Servers // whose users may use this server at all
	ElementCall string           // base URL of an Element Call, for links; empty means none
	Silent      bool             // it answers no commands

	Now    func() time.Time // nil means time.Now
	Logger *slog.Logger     // nil means none
}

// A Bot is safe for concurrent use; made by [New].
type Bot struct {
	options  Options
	log      *slog.Logger
	now      func() time.Time
	commands []command
	inboxes  []inbox
	lines    lines
	heard    *expiring.Map[id.EventID, struct{}]
	quotas   *expiring.Map[id.UserID, *atomic.Int32]
	rung     *expiring.Map[standing.Place, struct{}]
	crowds   *expiring.Map[seat, int]
	shelf    *shelf

	complaints *expiring.Map[seat, struct{}]
	counters   counters
}

// An inbox is what a homeserver pushes.
type inbox struct {
	hs     *homeserver.Homeserver
	events *homeserver.Subscription
	device *device.Device // nil without a vault
	office *courier.Office
}

// New returns a Bot that hears from now on, and does nothing until Run is called, which must be.
func New(ctx context.Context, o Options) (*Bot, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Refusal == nil {
		o.Refusal = func(string) (Refusal, bool) { return Refusal{}, false }
	}
	o.ElementCall = strings.TrimRight(o.ElementCall, "/")
	b := &Bot{
		options: o, log: o.Logger, now: o.Now,
		heard:  expiring.New[id.EventID, struct{}](maxHeard),
		quotas: expiring.New[id.UserID, *atomic.Int32](maxUsers),
		rung:   expiring.New[standing.Place, struct{}](maxUsers),
		crowds: expiring.New[seat, int](maxUsers),
		shelf:  newShelf(),

		complaints: expiring.New[seat, struct{}](maxComplaint),
	}
	b.commands = b.vocabulary()
	for _, h := range o.Connections {
		if h.Sender() == "" {
			continue
		}
		in := inbox{hs: h, office: &courier.Office{}}
		if err := b.equip(ctx, &in); err != nil {
			return nil, err
		}
		b.inboxes = append(b.inboxes, in)
	}
	for i := range b.inboxes {
		in := &b.inboxes[i]
		in.events = in.hs.Subscribe(inboxQueue, event.StateMember, event.EventMessage, event.EventEncrypted)
	}
	return b, nil
}

// Run hears and answers until ctx ends, which is no error. It returns after the last job.
func (b *Bot) Run(ctx context.Context) error {
	var loops errgroup.Group
	for _, in := range b.inboxes {
		loops.Go(func() error {
			defer in.events.Close()
			b.inboxLoop(ctx, in)
			return nil
		})
		loops.Go(func() error {
			b.enroll(ctx, in.hs)
			return nil
		})
		if in.device != nil {
			loops.Go(func() error { return in.device.Run(ctx) })
		}
	}
	loops.Go(func() error {
		b.shelfLoop(ctx)
		return nil
	})
	err := loops.Wait()
	b.lines.wait()
	return err
}

// enroll has a homeserver know the bot, so that it can be invited.
func (b *Bot) enroll(ctx context.Context, h *homeserver.Homeserver) {
	agent, err := h.As(h.Sender())
	for try := time.Duration(1); err == nil; try = min(2*try, 30) {
		if err = agent.Enroll(ctx); !errors.Is(err, homeserver.ErrUnavailable) {
			break
		}
		if !pause(ctx, err, try*time.Second) {
			return
		}
		err = nil
	}
	if err != nil && ctx.Err() == nil {
		b.log.Warn("the homeserver does not take the bot's account: nobody can invite it", "homeserver", h.Name(), "err", err)
	}
}

func (b *Bot) inboxLoop(ctx context.Context, in inbox) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-in.events.Ready():
		}
		events, lost := in.events.Take()
		for _, e := range events {
			switch e.Type {
			case event.StateMember:
				b.moved(ctx, in, e)
			case event.EventMessage:
				b.said(ctx, in.hs, e)
			case event.EventEncrypted:
				b.sealed(ctx, in, e)
			}
		}
		if lost > 0 {
			b.counters.dropped.Add(uint64(lost))
			b.log.Warn("events missed: invitations and commands among them must be repeated", "homeserver", in.hs.Name(), "events", lost)
		}
	}
}

// said hands a message to the room's queue if it is a command for us.
func (b *Bot) said(ctx context.Context, h *homeserver.Homeserver, e *event.Event) {
	o, ok := parse(e)
	switch {
	case !ok || b.options.Silent || b.one(e.Sender):
		return
	case b.now().Sub(time.UnixMilli(e.Timestamp)) > stale, !b.options.Servers.Permits(homeserver.ServerOf(e.Sender)):
		b.counters.ignored.Add(1)
		return
	case !b.first(o.event): // also where two homeservers of ours are in the room
		return
	}
	if !b.allowance(o.sender) {
		b.counters.ignored.Add(1)
		return
	}
	b.counters.commands.Add(1)
	o.hs = h
	queue := string(o.room)
	if o.verb() == "why" {
		queue = "alone with " + string(o.sender) // in the order in which they ask, and nobody waits for it
	}
	b.enqueue(ctx, queue, "", func(ctx context.Context) { b.obey(ctx, o) })
}

// first reports whether a command is heard for the first time.
func (b *Bot) first(e id.EventID) bool {
	now := b.now()
	_, again := b.heard.Get(e, now)
	if !again {
		b.heard.Put(e, struct{}{}, now, now.Add(2*stale))
	}
	return !again
}

// allowance counts a command of a user, and reports whether it is not one too many.
func (b *Bot) allowance(user id.UserID) bool {
	now := b.now()
	return b.quotas.First(user, new(atomic.Int32), now, now.Add(time.Minute)).Add(1) <= perMinute
}

// one reports whether a user is one of this server's own.
func (b *Bot) one(user id.UserID) bool {
	for _, h := range b.options.Connections {
		if h.Own(user) {
			return true
		}
	}
	return false
}

// enqueue puts a job at the end of a queue. A job with a name is put there once as long as it waits.
func (b *Bot) enqueue(ctx context.Context, queue, name string, do func(context.Context)) {
	if !b.lines.add(queue, name, func() {
		defer b.rescue(queue)
		ctx, cancel := context.WithTimeout(ctx, jobTime)
		defer cancel()
		do(ctx)
	}) {
		b.counters.dropped.Add(1)
	}
}

// rescue ends a job that panicked: what it was about came from strangers.
func (b *Bot) rescue(queue string) {
	if cause := recover(); cause != nil {
		b.counters.failures.Add(1)
		b.log.Error("panic in a job of the bot", "room", queue, "cause", cause, "stack", string(debug.Stack()))
	}
}

type counters struct {
	commands, ignored, dropped, replies, failures, joined, declined, left, unreadable atomic.Uint64
}

// Stats are the counts since the start.
type Stats struct {
	Commands uint64 // heard
	Ignored  uint64 // commands too old, of a user who gives too many, or of a homeserver that is not permitted
	Dropped  uint64 // jobs and events that there was no room for
	Replies  uint64 // sent
	Failures uint64 // replies and other steps that a homeserver did not take
	Joined   uint64 // invitations followed
	Declined uint64 // invitations declined
	Left     uint64 // rooms left because nobody else was in them

	Unreadable uint64 // encrypted events whose keys did not come, or that are not what they seem
}

// Stats returns what happened since the start.
func (b *Bot) Stats() Stats {
	c := &b.counters
	return Stats{
		Commands: c.commands.Load(), Ignored: c.ignored.Load(), Dropped: c.dropped.Load(), Replies: c.replies.Load(),
		Failures: c.failures.Load(), Joined: c.joined.Load(), Declined: c.declined.Load(), Left: c.left.Load(),
		Unreadable: c.unreadable.Load(),
	}
}
