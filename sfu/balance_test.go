package sfu

import (
	"testing"
	"time"
)

// An overloaded server withholds upper layers, largest first, and never a whole video or sound.
func TestShed(t *testing.T) {
	for _, tc := range []struct {
		name                string
		budget              int64
		limits              Bitrate
		camera, screen, mic int8
		now, spare          int64 // kbit/s
	}{
		{"nothing", 0, Bitrate{}, 2, 0, 0, 3_250, 1_550},
		{"enough", 4_000_000, Bitrate{}, 2, 0, 0, 3_250, 1_550},
		{"one layer", 2_500_000, Bitrate{}, 1, 0, 0, 2_050, 350},
		{"two layers", 1_800_000, Bitrate{}, 0, 0, 0, 1_700, 0},
		{"all that may go", 1, Bitrate{}, 0, 0, 0, 1_700, 0},
		{"below a limit", 2_500_000, Bitrate{Server: 2_300_000}, 1, 0, 0, 2_050, 350},
		{"a limit takes whole videos", 1, Bitrate{Server: 500_000}, 0, -1, 0, 200, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t, tc.limits)
			s.rooms.Shed(tc.budget)
			s.feed(4*time.Second, s.all()...)
			s.gets("after 4 s", tc.camera, tc.screen, tc.mic)
			got := s.rooms.Sending()
			near := func(what string, got, want int64) {
				if got < want*1000*19/20 || got > want*1000*21/20 {
					t.Errorf("%s: %d bit/s, want about %d,000", what, got, want)
				}
			}
			near("sent", got.Now, tc.now)
			near("left to withhold", got.Spare, tc.spare)
		})
	}
}

// A publisher that no longer sends what nobody gets does not get it back for that, only once the load allows it.
func TestShedIsRemembered(t *testing.T) {
	s := newScene(t, Bitrate{})
	s.rooms.Shed(1_800_000)
	s.feed(4*time.Second, s.all()...)
	for range 30 {
		s.feed(5*time.Second, s.low, s.slides, s.voice)
		s.gets("it obeys", 0, 0, 0)
	}
	if got := s.rooms.Sending(); got.Wanted < 3_000_000 || got.Now > 1_800_000 {
		t.Errorf("%+v, want what the camera would take", got)
	}
	s.rooms.Shed(0)
	s.feed(2*time.Second, s.all()...)
	s.gets("no overload any more", 2, 0, 0)
}

func TestPresent(t *testing.T) {
	s := newStage(t, Options{})
	s.join("alice", func(m *Member) { m.Owner = "@alice:example.org" })
	s.join("bob")
	for _, tc := range []struct {
		who, owner string
		want       bool
	}{{"alice", "@alice:example.org", true}, {"another of hers", "@alice:example.org", true}, {"alice", "", false}, {"bob", "", true}, {"carol", "", false}} {
		if got := s.rooms.Present("room", Member{Identity: Identity(tc.who), Owner: tc.owner}); got != tc.want {
			t.Errorf("%s of %q is present: %t", tc.who, tc.owner, got)
		}
	}
	if s.rooms.Present("elsewhere", Member{Identity: "bob"}) {
		t.Error("present in a room that is not there")
	}
}
