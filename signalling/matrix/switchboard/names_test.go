package switchboard

import (
	"slices"
	"strings"
	"testing"

	"callserver/signalling/matrixrtc/member"
)

// namesOf are what the bot called itself in a room, in their order.
func (w *world) namesOf(room string) (names []string) {
	for _, s := range w.sentTo(room, "m.room.member") {
		if name, _ := s.content["displayname"].(string); s.as == bot && s.key == bot && s.content["membership"] == "join" {
			names = append(names, name)
		}
	}
	return names
}

// Whoever is in a call by the bot can be told by its name there, for as long as that is so; whoever is there under an own name is not in it.
func TestNameOfTheBot(t *testing.T) {
	w := newWorld(t, nil)
	named := func(want string) {
		t.Helper()
		w.eventually(want, func() bool { names := w.namesOf(many); return len(names) > 0 && names[len(names)-1] == want })
	}
	w.agree(alice)
	w.push(invites(many, "c1"))
	named("Bob (via callserver)")
	w.push([4]string{many, "@carol:example.org", "m.call.invite", invites(many, "c2")[3]})
	named("Bob, Carol (via callserver)")
	w.push([4]string{many, alice, "m.call.invite", invites(many, "c3")[3]})
	w.next(many, member.TypeState, 2)
	w.push(says(many, "hangup", "c1", ""))
	named("Carol (via callserver)")
	w.push([4]string{many, "@carol:example.org", "m.call.hangup", says(many, "hangup", "c2", "")[3]})
	named("Calls")
	w.push([4]string{many, alice, "m.call.hangup", says(many, "hangup", "c3", "")[3]})
	w.ends()
	want := []string{"Bob (via callserver)", "Bob, Carol (via callserver)", "Carol (via callserver)", "Calls"}
	if got := slices.Compact(w.namesOf(many)); !slices.Equal(got, want) { // two calls may write the same name at once
		t.Errorf("called %q, want %q", got, want)
	}
}

// A call that was bridged by the bot when this server went leaves no name behind.
func TestNameAfterRestart(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.store.calls = []Record{{Server: "example.org", Room: many, Call: "old", Party: "P", Version: 1, Speaker: bot, Member: bot, Device: "CALL1"}}
	})
	w.eventually("the bot's own name", func() bool { return slices.Equal(w.namesOf(many), []string{"Calls"}) })
}

func TestNameFor(t *testing.T) {
	for want, names := range map[string][]string{
		"":                                 nil,
		"a, b, c (via callserver)":         {"a", "b", "c"},
		"a, b, c, 2 more (via callserver)": {"a", "b", "c", "d", "e"},
		strings.Repeat("ö", maxName-1) + "… (via callserver)": {strings.Repeat("ö", maxName+1)},
	} {
		if got := nameFor(names); got != want {
			t.Errorf("%q: got %q, want %q", names, got, want)
		}
	}
}
