// A Standing is what is known about a user and a Matrix room: joined, outside, barred, or that nobody can tell.
// Package standing owns the question, asked of the homeservers by what each of them allows this program; the watch over
// everybody who is in a call; and the end of their stay once they are no longer joined.
// It never issues a token, never speaks to clients, and never ends a stay because a homeserver does not answer.
//
// # Who can tell
//
// In this order, and the first that can see the room decides: MSC4502, the user's own eyes through a wide registration,
// the sender of the narrow one where it is in the room, the access token that the user came with, the eyes of a local user
// who is in the call. Whoever looks for
// somebody else must be in the room: homeservers show those who left how it was then.
//
// # How soon it is noticed
//
// A room with a running call is followed by events where its sender is in it, or by a poll as one of its local
// participants; everybody else is asked about in rounds ([Members.Run]). A stay is confirmed by an answer that was asked
// for after the room began to be followed, and by none from before.
//
//	not confirmed --(joined)--> confirmed --(leave, kick, ban, server ACL: an event, or an answer)--> put out, tokens worthless
package standing

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/internal/expiring"
	"callserver/signalling/homeserver"
	"callserver/signalling/token"
)

const (
	// memberLife is how long a positive answer is believed: for the several requests of one join. Events end it earlier.
	memberLife = 20 * time.Second
	// unsupportedLife is how long a homeserver that does not know MSC4502 is not asked for it again.
	unsupportedLife = 10 * time.Minute
	maxMembers      = 50_000
	maxRooms        = 10_000
	// maxWitnesses is how many local participants are tried as the eyes into a room.
	maxWitnesses = 3
)

// A Standing is that of a user in a Matrix room.
type Standing uint8

const (
	Unknown Standing = iota // nobody can tell
	Joined
	Outside // not joined: never there, invited, left, kicked or banned
	Barred  // joined, but the room's server ACL denies the user's homeserver
)

func (s Standing) String() string { return [...]string{"unknown", "joined", "outside", "barred"}[s] }

// A Place is somebody's in a Matrix room.
type Place struct {
	User id.UserID
	Room id.RoomID
}

func (p Place) origin(verified time.Time) token.Origin {
	return token.Origin{User: string(p.User), Conversation: string(p.Room), Verified: verified}
}

// A Finding is the answer about a place.
type Finding struct {
	Standing  Standing
	Verified  time.Time // since when that is known: when it was asked
	By        string    // the means that told: MSC4502, own eyes, sender or witness; empty if nobody could
	Moderator bool      // may kick others in the room; false where nobody can see that
}

// Sessions are the running calls.
type Sessions interface {
	// Origins returns the origins of the tokens with which people are in a room, or in any room if it is empty.
	Origins(room string) []token.Origin
	// Evict takes everybody out whose token was issued to the user for the Matrix room, and returns how many.
	Evict(user, conversation string) int
}

// nobody is in a call.
type nobody struct{}

func (nobody) Origins(string) []token.Origin { return nil }
func (nobody) Evict(string, string) int      { return 0 }

// Options of Members. The zero value is one that can tell nothing.
type Options struct {
	Connections []*homeserver.Homeserver
	Sessions    Sessions           // nil means that nobody is ever in a call
	Revocations *token.Revocations // shared with whoever checks tokens; nil means that nobody does
	Now         func() time.Time   // nil means time.Now
	Logger      *slog.Logger       // nil means none
}

// Members finds out who is in a Matrix room. Safe for concurrent use; made by [New].
type Members struct {
	options     Options
	known       *expiring.Map[Place, Finding] // joined
	rules       *expiring.Map[id.RoomID, rules]
	unsupported *expiring.Map[*homeserver.Homeserver, struct{}]
	changed     *expiring.Map[id.RoomID, time.Time] // rules read before are not believed
	counters    counters
	every       intervals

	mu    sync.Mutex
	floor time.Time // what was verified up to then is not believed
	seats map[seat]time.Time
}

// New returns a Members. Its answers need no Run, but who leaves is noticed by Run only.
func New(o Options) *Members {
	if o.Sessions == nil {
		o.Sessions = nobody{}
	}
	if o.Revocations == nil {
		o.Revocations = &token.Revocations{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Members{
		options:     o,
		known:       expiring.New[Place, Finding](maxMembers),
		rules:       expiring.New[id.RoomID, rules](maxRooms),
		changed:     expiring.New[id.RoomID, time.Time](maxRooms),
		unsupported: expiring.New[*homeserver.Homeserver, struct{}](64),
		seats:       make(map[seat]time.Time),
		every:       usual,
	}
}

// Forget makes every answer so far worthless: events about them were missed.
func (m *Members) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.floor = m.options.Now()
}

// Believed reports whether an answer of that moment still counts: nothing has spoken against it since.
func (m *Members) Believed(p Place, verified time.Time) bool {
	return m.fresh(verified) && !m.options.Revocations.Revoked(p.origin(verified))
}

// missed is until when events may have been missed.
func (m *Members) missed() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.floor
}

func (m *Members) fresh(verified time.Time) bool {
	return verified.After(m.missed())
}

// Check tells how the user stands in the room. Witnesses are local users in the call, who may be able to see. An error
// means that a homeserver that could have told did not answer ([homeserver.ErrUnavailable]), or what is wrong with it.
func (m *Members) Check(ctx context.Context, p Place, witnesses []id.UserID) (Finding, error) {
	return m.CheckAs(ctx, p, witnesses, nil)
}

// CheckAs is Check where the user came with an access token: the caller, which nobody else is looked at through. Nil means
// none. It is not kept.
func (m *Members) CheckAs(ctx context.Context, p Place, witnesses []id.UserID, caller *homeserver.Agent) (Finding, error) {
	start := m.options.Now()
	f, ok := m.known.Get(p, start)
	if !ok || !m.Believed(p, f.Verified) {
		var err error
		if f, err = m.askAs(ctx, p, witnesses, caller); f.Standing != Joined {
			return f, err
		}
		f.Verified = start
		m.known.Put(p, f, start, start.Add(memberLife))
	}
	r, err := m.rulesOf(ctx, p.Room, append([]id.UserID{p.User}, witnesses...))
	if err == nil && r.read.IsZero() && caller != nil {
		r, err = m.rulesBy(ctx, *caller, p)
	}
	if err != nil {
		return Finding{}, err
	}
	if !r.permits(p.User) {
		f.Standing = Barred
	}
	f.Moderator = r.moderator(p.User)
	return f, nil
}
