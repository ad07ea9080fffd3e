package sfu

import (
	"testing"
	"time"

	"callserver/sfu/forward"
	"callserver/sfu/packet"
)

// A feed sends one stream of a video, or sound, at a rate.
type feed struct {
	source  *forward.Source
	spatial int8
	bitrate int64 // bits/s
	seq     uint16
	stamp   uint32
}

// feed sends for a while, in frames of 20 ms, ticking the rooms.
func (st *stage) feed(d time.Duration, feeds ...*feed) {
	const frame = 20 * time.Millisecond
	for end := st.now.Add(d); st.now.Before(end); {
		st.now = st.now.Add(frame)
		for _, f := range feeds {
			f.stamp += 1800
			for left := f.bitrate / 8 / 50; left > 0; left -= 1000 {
				f.seq++
				p := packet.Get(packet.Capacity)
				p.SequenceNumber, p.Timestamp, p.SSRC, p.Marker = f.seq, f.stamp, uint32(f.spatial)+1, left <= 1000
				p.Payload = append(p.Buffer()[:0], 0x10, 0x00) // VP8: a frame begins, a key frame
				p.Payload = append(p.Payload, make([]byte, max(min(left, 1000)-2, 8))...)
				f.source.Push(forward.Layer{Spatial: f.spatial}, p, st.now)
			}
		}
		st.rooms.Tick(st.now)
	}
}

// A publisher of a camera in three layers, 150 + 500 + 1,700 kbit/s, a screen of 1,500 and a voice of 50, and a viewer of all.
type scene struct {
	*stage
	alice, bob         *client
	camera, screen     SID
	mic                SID
	low, mid, high     *feed
	slides, voice      *feed
	inCamera, inScreen *forward.Sink
	inMic              *forward.Sink
}

func newScene(t *testing.T, limits Bitrate) *scene {
	s := &scene{stage: newStage(t, Options{Bitrate: limits})}
	s.alice, s.bob = s.join("alice"), s.join("bob")
	var camera, screen, mic *forward.Source
	s.camera, camera = s.alice.publish(TrackRequest{CID: "cam", Kind: Video, Source: Camera, Width: 1280, Height: 720, Layers: []LayerInfo{
		{Quality: Low, Width: 320, Height: 180}, {Quality: Medium, Width: 640, Height: 360}, {Quality: High, Width: 1280, Height: 720},
	}}, "q", "h", "f")
	s.screen, screen = s.alice.publish(TrackRequest{CID: "screen", Kind: Video, Source: ScreenShare, Width: 1920, Height: 1080})
	s.mic, mic = s.alice.publish(TrackRequest{CID: "mic", Kind: Audio, Source: Microphone})
	s.low, s.mid, s.high = &feed{source: camera, bitrate: 150_000}, &feed{source: camera, spatial: 1, bitrate: 500_000}, &feed{source: camera, spatial: 2, bitrate: 1_700_000}
	s.slides, s.voice = &feed{source: screen, bitrate: 1_500_000}, &feed{source: mic, bitrate: 50_000}
	s.inCamera, s.inScreen, s.inMic = s.bob.bind(s.camera), s.bob.bind(s.screen), s.bob.bind(s.mic)
	return s
}

func (s *scene) all() []*feed { return []*feed{s.low, s.mid, s.high, s.slides, s.voice} }

// gets checks which layers reach bob; -1 is none.
func (s *scene) gets(when string, camera, screen, mic int8) {
	s.t.Helper()
	for _, c := range []struct {
		what string
		sink *forward.Sink
		want int8
	}{{"camera", s.inCamera, camera}, {"screen", s.inScreen, screen}, {"microphone", s.inMic, mic}} {
		if got := c.sink.Stats().Target.Spatial; min(got, 2) != c.want {
			s.t.Errorf("%s: bob is to get layer %d of the %s, want %d", when, got, c.what, c.want)
		}
	}
}

func TestParticipantBitrate(t *testing.T) {
	for _, tc := range []struct {
		name                string
		limit               int64
		camera, screen, mic int8
	}{
		{"no limit", 0, 2, 0, 0},
		{"enough", 4_400_000, 2, 0, 0},
		{"the top layer goes", 3_000_000, 1, 0, 0},
		{"two layers go", 1_900_000, 0, 0, 0},
		{"the screen does not fit, the camera takes what it leaves", 1_000_000, 1, -1, 0},
		{"sound alone", 100_000, -1, -1, 0},
		{"not even enough for sound", 10_000, -1, -1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t, Bitrate{Participant: tc.limit})
			s.feed(4*time.Second, s.all()...)
			s.gets("after 4 s", tc.camera, tc.screen, tc.mic)
			before := s.inMic.Stats().Packets
			s.feed(time.Second, s.all()...)
			if got := s.inMic.Stats().Packets - before; got != 50 {
				t.Errorf("%d packets of the voice in a second, want all 50", got)
			}
			if limited := s.rooms.Stats().Limited > 0; limited != (tc.limit > 0 && tc.limit < 4_400_000) {
				t.Errorf("limited tracks: %t", limited)
			}
		})
	}
}

// What reaches others stays below the limit, whatever the sender makes of it.
func TestParticipantBitrateHolds(t *testing.T) {
	const limit = 1_000_000
	for name, sends := range map[string]func(*scene) []*feed{
		"everything":         func(s *scene) []*feed { return s.all() },
		"the top layer only": func(s *scene) []*feed { return []*feed{s.high, s.voice} },
		"a flood of one layer": func(s *scene) []*feed {
			s.low.bitrate = 8_000_000
			return []*feed{s.low, s.voice}
		},
		"a picture as sound": func(s *scene) []*feed {
			s.voice.bitrate = 3_000_000
			return []*feed{s.voice}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, Bitrate{Participant: limit})
			feeds := sends(s)
			s.feed(3*time.Second, feeds...)
			sum := func() (bytes uint64) {
				for _, sink := range []*forward.Sink{s.inCamera, s.inScreen, s.inMic} {
					bytes += sink.Stats().Bytes
				}
				return bytes
			}
			before := sum()
			s.feed(10*time.Second, feeds...)
			if rate := (sum() - before) * 8 / 10; rate > limit {
				t.Errorf("%d bit/s reach bob, at most %d", rate, limit)
			}
		})
	}
}

// The publisher is told to leave away what nobody gets, and what it then does not send does not come back for that. Once it
// sends less, or a minute later, it is let through again.
func TestBitrateIsOfferedToTheSender(t *testing.T) {
	s := newScene(t, Bitrate{Participant: 1_000_000})
	camera := []*feed{s.low, s.mid, s.high}
	s.feed(10*time.Second, camera...)
	wanted := only[QualitiesWanted](s.alice.Events())
	if len(wanted) != 1 || wanted[0].Track != s.camera || wanted[0].Codecs[0].Max != Medium {
		t.Fatalf("alice was told %+v, want medium quality", wanted)
	}
	s.feed(30*time.Second, s.low, s.mid) // it obeys
	s.gets("it obeys", 1, 0, 0)
	s.feed(40*time.Second, s.low, s.mid)
	s.gets("after a minute", 2, 0, 0)
	s.high.bitrate = 200_000 // a still picture
	s.feed(10*time.Second, camera...)
	s.gets("it fits now", 2, 0, 0)
	if s.rooms.Stats().Limited != 0 {
		t.Error("something is still withheld")
	}
}

// Sound comes first, and what the publisher stops by itself makes room at once.
func TestBitrateOfWhatIsThere(t *testing.T) {
	s := newScene(t, Bitrate{Participant: 690_000})
	s.feed(4*time.Second, s.low, s.mid)
	s.gets("camera alone", 2, 0, 0)
	s.feed(4*time.Second, s.low, s.mid, s.voice)
	s.gets("camera and sound", 0, 0, 0)

	s = newScene(t, Bitrate{Participant: 2_500_000})
	s.feed(4*time.Second, s.low, s.mid, s.high)
	s.gets("whole camera", 2, 0, 0)
	s.feed(4*time.Second, s.low, s.mid, s.slides)
	s.gets("a screen in place of the upper layer", 2, 0, 0)
}

// The server's limit counts what is sent, once for each receiver, and takes from the largest first.
func TestServerBitrate(t *testing.T) {
	s := newScene(t, Bitrate{Server: 4_000_000})
	s.feed(4*time.Second, s.all()...)
	s.gets("one receiver", 2, 0, 0) // 1,700 + 1,500 + 50
	carol := s.join("carol")
	carol.bind(s.camera)
	s.feed(4*time.Second, s.all()...)
	s.gets("two receivers of the camera", 1, 0, 0) // 1,700 twice does not fit, 500 twice does
	carol.Leave(ClientInitiated, s.now)
	s.feed(70*time.Second, s.all()...)
	s.gets("one receiver again", 2, 0, 0)
}

// Both limits hold at once, and rooms share the server's.
func TestBitrateOfRooms(t *testing.T) {
	s := newScene(t, Bitrate{Participant: 2_000_000, Server: 1_700_000})
	s.feed(5*time.Second, s.all()...)
	s.gets("both", 0, 0, 0) // 150 + 1,500 + 50
	p, err := s.rooms.Join("another", member("zoe"), s.now)
	if err != nil {
		t.Fatal(err)
	}
	q, err := s.rooms.Join("another", member("yan"), s.now)
	if err != nil {
		t.Fatal(err)
	}
	p.SetState(Active, s.now)
	q.SetState(Active, s.now)
	sid, source := (&client{p, s.stage}).publish(TrackRequest{CID: "cam", Kind: Video, Source: Camera})
	sink := (&client{q, s.stage}).bind(sid)
	other := &feed{source: source, bitrate: 1_400_000}
	s.feed(4*time.Second, append(s.all(), other)...)
	s.gets("another room sends, too", 0, -1, 0)
	if got := sink.Stats().Target; got == forward.NoLayer {
		t.Error("the smaller one was taken away")
	}
}

// Of a scalable stream the upper layers go, within the one stream.
func TestBitrateOfScalableVideo(t *testing.T) {
	s := newStage(t, Options{Bitrate: Bitrate{Participant: 1_000_000}})
	alice, bob := s.join("alice"), s.join("bob")
	info, err := alice.Publish(TrackRequest{CID: "cam", Kind: Video, Source: Camera, Width: 1280, Height: 720, Layers: []LayerInfo{{Quality: Low}, {Quality: Medium}, {Quality: High}}}, s.now)
	if err != nil {
		t.Fatal(err)
	}
	source, err := alice.Negotiated(info.SID, Media{MID: "1", Mime: "video/VP9"}, s.now)
	if err != nil {
		t.Fatal(err)
	}
	sink := bob.bind(info.SID)
	s.feed(4*time.Second, &feed{source: source, bitrate: 2_600_000}) // taken to be 200 + 600 + 1,800
	if got := sink.Stats().Target.Spatial; got != 1 {
		t.Errorf("bob is to get spatial layer %d, want 1", got)
	}
}

func TestPictureIsNoMicrophone(t *testing.T) {
	s := newStage(t, Options{})
	alice := s.join("alice", func(m *Member) { m.Permission.CanPublishSources = []TrackSource{Microphone, ScreenShareAudio, Camera} })
	for _, tc := range []struct {
		kind   Kind
		source TrackSource
		ok     bool
	}{
		{Audio, Microphone, true}, {Video, Microphone, false}, {Video, ScreenShareAudio, false},
		{Video, Camera, true}, {Audio, Camera, false}, {Video, ScreenShare, false}, {Video, Unknown, false}, {Audio, Unknown, false},
	} {
		_, err := alice.Publish(TrackRequest{CID: "x", Kind: tc.kind, Source: tc.source}, s.now)
		if (err == nil) != tc.ok {
			t.Errorf("kind %d from source %d: %v, want it to pass: %t", tc.kind, tc.source, err, tc.ok)
		}
	}
}
