package sfu

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"callserver/sfu/forward"

	"github.com/google/go-cmp/cmp"
)

func TestPublishRefusals(t *testing.T) {
	long := strings.Repeat("x", 257)
	tests := []struct {
		name   string
		change func(*Member)
		req    TrackRequest
		want   error
	}{
		{"allowed", nil, TrackRequest{CID: "a", Kind: Video, Source: Camera}, nil},
		{"no permission", func(m *Member) { m.Permission.CanPublish = false }, TrackRequest{CID: "a"}, ErrNotAllowed},
		{"source in the list", func(m *Member) { m.Permission.CanPublishSources = []TrackSource{Microphone} },
			TrackRequest{CID: "a", Kind: Audio, Source: Microphone}, nil},
		{"source not in the list", func(m *Member) { m.Permission.CanPublishSources = []TrackSource{Microphone} },
			TrackRequest{CID: "a", Kind: Video, Source: Camera}, ErrNotAllowed},
		{"data", nil, TrackRequest{CID: "a", Kind: Data}, ErrUnsupported},
		{"strange source", nil, TrackRequest{CID: "a", Source: 99}, ErrUnsupported},
		{"codec for an unknown track", nil, TrackRequest{CID: "a", SID: "TR_x"}, ErrNotFound},
		{"long name", nil, TrackRequest{CID: "a", Name: long}, ErrLimit},
		{"long cid", nil, TrackRequest{CID: long}, ErrLimit},
		{"many layers", nil, TrackRequest{CID: "a", Layers: make([]LayerInfo, 9)}, ErrLimit},
		{"many codecs", nil, TrackRequest{CID: "a", Codecs: make([]CodecRequest, 9)}, ErrLimit},
		{"many layers of a codec", nil, TrackRequest{CID: "a", Codecs: []CodecRequest{{Layers: make([]LayerInfo, 9)}}}, ErrLimit},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := newStage(t, Options{})
			change := tt.change
			if change == nil {
				change = func(*Member) {}
			}
			alice := st.join("alice", change)
			if _, err := alice.Publish(tt.req, st.now); !errors.Is(err, tt.want) {
				t.Errorf("publish %+v: %v, want %v", tt.req, err, tt.want)
			}
		})
	}
}

func TestPendingLimit(t *testing.T) {
	st := newStage(t, Options{})
	alice := st.join("alice")
	for i := range maxPending {
		if _, err := alice.Publish(TrackRequest{CID: fmt.Sprint(i)}, st.now); err != nil {
			t.Fatalf("track %d: %v", i, err)
		}
	}
	if _, err := alice.Publish(TrackRequest{CID: "one more"}, st.now); !errors.Is(err, ErrLimit) {
		t.Errorf("one more: %v", err)
	}
	if _, err := alice.Publish(TrackRequest{CID: "0"}, st.now); err != nil {
		t.Errorf("one that waits, again: %v", err)
	}
}

func TestSameCIDWhileItsTrackEnds(t *testing.T) {
	st := newStage(t, Options{})
	alice := st.join("alice")
	first := alice.microphone()
	req := TrackRequest{CID: "mic", Kind: Audio, Source: Microphone, Name: "second"}
	if _, err := alice.Publish(req, st.now); !errors.Is(err, ErrQueued) {
		t.Fatalf("publish again: %v", err)
	}
	alice.Events()
	alice.Unpublish(first, st.now)
	got := only[TrackPublished](alice.Events())
	if len(got) != 1 || got[0].CID != "mic" || got[0].Track.Name != "second" || got[0].Track.SID == first {
		t.Fatalf("told %+v", got)
	}
	if _, err := alice.Negotiated(got[0].Track.SID, Media{MID: "7", Mime: "audio/opus"}, st.now); err != nil {
		t.Error(err)
	}
	pending, err := alice.Publish(TrackRequest{CID: "cam", Kind: Video, Source: Camera}, st.now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := alice.Publish(TrackRequest{CID: "cam", Kind: Video, Source: Camera, Muted: true}, st.now)
	if err != nil || again.SID != pending.SID || !again.Muted {
		t.Errorf("asking again before the negotiation: %+v, %v; want the sid %s", again, err, pending.SID)
	}
}

func TestTrackInfoFromRequest(t *testing.T) {
	vp9 := CodecRequest{Codec: "vp9", CID: "c", Layers: []LayerInfo{{Quality: High, Width: 1280, Height: 720}}}
	tests := []struct {
		name string
		req  TrackRequest
		want TrackInfo // without sid and codecs
		mime string    // of the first codec
		mode int32
	}{
		{"microphone", TrackRequest{CID: "c", Kind: Audio, Source: Microphone, DisableRED: true},
			TrackInfo{Kind: Audio, Source: Microphone, Stream: "camera", DisableRED: true}, "", 0},
		{"screen audio, features", TrackRequest{CID: "c", Kind: Audio, Source: ScreenShareAudio, AudioFeatures: []int32{0, 1}},
			TrackInfo{Kind: Audio, Source: ScreenShareAudio, Stream: "screen", AudioFeatures: []int32{0, 1}, Stereo: true, DisableDTX: true}, "", 0},
		{"encrypted", TrackRequest{CID: "c", Kind: Audio, Encryption: EncryptionGCM, Stream: "own"},
			TrackInfo{Kind: Audio, Encryption: EncryptionGCM, Stream: "own"}, "", 0},
		{"layers are sorted", TrackRequest{CID: "c", Kind: Video, Source: Camera,
			Codecs: []CodecRequest{{Codec: "vp8", Layers: []LayerInfo{{Quality: High}, {Quality: Low}}}}},
			TrackInfo{Kind: Video, Source: Camera, Stream: "camera", Simulcast: true, Layers: []LayerInfo{{Quality: Low}, {Quality: High}}},
			"video/VP8", oneSpatialPerStream},
		{"scalable", TrackRequest{CID: "c", Kind: Video, Source: Camera, Codecs: []CodecRequest{vp9}},
			TrackInfo{Kind: Video, Source: Camera, Stream: "camera", Layers: vp9.Layers}, "video/VP9", multipleSpatialPerStream},
		{"codec that is not enabled", TrackRequest{CID: "c", Kind: Video, Source: ScreenShare,
			Codecs: []CodecRequest{{Codec: "h265", LayerMode: multipleSpatialPerStream}}},
			TrackInfo{Kind: Video, Source: ScreenShare, Stream: "screen"}, "video/VP8", oneSpatialPerStream},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := newStage(t, Options{})
			got, err := st.join("alice").Publish(tt.req, st.now)
			if err != nil {
				t.Fatal(err)
			}
			if first := got.Codecs[0]; first.Mime != tt.mime || first.LayerMode != tt.mode {
				t.Errorf("codec %+v, want %s in mode %d", first, tt.mime, tt.mode)
			}
			if prefix := trackPrefix(tt.req.Kind, tt.req.Source); !strings.HasPrefix(string(got.SID), prefix) {
				t.Errorf("sid %s, want %s...", got.SID, prefix)
			}
			got.SID, got.Codecs = "", nil
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("info (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNegotiated(t *testing.T) {
	st := newStage(t, Options{})
	alice := st.join("alice")
	info, err := alice.Publish(TrackRequest{CID: "cam", Kind: Video, Source: Camera, Width: 1280, Height: 720, Layers: []LayerInfo{
		{Quality: Low, Width: 320, Height: 180}, {Quality: Medium, Width: 640, Height: 360},
	}}, st.now)
	if err != nil {
		t.Fatal(err)
	}
	for mime, want := range map[string]error{"": ErrUnsupported, "audio/opus": ErrUnsupported} {
		if _, err := alice.Negotiated(info.SID, Media{MID: "3", Mime: mime}, st.now); !errors.Is(err, want) {
			t.Errorf("negotiated as %q: %v, want %v", mime, err, want)
		}
	}
	if got := alice.Info(); len(got.Tracks) != 0 || got.Publisher {
		t.Errorf("announced too early: %+v", got)
	}
	media := Media{MID: "3", Mime: "video/VP8", SDPCID: "{cam}", RIDs: []string{"q", "h"}}
	source, err := alice.Negotiated(info.SID, media, st.now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := alice.Negotiated(info.SID, media, st.now)
	if err != nil || again != source {
		t.Errorf("negotiated again: another source, %v", err)
	}
	got := alice.Info()
	if len(got.Tracks) != 1 || !got.Publisher {
		t.Fatalf("info %+v", got)
	}
	track := got.Tracks[0]
	want := []LayerInfo{
		{Quality: Low, Width: 320, Height: 180, RID: "q", Spatial: 0},
		{Quality: Medium, Width: 640, Height: 360, RID: "h", Spatial: 1},
	}
	if diff := cmp.Diff(want, track.Layers); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	if c := track.Codecs[0]; track.Mime != "video/VP8" || track.MID != "3" || c.Mime != track.Mime || c.MID != "3" || c.SDPCID != "{cam}" || len(c.Layers) != 2 {
		t.Errorf("track %+v", track)
	}
	if track.Version.UnixMicro == 0 {
		t.Error("the track has no version")
	}

	mic, err := alice.Publish(TrackRequest{CID: "mic", Kind: Audio}, st.now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Negotiated(mic.SID, Media{MID: "3", Mime: "audio/opus"}, st.now); err != nil {
		t.Fatal(err)
	}
	if got := alice.Info().Tracks; len(got) != 1 || got[0].SID != mic.SID {
		t.Errorf("a section that carries another track now: %+v", got)
	}
	if _, err := alice.Negotiated("TR_x", media, st.now); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown track: %v", err)
	}
}

func TestUnpublishBeforeNegotiation(t *testing.T) {
	st := newStage(t, Options{})
	alice := st.join("alice")
	info, err := alice.Publish(TrackRequest{CID: "a", Kind: Audio}, st.now)
	if err != nil {
		t.Fatal(err)
	}
	alice.Unpublish(info.SID, st.now)
	alice.Unpublish(info.SID, st.now)
	if _, err := alice.Negotiated(info.SID, Media{Mime: "audio/opus"}, st.now); !errors.Is(err, ErrNotFound) {
		t.Errorf("negotiated after unpublish: %v", err)
	}
}

func TestUpdateLimits(t *testing.T) {
	text := func(n int) *string { s := strings.Repeat("x", n); return &s }
	tests := []struct {
		name           string
		title, meta    *string
		attributes     map[string]string
		mayNot         bool
		want           error
		wantAttributes map[string]string
	}{
		{"name", text(256), nil, nil, false, nil, map[string]string{"k": "v"}},
		{"long name", text(257), nil, nil, false, ErrLimit, map[string]string{"k": "v"}},
		{"metadata", nil, text(512 << 10), nil, false, nil, map[string]string{"k": "v"}},
		{"long metadata", nil, text(512<<10 + 1), nil, false, ErrLimit, map[string]string{"k": "v"}},
		{"attributes merge", nil, nil, map[string]string{"a": "b"}, false, nil, map[string]string{"k": "v", "a": "b"}},
		{"an empty value removes", nil, nil, map[string]string{"k": ""}, false, nil, map[string]string{}},
		{"long attributes", nil, nil, map[string]string{"a": *text(64 << 10)}, false, ErrLimit, map[string]string{"k": "v"}},
		{"no permission", text(1), nil, nil, true, ErrNotAllowed, map[string]string{"k": "v"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := newStage(t, Options{})
			alice := st.join("alice", func(m *Member) {
				m.Attributes = map[string]string{"k": "v"}
				m.Permission.CanUpdateMetadata = !tt.mayNot
			})
			bob := st.join("bob")
			bob.Snapshot()
			before := alice.Info()
			if err := alice.Update(tt.title, tt.meta, tt.attributes, st.now); !errors.Is(err, tt.want) {
				t.Fatalf("update: %v, want %v", err, tt.want)
			}
			after := alice.Info()
			if diff := cmp.Diff(tt.wantAttributes, after.Attributes); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
			if told := len(bob.Events()) > 0; told != (tt.want == nil) || (after.Version > before.Version) != told {
				t.Errorf("bob was told: %t, versions %d -> %d", told, before.Version, after.Version)
			}
		})
	}
}

func TestServerMute(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob := st.join("alice"), st.join("bob")
	mic := alice.microphone()
	alice.Events()
	bob.Events()
	if _, err := st.rooms.MuteTrack("room", "alice", mic, true, st.now); err != nil {
		t.Fatal(err)
	}
	if got := only[MuteRequested](alice.Events()); len(got) != 1 || !got[0].Muted {
		t.Errorf("alice was told %+v", got)
	}
	if got := only[ParticipantsChanged](bob.Events()); len(got) != 1 || !got[0].Participants[0].Tracks[0].Muted {
		t.Errorf("bob was told %+v", got)
	}
	if _, err := st.rooms.MuteTrack("room", "alice", mic, false, st.now); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("unmuting: %v", err)
	}
	if err := alice.Mute(mic, false, st.now); err != nil {
		t.Errorf("alice unmutes: %v", err)
	}
	if _, err := st.rooms.MuteTrack("room", "alice", "TR_x", true, st.now); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown track: %v", err)
	}
	if err := alice.UpdateVideoTrack(mic, 1, 2, st.now); err != nil || alice.Info().Tracks[0].Height != 2 {
		t.Errorf("update: %v", err)
	}
	if err := alice.UpdateAudioTrack(mic, []int32{3}, st.now); err != nil || len(alice.Info().Tracks[0].AudioFeatures) != 1 {
		t.Errorf("update: %v", err)
	}
}

// What a publisher sends of a muted track reaches nobody, though its encoders are not asked to stop: unmuting must not wait for them.
func TestMutedIsNotForwarded(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob, carol := st.join("alice"), st.join("bob"), st.join("carol")
	tracks := []SID{alice.microphone(), alice.camera()}
	var sinks []*forward.Sink
	for _, sid := range tracks {
		sinks = append(sinks, bob.bind(sid), carol.bind(sid))
	}
	expect := func(when string, paused bool) {
		t.Helper()
		for i, sink := range sinks {
			if got := sink.Stats().Target; (got == forward.NoLayer) != paused {
				t.Errorf("%s: target of sink %d is %v, want paused %t", when, i, got, paused)
			}
		}
	}
	expect("at first", false)
	for _, muted := range []bool{true, true, false} {
		alice.Events()
		for _, sid := range tracks {
			if err := alice.Mute(sid, muted, st.now); err != nil {
				t.Fatal(err)
			}
		}
		st.pass(6 * time.Second)
		expect("after muting", muted)
		if got := only[QualitiesWanted](alice.Events()); len(got) != 0 {
			t.Errorf("muted %t: alice was asked for other layers: %+v", muted, got)
		}
	}
	if _, err := st.rooms.MuteTrack("room", "alice", tracks[0], true, st.now); err != nil {
		t.Fatal(err)
	}
	if got := carol.bind(tracks[0]).Stats().Target; got != forward.NoLayer {
		t.Errorf("bound while muted by the server: target %v, want none", got)
	}
}

func TestPermissionRevoked(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob := st.join("alice"), st.join("bob")
	mic, cam := alice.microphone(), alice.camera()
	pending, err := alice.Publish(TrackRequest{CID: "s", Kind: Video, Source: ScreenShare}, st.now)
	if err != nil {
		t.Fatal(err)
	}
	bob.bind(mic)
	bob.bind(cam)
	alice.Events()
	bob.Events()
	limited := everything
	limited.CanPublishSources = []TrackSource{Microphone}
	if err := alice.SetPermission(limited, st.now); err != nil {
		t.Fatal(err)
	}
	removed := only[TrackRemoved](alice.Events())
	if len(removed) != 2 || removed[0].Track != cam || removed[1].Track != pending.SID {
		t.Errorf("alice was told %+v", removed)
	}
	if got := only[DownlinkDropped](bob.Events()); len(got) != 1 || got[0].Track != cam {
		t.Errorf("bob was told %+v", got)
	}

	deaf := everything
	deaf.CanSubscribe = false
	if err := bob.SetPermission(deaf, st.now); err != nil {
		t.Fatal(err)
	}
	if got := only[DownlinkDropped](bob.Events()); len(got) != 1 || got[0].Track != mic {
		t.Errorf("bob lost %+v", got)
	}
	if err := bob.SetPermission(everything, st.now); err != nil {
		t.Fatal(err)
	}
	if got := only[DownlinkWanted](bob.Events()); len(got) != 1 || got[0].Track.SID != mic {
		t.Errorf("bob got back %+v", got)
	}
	bob.Leave(ClientInitiated, st.now)
	if err := bob.SetPermission(everything, st.now); !errors.Is(err, ErrClosed) {
		t.Errorf("after leaving: %v", err)
	}
}
