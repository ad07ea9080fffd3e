package matrix

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Why somebody was refused goes to that user alone, in a room that the bot makes once.
func TestWhy(t *testing.T) {
	const told = "I have written to you alone: look at your direct messages, or invitations."
	w := newWorld(t, false, nil)
	at := w.now().Add(-90 * time.Minute)
	w.refusal = &Refusal{At: at, Words: "You were not in the room.", Room: "!other:example.org", Device: "PHONE", Addr: netip.MustParseAddr("203.0.113.7")}
	expectBody(t, w.says(t, bob, "!call why"), told)
	const own = "!direct1:example.org"
	expectBody(t, w.next(t, own, 0), fmt.Sprintf("At %s you were not let into the call of the room !other:example.org, which you asked for with your device PHONE from 203.0.113.7.\nYou were not in the room.", moment(at, w.now())))
	for _, s := range w.sentTo(room) {
		if strings.Contains(fmt.Sprint(s.content), "203.0.113.7") {
			t.Errorf("the room was told: %v", s.content)
		}
	}
	w.matrix.set(func() { w.matrix.members[own][bob] = "join" })
	expectBody(t, w.says(t, bob, "!call why"), told)
	w.next(t, own, 1)
	w.push(t, w.text(own, bob, "!call why"))
	if w.next(t, own, 2); len(w.sentTo(room)) != 2 {
		t.Error("the answer in the room for two went elsewhere")
	}
	// Somebody else came in, or the user went: another room.
	w.matrix.set(func() { w.matrix.members[own][alice] = "join" })
	expectBody(t, w.says(t, bob, "!call why"), told)
	const another = "!direct2:example.org"
	w.next(t, another, 0)
	w.matrix.set(func() { w.matrix.members[another][bob] = "leave" })
	expectBody(t, w.says(t, bob, "!call why"), told)
	w.next(t, "!direct3:example.org", 0)
	expectBody(t, w.says(t, alice, "!call why"), told)
	if got := w.next(t, "!direct4:example.org", 0); !strings.HasPrefix(got.body(), "I know of no refusal of yours") {
		t.Errorf("alice was told %q", got.body())
	}
}

// isIn declares a user a member of the room's call, with a laptop.
func (w *world) isIn(t *testing.T, user string) {
	t.Helper()
	w.matrix.set(func() {
		w.matrix.state = append(w.matrix.state, fmt.Sprintf(`{"type":"org.matrix.msc3401.call.member","state_key":"_%s_LAPTOP_m.call","sender":%q,"event_id":"$joined","origin_server_ts":%d,
			"content":{"application":"m.call","call_id":"","device_id":"LAPTOP","m.call.intent":"audio","focus_active":{"type":"livekit"},"foci_preferred":[]}}`, user, user, time.Now().UnixMilli()))
	})
}

func TestRing(t *testing.T) {
	for _, wide := range []bool{true, false} {
		w := newWorld(t, wide, nil)
		expectBody(t, w.says(t, alice, "!call ring bob"), "Whom? Write !call ring and one full user id, or mention somebody.")
		expectBody(t, w.says(t, alice, "!call ring @carol:example.org"), "@carol:example.org is not in this room.")
		w.join(t, alice, "LAPTOP")
		expectBody(t, w.says(t, alice, "!call ring @alice:example.org"), "@alice:example.org is in the call already.")
		w.isIn(t, alice)
		before := len(w.sentTo(room))
		first := w.says(t, alice, "!call ring @bob:example.org")
		if wide {
			content := first.content
			if first.kind != "org.matrix.msc4075.rtc.notification" || first.as != alice || content["notification_type"] != "ring" || content["m.call.intent"] != "audio" ||
				fmt.Sprint(content["m.relates_to"]) != "map[event_id:$joined rel_type:m.reference]" || fmt.Sprint(content["m.mentions"]) != "map[user_ids:[@bob:example.org]]" {
				t.Errorf("the ring: %+v", first)
			}
			expectBody(t, w.next(t, room, before+1), "Ringing @bob:example.org.")
		} else {
			expectBody(t, first, "@bob:example.org: @alice:example.org asks you to join the call in this room.")
			if first.content["msgtype"] != "m.text" || fmt.Sprint(first.content["m.mentions"]) != "map[user_ids:[@bob:example.org]]" {
				t.Errorf("a message at which no client sounds: %v", first.content)
			}
		}
		expectBody(t, w.says(t, alice, "!call ring @bob:example.org"), "@bob:example.org was asked within the last minute.")
	}
}

func TestLink(t *testing.T) {
	w := newWorld(t, false, func(o *Options) { o.ElementCall = "https://call.example.org/" })
	expectBody(t, w.says(t, bob, "!call link"), "The call of this room, for members of the room: https://call.example.org/room/#?roomId=%21room%3Aexample.org&viaServers=example.org")
}
