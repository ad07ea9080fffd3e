package sfu

import (
	"slices"
	"testing"
	"time"

	"callserver/sfu/forward"
)

// toldQualities returns what the publisher of the scene was told since the last call, of its camera.
func (s *scene) toldQualities() (qualities []Quality) {
	for _, e := range only[QualitiesWanted](s.alice.Events()) {
		if e.Track == s.camera {
			qualities = append(qualities, e.Codecs[0].Max)
		}
	}
	return qualities
}

func (s *scene) wantTold(when string, want ...Quality) {
	s.t.Helper()
	if got := s.toldQualities(); !slices.Equal(got, want) {
		s.t.Errorf("%s: alice is told %v, want %v", when, got, want)
	}
}

// TestLineBecomesNarrow: layers that a publisher gave up for its line are switched off, and on again when that is wide.
func TestLineBecomesNarrow(t *testing.T) {
	s := newScene(t, Bitrate{})
	s.feed(3*time.Second, s.all()...)
	s.toldQualities()
	s.alice.Line(true, s.now)
	s.feed(900*time.Millisecond, s.low, s.voice)
	s.wantTold("before the browser had its second")
	s.feed(600*time.Millisecond, s.low, s.voice)
	s.wantTold("after it gave up two layers", Low)
	carol := s.join("carol").bind(s.camera)
	s.feed(4*time.Second, s.low, s.high, s.voice) // as Firefox does
	s.wantTold("whoever joins meanwhile")
	for who, sink := range map[string]*forward.Sink{"bob": s.inCamera, "carol": carol} {
		if got := sink.Stats().Current.Spatial; got != 0 {
			t.Errorf("%s gets layer %d, which is switched off, want 0", who, got)
		}
	}
	s.feed(9*time.Second, s.low, s.voice)
	s.wantTold("tried in vain", Low) // the newest counts
	s.alice.Line(false, s.now)
	for range soonTries {
		s.feed(2200*time.Millisecond, s.low, s.voice)
		s.wantTold("when the line seemed to be wide", Low)
		s.feed(time.Second, s.low, s.voice)
		s.wantTold("when it was not, soon", High)
	}
	s.feed(3200*time.Millisecond, s.low, s.voice)
	s.wantTold("when it was not in the end", Low)
	s.feed(8*time.Second, s.low, s.voice)
	s.wantTold("when it was not, after long", High)
	s.feed(20*time.Second, s.all()...)
	s.wantTold("when all comes")
	if got := carol.Stats().Current.Spatial; got != 2 {
		t.Errorf("carol gets layer %d, want 2", got)
	}
}

// TestLineBecomesWideDuringTry: layers that are switched on already when the line becomes wide are so once more. A browser tries whether all fits only then.
func TestLineBecomesWideDuringTry(t *testing.T) {
	s := newScene(t, Bitrate{})
	s.feed(3*time.Second, s.all()...)
	s.alice.Line(true, s.now)
	s.feed(8500*time.Millisecond, s.low, s.voice)
	s.toldQualities()
	s.feed(700*time.Millisecond, s.low, s.voice)
	s.wantTold("after eight seconds", High)
	s.alice.Line(true, s.now) // that was too much
	s.feed(time.Second, s.low, s.voice)
	s.alice.Line(false, s.now)
	s.feed(time.Second, s.low, s.voice)
	s.wantTold("when the line became wide")
	s.feed(time.Second, s.low, s.voice)
	s.wantTold("when the try was in vain", Low)
	s.feed(500*time.Millisecond, s.low, s.voice)
	s.wantTold("right after that")
	s.feed(700*time.Millisecond, s.low, s.voice)
	s.wantTold("a second after that", High)
	s.feed(10*time.Second, s.all()...)
	s.wantTold("when all comes")
}

// TestLineStaysNarrow: without a word about it the layers are tried from time to time, and ever more rarely.
func TestLineStaysNarrow(t *testing.T) {
	s := newScene(t, Bitrate{})
	s.feed(3*time.Second, s.all()...)
	s.toldQualities()
	s.alice.Line(true, s.now)
	began := s.now
	var on []time.Duration
	last := High
	for s.now.Sub(began) < 4*time.Minute {
		s.feed(100*time.Millisecond, s.low, s.voice)
		for _, q := range s.toldQualities() {
			if q == High {
				on = append(on, s.now.Sub(began).Round(time.Second))
			}
			if q == last {
				t.Errorf("told %v twice", q)
			}
			last = q
		}
	}
	want := []time.Duration{9 * time.Second, 28 * time.Second, 63 * time.Second, 130 * time.Second, 197 * time.Second}
	if !slices.Equal(on, want) {
		t.Errorf("tried after %v, want %v", on, want)
	}
	s.feed(80*time.Second, s.all()...)
	if s.alice.line != (line{}) || last == High && len(s.toldQualities()) > 0 {
		t.Errorf("all comes, and the line counts as %+v", s.alice.line)
	}
}

// TestLineIsLeftAlone: nobody is told anything of a publisher who sends everything all the same, or sends nothing, or one stream.
func TestLineIsLeftAlone(t *testing.T) {
	for _, tc := range []struct {
		name  string
		after func(s *scene) []*feed
	}{
		{"all comes", (*scene).all},
		{"muted", func(s *scene) []*feed { return []*feed{s.voice} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t, Bitrate{})
			s.feed(3*time.Second, s.all()...)
			s.alice.Events()
			s.alice.Line(true, s.now)
			s.feed(30*time.Second, tc.after(s)...)
			if got := only[QualitiesWanted](s.alice.Events()); len(got) > 0 {
				t.Errorf("alice is told %+v", got)
			}
		})
	}
}
