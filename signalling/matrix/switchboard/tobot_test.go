package switchboard

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/matrixrtc/member"
)

// Who calls in a room of many is in its call: answered by the bot, declared as its device or, once agreed, as an own one.
func TestToBot(t *testing.T) {
	for _, tc := range []struct {
		name   string
		agreed bool
		member string
	}{{"as a device of the bot", false, bot}, {"as a device of the caller", true, bob}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			if tc.agreed {
				w.agree(bob)
			}
			w.push(invites(many, "c1"), says(many, "candidates", "c1", `,"candidates":[{"candidate":"candidate:1","sdpMid":"0"}]`))
			answer := w.next(many, "m.call.answer", 0)
			if answer.as != bot || answer.content["call_id"] != "c1" || answer.content["answer"].(map[string]any)["sdp"] != "our answer" {
				t.Errorf("got %+v", answer)
			}
			declared := w.next(many, member.TypeState, 0)
			leg := w.leg(0)
			if declared.as != tc.member || declared.content["foci_preferred"].([]any)[0].(map[string]any)["livekit_service_url"] != service {
				t.Errorf("declared %+v", declared)
			}
			if want := tc.member + ":" + declared.content["device_id"].(string); leg.grant.Identity != want || leg.grant.Name != "Bob" || leg.grant.Room != member.RoomName(many, member.SlotRoom) {
				t.Errorf("joined as %q (%q), want %q", leg.grant.Identity, leg.grant.Name, want)
			}
			w.push(says(many, "select_answer", "c1", fmt.Sprintf(`,"selected_party_id":%q`, answer.content["party_id"])))
			leg.says(signalling.Connected{})
			w.push(says(many, "sdp_stream_metadata_changed", "c1", `,"sdp_stream_metadata":{"T":{"purpose":"m.usermedia","audio_muted":true}}`))
			w.eventually("the mute", func() bool {
				leg.mu.Lock()
				defer leg.mu.Unlock()
				return slices.Contains(leg.did, "stream muted true")
			})
			w.push(says(many, "hangup", "c1", `,"reason":"user_hangup"`))
			w.ends()
			if cleared := w.next(many, member.TypeState, 1); cleared.key != declared.key || len(cleared.content) != 0 {
				t.Errorf("cleared %+v", cleared)
			}
			if !leg.gone {
				t.Error("the leg is still there")
			}
			if calls, _ := w.store.Calls(t.Context()); len(calls) != 0 {
				t.Errorf("%d calls are still stored", len(calls))
			}
			leg.mu.Lock()
			defer leg.mu.Unlock()
			if !slices.Contains(leg.did, `candidate {"candidate":"candidate:1","sdpMid":"0"}`) {
				t.Errorf("the leg did %q", leg.did)
			}
		})
	}
}

// The client is told what it hears, and whose that is.
func TestShown(t *testing.T) {
	w := newWorld(t, nil)
	w.push(invites(many, "c1"))
	w.next(many, "m.call.answer", 0)
	leg := w.leg(0)
	leg.mu.Lock()
	leg.peers = []*sfu.ParticipantInfo{{Identity: alice + ":A", State: sfu.Active}, {Identity: "guest", Name: "Dave", State: sfu.Active}} // clients of Matrix join without a name
	leg.mu.Unlock()
	leg.says(signalling.Connected{}, signalling.Shown{Source: sfu.Microphone, Identity: alice + ":A", Muted: true}, signalling.Shown{Source: sfu.Camera, Identity: alice + ":A"})
	changed := w.next(many, "m.call.sdp_stream_metadata_changed", 0)
	if got := changed.content["sdp_stream_metadata"].(map[string]any)["S"].(map[string]any); got["audio_muted"] != true || got["video_muted"] != false {
		t.Errorf("got %v", got)
	}
	identity := w.next(many, "m.call.asserted_identity", 0).content["asserted_identity"].(map[string]any)
	if identity["id"] != alice || identity["display_name"] != "Alice" {
		t.Errorf("got %v", identity)
	}
	leg.says(signalling.Shown{Source: sfu.Camera, Identity: "guest"}, signalling.Shown{Source: sfu.Camera}) // alice is heard all the while
	if got := w.next(many, "m.call.sdp_stream_metadata_changed", 1).content["sdp_stream_metadata"].(map[string]any)["S"].(map[string]any); got["video_muted"] != true {
		t.Errorf("without a picture: %v", got)
	}
	leg.says(signalling.Shown{Source: sfu.Microphone, Identity: "guest"})
	identity = w.next(many, "m.call.asserted_identity", 1).content["asserted_identity"].(map[string]any)
	if identity["id"] != "guest" || identity["display_name"] != "Dave" {
		t.Errorf("got %v", identity)
	}
	leg.says(sfu.Closed{})
	if got := w.next(many, "m.call.hangup", 0); got.content["reason"] != "user_hangup" {
		t.Errorf("got %v", got.content)
	}
	w.ends()
}

// What does not become a call of ours, and what is said about it.
func TestNotBridged(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*world)
		events [][4]string
		sent   string // type of what is sent; nothing if empty
	}{
		{"taken back together with it", nil, [][4]string{invites(many, "c1"), says(many, "hangup", "c1", "")}, ""},
		{"in an encrypted room", nil, [][4]string{invites(secret, "c1")}, ""},
		{"to the bot in an encrypted room", nil, [][4]string{says(secret, "invite", "c1", `,"lifetime":60000,"offer":{"sdp":"v"},"invitee":"`+bot+`"`)}, "m.call.reject"},
		{"in a room that is switched off", func(w *world) { w.store.words.Rooms = map[id.RoomID]bool{many: false} }, [][4]string{invites(many, "c1")}, ""},
		{"by a user of another homeserver", nil, [][4]string{{many, "@eve:example.com", "m.call.invite", invites(many, "c1")[3]}}, ""},
		{"by the bot", nil, [][4]string{{many, bot, "m.call.invite", invites(many, "c1")[3]}}, ""},
		{"by somebody outside", nil, [][4]string{{many, "@dave:example.org", "m.call.invite", invites(many, "c1")[3]}}, ""},
		{"malformed", nil, [][4]string{says(many, "invite", "c1", `,"offer":5`)}, ""},
		{"as state", nil, [][4]string{{many, bob, "m.call.invite|", invites(many, "c1")[3]}}, ""},
		{"too old", nil, [][4]string{says(many, "invite", "c1", `,"lifetime":2000,"offer":{"sdp":"v"}`)}, ""},
		{"for somebody in a room of many", nil, [][4]string{says(many, "invite", "c1", `,"lifetime":60000,"offer":{"sdp":"v"},"invitee":"@carol:example.org"`)}, ""},
		{"an offer that cannot be answered", nil, [][4]string{says(many, "invite", "c1", `,"lifetime":60000,"offer":{"sdp":"bad"}`)}, "m.call.reject"},
		{"when the call is full", func(w *world) { w.full = true }, [][4]string{invites(many, "c1")}, "m.call.reject"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, tc.change)
			w.push(tc.events...)
			if tc.sent != "" {
				w.next(tc.events[0][0], tc.sent, 0)
			}
			w.ends()
			w.push([4]string{many, "@carol:example.org", "m.call.invite", invites(many, "probe")[3]}) // what was to happen before has happened
			if tc.name != "when the call is full" && !strings.Contains(tc.name, "switched off") {
				w.next(many, "m.call.answer", 0)
			}
			w.matrix.mu.Lock()
			defer w.matrix.mu.Unlock()
			for _, s := range w.matrix.sent {
				if s.content["call_id"] != "probe" && strings.HasPrefix(s.kind, "m.call.") && s.kind != tc.sent {
					t.Errorf("sent %+v", s)
				}
			}
		})
	}
}

// A user who calls twice in a room is busy.
func TestBusy(t *testing.T) {
	w := newWorld(t, nil)
	w.push(invites(many, "c1"))
	w.next(many, "m.call.answer", 0)
	w.push(invites(many, "c2"))
	if got := w.next(many, "m.call.reject", 0); got.content["call_id"] != "c2" || got.content["reason"] != "user_busy" {
		t.Errorf("got %+v", got)
	}
}

// Who hangs up and calls again at once is not busy: the new call begins when nothing is left of the old one, whose member it might be.
func TestCallsAgain(t *testing.T) {
	w := newWorld(t, nil)
	w.agree(bob)
	w.push(invites(many, "c1"))
	w.next(many, "m.call.answer", 0)
	w.leg(0).says(signalling.Connected{})
	w.next(many, member.TypeState, 0)
	w.push(says(many, "hangup", "c1", ""), invites(many, "c2"))
	if got := w.next(many, "m.call.answer", 1); got.content["call_id"] != "c2" {
		t.Errorf("got %+v", got)
	}
	w.leg(1).says(signalling.Connected{})
	var devices []any
	w.next(many, member.TypeState, 2)
	for _, s := range w.sentTo(many, member.TypeState) {
		devices = append(devices, s.content["device_id"] != nil)
	}
	if want := []any{true, false, true}; !slices.Equal(devices, want) {
		t.Errorf("memberships declared or taken back: %v, want %v", devices, want)
	}
	if n := len(w.sentTo(many, "m.call.reject")); n != 0 {
		t.Errorf("%d calls rejected", n)
	}
}

// A room whose requests hang holds up nobody else, and a call that is flooded meanwhile ends alone.
func TestSlowRoom(t *testing.T) {
	hang := make(chan struct{})
	w := newWorld(t, func(w *world) { w.matrix.hangs[two] = hang })
	w.push(invites(two, "slow"))
	for i := range inboxSize + 5 {
		w.push(says(two, "candidates", "slow", fmt.Sprintf(`,"candidates":[{"candidate":"%d"}]`, i)))
	}
	w.push([4]string{many, "@carol:example.org", "m.call.invite", invites(many, "quick")[3]})
	w.next(many, "m.call.answer", 0)
	if got := w.Stats(); got.Overrun != 1 || got.Calls != 2 {
		t.Errorf("got %+v", got)
	}
	close(hang)
	w.eventually("the end of the flooded call", func() bool { return w.Stats().Calls == 1 })
}

// Whoever stays behind in a call that everybody has left is hung up; so is everybody when this server goes.
func TestEnds(t *testing.T) {
	w := newWorld(t, nil)
	w.push(invites(many, "c1"))
	w.next(many, "m.call.answer", 0)
	w.leg(0).says(signalling.Connected{})
	w.next(many, member.TypeState, 0)
	began := time.Now()
	w.stop()
	if took := time.Since(began); took > farewellTime {
		t.Errorf("it took %s", took)
	}
	w.next(many, "m.call.hangup", 0)
	if cleared := w.next(many, member.TypeState, 1); len(cleared.content) != 0 {
		t.Errorf("got %+v", cleared)
	}
}

// Calls of an earlier run are hung up, their memberships cleared, and then forgotten.
func TestTidy(t *testing.T) {
	left := Record{Server: "example.org", Room: many, Call: "old", Party: "P", Version: 1, Speaker: bot, Member: bob, Device: pretended}
	w := newWorld(t, func(w *world) { w.store.calls = []Record{left} })
	if got := w.next(many, "m.call.hangup", 0); got.as != bot || got.content["call_id"] != "old" || got.content["party_id"] != "P" {
		t.Errorf("got %+v", got)
	}
	if names := w.namesOf(many); names != nil {
		t.Errorf("the bot is called %q", names)
	}
	if got := w.next(many, member.TypeState, 0); got.as != bob || got.key != "_@bob:example.org_CALLBRIDGE_m.call" || len(got.content) != 0 {
		t.Errorf("got %+v", got)
	}
	w.eventually("forgotten", func() bool { calls, _ := w.store.Calls(t.Context()); return len(calls) == 0 })
}

// A room whose requests hang keeps no other's call of an earlier run from being hung up.
func TestTidySlowRoom(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	w := newWorld(t, func(w *world) {
		w.matrix.hangs[two] = hang
		for i := range 5 {
			w.store.calls = append(w.store.calls, Record{Server: "example.org", Room: two, Call: fmt.Sprint("slow", i), Party: "P", Version: 1, Speaker: bot, Member: bob, Device: pretended})
		}
		w.store.calls = append(w.store.calls, Record{Server: "example.org", Room: many, Call: "quick", Party: "P", Version: 1, Speaker: bot, Member: bob, Device: pretended})
	})
	w.next(many, "m.call.hangup", 0)
	w.next(many, member.TypeState, 0)
}

// A call whose other end was not told that it is over is hung up at the next start.
func TestUnsaid(t *testing.T) {
	w := newWorld(t, nil)
	w.push(invites(many, "c1"))
	w.next(many, "m.call.answer", 0)
	w.leg(0).says(signalling.Connected{})
	w.next(many, member.TypeState, 0)
	w.matrix.mu.Lock()
	w.matrix.refused = "m.call.hangup"
	w.matrix.mu.Unlock()
	w.stop()
	if calls, err := w.store.Calls(t.Context()); err != nil || len(calls) != 1 || calls[0].Call != "c1" {
		t.Errorf("stored is %+v, %v", calls, err)
	}
}
