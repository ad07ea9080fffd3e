// A Member is one device's part in a call, as an event in a Matrix room declares it (MSC4143).
// Package member owns the events of MatrixRTC as clients send them, in all their dialects: memberships, slots, rings and
// declines; and what follows from them: until when a membership holds, which media server it is on, and under which
// identity its participant is there.
// It never asks anybody, reads no clock and believes nothing about a user that somebody else sent.
package member

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The types of events, as they are sent today and as they will be called.
const (
	TypeState  = "org.matrix.msc3401.call.member"
	TypeSticky = "org.matrix.msc4143.rtc.member"
	TypeStable = "m.rtc.member"
)

// What becomes of the expiry of members that do not say it.
const (
	defaultLife = 4 * time.Hour        // of a state event
	maxSticky   = time.Hour            // of a sticky event (MSC4354)
	maxLife     = 366 * 24 * time.Hour // clients extend by four hours at a time
)

var (
	// ErrLeft means that the event takes a membership back.
	ErrLeft = errors.New("the event is a leave")
	// ErrNotMember means that the event says nothing about a call, or in a form that nobody reads any more.
	ErrNotMember = errors.New("the event declares no membership")
	// ErrForeign means that the event speaks for somebody else than its sender.
	ErrForeign = errors.New("the event speaks for another user than its sender")
)

// An Event is what is needed of a Matrix event.
type Event struct {
	Type     string
	StateKey *string // nil for what is not state
	Sender   string
	ID       string
	Content  json.RawMessage
	Sent     time.Time     // origin_server_ts: its server's word
	Received time.Time     // by us or our homeserver; zero means when it was sent
	Sticky   time.Duration // how long it sticks, by its msc4354_sticky; zero means unsaid
}

// A Member is read-only.
type Member struct {
	User   string
	Device string // empty in the newest dialect
	ID     string // of the membership: chosen by the client
	Key    string // the state key, or the sticky key
	Slot   string // m.call#ROOM
	Intent string // audio, video or empty

	Event   string // id of the event
	State   bool   // a state event; otherwise a sticky one
	Created time.Time
	Expires time.Time

	Published []Transport // where it publishes, preferred first
	Oldest    bool        // it follows the oldest member's transport instead of its own
	unlinked  bool        // the dialect without devices
}

// A Transport is a way into calls.
type Transport struct {
	Type    string
	Service string // livekit_service_url: base URL of an authoriser, without a slash at its end
	URL     string // of the media server, in newer dialects; without a slash at its end
}

// LiveKit reports whether the transport is a LiveKit server.
func (t Transport) LiveKit() bool { return t.Type == "livekit" || t.Type == "m.livekit" }

// Parse reads a membership event. The error is or wraps ErrLeft, ErrNotMember or ErrForeign.
func Parse(e Event) (*Member, error) {
	switch e.Type {
	case TypeState:
		return parseState(e)
	case TypeSticky, TypeStable:
		return parseSticky(e)
	}
	return nil, fmt.Errorf("%w: it is a %.60q", ErrNotMember, e.Type)
}

// Identity is under which identity readers expect the member's participant at the media server.
func (m *Member) Identity() string {
	switch {
	case m.State:
		return DeviceIdentity(m.User, m.Device)
	case m.unlinked:
		return UnlinkedIdentity(m.User, m.ID)
	}
	return MemberIdentity(m.User, m.Device, m.ID)
}

// Identities are all under which the member's participant may be at the media server: clients that send state events
// connect for a moment under a hashed one.
func (m *Member) Identities() []string {
	if m.unlinked {
		return []string{m.Identity()}
	}
	return Identities(m.User, m.Device, m.ID)
}

// Identities are all under which a device may be at the media server; memberID may be empty.
func Identities(user, device, memberID string) []string {
	plain := DeviceIdentity(user, device)
	all := []string{plain, MemberIdentity(user, device, plain)}
	if memberID != "" && memberID != plain {
		all = append(all, MemberIdentity(user, device, memberID))
	}
	return all
}

// Expired reports whether the membership holds no more.
func (m *Member) Expired(now time.Time) bool { return !now.Before(m.Expires) }

// Session returns the members of a slot that hold now, the oldest first.
func Session(all []*Member, slot string, now time.Time) []*Member {
	in := slices.DeleteFunc(slices.Clone(all), func(m *Member) bool { return m.Slot != slot || m.Expired(now) })
	slices.SortFunc(in, func(a, b *Member) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.User, b.User), cmp.Compare(a.Device, b.Device), cmp.Compare(a.ID, b.ID))
	})
	return in
}

// Effective is the transport that the member really publishes on: its own, or in the mode of former clients the oldest
// member's. Session is what the function of that name returned.
func (m *Member) Effective(session []*Member) (Transport, bool) {
	from := m
	if m.Oldest && len(session) > 0 {
		from = session[0]
	}
	if len(from.Published) == 0 {
		return Transport{}, false
	}
	return from.Published[0], true
}

// KeyOf reports whether a state key is one of a device of a user: _@user:server_DEVICE_m.call in its forms with and
// without the underscore in front and the application at the end.
func KeyOf(key, user, device string) bool {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(key, "_"), user+"_"+device)
	return ok && user != "" && device != "" && (rest == "" || rest[0] == '_')
}

// StateKeys are the state keys that a device's membership may have, today's first: with the underscore in front, without
// it in rooms where keys may name their owner (MSC3757, MSC3779), and without the application, as in 2024.
func StateKeys(user, device, slot string) []string {
	application, call, _ := strings.Cut(slot, "#")
	if call == "ROOM" {
		call = ""
	}
	today, former := user+"_"+device+"_"+application+call, user+"_"+device
	return []string{"_" + today, today, "_" + former, former}
}

// UserOf returns whose a state key is, if it says: the user before the first underscore behind the server name.
func UserOf(key string) (string, bool) {
	user := strings.TrimPrefix(key, "_")
	local, rest, ok := strings.Cut(user, ":")
	if !ok || !strings.HasPrefix(local, "@") {
		return "", false
	}
	server, _, _ := strings.Cut(rest, "_") // no server name contains one
	return local + ":" + server, server != ""
}
