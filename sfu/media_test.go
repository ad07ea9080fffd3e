package sfu

import (
	"testing"
	"time"

	"callserver/sfu/forward"
	"callserver/sfu/packet"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtcp"
)

// sender pushes RTP packets into a source, 50 a second.
type sender struct {
	source *forward.Source
	seq    uint16
	stamp  uint32
}

// send pushes packets for a while, ticking the rooms; every lose-th packet is lost (0: none). Level is in -dBov.
func (st *stage) send(d time.Duration, level uint8, lose int, senders ...*sender) {
	const frame = 20 * time.Millisecond
	for end := st.now.Add(d); st.now.Before(end); {
		st.now = st.now.Add(frame)
		for _, s := range senders {
			s.seq++
			s.stamp += 960
			if lose > 0 && int(s.seq)%lose == 0 {
				continue
			}
			p := packet.Get(packet.Capacity)
			p.SequenceNumber, p.Timestamp, p.SSRC, p.Marker = s.seq, s.stamp, 1, true
			p.AudioLevel, p.HasAudioLevel = level, true
			p.Payload = append(p.Buffer()[:0], 0x10, 0x00, 0x9d, 0x01)
			s.source.Push(forward.Layer{}, p, st.now)
		}
		st.rooms.Tick(st.now)
	}
}

func speakers(c *client) []Speaker {
	var out []Speaker
	for _, e := range only[Speakers](c.Events()) {
		out = append(out, e.Speakers...)
	}
	return out
}

func TestSpeakers(t *testing.T) {
	st := newStage(t, Options{})
	alice := st.join("alice")
	mic, source := alice.publish(TrackRequest{CID: "mic", Kind: Audio, Source: Microphone})
	bob := st.join("bob")
	deaf := st.join("deaf", func(m *Member) { m.AutoSubscribe = false })
	voice := &sender{source: source}
	check := func(step string, c *client, want []Speaker) {
		t.Helper()
		if diff := cmp.Diff(want, speakers(c)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", step, c.Identity(), diff)
		}
	}
	loud := Speaker{SID: alice.SID(), Level: 0.875, Active: true}
	silent := Speaker{SID: alice.SID()}

	st.send(2*time.Second, 1, 0, voice) // read at the end: the levels on the way up have been replaced
	loud.Level = quantise(0.9)
	check("speaks", alice, []Speaker{loud})
	check("speaks", bob, []Speaker{loud})
	check("speaks", deaf, nil)
	st.send(2*time.Second, 1, 0, voice)
	check("goes on", bob, nil)
	late := st.join("late")
	check("joins meanwhile", late, []Speaker{loud})
	late.Subscribe([]SID{mic}, false, st.now)
	check("unsubscribes", late, []Speaker{silent})
	st.send(2*time.Second, 60, 0, voice)
	check("only noise", bob, []Speaker{silent})
	st.send(2*time.Second, 1, 0, voice)
	check("speaks again", bob, []Speaker{loud})
	st.pass(2 * time.Second)
	check("sends nothing", bob, []Speaker{silent})
	st.send(2*time.Second, 1, 0, voice)
	check("once more", bob, []Speaker{loud})
	if err := alice.Mute(mic, true, st.now); err != nil {
		t.Fatal(err)
	}
	st.pass(400 * time.Millisecond)
	check("muted", bob, []Speaker{silent})
}

func qualities(c *client) []ConnectionQuality {
	var out []ConnectionQuality
	for _, e := range only[Qualities](c.Events()) {
		for _, q := range e.Qualities {
			out = append(out, q.Quality)
		}
	}
	return out
}

func TestConnectionQuality(t *testing.T) {
	st := newStage(t, Options{})
	alice := st.join("alice")
	_, source := alice.publish(TrackRequest{CID: "cam", Kind: Video, Source: Camera})
	camera := &sender{source: source}
	watcher := st.join("watcher", func(m *Member) { m.Permission.CanPublish = false })
	st.pass(5 * time.Second)
	watcher.Events()
	steps := []struct {
		name string
		run  func()
		want []ConnectionQuality
	}{
		{"good", func() { st.send(10*time.Second, 127, 0, camera) }, nil},
		{"some loss", func() { st.send(10*time.Second, 127, 12, camera) }, []ConnectionQuality{Good}},
		{"much loss", func() { st.send(15*time.Second, 127, 3, camera) }, []ConnectionQuality{Poor}},
		{"nothing arrives, at first", func() { st.pass(6 * time.Second) }, nil},
		{"nothing arrives", func() { st.pass(10 * time.Second) }, []ConnectionQuality{Lost}},
		{"recovered", func() { st.send(40*time.Second, 127, 0, camera) }, []ConnectionQuality{Excellent}},
	}
	for _, s := range steps {
		s.run()
		if diff := cmp.Diff(s.want, qualities(watcher)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
	score := alice.connection.score
	if mos := opinion(score); mos < 1 || mos > 4.5 {
		t.Errorf("score %f is an opinion of %f", score, mos)
	}
}

// A client that is told Lost of itself joins anew after ten seconds, so silence that is right must never be called that.
func TestNeverFalselyLost(t *testing.T) {
	tests := []struct {
		name   string
		req    TrackRequest
		before func(alice, bob *client, sid SID)
		starts bool
	}{
		{"never started", TrackRequest{CID: "c", Kind: Video, Source: Camera}, nil, false},
		{"muted", TrackRequest{CID: "c", Kind: Video, Source: Camera}, func(alice, _ *client, sid SID) {
			_ = alice.Mute(sid, true, alice.st.now)
		}, true},
		{"discontinuous transmission", TrackRequest{CID: "c", Kind: Audio, Source: Microphone}, nil, true},
		{"nobody looks", TrackRequest{CID: "c", Kind: Video, Source: Camera}, func(_, bob *client, sid SID) {
			bob.Settings([]SID{sid}, TrackSettings{Disabled: true}, bob.st.now)
		}, true},
		{"still screen", TrackRequest{CID: "c", Kind: Video, Source: ScreenShare}, nil, true},
		{"nothing published", TrackRequest{CID: "c", Kind: Video, Source: Camera}, func(alice, _ *client, sid SID) {
			alice.Unpublish(sid, alice.st.now)
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := newStage(t, Options{})
			alice, bob := st.join("alice"), st.join("bob")
			sid, source := alice.publish(tt.req)
			bob.bind(sid)
			if tt.starts {
				st.send(6*time.Second, 60, 0, &sender{source: source})
			}
			if tt.before != nil {
				tt.before(alice, bob, sid)
			}
			for range 12 {
				st.pass(5 * time.Second)
				for _, q := range append(qualities(alice), qualities(bob)...) {
					if q == Lost {
						t.Fatal("told Lost")
					}
				}
			}
		})
	}
}

func TestQualityFollowsReceiverReports(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob := st.join("alice"), st.join("bob")
	mic, source := alice.publish(TrackRequest{CID: "mic", Kind: Audio, Source: Microphone})
	sink := bob.bind(mic)
	voice := &sender{source: source}
	st.send(6*time.Second, 60, 0, voice)
	if got := qualities(bob); len(got) == 0 || got[0] != Excellent {
		t.Errorf("told %v", got)
	}
	for range 4 {
		sink.ReceptionReport(rtcp.ReceptionReport{FractionLost: 128}, st.now)
		st.send(5*time.Second, 60, 0, voice)
	}
	if q := bob.connection.quality; q != Poor {
		t.Errorf("half of what bob should get is lost, quality is %v", q)
	}
	if q := alice.connection.quality; q != Excellent {
		t.Errorf("alice has no loss, quality is %v", q)
	}
	if q := delayPenalty(time.Second, 0); q < 30 {
		t.Errorf("a round trip of one second costs %f", q)
	}
}
