package matrix

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/sfu"
)

func TestParse(t *testing.T) {
	message := func(content string) *event.Event {
		return &event.Event{Type: event.EventMessage, ID: "$e", RoomID: room, Sender: alice, Content: event.Content{VeryRaw: json.RawMessage(content)}}
	}
	key := ""
	for _, tc := range []struct {
		name   string
		event  *event.Event
		want   []string // words; nil: no command
		users  []id.UserID
		thread id.EventID
	}{
		{"a command", message(`{"msgtype":"m.text","body":"!call status"}`), []string{"status"}, nil, ""},
		{"alone", message(`{"msgtype":"m.text","body":"!call"}`), []string{}, nil, ""},
		{"case and space", message(`{"msgtype":"m.text","body":"  !CALL \n Mute  all "}`), []string{"Mute", "all"}, nil, ""},
		{"an id", message(`{"msgtype":"m.text","body":"!call kick @bob:example.org"}`), []string{"kick", "@bob:example.org"}, []id.UserID{bob}, ""},
		{"a link", message(`{"msgtype":"m.text","body":"!call kick Bob","formatted_body":"!call kick <a href=\"https://matrix.to/#/%40bob%3Aexample.org\">Bob</a>"}`), []string{"kick", "Bob"}, []id.UserID{bob}, ""},
		{"a link in a quotation", message(`{"msgtype":"m.text","body":"!call kick all","formatted_body":"<mx-reply><a href=\"https://matrix.to/#/@bob:example.org\">Bob</a></mx-reply>!call kick all"}`), []string{"kick", "all"}, nil, ""},
		{"mentions of a reply are nobody's business", message(`{"msgtype":"m.text","body":"!call kick all","m.mentions":{"user_ids":["@bob:example.org"]}}`), []string{"kick", "all"}, nil, ""},
		{"in a thread", message(`{"msgtype":"m.text","body":"!call","m.relates_to":{"rel_type":"m.thread","event_id":"$root"}}`), []string{}, nil, "$root"},
		{"a notice", message(`{"msgtype":"m.notice","body":"!call status"}`), nil, nil, ""},
		{"an edit", message(`{"msgtype":"m.text","body":"!call status","m.relates_to":{"rel_type":"m.replace","event_id":"$x"}}`), nil, nil, ""},
		{"another word", message(`{"msgtype":"m.text","body":"!caller status"}`), nil, nil, ""},
		{"in the middle", message(`{"msgtype":"m.text","body":"try !call status"}`), nil, nil, ""},
		{"no text", message(`{"msgtype":"m.text","body":5}`), nil, nil, ""},
		{"no object", message(`"!call"`), nil, nil, ""},
		{"too long", message(`{"msgtype":"m.text","body":"!call ` + strings.Repeat("a", maxCommand) + `"}`), nil, nil, ""},
		{"state", &event.Event{ID: "$e", RoomID: room, Sender: alice, StateKey: &key, Content: message(`{"msgtype":"m.text","body":"!call status"}`).Content}, nil, nil, ""},
		{"no user", &event.Event{ID: "$e", RoomID: room, Sender: "alice", Content: message(`{"msgtype":"m.text","body":"!call status"}`).Content}, nil, nil, ""},
	} {
		o, ok := parse(tc.event)
		if ok != (tc.want != nil) {
			t.Errorf("%s: a command: %v", tc.name, ok)
			continue
		}
		if ok && (!slices.Equal(o.words, tc.want) || !slices.Equal(o.users, tc.users) || o.thread != tc.thread) {
			t.Errorf("%s: %q for %q in %q, want %q for %q in %q", tc.name, o.words, o.users, o.thread, tc.want, tc.users, tc.thread)
		}
	}
}

func FuzzCommand(f *testing.F) {
	f.Add(`{"msgtype":"m.text","body":"!call kick @bob:x","formatted_body":"<a href=\"https://matrix.to/#/@b:x\">","m.relates_to":{"rel_type":"m.thread"}}`)
	f.Add(`{"msgtype":"m.text","body":"!call"}`)
	f.Fuzz(func(t *testing.T, content string) {
		o, ok := parse(&event.Event{ID: "$e", RoomID: room, Sender: alice, Content: event.Content{VeryRaw: json.RawMessage(content)}})
		if !ok {
			return
		}
		if o.verb() == "" || len(o.words) > maxCommand {
			t.Errorf("%q", o.words)
		}
		for _, user := range o.users {
			if !isUser(user) {
				t.Errorf("%q is no user", user)
			}
		}
	})
}

// An answer is a notice in the command's thread, in text and HTML, and mentions nobody.
func TestReply(t *testing.T) {
	w := newWorld(t, false, nil)
	s := w.says(t, bob, "!call <b>")
	want := map[string]any{
		"msgtype": "m.notice", "format": "org.matrix.custom.html", "m.mentions": map[string]any{},
		"body":           `I do not know the command "<b>". !call help lists those that I know.`,
		"formatted_body": `<p>I do not know the command &#34;&lt;b&gt;&#34;. !call help lists those that I know.</p>`,
		"m.relates_to": map[string]any{
			"rel_type": "m.thread", "event_id": fmt.Sprintf("$%d", w.events-1), "is_falling_back": true,
			"m.in_reply_to": map[string]any{"event_id": fmt.Sprintf("$%d", w.events-1)},
		},
	}
	if d := cmp.Diff(want, s.content); d != "" {
		t.Errorf("reply (-want +got):\n%s", d)
	}
	if s.as != bot {
		t.Errorf("sent as %s", s.as)
	}
	help := w.says(t, bob, "!call")
	for _, c := range w.commands {
		if !strings.Contains(help.body(), "!call "+c.name) {
			t.Errorf("help does not name %s:\n%s", c.name, help.body())
		}
	}
}

func TestModeration(t *testing.T) {
	w := newWorld(t, false, nil)
	const onlyModerators = "Only those whose power level lets them remove others from this room may do that."
	for _, command := range []string{"mute all", "unmute all", "kick all", "lock", "unlock", "end"} {
		expectBody(t, w.says(t, bob, "!call "+command), onlyModerators)
	}
	const nobody = "Nobody is in a call of this room on my server."
	for command, want := range map[string]string{
		"status": nobody, "mute all": nobody, "unmute @bob": nobody, "kick all": nobody, "end": nobody,
		"lock": nobody[:len(nobody)-1] + ": there is nothing to lock.", "unlock": "No call of this room is locked.",
	} {
		expectBody(t, w.says(t, alice, "!call "+command), want)
	}
	w.join(t, bob, "PHONE")
	w.join(t, bob, "LAPTOP")
	w.join(t, rob, "DESK")
	expectBody(t, w.says(t, bob, "!call status"), "In the call: 2 people from 2 homeservers, since "+w.now().UTC().Format("15:04 UTC")+" (0 s ago).\n"+
		"- @bob:example.org: 0 s, 2 devices, good connection, microphone off, camera off\n"+
		"- @rob:example.com: 0 s, good connection, microphone off, camera off")
	expectBody(t, w.says(t, alice, "!call mute"), "Whom? Write !call mute @user, or !call mute all.")
	expectBody(t, w.says(t, alice, "!call mute @carol:example.org"), "@carol:example.org is not in the call.")
	expectBody(t, w.says(t, alice, "!call mute rob"), "The microphone is off already.")
	expectBody(t, w.says(t, alice, "!call lock"), "The call is locked. Who is in it may come back, nobody else gets in, until it is over or somebody writes !call unlock. Removing somebody keeps them out.")
	if err := w.rooms.Check("call", sfu.Member{Identity: "carol"}); err == nil {
		t.Error("the call is not locked")
	}
	expectBody(t, w.says(t, alice, "!call kick @rob"), "Removed from the call: @rob:example.com.")
	if want := []string{rob}; !slices.Equal(w.expelled, want) {
		t.Errorf("expelled %q, want %q", w.expelled, want)
	}
	expectBody(t, w.says(t, alice, "!call unlock"), "The call is open again to every member of this room.")
	if err := w.rooms.Check("call", sfu.Member{Identity: "carol"}); err != nil {
		t.Errorf("the call is locked: %v", err)
	}
	w.join(t, "@bob:example.com", "OTHER")
	expectBody(t, w.says(t, alice, "!call kick @bob"), "@bob may be several people in the call. Write the whole user id.")
	expectBody(t, w.says(t, alice, "!call end"), "The call is over, for 3 people.")
	expectBody(t, w.says(t, alice, "!call end"), nobody)
}

// Who is in a call by the bot is named and removed like everybody else.
func TestModerationInPlaceOfOthers(t *testing.T) {
	w := newWorld(t, false, nil)
	for i, user := range []string{"@carol:example.org", rob} {
		w.join(t, bot, fmt.Sprint("CALL", i))
		w.present[i].Origin.For = user
	}
	if status := w.says(t, alice, "!call status").body(); !strings.Contains(status, "2 people from 2 homeservers") || !strings.Contains(status, "- @carol:example.org: ") || strings.Contains(status, bot) {
		t.Errorf("status: %s", status)
	}
	expectBody(t, w.says(t, alice, "!call kick @carol:example.org"), "Removed from the call: @carol:example.org.\n"+
		"As members of this room they may join again. !call lock first, or remove them from the room, to keep them out.")
	if want := []string{"@carol:example.org"}; !slices.Equal(w.expelled, want) {
		t.Errorf("expelled %q, want %q", w.expelled, want)
	}
}

// A microphone is turned off by whoever may, and on by its owner.
func TestMute(t *testing.T) {
	w := newWorld(t, false, nil)
	w.join(t, bob, "PHONE")
	p := w.rooms.Participant("call", bob+":PHONE")
	info, err := p.Publish(sfu.TrackRequest{CID: "mic", Kind: sfu.Audio, Source: sfu.Microphone}, w.now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Negotiated(info.SID, sfu.Media{MID: "0", Mime: "audio/opus"}, w.now()); err != nil {
		t.Fatal(err)
	}
	expectBody(t, w.says(t, alice, "!call mute all"), "Muted: @bob:example.org.")
	if !p.Info().Tracks[0].Muted {
		t.Error("not muted")
	}
	expectBody(t, w.says(t, alice, "!call unmute @bob:example.org"), "Only they themselves can turn the microphone on again: @bob:example.org.")
	if !p.Info().Tracks[0].Muted {
		t.Error("unmuted")
	}
}
