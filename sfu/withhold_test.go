package sfu

import (
	"testing"
	"time"

	"callserver/sfu/forward"
)

// Nothing that a withheld participant publishes reaches anybody, whenever it was published or bound; nobody is told, and
// its encoders are not asked to stop: letting it through must not wait for them.
func TestWithhold(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob, carol := st.join("alice"), st.join("bob"), st.join("carol")
	var heard channel
	bob.SetDataWriter(&heard)
	bobs := bob.microphone()
	mic := alice.microphone()
	expect := func(when string, sid SID, want bool) {
		t.Helper()
		for _, who := range []*client{bob, carol} {
			who.room.mu.Lock()
			sink := who.subscriptions[sid].link.sink
			who.room.mu.Unlock()
			if got := sink.Stats().Target != forward.NoLayer; got != want {
				t.Errorf("%s: %s receives %s: %t, want %t", when, who.identity, sid, got, want)
			}
		}
		if err := alice.SendData([]byte("x"), true, nil); err != nil {
			t.Errorf("%s: alice sends data: %v", when, err)
		}
		if got := len(heard.take()) > 0; got != want {
			t.Errorf("%s: bob hears data: %t, want %t", when, got, want)
		}
	}
	bob.bind(mic)
	carol.bind(mic)
	expect("at first", mic, true)
	alice.Events()
	bob.Events()

	alice.Withhold(true, st.now)
	alice.Withhold(true, st.now)
	expect("withheld", mic, false)
	if got := st.rooms.Stats().Withheld; got != 1 {
		t.Errorf("%d withheld, want 1", got)
	}
	if got := alice.bind(bobs).Stats().Target; got == forward.NoLayer {
		t.Error("alice receives nothing any more")
	}
	st.pass(6 * time.Second)
	if got := only[QualitiesWanted](alice.Events()); len(got) != 0 {
		t.Errorf("alice was asked for other layers: %+v", got)
	}
	if got := only[ParticipantsChanged](bob.Events()); len(got) != 0 {
		t.Errorf("bob was told: %+v", got)
	}
	cam := alice.camera()
	bob.bind(cam)
	carol.bind(cam)
	expect("published while withheld", cam, false)

	alice.Withhold(false, st.now)
	expect("let through", mic, true)
	expect("let through", cam, true)
	if err := alice.Mute(cam, true, st.now); err != nil {
		t.Fatal(err)
	}
	alice.Withhold(true, st.now)
	alice.Withhold(false, st.now)
	if got := bob.bind(cam).Stats().Target; got != forward.NoLayer {
		t.Errorf("muted, withheld and let through: target %v, want none", got)
	}
	alice.Leave(ClientInitiated, st.now)
	alice.Withhold(true, st.now)
	if got := st.rooms.Stats().Withheld; got != 0 {
		t.Errorf("%d withheld after alice left, want 0", got)
	}
}
