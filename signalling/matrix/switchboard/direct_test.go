package switchboard

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/signalling"
	"callserver/signalling/matrixrtc/member"
)

// declineOf makes alice's refusal of a ring.
func declineOf(room, user, ring string) [4]string {
	text, _ := json.Marshal(member.NewRefusal(ring))
	return [4]string{room, user, member.TypeDecline, string(text)}
}

// ringOf waits until bob's call rings alice, and returns the id of the ring. The fake gives ids in the order of requests.
func (w *world) ringOf(room string) sent {
	w.t.Helper()
	return w.next(room, member.TypeNotification, 0)
}

// A call in a room for two rings the other one's MatrixRTC, and is answered once that one is in the call.
func TestIn(t *testing.T) {
	for _, tc := range []struct {
		name            string
		agree           bool
		speaker, member string
	}{{"by the bot", false, bot, bot}, {"by the two themselves", true, alice, bob}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			if tc.agree {
				w.agree(alice, bob)
			}
			w.push(invites(two, "c1"))
			ring := w.ringOf(two)
			declared := w.next(two, member.TypeState, 0)
			if ring.as != tc.member || declared.as != tc.member {
				t.Errorf("rung by %s, declared as %s, want %s", ring.as, declared.as, tc.member)
			}
			text, _ := json.Marshal(ring.content)
			n, err := member.ParseNotification(member.Event{Type: member.TypeNotification, Sender: tc.member, Content: text})
			if err != nil || !n.Ring || len(n.Users) != 1 || n.Users[0] != alice || n.Member == "" || n.Intent != "video" {
				t.Errorf("got %+v, %v", n, err)
			}
			if life := ring.content["lifetime"].(float64); life < 50_000 || life > 60_000 {
				t.Errorf("it rings for %v ms", life)
			}
			if n := len(w.sentTo(two, "m.call.answer")); n != 0 {
				t.Fatal("answered before anybody joined")
			}
			w.joins(two)
			if answer := w.next(two, "m.call.answer", 0); answer.as != tc.speaker {
				t.Errorf("answered by %s, want %s", answer.as, tc.speaker)
			}
			w.leg(0).says(signalling.Connected{})
			left := isIn(two)
			left[3] = "{}"
			w.push(left)
			if hangup := w.next(two, "m.call.hangup", 0); hangup.as != tc.speaker {
				t.Errorf("hung up by %s", hangup.as)
			}
			w.ends()
			if cleared := w.next(two, member.TypeState, 1); cleared.key != declared.key || len(cleared.content) != 0 {
				t.Errorf("cleared %+v", cleared)
			}
		})
	}
}

// How a call into a room for two ends before it is answered.
func TestInEnds(t *testing.T) {
	for _, tc := range []struct {
		name string
		then func(w *world, ring string)
		sent string // to the caller; nothing if empty
	}{
		{"declined", func(w *world, ring string) { w.push(declineOf(two, alice, ring)) }, "m.call.reject"},
		{"the caller gives up", func(w *world, _ string) { w.push(says(two, "hangup", "c1", `,"reason":"invite_timeout"`)) }, ""},
		{"answered by an old client", func(w *world, _ string) {
			w.push(says(two, "select_answer", "c1", `,"selected_party_id":"A2"`))
		}, ""},
		{"the caller leaves the room", func(w *world, _ string) {
			w.push([4]string{two, bob, "m.room.member|" + bob, `{"membership":"leave"}`})
		}, "m.call.reject"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.push(invites(two, "c1"))
			w.ringOf(two)
			w.eventually("the ring's id is known", func() bool { return w.idOfRing(two) != "" })
			tc.then(w, w.idOfRing(two))
			if tc.sent != "" {
				w.next(two, tc.sent, 0)
			}
			w.ends()
			if cleared := w.next(two, member.TypeState, 1); len(cleared.content) != 0 {
				t.Errorf("got %+v", cleared)
			}
			if n := len(w.sentTo(two, "m.call.answer")); n != 0 {
				t.Error("answered")
			}
		})
	}
}

// idOfRing is the id of the event by which a call rings.
func (w *world) idOfRing(room string) string {
	w.matrix.mu.Lock()
	defer w.matrix.mu.Unlock()
	return w.matrix.rings[room]
}

// A call that meets the other one in the room's call is answered at once, without a ring.
func TestInMeets(t *testing.T) {
	w := newWorld(t, nil)
	w.joins(two)
	w.push(invites(two, "c1"))
	w.next(two, "m.call.answer", 0)
	if n := len(w.sentTo(two, member.TypeNotification)); n != 0 {
		t.Error("it rings")
	}
}

// Users who do not want to be bridged are not.
func TestInRefused(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.BridgeUser(t.Context(), alice, false); err != nil {
		t.Fatal(err)
	}
	w.push(invites(two, "c1"))
	w.eventually("refused", func() bool { return w.Stats().Refused == 1 })
	w.ends()
}

// A ring in a room for two calls one who has the old calls, and puts that one into the call upon answering.
func TestOut(t *testing.T) {
	for _, tc := range []struct {
		name            string
		agree           bool
		speaker, member string
	}{{"by the bot", false, bot, bot}, {"by the two themselves", true, alice, bob}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			if tc.agree {
				w.agree(alice, bob)
			} else { // known from calling elsewhere
				w.knowsBob()
			}
			w.joins(two)
			w.rings(two)
			invite := w.next(two, "m.call.invite", 0)
			call := invite.content["call_id"].(string)
			if invite.as != tc.speaker || invite.content["invitee"] != bob {
				t.Errorf("got %+v", invite)
			}
			if n := len(w.sentTo(two, member.TypeState)); n != 0 {
				t.Error("declared before bob answered")
			}
			w.push(says(two, "answer", call, `,"answer":{"type":"answer","sdp":"bob's answer"}`))
			w.next(two, "m.call.select_answer", 0)
			if declared := w.next(two, member.TypeState, 0); declared.as != tc.member {
				t.Errorf("declared as %s", declared.as)
			}
			w.leg(0).says(signalling.Connected{})
			if !tc.agree {
				if got := w.next(two, "m.call.asserted_identity", 0).content["asserted_identity"].(map[string]any); got["id"] != alice || got["display_name"] != "Alice" {
					t.Errorf("got %v", got)
				}
			}
			left := isIn(two)
			left[3] = "{}"
			w.push(left)
			w.next(two, "m.call.hangup", 0)
			w.ends()
		})
	}
}

// Element Call names nobody in a ring: it is for the other one in a room for two.
func TestOutUnnamed(t *testing.T) {
	everybody := `{"notification_type":"ring","lifetime":90000,"m.mentions":{"user_ids":[],"room":true},"m.relates_to":{"rel_type":"m.reference","event_id":"$state"}}`
	w := newWorld(t, nil)
	w.agree(bob)
	w.joins(two)
	w.joins(many)
	w.push([4]string{many, alice, member.TypeNotification, everybody}, [4]string{two, alice, member.TypeNotification, everybody})
	invite := w.next(two, "m.call.invite", 0)
	if life := invite.content["lifetime"].(float64); invite.content["invitee"] != bob || life < 80_000 || life > 90_000 {
		t.Errorf("got %+v", invite)
	}
	// Rung again, by another device of alice's or once more, he has that call already.
	w.push([4]string{two, alice, member.TypeNotification, everybody})
	w.rings(two)
	w.push(says(two, "answer", invite.content["call_id"].(string), `,"answer":{"type":"answer","sdp":"a"}`))
	w.next(two, "m.call.select_answer", 0)
	w.rings(two)
	w.eventually("one call is left", func() bool { return w.Stats().Calls == 1 })
	if n := len(w.sentTo(two, "m.call.invite")); n != 1 {
		t.Errorf("%d invitations", n)
	}
	if n := len(w.sentTo(many, "m.call.invite")); n != 0 || w.Stats().Placed != 1 || w.Stats().Ended != 0 {
		t.Errorf("called in a room of many: %d, %+v", n, w.Stats())
	}
}

// Who rejects the call of somebody who rings declines the ring: in the own name if the server may speak in it, and by the bot.
func TestOutDeclined(t *testing.T) {
	for _, tc := range []struct {
		name string
		user id.UserID // who agreed
		as   []string
	}{{"also by himself", bob, []string{bob, bot}}, {"by the bot", alice, []string{bot}}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.agree(tc.user)
			w.knowsBob()
			w.joins(two)
			w.rings(two)
			w.push(says(two, "reject", w.next(two, "m.call.invite", 0).content["call_id"].(string), ""))
			for i, as := range tc.as {
				if got := w.next(two, member.TypeDecline, i); got.as != as || got.content["m.relates_to"].(map[string]any)["event_id"] == "" {
					t.Errorf("got %+v", got)
				}
			}
			w.ends()
		})
	}
}

// knowsBob has bob known to use the old calls, from calling elsewhere.
func (w *world) knowsBob() {
	w.push(says(many, "invite", "other", `,"lifetime":60000,"offer":{"sdp":"v"},"invitee":"@carol:example.org"`))
}

// Whichever of bob and the bot Element Call takes for the one it rings is a member of the call, for a moment at least.
func TestNod(t *testing.T) {
	for _, tc := range []struct {
		name  string
		user  id.UserID // who agreed
		stays string    // in the call
		nods  string
	}{{"as himself", bob, bob, bot}, {"by the bot", alice, bot, ""}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.agree(tc.user)
			w.knowsBob()
			w.joins(two)
			w.rings(two)
			w.push(says(two, "answer", w.next(two, "m.call.invite", 0).content["call_id"].(string), `,"answer":{"type":"answer","sdp":"a"}`))
			if got := w.next(two, member.TypeState, 0); got.as != tc.stays {
				t.Errorf("declared as %s", got.as)
			}
			w.leg(0).says(signalling.Connected{})
			if tc.nods != "" {
				nod, over := w.next(two, member.TypeState, 1), w.next(two, member.TypeState, 2)
				if nod.as != tc.nods || len(nod.content) == 0 || over.key != nod.key || len(over.content) != 0 {
					t.Errorf("got %+v, %+v", nod, over)
				}
			}
			left := isIn(two)
			left[3] = "{}"
			w.push(left)
			w.ends()
			if all := w.sentTo(two, member.TypeState); len(all)%2 != 0 || tc.nods == "" && len(all) != 2 {
				t.Errorf("declared and cleared %+v", all)
			}
		})
	}
}

// How a call to an old client ends before it is answered.
func TestOutEnds(t *testing.T) {
	for _, tc := range []struct {
		name string
		then func(w *world, call string) [][4]string
		sent string // by whom it ends, or how; nothing if empty
	}{
		{"rejected", func(_ *world, call string) [][4]string { return [][4]string{says(two, "reject", call, "")} }, member.TypeDecline},
		{"busy", func(_ *world, call string) [][4]string {
			return [][4]string{says(two, "hangup", call, `,"reason":"user_busy"`)}
		}, member.TypeDecline},
		{"the caller gives up", func(*world, string) [][4]string { left := isIn(two); left[3] = "{}"; return [][4]string{left} }, "m.call.hangup"},
		{"bob joins by MatrixRTC", func(*world, string) [][4]string {
			e := isIn(two)
			key, content := member.Declare(member.Declaration{User: bob, Device: "B", Room: two, Service: service})
			text, _ := json.Marshal(content)
			return [][4]string{{e[0], bob, member.TypeState + "|" + key, string(text)}}
		}, "m.call.hangup"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.agree(alice, bob)
			w.joins(two)
			w.rings(two)
			call := w.next(two, "m.call.invite", 0).content["call_id"].(string)
			w.push(tc.then(w, call)...)
			w.next(two, tc.sent, 0)
			w.ends()
		})
	}
}

// Rings that call nobody.
func TestOutNot(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(w *world)
	}{
		{"nobody has the old calls", func(w *world) { w.joins(two); w.rings(two) }},
		{"whoever rings is not in the call", func(w *world) { w.agree(bob); w.rings(two) }},
		{"in a room of many", func(w *world) { w.agree(bob); w.joins(many); w.rings(many) }},
		{"in an encrypted room", func(w *world) { w.agree(bob); w.joins(secret); w.rings(secret) }},
		{"by the bot", func(w *world) {
			w.agree(bob)
			text, _ := json.Marshal(member.NewRing(bob, "$state", "video", w.now(), time.Minute))
			w.push([4]string{two, bot, member.TypeNotification, string(text)})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			tc.do(w)
			w.eventually("nothing is left of it", func() bool { return w.Stats().Calls == 0 })
			w.push(invites(many, "probe"))
			w.next(many, "m.call.answer", 0)
			for _, room := range []string{two, many, secret} {
				if n := len(w.sentTo(room, "m.call.invite")); n != 0 {
					t.Errorf("called in %s", room)
				}
			}
		})
	}
}

// Of two calls that cross, that with the smaller id lives, unless the client does not know that rule: then its own.
func TestGlare(t *testing.T) {
	for _, tc := range []struct {
		name, theirs string
		lives        string // whose call
	}{{"theirs comes first", "!", "theirs"}, {"ours comes first", "~", "ours"}, {"ours comes first, and the client does not heed it", "~", "theirs"}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.agree(alice, bob)
			w.joins(two)
			w.rings(two)
			ours := w.next(two, "m.call.invite", 0).content["call_id"]
			w.push(invites(two, tc.theirs))
			if tc.lives == "theirs" {
				if got := w.next(two, "m.call.hangup", 0); got.content["call_id"] != ours || got.content["reason"] != "replaced" {
					t.Errorf("got %+v", got)
				}
				if got := w.next(two, "m.call.answer", 0); got.content["call_id"] != tc.theirs {
					t.Errorf("got %+v", got)
				}
				return
			}
			w.push(says(two, "hangup", tc.theirs, `,"reason":"replaced"`), says(two, "answer", fmt.Sprint(ours), `,"answer":{"type":"answer","sdp":"a"}`))
			w.next(two, "m.call.select_answer", 0)
			if n := len(w.sentTo(two, "m.call.answer")); n != 0 {
				t.Error("both live")
			}
		})
	}
}

// Two who agreed need no bot in their room: what happens there is seen and said as them. What the bot sees as well counts once.
func TestWithoutBot(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.store.words.Users = map[id.UserID]bool{alice: true, bob: true}
		w.matrix.members[two] = []string{alice, bob}
	})
	invite := invites(two, "c1")
	text := fmt.Sprintf(`{"type":"m.call.invite","event_id":"$here","sender":%q,"origin_server_ts":%d,"content":%s}`, bob, time.Now().UnixMilli(), invite[3])
	w.matrix.syncs <- fmt.Sprintf(`{"next_batch":"told","rooms":{"join":{%q:{"timeline":{"events":[%s,%s]}}}}}`, two, text, text)
	if ring := w.ringOf(two); ring.as != bob {
		t.Errorf("rung by %s", ring.as)
	}
	w.eventually("the ring's id is known", func() bool { return w.idOfRing(two) != "" })
	w.push(declineOf(two, alice, w.idOfRing(two)))
	if reject := w.next(two, "m.call.reject", 0); reject.as != alice {
		t.Errorf("rejected by %s", reject.as)
	}
	w.ends()
	if got := w.Stats().Invited; got != 1 {
		t.Errorf("%d invitations", got)
	}
}

// The poll of a user who does not agree any more is not cut off: what its answer tells is heard.
func TestDisagreeing(t *testing.T) {
	w := newWorld(t, func(w *world) { w.store.words.Users = map[id.UserID]bool{bob: true} })
	w.polled(bob, 2)
	if err := w.BridgeUser(t.Context(), bob, false); err != nil {
		t.Fatal(err)
	}
	w.agree(alice)
	w.polled(alice, 1) // that bob is not followed any more was heeded before
	invite := invites(two, "c1")
	w.matrix.syncs <- fmt.Sprintf(`{"next_batch":"told","rooms":{"join":{%q:{"timeline":{"events":[{"type":"m.call.invite","event_id":"$here","sender":%q,"origin_server_ts":%d,"content":%s}]}}}}}`,
		two, bob, time.Now().UnixMilli(), invite[3])
	w.eventually("the invitation is heard, and refused", func() bool { return w.Stats().Refused == 1 })
	w.ends()
}

// A call that ends while the one who is not in it becomes a member cuts that off no more than it leaves it: else it could come after what takes it back.
func TestNodEnds(t *testing.T) {
	w := newWorld(t, nil)
	w.agree(bob)
	w.knowsBob()
	w.joins(two)
	w.rings(two)
	call := w.next(two, "m.call.invite", 0).content["call_id"].(string)
	held, release := w.hold(bot)
	w.push(says(two, "answer", call, `,"answer":{"type":"answer","sdp":"a"}`))
	<-held
	w.push(says(two, "hangup", call, ""))
	w.eventually("bob's leg has left", func() bool { return w.leg(0).left() })
	release()
	w.ends()
	var as []string
	for _, s := range w.sentTo(two, member.TypeState) {
		as = append(as, fmt.Sprint(s.as, len(s.content) > 0))
	}
	if want := []string{bob + "true", bot + "true", bot + "false", bob + "false"}; !slices.Equal(as, want) {
		t.Errorf("declared and cleared %v, want %v", as, want)
	}
}
