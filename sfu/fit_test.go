package sfu

import (
	"testing"
	"time"

	"callserver/sfu/forward"

	"github.com/google/go-cmp/cmp"
)

// TestFit withholds from one receiver what there is no bandwidth for: bob of a camera of 150, 500 and 1,700 kbit/s and a screen of 1,500.
func TestFit(t *testing.T) {
	for _, tc := range []struct {
		name                string
		bitrate             int64
		limited, pause      bool
		camera, screen, mic int8
		paused              int
	}{
		{"no limit", 0, false, true, 2, 0, 0, 0},
		{"enough", 4_500_000, true, true, 2, 0, 0, 0},
		{"the top layer goes", 3_000_000, true, true, 1, 0, 0, 0},
		{"two layers go before the screen", 1_850_000, true, true, 0, 0, 0, 0},
		{"the screen does not fit", 1_000_000, true, true, 1, -1, 0, 1},
		{"the screen does not fit, but must not be paused", 1_000_000, true, false, 0, 0, 0, 0},
		{"nothing fits but sound", 100_000, true, true, -1, -1, 0, 2},
		{"nothing fits, and nothing may be paused", 0, true, false, 0, 0, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t, Bitrate{})
			s.bob.member.AllowPause = tc.pause
			s.feed(3*time.Second, s.all()...)
			s.bob.Events()
			if wanted := s.bob.Fit(tc.bitrate, tc.limited, s.now); wanted < 3_300_000 || wanted > 3_600_000 {
				t.Errorf("%d bit/s are wanted, want 3.2 Mbit/s and headers", wanted)
			}
			s.gets("at once", tc.camera, tc.screen, tc.mic)
			s.feed(3*time.Second, s.all()...)
			s.bob.Fit(tc.bitrate, tc.limited, s.now)
			s.gets("later", tc.camera, tc.screen, tc.mic)
			if narrow := s.rooms.Stats().Narrow; narrow == 1 != (tc.camera < 2 || tc.screen < 0) {
				t.Errorf("%d participants are sent less than they want", narrow)
			}
			var paused []StreamChanged
			for _, e := range only[StreamChanged](s.bob.Events()) {
				if !e.Paused || e.Publisher != s.alice.SID() {
					t.Errorf("bob is told %+v", e)
				}
				paused = append(paused, e)
			}
			if len(paused) != tc.paused {
				t.Errorf("%d tracks are paused, want %d: %+v", len(paused), tc.paused, paused)
			}
			s.bob.Fit(0, false, s.now)
			s.gets("without a limit", 2, 0, 0)
			for _, e := range only[StreamChanged](s.bob.Events()) {
				if e.Paused {
					t.Errorf("bob is told %+v", e)
				}
				paused = paused[1:]
			}
			if len(paused) > 0 {
				t.Errorf("%+v do not go on", paused)
			}
		})
	}
}

// One receiver that can take little changes nothing for another.
func TestFitIsOfOne(t *testing.T) {
	s := newScene(t, Bitrate{})
	carol := s.join("carol").bind(s.camera)
	s.feed(2*time.Second, s.all()...)
	s.bob.Fit(300_000, true, s.now)
	before := carol.Stats().Packets
	s.feed(10*time.Second, s.all()...)
	s.gets("bob", 0, 0, 0)
	if got := carol.Stats(); got.Current.Spatial != 2 || got.Packets-before < 2000 {
		t.Errorf("carol gets layer %d, %d packets", got.Current.Spatial, got.Packets-before)
	}
	if q := only[QualitiesWanted](s.alice.Events()); len(q) > 0 {
		t.Errorf("alice is told %+v", q)
	}
}

// A layer that its publisher left away because nobody could take it comes back with the bandwidth, and counts until then as it did.
func TestFitRemembersLayers(t *testing.T) {
	s := newScene(t, Bitrate{})
	s.feed(2*time.Second, s.all()...)
	s.bob.Fit(2_000_000, true, s.now)
	s.feed(7*time.Second, s.all()...)
	if q := only[QualitiesWanted](s.alice.Events()); len(q) == 0 || q[len(q)-1].Codecs[0].Max != Low {
		t.Fatalf("alice is told %+v, want low quality", q)
	}
	s.feed(20*time.Second, s.low, s.slides, s.voice)
	if wanted := s.bob.Fit(2_300_000, true, s.now); wanted < 3_300_000 {
		t.Errorf("%d bit/s are wanted, and what is left away is forgotten", wanted)
	}
	s.gets("not enough", 0, 0, 0)
	s.bob.Fit(2_500_000, true, s.now)
	s.gets("enough for the middle layer", 1, 0, 0)
	if q := only[QualitiesWanted](s.alice.Events()); len(q) != 1 || q[0].Codecs[0].Max != Medium {
		t.Errorf("alice is told %+v, want medium quality", q)
	}
}

// Who speaks comes before others, and what is subscribed to while there is little bandwidth begins low.
func TestFitOrder(t *testing.T) {
	s := newScene(t, Bitrate{})
	s.slides.bitrate = 100_000
	s.feed(2*time.Second, s.all()...)
	const enough = 2_450_000 // for one at 1,840, one at 160, and the screen: not for one at 540 beside
	s.bob.Fit(enough, true, s.now)
	zoe := s.join("zoe")
	sid, source := zoe.publish(TrackRequest{CID: "cam", Kind: Video, Source: Camera, Width: 1280, Height: 720, Layers: []LayerInfo{
		{Quality: Low, Width: 320, Height: 180}, {Quality: Medium, Width: 640, Height: 360}, {Quality: High, Width: 1280, Height: 720},
	}}, "q", "h", "f")
	sink := s.bob.bind(sid)
	if got := sink.Stats().Target.Spatial; got != 0 {
		t.Errorf("zoe's camera begins with layer %d", got)
	}
	s.feed(2*time.Second, append(s.all(), &feed{source: source, bitrate: 150_000}, &feed{source: source, spatial: 1, bitrate: 500_000}, &feed{source: source, spatial: 2, bitrate: 1_700_000})...)
	for _, speaks := range []*client{s.alice, zoe} {
		for _, c := range []*client{s.alice, zoe} {
			c.room.mu.Lock()
			c.connection.voice.active = c == speaks
			c.room.mu.Unlock()
		}
		s.bob.Fit(enough, true, s.now)
		s.bob.Fit(enough, true, s.now)
		got := map[Identity]int8{"alice": min(s.inCamera.Stats().Target.Spatial, 2), "zoe": min(sink.Stats().Target.Spatial, 2)}
		want := map[Identity]int8{"alice": 0, "zoe": 0}
		want[speaks.Identity()] = 2
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s speaks (-want +got):\n%s", speaks.Identity(), d)
		}
	}
	if got := s.inScreen.Stats().Target; got == forward.NoLayer {
		t.Error("the screen is paused")
	}
}

// What is withheld shows in the quality of the connection.
func TestFitQuality(t *testing.T) {
	s := newScene(t, Bitrate{})
	s.feed(6*time.Second, s.all()...)
	if q, _ := s.bob.Quality(); q != Excellent {
		t.Fatalf("bob is %d connected", q)
	}
	s.bob.member.AllowPause = true
	s.bob.Fit(100_000, true, s.now)
	s.feed(15*time.Second, s.all()...)
	if q, _ := s.bob.Quality(); q != Good {
		t.Errorf("bob gets nothing but sound, and is %d connected", q)
	}
	s.bob.Fit(0, false, s.now)
	s.feed(30*time.Second, s.all()...)
	if q, _ := s.bob.Quality(); q != Excellent {
		t.Errorf("bob gets everything, and is %d connected", q)
	}
}
