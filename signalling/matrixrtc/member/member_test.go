package member

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	alice  = "@alice:example.org"
	device = "ABCDEFGH"
	plain  = alice + ":" + device
	key    = "_" + alice + "_" + device + "_m.call"
)

var (
	sent = time.UnixMilli(1_750_000_100_000)
	ours = Transport{Type: "livekit", Service: "https://rtc.example.org/livekit/jwt"}
)

// membership is what Element Call 0.26 sends, with changes: nil takes a field away.
func membership(changes map[string]any) string {
	c := map[string]any{
		"application": "m.call", "call_id": "", "scope": "m.room", "device_id": device, "membershipID": plain,
		"expires": 14400000, "m.call.intent": "video",
		"focus_active":   map[string]any{"type": "livekit", "focus_selection": "multi_sfu"},
		"foci_preferred": []any{map[string]any{"type": "livekit", "livekit_service_url": ours.Service, "livekit_alias": "!abc:example.org"}},
	}
	return changed(c, changes)
}

// sticky is what Element Call 0.26 sends in the mode matrix_2_0.
func sticky(changes map[string]any) string {
	c := map[string]any{
		"slot_id": "m.call#ROOM", "application": map[string]any{"type": "m.call", "m.call.intent": "video"},
		"member":   map[string]any{"user_id": alice, "device_id": device, "id": "uuid"},
		"versions": []any{}, "msc4354_sticky_key": "uuid",
		"transports": map[string]any{"published": []any{map[string]any{"type": "livekit", "livekit_service_url": ours.Service}}, "can_subscribe": []any{"livekit"}},
	}
	return changed(c, changes)
}

func changed(c, changes map[string]any) string {
	for name, v := range changes {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func stateEvent(key, content string) Event {
	return Event{Type: TypeState, StateKey: &key, Sender: alice, ID: "$1", Content: json.RawMessage(content), Sent: sent}
}

func stickyEvent(content string) Event {
	return Event{Type: TypeSticky, Sender: alice, ID: "$1", Content: json.RawMessage(content), Sent: sent, Sticky: 30 * time.Minute}
}

func with(m Member, change func(*Member)) *Member {
	change(&m)
	return &m
}

func TestParseState(t *testing.T) {
	base := Member{
		User: alice, Device: device, ID: plain, Key: key, Slot: SlotRoom, Intent: "video", Event: "$1", State: true,
		Created: sent, Expires: sent.Add(4 * time.Hour), Published: []Transport{ours},
	}
	for _, tt := range []struct {
		name, key, content string
		want               *Member
		err                error
	}{
		{"as sent today", key, membership(nil), &base, nil},
		{"without underscore, in room versions that own keys", key[1:], membership(nil), with(base, func(m *Member) { m.Key = key[1:] }), nil},
		{"without application in the key", "_" + alice + "_" + device, membership(nil), with(base, func(m *Member) { m.Key = "_" + alice + "_" + device }), nil},
		{"a key that names nobody", "uuid", membership(nil), with(base, func(m *Member) { m.Key = "uuid" }), nil},
		{"a device with underscores", "_" + alice + "_A_B_m.call", membership(map[string]any{"device_id": "A_B"}),
			with(base, func(m *Member) { m.Key, m.Device = "_"+alice+"_A_B_m.call", "A_B" }), nil},
		{"an update", key, membership(map[string]any{"created_ts": sent.UnixMilli() - 60_000, "expires": 28800000}),
			with(base, func(m *Member) {
				m.Created = sent.Add(-time.Minute)
				m.Expires = m.Created.Add(8 * time.Hour)
			}), nil},
		{"created in the future", key, membership(map[string]any{"created_ts": sent.UnixMilli() + 60_000}), &base, nil},
		{"no expires", key, membership(map[string]any{"expires": nil}), &base, nil},
		{"expires beyond all measure", key, membership(map[string]any{"expires": 1e300}), with(base, func(m *Member) { m.Expires = sent.Add(maxLife) }), nil},
		{"negative expires", key, membership(map[string]any{"expires": -5}), &base, nil},
		{"expires in quotes", key, membership(map[string]any{"expires": "5"}), &base, nil},
		{"no membership id", key, membership(map[string]any{"membershipID": nil}), &base, nil},
		{"named slot", key, membership(map[string]any{"call_id": "ROOM"}), &base, nil},
		{"another slot", key, membership(map[string]any{"call_id": "stage"}), with(base, func(m *Member) { m.Slot = "m.call#stage" }), nil},
		{"oldest membership", key, membership(map[string]any{"focus_active": map[string]any{"type": "livekit", "focus_selection": "oldest_membership"}}),
			with(base, func(m *Member) { m.Oldest = true }), nil},
		{"slash at the end, and a focus without type", key,
			membership(map[string]any{"foci_preferred": []any{map[string]any{}, map[string]any{"type": "livekit", "livekit_service_url": ours.Service + "/"}}}), &base, nil},
		{"no focus", key, membership(map[string]any{"foci_preferred": nil}), with(base, func(m *Member) { m.Published = nil }), nil},

		{"leave", key, `{}`, nil, ErrLeft},
		{"the form of 2023", key, `{"memberships":[]}`, nil, ErrNotMember},
		{"MSC3401", alice, `{"m.calls":[]}`, nil, ErrNotMember},
		{"of another user", "_@bob:example.org_" + device + "_m.call", membership(nil), nil, ErrForeign},
		{"no device", key, membership(map[string]any{"device_id": nil}), nil, ErrNotMember},
		{"device is a number", key, membership(map[string]any{"device_id": 5}), nil, ErrNotMember},
		{"no application", key, membership(map[string]any{"application": nil}), nil, ErrNotMember},
		{"no call id", key, membership(map[string]any{"call_id": nil}), nil, ErrNotMember},
		{"no focus_active", key, membership(map[string]any{"focus_active": nil}), nil, ErrNotMember},
		{"foci are no list", key, membership(map[string]any{"foci_preferred": "x"}), nil, ErrNotMember},
		{"null", key, `null`, nil, ErrNotMember},
		{"no JSON", key, `{`, nil, ErrNotMember},
		{"nothing", key, ``, nil, ErrNotMember},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(stateEvent(tt.key, tt.content))
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("error is %v, want %v, for %s", err, tt.err, tt.content)
			}
			if d := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(Member{})); d != "" {
				t.Errorf("(-want +got)\n%s\nfor %s", d, tt.content)
			}
			if got != nil && got.Identity() != alice+":"+got.Device {
				t.Errorf("identity is %s", got.Identity())
			}
		})
	}
	if _, err := Parse(Event{Type: TypeState, Sender: alice, Content: json.RawMessage(membership(nil))}); !errors.Is(err, ErrNotMember) {
		t.Errorf("without state key: %v", err)
	}
	if _, err := Parse(Event{Type: "m.room.message"}); !errors.Is(err, ErrNotMember) {
		t.Errorf("another type: %v", err)
	}
}

func TestParseSticky(t *testing.T) {
	base := Member{
		User: alice, Device: device, ID: "uuid", Key: "uuid", Slot: SlotRoom, Intent: "video", Event: "$1",
		Created: sent, Expires: sent.Add(30 * time.Minute), Published: []Transport{ours},
	}
	hashed := MemberIdentity(alice, device, "uuid")
	wss := Transport{Type: "m.livekit", URL: "wss://rtc.example.org/livekit/sfu"}
	msc := map[string]any{
		"member": map[string]any{"id": "uuid", "membership": "join"}, "versions": nil, "msc4354_sticky_key": nil, "sticky_key": "k",
		"transports": map[string]any{"published": []any{map[string]any{"type": wss.Type, "url": wss.URL}}},
	}
	for _, tt := range []struct {
		name, content string
		want          *Member
		identity      string
		err           error
	}{
		{"as sent today", sticky(nil), &base, hashed, nil},
		{"until the summer of 2026", sticky(map[string]any{"transports": nil, "rtc_transports": []any{map[string]any{"type": "livekit", "livekit_service_url": ours.Service}}}), &base, hashed, nil},
		{"claimed names", sticky(map[string]any{"member": map[string]any{"claimed_user_id": alice, "claimed_device_id": device, "id": "uuid"}}), &base, hashed, nil},
		{"the text of the MSC", sticky(msc), with(base, func(m *Member) { m.Device, m.Key, m.Published = "", "k", []Transport{wss} }), UnlinkedIdentity(alice, "uuid"), nil},
		{"no sticky key", sticky(map[string]any{"msc4354_sticky_key": nil}), &base, hashed, nil},

		{"leave", `{"msc4354_sticky_key":"uuid"}`, nil, "", ErrLeft},
		{"leave of the MSC", sticky(map[string]any{"member": map[string]any{"id": "uuid", "membership": "leave"}}), nil, "", ErrLeft},
		{"empty", `{}`, nil, "", ErrLeft},
		{"of another user", sticky(map[string]any{"member": map[string]any{"user_id": "@bob:example.org", "device_id": device, "id": "uuid"}}), nil, "", ErrForeign},
		{"no slot", sticky(map[string]any{"slot_id": nil}), nil, "", ErrNotMember},
		{"no member id", sticky(map[string]any{"member": map[string]any{"user_id": alice}}), nil, "", ErrNotMember},
		{"member is a list", sticky(map[string]any{"member": []any{}}), nil, "", ErrNotMember},
		{"no object", `[]`, nil, "", ErrNotMember},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(stickyEvent(tt.content))
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("error is %v, want %v, for %s", err, tt.err, tt.content)
			}
			if d := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(Member{})); d != "" {
				t.Errorf("(-want +got)\n%s\nfor %s", d, tt.content)
			}
			if got != nil && got.Identity() != tt.identity {
				t.Errorf("identity is %s, want %s", got.Identity(), tt.identity)
			}
		})
	}
	if _, err := Parse(stateEvent(key, membership(nil))); err != nil {
		t.Error(err)
	}
}

// MSC4354: a server's clock that runs ahead makes nothing stick longer, and nothing sticks for more than an hour.
func TestStickyEnd(t *testing.T) {
	for _, tt := range []struct {
		name     string
		received time.Time
		sticky   time.Duration
		want     time.Time
	}{
		{"unsaid", time.Time{}, 0, sent.Add(time.Hour)},
		{"longer than allowed", time.Time{}, 48 * time.Hour, sent.Add(time.Hour)},
		{"received before it was sent", sent.Add(-time.Minute), time.Minute, sent},
		{"received late", sent.Add(time.Minute), time.Minute, sent.Add(time.Minute)},
	} {
		e := stickyEvent(sticky(nil))
		e.Received, e.Sticky = tt.received, tt.sticky
		m, err := Parse(e)
		if err != nil || !m.Expires.Equal(tt.want) {
			t.Errorf("%s: expires %v (%v), want %v", tt.name, m.Expires, err, tt.want)
		}
	}
}

func TestSession(t *testing.T) {
	other := Transport{Type: "livekit", Service: "https://other.example.org"}
	at := func(user string, created, life time.Duration, oldest bool, ts ...Transport) *Member {
		return &Member{User: user, Device: "D", Slot: SlotRoom, Created: sent.Add(created), Expires: sent.Add(created + life), Oldest: oldest, Published: ts}
	}
	first := at("@first:example.com", -time.Hour, 2*time.Hour, false, other)
	follower := at(alice, -time.Minute, time.Hour, true, ours)
	gone := at("@gone:example.com", -3*time.Hour, time.Hour, false, ours)
	elsewhere := at("@elsewhere:example.com", 0, time.Hour, false, ours)
	elsewhere.Slot = "m.call#stage"
	bare := at("@bare:example.com", 0, time.Hour, false)
	in := Session([]*Member{bare, follower, gone, elsewhere, first}, SlotRoom, sent)
	if d := cmp.Diff([]*Member{first, follower, bare}, in, cmpopts.IgnoreUnexported(Member{})); d != "" {
		t.Fatalf("session (-want +got)\n%s", d)
	}
	if got, ok := follower.Effective(in); !ok || got != other {
		t.Errorf("the follower is on %v, want %v", got, other)
	}
	if got, ok := first.Effective(in); !ok || got != other {
		t.Errorf("the first is on %v, want %v", got, other)
	}
	if got, ok := bare.Effective(in); ok {
		t.Errorf("a member without transport is on %v", got)
	}
}

func TestKeys(t *testing.T) {
	for _, tt := range []struct {
		key  string
		of   bool // alice's device ABCDEFGH
		user string
	}{
		{key, true, alice},
		{key[1:], true, alice},
		{"_" + alice + "_" + device, true, alice},
		{"_" + alice + "_" + device + "X_m.call", false, alice},
		{"_@bob:example.org_" + device + "_m.call", false, "@bob:example.org"},
		{"_@a_b:localhost:8448_D_m.call", false, "@a_b:localhost:8448"},
		{alice, false, alice},
		{"uuid", false, ""},
		{"_@a:_x", false, ""},
		{"", false, ""},
	} {
		if got := KeyOf(tt.key, alice, device); got != tt.of {
			t.Errorf("KeyOf(%q) = %v", tt.key, got)
		}
		if got, ok := UserOf(tt.key); ok != (tt.user != "") || ok && got != tt.user {
			t.Errorf("UserOf(%q) = %q %v, want %q", tt.key, got, ok, tt.user)
		}
	}
}

func TestIdentities(t *testing.T) {
	want := []string{plain, MemberIdentity(alice, device, plain), MemberIdentity(alice, device, "uuid")}
	if d := cmp.Diff(want, Identities(alice, device, "uuid")); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if d := cmp.Diff(want[:2], Identities(alice, device, plain)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{membership(nil), sticky(nil), `{}`, `{"memberships":[]}`, `{"msc4354_sticky_key":"x"}`, `{"expires":1e400}`, `null`, `[`} {
		f.Add(key, alice, []byte(seed), int64(1), int64(1))
	}
	f.Fuzz(func(t *testing.T, key, sender string, content []byte, sent, stuck int64) {
		for _, e := range []Event{
			{Type: TypeState, StateKey: &key, Sender: sender, Content: content, Sent: time.UnixMilli(sent)},
			{Type: TypeSticky, Sender: sender, Content: content, Sent: time.UnixMilli(sent), Sticky: time.Duration(stuck)},
		} {
			m, err := Parse(e)
			if (m == nil) == (err == nil) {
				t.Fatalf("neither member nor error: %v %v", m, err)
			}
			if m == nil {
				continue
			}
			if m.User != sender || m.Slot == "" || m.ID == "" || m.Identity() == "" || len(m.Identities()) == 0 {
				t.Errorf("incomplete: %+v", m)
			}
			if m.Created.After(e.Sent) || m.Expires.Sub(m.Created) > maxLife {
				t.Errorf("created %v, expires %v, sent %v", m.Created, m.Expires, e.Sent)
			}
		}
		StickyKey(content)
		_ = KeyOf(key, sender, "D")
		UserOf(key)
	})
}
