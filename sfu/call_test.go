package sfu

import (
	"errors"
	"testing"
	"time"

	"callserver/sfu/forward"
)

// stage is a set of rooms with a clock of its own.
type stage struct {
	t     testing.TB
	rooms *Rooms
	now   time.Time
}

func newStage(t testing.TB, o Options) *stage {
	o.AutoCreate = true
	return &stage{t: t, rooms: New(o), now: time.Unix(1_700_000_000, 0)}
}

// pass lets time go by in ticks of 50 ms.
func (st *stage) pass(d time.Duration) {
	for start := st.now; st.now.Before(start.Add(d)); {
		st.now = st.now.Add(10 * time.Millisecond)
		st.rooms.TellNews(st.now)
		if st.now.Sub(start)%(50*time.Millisecond) == 0 {
			st.rooms.Tick(st.now)
		}
	}
}

var everything = Permission{CanSubscribe: true, CanPublish: true, CanPublishData: true, CanUpdateMetadata: true}

func member(id Identity, change ...func(*Member)) Member {
	m := Member{Identity: id, Permission: everything, AutoSubscribe: true, Client: ClientInfo{Protocol: 16}}
	for _, c := range change {
		c(&m)
	}
	return m
}

// client is a participant and the stage it is on.
type client struct {
	*Participant
	st *stage
}

func (st *stage) join(id Identity, change ...func(*Member)) *client {
	st.t.Helper()
	p, err := st.rooms.Join("room", member(id, change...), st.now)
	if err != nil {
		st.t.Fatalf("join %s: %v", id, err)
	}
	p.SetState(Active, st.now)
	return &client{Participant: p, st: st}
}

// publish publishes a track to the end.
func (c *client) publish(req TrackRequest, rids ...string) (SID, *forward.Source) {
	c.st.t.Helper()
	info, err := c.Publish(req, c.st.now)
	if err != nil {
		c.st.t.Fatalf("publish %s: %v", req.CID, err)
	}
	mime := "audio/opus"
	if req.Kind == Video {
		mime = "video/VP8"
	}
	source, err := c.Negotiated(info.SID, Media{MID: "m" + req.CID, Mime: mime, RIDs: rids}, c.st.now)
	if err != nil {
		c.st.t.Fatalf("negotiated %s: %v", req.CID, err)
	}
	return info.SID, source
}

func (c *client) camera() SID {
	sid, _ := c.publish(TrackRequest{CID: "cam", Kind: Video, Source: Camera, Width: 1280, Height: 720, Layers: []LayerInfo{
		{Quality: Low, Width: 320, Height: 180}, {Quality: Medium, Width: 640, Height: 360}, {Quality: High, Width: 1280, Height: 720},
	}}, "q", "h", "f")
	return sid
}

func (c *client) microphone() SID {
	sid, _ := c.publish(TrackRequest{CID: "mic", Kind: Audio, Source: Microphone})
	return sid
}

type silentWriter struct{}

func (silentWriter) WriteRTP(*forward.Outgoing) error { return nil }

func (c *client) bind(sid SID) *forward.Sink {
	c.st.t.Helper()
	sink, err := c.Bind(sid, silentWriter{}, true, c.st.now)
	if err != nil {
		c.st.t.Fatalf("bind %s: %v", sid, err)
	}
	return sink
}

// only returns the events of one type.
func only[E Event](events []Event) []E {
	var out []E
	for _, e := range events {
		if e, ok := e.(E); ok {
			out = append(out, e)
		}
	}
	return out
}

func TestCallOfTwo(t *testing.T) {
	st := newStage(t, Options{})
	alice := st.join("alice")
	mic, cam := alice.microphone(), alice.camera()
	alice.Events()
	bob := st.join("bob")

	wanted := only[DownlinkWanted](bob.Events())
	if len(wanted) != 2 {
		t.Fatalf("bob is offered %d tracks at join, want 2", len(wanted))
	}
	for _, w := range wanted {
		if w.Publisher != alice.SID() || w.StreamID != string(alice.SID())+"|"+string(w.Track.SID) || w.Track.Mime == "" {
			t.Errorf("wanted %+v", w)
		}
	}
	if seen := bob.Others(); len(seen) != 1 || len(seen[0].Tracks) != 2 {
		t.Errorf("bob sees %+v", seen)
	}
	changed := only[ParticipantsChanged](alice.Events())
	if len(changed) != 1 || changed[0].Participants[0].Identity != "bob" || changed[0].Participants[0].State != Active {
		t.Errorf("alice was told %+v", changed)
	}

	bob.bind(mic)
	bob.bind(cam)
	if got := only[FirstSubscriber](alice.Events()); len(got) != 2 {
		t.Errorf("first subscribers told: %+v", got)
	}
	if err := alice.Mute(mic, true, st.now); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{alice, bob} {
		got := only[ParticipantsChanged](c.Events())
		if len(got) != 1 || !got[0].Participants[0].Tracks[0].Muted {
			t.Errorf("%s was told %+v of the mute", c.Identity(), got)
		}
	}
	alice.Leave(ClientInitiated, st.now)
	alice.Leave(ClientInitiated, st.now)
	events := bob.Events()
	if got := only[DownlinkDropped](events); len(got) != 2 {
		t.Errorf("dropped %+v", got)
	}
	last := only[ParticipantsChanged](events)
	if len(last) != 1 || last[0].Participants[0].State != Disconnected || last[0].Participants[0].Reason != ClientInitiated ||
		len(last[0].Participants[0].Tracks) != 0 || last[0].Participants[0].Identity != "alice" {
		t.Errorf("bob was told %+v", last)
	}
	if got := only[Closed](alice.Events()); len(got) != 1 || got[0].Reason != ClientInitiated {
		t.Errorf("alice was told %+v", got)
	}
	if _, err := bob.Bind(mic, silentWriter{}, false, st.now); !errors.Is(err, ErrNotFound) {
		t.Errorf("bind after the end: %v", err)
	}
}
