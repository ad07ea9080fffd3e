package sfu

import (
	"fmt"
	"testing"
	"time"
)

// woken reports whether the client was told that there is something to read.
func (c *client) woken() bool {
	select {
	case <-c.Ready():
		return true
	default:
		return false
	}
}

// TestNewsOfACrowd has people pour into rooms: in a small one everybody is told of each at once, in a crowd of the first at once and then of several together.
// Nobody misses anything, and what is not news waits for nothing.
func TestNewsOfACrowd(t *testing.T) {
	for _, c := range []struct{ people, most int }{{5, 20}, {crowd, 20}, {100, 6}} {
		t.Run(fmt.Sprint(c.people), func(t *testing.T) {
			st := newStage(t, Options{})
			alice := st.join("alice")
			for i := range c.people {
				st.join(Identity(fmt.Sprint("early", i)))
			}
			st.pass(time.Second)
			alice.Events()
			alice.woken()
			known, wakes := map[Identity]bool{}, 0
			read := func() {
				if !alice.woken() {
					return
				}
				wakes++
				for _, e := range only[ParticipantsChanged](alice.Events()) {
					for _, p := range e.Participants {
						known[p.Identity] = p.State == Active
					}
				}
			}
			for i := range 20 {
				st.join(Identity(fmt.Sprint("late", i)))
				if read(); i == 0 && !known["late0"] {
					t.Error("the first was not told of at once")
				}
				st.pass(50 * time.Millisecond)
				read()
			}
			if wakes > c.most {
				t.Errorf("told %d times of 20 people in a second, want %d at most", wakes, c.most)
			}
			st.pass(maxPause)
			if read(); len(known) != 20 {
				t.Errorf("told of %d of 20", len(known))
			}

			st.join("one")
			read()
			st.join("other")
			if _, err := st.rooms.MuteTrack("room", "alice", alice.microphone(), true, st.now); err != nil {
				t.Fatal(err)
			}
			if read(); !known["other"] {
				t.Error("what alice must be told at once waited, or went before what had happened earlier")
			}
		})
	}
}

// TestNewsIsSpread has more people wait for news than are told of it at once: some hear of it at a time, until all have.
func TestNewsIsSpread(t *testing.T) {
	st := newStage(t, Options{})
	people := make([]*client, 8*newsAtOnce)
	for i := range people {
		people[i] = st.join(Identity(fmt.Sprint("early", i)))
	}
	st.pass(time.Second)
	heard := func(id Identity) (n int) {
		for _, c := range people {
			if !c.woken() {
				continue
			}
			for _, e := range only[ParticipantsChanged](c.Events()) {
				for _, p := range e.Participants {
					if p.Identity == id {
						n++
					}
				}
			}
		}
		return n
	}
	heard("")
	st.pass(time.Second)
	st.join("one")
	if n := heard("one"); n != len(people) {
		t.Errorf("%d of %d heard at once of one who joins after a quiet second", n, len(people))
	}
	st.join("other")
	if n := heard("other"); n != 0 {
		t.Errorf("%d heard at once of who joins at the same moment", n)
	}
	total := 0
	st.pass(maxPause)
	for range 8 {
		n := heard("other")
		if n > newsAtOnce {
			t.Errorf("%d heard at once, want %d at most", n, newsAtOnce)
		}
		total += n
		st.pass(10 * time.Millisecond)
	}
	if total += heard("other"); total != len(people) {
		t.Errorf("%d of %d heard of it in the end", total, len(people))
	}
}
