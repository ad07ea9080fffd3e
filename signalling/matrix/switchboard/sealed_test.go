package switchboard

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/courier"
	"callserver/signalling/matrix/device"
	"callserver/signalling/matrix/mediakeys"
	"callserver/signalling/matrixrtc/member"
)

// A fakeBot seals by writing so, and has a device whose mail goes nowhere.
type fakeBot struct {
	office courier.Office
	said   chan string
}

func (b *fakeBot) Say(_ context.Context, _ *homeserver.Homeserver, _, text string) { b.said <- text }

func (b *fakeBot) Seal(_ context.Context, _ *homeserver.Homeserver, _ id.RoomID, kind event.Type, content any) (event.Type, any, error) {
	return event.EventEncrypted, map[string]any{"type": kind.Type, "sealed": content}, nil
}

func (b *fakeBot) Device(*homeserver.Homeserver) id.DeviceID { return "BOTDEV" }

func (b *fakeBot) Courier(_ *homeserver.Homeserver, o courier.Options) (*courier.Courier, *courier.Office, error) {
	o.Device = b
	c, err := b.office.Engage(o)
	return c, &b.office, err
}

// The bot is its own device.
func (b *fakeBot) User() id.UserID { return bot }
func (b *fakeBot) ID() id.DeviceID { return "BOTDEV" }
func (b *fakeBot) Send(context.Context, string, []device.Recipient, json.RawMessage) ([]device.Recipient, error) {
	return nil, nil
}

// opens hands the switchboard an event of bob's as the bot decrypted it.
func (w *world) opens(e [4]string) {
	w.pushed++
	w.Hear(w.hs, &event.Event{
		Type: event.Type{Type: e[2], Class: event.MessageEventType}, RoomID: id.RoomID(e[0]), ID: id.EventID(e[2] + e[3]), Sender: id.UserID(e[1]),
		Timestamp: time.Now().UnixMilli(), Content: event.Content{VeryRaw: json.RawMessage(e[3])},
	})
}

// In an encrypted room that was switched on the bot speaks, encrypted, and is in the call by its own device, with keys.
func TestSealed(t *testing.T) {
	b := &fakeBot{said: make(chan string, 1)}
	w := newWorld(t, func(w *world) {
		w.store.words.Rooms = map[id.RoomID]bool{secret: true}
		w.bot = b
		w.matrix.members[secret] = append(w.matrix.members[secret], "@carol:example.org")
	})
	w.agree(bob, alice) // which does not count here
	w.joins(secret)
	w.opens(invites(secret, "c1"))
	sealed := w.next(secret, event.EventEncrypted.Type, 0)
	if sealed.as != bot || sealed.content["type"] != "m.call.answer" {
		t.Errorf("sent %+v", sealed)
	}
	if declared := w.next(secret, member.TypeState, 0); declared.as != bot || declared.content["device_id"] != "BOTDEV" {
		t.Errorf("declared %+v", declared)
	}
	leg := w.leg(0)
	leg.says(signalling.Connected{})
	did := func(what string) func() bool {
		return func() bool { leg.mu.Lock(); defer leg.mu.Unlock(); return slices.Contains(leg.did, what) }
	}
	w.eventually("a key of our own", did("own key 0"))
	if text := <-b.said; !strings.HasPrefix(text, "Bob is in the call with an older client.") {
		t.Errorf("said %q", text)
	}
	if got := leg.grant.Origin; got.User != bot || got.Person() != bob {
		t.Errorf("there as %+v", got)
	}
	b.office.Deliver(device.Letter{Type: mediakeys.Type, Sender: alice, Content: mediakeys.Letter{
		Room: secret, From: mediakeys.Peer{User: alice, Device: "A"}, Member: alice + ":A", Key: mediakeys.Key{Index: 3, Secret: make([]byte, 16)}, Sent: time.Now(),
	}.Content()})
	w.eventually("alice's key", did("key 3 of "+alice+":A"))

	w.opens([4]string{secret, "@carol:example.org", "m.call.invite", invites(secret, "c2")[3]})
	if second := w.next(secret, event.EventEncrypted.Type, 1); second.content["type"] != "m.call.reject" {
		t.Errorf("sent %+v", second)
	}
	w.opens(says(secret, "hangup", "c1", ""))
	w.ends()
	if cleared := w.next(secret, member.TypeState, 1); len(cleared.content) != 0 {
		t.Errorf("cleared %+v", cleared)
	}
	if got, want := w.namesOf(secret), []string{"Bob (via callserver)", "Calls"}; !slices.Equal(got, want) {
		t.Errorf("the bot was called %q, want %q", got, want)
	}
}

// newSecret is a world with a bot in an encrypted room for two that was switched on, where bob has the old calls.
func newSecret(t *testing.T) *world {
	w := newWorld(t, func(w *world) {
		w.store.words.Rooms = map[id.RoomID]bool{secret: true}
		w.bot = &fakeBot{said: make(chan string, 8)}
	})
	w.agree(bob)
	return w
}

// sealed is what was sent encrypted to the secret room, of a type.
func (w *world) sealed(kind string) (all []sent) {
	for _, s := range w.sentTo(secret, event.EventEncrypted.Type) {
		if s.content["type"] == kind {
			s.content = s.content["sealed"].(map[string]any)
			all = append(all, s)
		}
	}
	return all
}

// nextSealed waits for the encrypted event of a number.
func (w *world) nextSealed(kind string, number int) sent {
	w.t.Helper()
	w.eventually(kind+" is sent encrypted", func() bool { return len(w.sealed(kind)) > number })
	return w.sealed(kind)[number]
}

// ringsSecretly has alice's client ring bob, encrypted.
func (w *world) ringsSecretly() {
	text, _ := json.Marshal(member.NewRing(bob, "$state", "video", time.Now(), 30*time.Second))
	w.opens([4]string{secret, alice, member.TypeNotification, string(text)})
}

// A ring in an encrypted room for two calls the older client; rejected there, it is declined in bob's name, and by the bot.
func TestSealedOut(t *testing.T) {
	w := newSecret(t)
	w.joins(secret)
	w.ringsSecretly()
	invite := w.nextSealed("m.call.invite", 0)
	if invite.as != bot || invite.content["invitee"] != bob {
		t.Errorf("sent %+v", invite)
	}
	w.opens(says(secret, "reject", invite.content["call_id"].(string), ""))
	if decline := w.next(secret, member.TypeDecline, 0); decline.as != bob {
		t.Errorf("declined by %s", decline.as)
	}
	w.nextSealed(member.TypeDecline, 0)
	w.ends()
}

// Of two calls that cross in an encrypted room one lives, too: the bot's device passes from one to the other.
func TestSealedGlare(t *testing.T) {
	for _, tc := range []struct {
		name, theirs string
		lives        string // whose call
	}{{"theirs comes first", "!", "theirs"}, {"ours comes first", "~", "ours"}, {"ours comes first, and the client does not heed it", "~", "theirs"}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newSecret(t)
			w.joins(secret)
			w.ringsSecretly()
			ours := w.nextSealed("m.call.invite", 0).content["call_id"].(string)
			w.opens(invites(secret, tc.theirs))
			if tc.lives == "theirs" {
				if got := w.nextSealed("m.call.hangup", 0); got.content["call_id"] != ours || got.content["reason"] != "replaced" {
					t.Errorf("got %+v", got)
				}
				if got := w.nextSealed("m.call.answer", 0); got.content["call_id"] != tc.theirs {
					t.Errorf("got %+v", got)
				}
			} else {
				w.opens(says(secret, "hangup", tc.theirs, `,"reason":"replaced"`))
				w.opens(says(secret, "answer", ours, `,"answer":{"type":"answer","sdp":"a"}`))
				w.nextSealed("m.call.select_answer", 0)
			}
			if declared := w.next(secret, member.TypeState, 0); declared.as != bot {
				t.Errorf("declared as %s", declared.as)
			}
			w.eventually("one call is left", func() bool { return w.Stats().Calls == 1 })
		})
	}
}

// Who is in the call by the bot's device is not called once more.
func TestSealedRungAgain(t *testing.T) {
	w := newSecret(t)
	w.joins(secret)
	w.opens(invites(secret, "c1"))
	w.nextSealed("m.call.answer", 0)
	w.ringsSecretly()
	w.eventually("refused", func() bool { return w.Stats().Refused == 1 })
	w.opens(says(secret, "hangup", "c1", ""))
	w.ends()
	if n := len(w.sealed("m.call.invite")); n != 0 {
		t.Error("called again")
	}
}
