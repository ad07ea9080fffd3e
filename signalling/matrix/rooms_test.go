package matrix

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"callserver/signalling/matrixrtc/standing"
)

func TestInvitations(t *testing.T) {
	const other = "!other:example.org"
	for _, tc := range []struct {
		name, inviter string
		change        func(*Options)
		accepted      bool
	}{
		{"by a local user", alice, nil, true},
		{"by a user of another homeserver", rob, nil, false},
		{"by one who is named", rob, func(o *Options) { o.Invite = []string{"@*:example.org", "@rob:*"} }, true},
		{"by a local one who is not", alice, func(o *Options) { o.Invite = []string{"@bob:example.org"} }, false},
		{"by a user of a denied homeserver", rob, func(o *Options) {
			o.Invite, o.Servers = []string{"@*:*"}, standing.Servers{Deny: []string{"example.com"}}
		}, false},
		{"by nobody", "nobody", func(o *Options) { o.Invite = []string{"*"} }, false},
		{"where no commands are answered", alice, func(o *Options) { o.Silent = true }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, false, tc.change)
			w.matrix.set(func() { w.matrix.members[other] = map[string]string{bot: "invite", alice: "join", bob: "join"} })
			w.push(t, membership(other, bot, tc.inviter, "invite"))
			eventually(t, "an end", func() bool { return w.Stats().Joined+w.Stats().Declined == 1 })
			if got := w.Stats().Joined == 1; got != tc.accepted {
				t.Errorf("joined: %v, want %v", got, tc.accepted)
			}
			listed := func() bool { return w.matrix.requests("PUT "+other+" state io.element.functional_members ") == 1 }
			if tc.accepted {
				eventually(t, "the bot is listed as no person", listed)
			}
		})
	}
}

// The bot leaves when nobody else is in a room or invited, and does not list the members of a large one at each departure.
func TestLeavesEmptyRoom(t *testing.T) {
	w := newWorld(t, false, nil)
	lists := func() int { return w.matrix.requests("GET " + room + " joined_members") }
	gone := func(user, how string) {
		w.matrix.set(func() { w.matrix.members[room][user] = how })
		w.push(t, membership(room, user, alice, how))
	}
	for i := range 50 {
		w.matrix.set(func() { w.matrix.members[room][fmt.Sprintf("@u%d:example.org", i)] = "join" })
	}
	gone("@u0:example.org", "leave")
	eventually(t, "a first look", func() bool { return lists() == 1 })
	w.says(t, bob, "!call help") // what was seen is kept
	for i := range 40 {
		gone(fmt.Sprintf("@u%d:example.org", i+1), "leave")
	}
	w.says(t, bob, "!call help") // everything before it is done
	if got := lists(); got != 1 {
		t.Errorf("%d looks, want 1", got)
	}
	for i := range 9 {
		gone(fmt.Sprintf("@u%d:example.org", i+41), "ban")
	}
	w.matrix.set(func() { w.matrix.members[room]["@carol:example.com"] = "invite" })
	gone(bob, "leave")
	looks := lists()
	gone(alice, "leave")
	eventually(t, "another look", func() bool { return lists() > looks })
	eventually(t, "and at the state", func() bool { return w.matrix.requests("GET "+room+" state") > 0 })
	if got := w.Stats().Left; got != 0 {
		t.Error("left although somebody is invited")
	}
	gone("@carol:example.com", "leave")
	eventually(t, "left", func() bool { return w.Stats().Left == 1 })
	if got := w.matrix.requests("POST " + room + " leave"); got != 1 {
		t.Errorf("%d departures", got)
	}
	gone("@ghost:example.org", "leave") // a room that others see for us is not ours
	w.push(t, membership("!elsewhere:example.org", bob, bob, "leave"))
	eventually(t, "a look", func() bool { return w.matrix.requests("GET !elsewhere:example.org joined_members") == 1 })
	if got := w.Stats().Left; got != 1 {
		t.Errorf("left %d rooms", got)
	}
}

// Nothing comes of what is old, repeated, ours, too much, or from a homeserver that is denied.
func TestIgnored(t *testing.T) {
	w := newWorld(t, false, func(o *Options) { o.Servers = standing.Servers{Deny: []string{"example.com"}} })
	old := fmt.Sprintf(`{"type":"m.room.message","room_id":%q,"event_id":"$old","sender":%q,"origin_server_ts":%d,"content":{"msgtype":"m.text","body":"!call help"}}`,
		room, alice, time.Now().Add(-stale-time.Second).UnixMilli())
	w.push(t, old, w.text(room, rob, "!call help"), w.text(room, bot, "!call help"), w.text(room, "@_callserver_guest:example.org", "!call help"))
	if got := w.says(t, bob, "!call link"); !strings.Contains(got.body(), "bot.element_call") {
		t.Errorf("the first answer: %s", got.body())
	}
	if got := w.Stats().Ignored; got != 2 {
		t.Errorf("%d ignored, want the old one and that of a denied homeserver", got)
	}
	command, before := w.text(room, bob, "!call status"), len(w.sentTo(room))
	w.deliver(t, "one", command)
	w.deliver(t, "one", command)
	w.deliver(t, "two", command)
	w.next(t, room, before)
	w.says(t, bob, "!call link") // everything before it is done
	if got := len(w.sentTo(room)); got != 3 {
		t.Errorf("%d answers, want 3", got)
	}
	var flood []string
	for range 2 * perMinute {
		flood = append(flood, w.text(room, bob, "!call link"))
	}
	for _, event := range flood { // no more at once than wait in a queue
		before := w.Stats()
		w.push(t, event)
		eventually(t, "heard", func() bool {
			s := w.Stats()
			return s.Ignored > before.Ignored || s.Replies > before.Replies
		})
	}
	if got := len(w.sentTo(room)); got != perMinute {
		t.Errorf("%d answers within a minute, want %d", got, perMinute)
	}
	w.says(t, alice, "!call link") // who did not flood
}

// A room that the homeserver fails keeps no other waiting.
func TestBrokenRoom(t *testing.T) {
	w := newWorld(t, false, nil)
	const broken = "!broken:example.org"
	w.matrix.set(func() { w.matrix.broken[broken] = true })
	w.push(t, w.text(broken, bob, "!call help"), w.text(broken, bob, "!call status"))
	w.says(t, alice, "!call link")
	if w.Stats().Failures != 0 {
		t.Error("the broken room was given up before the other was answered")
	}
}

func TestLines(t *testing.T) {
	var l lines
	release := make(chan struct{})
	var done []string
	note := func(what string) func() { return func() { done = append(done, what) } }
	// One worker is enough to see the order: the others are kept busy.
	for i := range maxWorkers - 1 {
		l.add(fmt.Sprint("busy", i), "", func() { <-release })
	}
	first := make(chan struct{})
	l.add("a", "", func() { <-first })
	for _, add := range []struct{ queue, name string }{{"a", "x"}, {"a", "y"}, {"a", "x"}, {"b", "z"}} {
		if !l.add(add.queue, add.name, note(add.queue+add.name)) {
			t.Fatal("refused")
		}
	}
	for i := range maxWaiting {
		if got, want := l.add("b", "", func() {}), i < maxWaiting-1; got != want {
			t.Errorf("job %d of b: %v, want %v", i+2, got, want)
		}
	}
	close(first)
	for range 1000 { // the one worker comes to an end of what is noted
		l.mu.Lock()
		_, left := l.byName["a"]
		_, more := l.byName["b"]
		l.mu.Unlock()
		if !left && !more {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(release)
	l.wait()
	if want := []string{"bz", "ax", "ay"}; !slices.Equal(done, want) {
		t.Errorf("order %q, want %q: one turn for each queue, and the same job once", done, want)
	}
	for i := range maxLines + 10 {
		block := make(chan struct{})
		close(block)
		l.add(fmt.Sprint(i), "", func() { <-block })
	}
	l.wait()
	if len(l.byName) != 0 || l.busy != 0 {
		t.Errorf("%d queues and %d workers remain", len(l.byName), l.busy)
	}
}
