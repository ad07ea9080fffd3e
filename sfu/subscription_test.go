package sfu

import (
	"errors"
	"testing"
	"time"

	"callserver/sfu/forward"

	"github.com/google/go-cmp/cmp"
)

func TestLadderChoice(t *testing.T) {
	layers := func(info TrackInfo, rids ...string) ladder {
		info.Layers = negotiatedLayers(&info, &Media{RIDs: rids}, max(len(rids), 1), false)
		return newLadder(&info)
	}
	hd := TrackInfo{Width: 1280, Height: 720, Layers: []LayerInfo{
		{Quality: Low, Width: 320, Height: 180}, {Quality: Medium, Width: 640, Height: 360}, {Quality: High, Width: 1280, Height: 720}}}
	three := layers(hd, "q", "h", "f")
	two := layers(TrackInfo{Layers: []LayerInfo{{Quality: Low, Width: 320, Height: 180}, {Quality: Medium, Width: 640, Height: 360}}}, "q", "h")
	lowHigh := layers(TrackInfo{Layers: []LayerInfo{{Quality: Low, Width: 640, Height: 360}, {Quality: High, Width: 1920, Height: 1080}}}, "2", "1")
	lone := layers(TrackInfo{Layers: []LayerInfo{{Quality: Low, Width: 320, Height: 180}}})
	undeclared := layers(TrackInfo{Width: 1280, Height: 720}, "q", "h", "f")
	portrait := layers(TrackInfo{Width: 720, Height: 1280, Layers: []LayerInfo{
		{Quality: Low, Width: 180, Height: 320}, {Quality: Medium, Width: 360, Height: 640}, {Quality: High, Width: 720, Height: 1280}}}, "q", "h", "f")
	unnegotiated := layers(hd)
	none := ladder(nil)
	full := forward.MaxTemporal
	tests := []struct {
		name   string
		ladder ladder
		set    TrackSettings
		source TrackSource
		want   forward.Layer
		tells  Quality // to the publisher
	}{
		{"low", three, TrackSettings{Quality: Low}, Camera, full(0), Low},
		{"medium", three, TrackSettings{Quality: Medium}, Camera, full(1), Medium},
		{"high", three, TrackSettings{Quality: High}, Camera, full(2), High},
		{"high of two", two, TrackSettings{Quality: High}, Camera, full(1), High},
		{"medium of two", two, TrackSettings{Quality: Medium}, Camera, full(1), High},
		{"low of two", two, TrackSettings{Quality: Low}, Camera, full(0), Low},
		{"medium where there are low and high", lowHigh, TrackSettings{Quality: Medium}, Camera, full(0), Low},
		{"high where there are low and high", lowHigh, TrackSettings{Quality: High}, Camera, full(1), High},
		{"a lone layer is the top", lone, TrackSettings{Quality: Low}, Camera, full(0), High},
		{"no layers", none, TrackSettings{Quality: High}, Camera, full(0), High},
		{"disabled", three, TrackSettings{Disabled: true, Quality: High, Width: 1280, Height: 720}, Camera, forward.NoLayer, Off},
		{"off", three, TrackSettings{Quality: Off}, Camera, forward.NoLayer, Off},
		{"exact size", three, TrackSettings{Width: 640, Height: 360}, Camera, full(1), Medium},
		{"size beats quality", three, TrackSettings{Quality: High, Width: 300, Height: 170}, Camera, full(0), Low},
		{"size beats low quality", three, TrackSettings{Quality: Low, Width: 1280, Height: 720}, Camera, full(2), High},
		{"within 20 %", three, TrackSettings{Width: 768, Height: 432}, Camera, full(1), Medium},
		{"beyond 20 %", three, TrackSettings{Width: 770, Height: 433}, Camera, full(2), High},
		{"larger than all", three, TrackSettings{Width: 3840, Height: 2160}, Camera, full(2), High},
		{"narrow tile of a landscape picture", three, TrackSettings{Width: 100, Height: 600}, Camera, full(2), High},
		{"height only", three, TrackSettings{Height: 180}, Camera, full(0), Low},
		{"width only", three, TrackSettings{Width: 640}, Camera, full(1), Medium},
		{"portrait by width", portrait, TrackSettings{Width: 360, Height: 2000}, Camera, full(1), Medium},
		{"undeclared layers are halves", undeclared, TrackSettings{Width: 640, Height: 360}, Camera, full(1), Medium},
		{"size of a lone layer", lone, TrackSettings{Width: 1280, Height: 720}, Camera, full(0), High},
		{"declared as three, negotiated as one", unnegotiated, TrackSettings{Quality: Low}, Camera, full(0), High},
		{"7 frames/s", three, TrackSettings{Quality: High, FPS: 7}, Camera, forward.Layer{Spatial: 2, Temporal: 0}, High},
		{"15 frames/s", three, TrackSettings{Quality: High, FPS: 15}, Camera, forward.Layer{Spatial: 2, Temporal: 1}, High},
		{"30 frames/s", three, TrackSettings{Quality: High, FPS: 30}, Camera, full(2), High},
		{"5 frames/s of a screen", three, TrackSettings{Quality: High, FPS: 5}, ScreenShare, full(2), High},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.ladder.choose(tt.set, tt.source)
			if got != tt.want {
				t.Errorf("choose(%+v) = %v, want %v", tt.set, got, tt.want)
			}
			if got != forward.NoLayer && tt.ladder.quality(got.Spatial) != tt.tells {
				t.Errorf("quality(%d) = %v, want %v", got.Spatial, tt.ladder.quality(got.Spatial), tt.tells)
			}
		})
	}
}

func (c *client) target(sid SID) forward.Layer {
	c.room.mu.Lock()
	defer c.room.mu.Unlock()
	l := c.subscriptions[sid].link
	if l == nil {
		return forward.NoLayer
	}
	return unpack(l.target.Load())
}

func adaptive(m *Member) { m.AdaptiveStream = true }

func TestSettingsSettle(t *testing.T) {
	st := newStage(t, Options{})
	alice := st.join("alice")
	cam := alice.camera()
	bob, carol := st.join("bob"), st.join("carol", adaptive)
	bob.bind(cam)
	carol.bind(cam)
	if got := bob.target(cam); got != forward.MaxTemporal(2) {
		t.Errorf("start without adaptive stream: %v", got)
	}
	if got := carol.target(cam); got != forward.MaxTemporal(0) {
		t.Errorf("start with adaptive stream: %v", got)
	}
	steps := []struct {
		name  string
		set   TrackSettings
		after time.Duration
		want  forward.Layer
	}{
		{"first settings at once", TrackSettings{Width: 640, Height: 360}, 0, forward.MaxTemporal(1)},
		{"a change waits", TrackSettings{Width: 1280, Height: 720}, 0, forward.MaxTemporal(1)},
		{"the last change counts", TrackSettings{Width: 320, Height: 180}, 100 * time.Millisecond, forward.MaxTemporal(0)},
		{"disabling waits", TrackSettings{Disabled: true}, 50 * time.Millisecond, forward.MaxTemporal(0)},
		{"then it pauses", TrackSettings{Disabled: true}, 50 * time.Millisecond, forward.NoLayer},
		{"enabling is at once", TrackSettings{Width: 1280, Height: 720}, 0, forward.MaxTemporal(2)},
		{"disabled and enabled again", TrackSettings{Disabled: true}, 0, forward.MaxTemporal(2)},
		{"never pauses", TrackSettings{Width: 1280, Height: 720}, time.Second, forward.MaxTemporal(2)},
	}
	for _, s := range steps {
		carol.Settings([]SID{cam, "TR_x"}, s.set, st.now)
		st.pass(s.after)
		if got := carol.target(cam); got != s.want {
			t.Errorf("%s: target %v, want %v", s.name, got, s.want)
		}
	}
}

func TestSettingsBeforeTheTrackIsThere(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob := st.join("alice"), st.join("bob")
	info, err := alice.Publish(TrackRequest{CID: "cam", Kind: Video, Source: Camera, Layers: []LayerInfo{
		{Quality: Low, Width: 320, Height: 180}, {Quality: High, Width: 1280, Height: 720}}}, st.now)
	if err != nil {
		t.Fatal(err)
	}
	bob.Settings([]SID{info.SID}, TrackSettings{Quality: Low}, st.now)
	if _, err := alice.Negotiated(info.SID, Media{MID: "1", Mime: "video/VP8", RIDs: []string{"q", "h"}}, st.now); err != nil {
		t.Fatal(err)
	}
	bob.bind(info.SID)
	if got := bob.target(info.SID); got != forward.MaxTemporal(0) {
		t.Errorf("target %v", got)
	}
}

func TestSubscribe(t *testing.T) {
	st := newStage(t, Options{})
	alice := st.join("alice")
	mic := alice.microphone()
	bob := st.join("bob", func(m *Member) { m.AutoSubscribe = false })
	if got := only[DownlinkWanted](bob.Events()); len(got) != 0 {
		t.Errorf("without auto-subscribe: %+v", got)
	}
	bob.Subscribe([]SID{mic, mic, "TR_x"}, true, st.now)
	bob.Subscribe([]SID{mic}, true, st.now)
	events := bob.Events()
	if got := only[DownlinkWanted](events); len(got) != 1 {
		t.Errorf("wanted %+v", got)
	}
	if got := only[SubscriptionPermission](events); len(got) != 1 || !got[0].Allowed || got[0].Publisher != alice.SID() {
		t.Errorf("permission %+v", got)
	}
	bob.bind(mic)
	bob.Subscribe([]SID{mic, "TR_y"}, false, st.now)
	bob.Subscribe([]SID{mic}, true, st.now)
	bob.Subscribe([]SID{mic}, false, st.now)
	bob.Subscribe([]SID{mic}, true, st.now)
	kinds := []string{}
	for _, e := range bob.Events() {
		switch e.(type) {
		case DownlinkWanted:
			kinds = append(kinds, "wanted")
		case DownlinkDropped:
			kinds = append(kinds, "dropped")
		}
	}
	if diff := cmp.Diff([]string{"dropped", "wanted"}, kinds); diff != "" {
		t.Errorf("off and on again (-want +got):\n%s", diff)
	}
	bob.Reject(mic, SubscriptionCodecUnsupported, st.now)
	events = bob.Events()
	if got := only[SubscriptionFailed](events); len(got) != 1 || got[0].Code != SubscriptionCodecUnsupported {
		t.Errorf("failed %+v", got)
	}
	if got := only[DownlinkDropped](events); len(got) != 1 {
		t.Errorf("dropped %+v", got)
	}
	st.pass(58 * time.Second)
	if got := only[SubscriptionFailed](bob.Events()); len(got) != 0 {
		t.Errorf("gave up too early: %+v", got)
	}
	st.pass(6 * time.Second)
	if got := only[SubscriptionFailed](bob.Events()); len(got) != 1 || got[0] != (SubscriptionFailed{"TR_x", SubscriptionTrackNotFound}) {
		t.Errorf("failed %+v", got)
	}
	alice.Subscribe([]SID{mic}, true, st.now)
	if got := only[DownlinkWanted](alice.Events()); len(got) != 0 {
		t.Errorf("own track: %+v", got)
	}
}

func TestSubscribeBeforeTheTrackIsThere(t *testing.T) {
	st := newStage(t, Options{})
	alice := st.join("alice")
	bob := st.join("bob", func(m *Member) { m.AutoSubscribe = false })
	carol := st.join("carol")
	info, err := alice.Publish(TrackRequest{CID: "a", Kind: Audio}, st.now)
	if err != nil {
		t.Fatal(err)
	}
	bob.Subscribe([]SID{info.SID}, true, st.now)
	carol.Subscribe([]SID{info.SID}, true, st.now)
	carol.Subscribe([]SID{info.SID}, false, st.now)
	if _, err := alice.Negotiated(info.SID, Media{MID: "1", Mime: "audio/opus"}, st.now); err != nil {
		t.Fatal(err)
	}
	if got := only[DownlinkWanted](bob.Events()); len(got) != 1 {
		t.Errorf("bob: %+v", got)
	}
	if got := only[DownlinkWanted](carol.Events()); len(got) != 0 {
		t.Errorf("carol, who said no: %+v", got)
	}
}

func TestPublisherPermissions(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob, carol := st.join("alice"), st.join("bob"), st.join("carol")
	recorder := st.join("recorder", func(m *Member) { m.Permission.Recorder, m.Permission.Hidden = true, true })
	mic := alice.microphone()
	for _, c := range []*client{bob, carol, recorder} {
		c.Events()
		c.bind(mic)
	}
	tests := []struct {
		name       string
		all        bool
		list       []TrackPermission
		bob, carol bool
	}{
		{"nobody", false, nil, false, false},
		{"bob by identity", false, []TrackPermission{{Identity: "bob", All: true}}, true, false},
		{"carol by sid and track", false, []TrackPermission{{Participant: carol.SID(), Tracks: []SID{mic}}}, false, true},
		{"carol for another track", false, []TrackPermission{{Participant: carol.SID(), Tracks: []SID{"TR_x"}}}, false, false},
		{"an empty entry is nobody", false, []TrackPermission{{All: true}}, false, false},
		{"everybody", true, nil, true, true},
	}
	was := map[*client]bool{bob: true, carol: true, recorder: true}
	for _, tt := range tests {
		alice.Permissions(tt.all, tt.list, st.now)
		for c, want := range map[*client]bool{bob: tt.bob, carol: tt.carol, recorder: true} {
			events := c.Events()
			told := only[SubscriptionPermission](events)
			if was[c] == want {
				if len(told) != 0 {
					t.Errorf("%s: %s was told %+v", tt.name, c.Identity(), told)
				}
				continue
			}
			was[c] = want
			if len(told) != 1 || told[0].Allowed != want {
				t.Errorf("%s: %s was told %+v, want %t", tt.name, c.Identity(), told, want)
			}
			if got := len(only[DownlinkWanted](events)) == 1; got != want {
				t.Errorf("%s: %s is offered the track: %t, want %t", tt.name, c.Identity(), got, want)
			}
		}
	}
}

func TestBind(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob := st.join("alice"), st.join("bob")
	mic := alice.microphone()
	source := alice.publications.tracks[0].source
	alice.Events()
	first := bob.bind(mic)
	second := bob.bind(mic)
	if first == second || source.Stats().Sinks != 1 {
		t.Errorf("binding again leaves %d sinks", source.Stats().Sinks)
	}
	if got := only[FirstSubscriber](alice.Events()); len(got) != 1 {
		t.Errorf("first subscriber told: %+v", got)
	}
	bob.Unbind(mic, st.now)
	bob.Unbind(mic, st.now)
	bob.Unbind("TR_x", st.now)
	if n := source.Stats().Sinks; n != 0 {
		t.Errorf("%d sinks after Unbind", n)
	}
	bob.bind(mic)
	bob.Subscribe([]SID{mic}, false, st.now)
	if n := source.Stats().Sinks; n != 0 {
		t.Errorf("%d sinks after unsubscribing", n)
	}
	if _, err := bob.Bind(mic, silentWriter{}, true, st.now); !errors.Is(err, ErrNotFound) {
		t.Errorf("bind without a subscription: %v", err)
	}
	bob.Subscribe([]SID{mic}, true, st.now)
	bob.bind(mic)
	st.join("carol").bind(mic)
	if got := only[FirstSubscriber](alice.Events()); len(got) != 0 {
		t.Errorf("first subscriber told again: %+v", got)
	}
	if n := source.Stats().Sinks; n != 2 {
		t.Errorf("%d sinks, want 2", n)
	}
	bob.Settings([]SID{mic}, TrackSettings{Disabled: true}, st.now)
	if got := bob.target(mic); got != forward.NoLayer {
		t.Errorf("disabled audio: %v", got)
	}
	bob.Leave(ClientInitiated, st.now)
	if n := source.Stats().Sinks; n != 1 {
		t.Errorf("%d sinks after bob left", n)
	}
}

func TestDynacast(t *testing.T) {
	st := newStage(t, Options{})
	alice := st.join("alice")
	cam := alice.camera()
	alice.Events()
	told := func(step string, want ...Quality) {
		t.Helper()
		var got []Quality
		for _, q := range only[QualitiesWanted](alice.Events()) {
			if q.Track != cam || len(q.Codecs) != 1 || q.Codecs[0].Mime != "video/VP8" {
				t.Errorf("%s: told %+v", step, q)
			}
			got = append(got, q.Codecs[0].Max)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step, diff)
		}
	}
	st.pass(4900 * time.Millisecond)
	told("alone, at first")
	st.pass(200 * time.Millisecond)
	told("alone", Off)
	bob := st.join("bob")
	told("bob comes", High)
	bob.bind(cam)
	bob.Settings([]SID{cam}, TrackSettings{Quality: Low}, st.now)
	st.pass(4 * time.Second)
	told("bob wants less, at first")
	carol := st.join("carol")
	st.pass(6 * time.Second)
	told("carol wants everything")
	carol.Settings([]SID{cam}, TrackSettings{Quality: Medium}, st.now)
	st.pass(5100 * time.Millisecond)
	told("both want less", Medium)
	bob.Settings([]SID{cam}, TrackSettings{Disabled: true}, st.now)
	carol.Leave(ClientInitiated, st.now)
	st.pass(5200 * time.Millisecond)
	told("nobody looks", Off)
	bob.Settings([]SID{cam}, TrackSettings{Width: 640, Height: 360}, st.now)
	told("bob looks again", Medium)

	alice.ResendQualities(st.now)
	st.pass(1900 * time.Millisecond)
	told("after an answer, at first")
	st.pass(200 * time.Millisecond)
	told("after an answer", Medium)
	alice.ResendQualities(st.now)
	for range 9 {
		st.pass(time.Second)
		alice.ResendQualities(st.now)
	}
	told("after many answers", Medium)
}
