package livekit

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// enterRoom opens a connection to a new session without a websocket.
func (n *node) enterRoom(t testing.TB, identity, query string) conn {
	t.Helper()
	r := httptest.NewRequest("GET", "/rtc?access_token="+mint(t, grant(identity))+query, nil)
	a, err := n.edge.admit(r, false)
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.edge.open(r.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func receive(t testing.TB, c conn) (*livekit.SignalResponse, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	f, err := c.Receive(ctx)
	if err != nil {
		return nil, err
	}
	m := &livekit.SignalResponse{}
	if f.text {
		return m, protojson.Unmarshal(f.data, m)
	}
	return m, proto.Unmarshal(f.data, m)
}

// The first message is what every client builds on, field by field.
func TestJoinResponse(t *testing.T) {
	n := newNode(t)
	first, err := receive(t, n.enterRoom(t, "alice", "&sdk=js&protocol=16&client_protocol=1"))
	if err != nil {
		t.Fatal(err)
	}
	join := first.GetJoin()
	if len(join.GetSifTrailer()) == 0 || join.GetRoom().GetSid() == "" || join.GetParticipant().GetSid() == "" {
		t.Errorf("incomplete: %v", join)
	}
	now := time.Now()
	if at := join.GetParticipant().GetJoinedAt(); at < now.Add(-time.Minute).Unix() || at > now.Unix() {
		t.Errorf("joined at %d, now is %d", at, now.Unix())
	}
	want := &livekit.JoinResponse{
		Room: &livekit.Room{Name: "room", EmptyTimeout: 300, DepartureTimeout: 20, NumParticipants: 1},
		Participant: &livekit.ParticipantInfo{
			Identity: "alice", State: livekit.ParticipantInfo_JOINING, Version: join.GetParticipant().GetVersion(), ClientProtocol: 1,
			Permission: &livekit.ParticipantPermission{CanSubscribe: true, CanPublish: true, CanPublishData: true},
		},
		ServerVersion:     "1.13.5",
		ServerInfo:        &livekit.ServerInfo{Version: "1.13.5", Protocol: 17},
		SubscriberPrimary: true,
		FastPublish:       true,
		PingInterval:      2,
		PingTimeout:       6,
		EnabledPublishCodecs: []*livekit.Codec{
			{Mime: "video/VP8"}, {Mime: "video/H264"}, {Mime: "video/VP9"}, {Mime: "video/AV1"}, {Mime: "audio/opus"}, {Mime: "audio/red"},
		},
	}
	diff := cmp.Diff(want, join, protocmp.Transform(),
		protocmp.IgnoreFields(&livekit.JoinResponse{}, "sif_trailer"),
		protocmp.IgnoreFields(&livekit.Room{}, "sid", "creation_time", "creation_time_ms"),
		protocmp.IgnoreFields(&livekit.ParticipantInfo{}, "sid", "joined_at", "joined_at_ms"))
	if diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	second, err := receive(t, n.enterRoom(t, "bob", "&join_request="+wrap(t, sampleJoin, livekit.WrappedJoinRequest_NONE)))
	if err != nil {
		t.Fatal(err)
	}
	if j := second.GetJoin(); j.GetSubscriberPrimary() || len(j.GetOtherParticipants()) != 1 || j.GetOtherParticipants()[0].GetIdentity() != "alice" {
		t.Errorf("the second to join, with one connection, got %v", j)
	}
}

// Requests that fail are answered with what was asked and why.
func TestRequestResponses(t *testing.T) {
	n := newNode(t)
	c := n.enterRoom(t, "alice", "&protocol=16")
	addTrack := &livekit.AddTrackRequest{Cid: "x", Type: livekit.TrackType_DATA}
	metadata := &livekit.UpdateParticipantMetadata{Metadata: "m", RequestId: 7}
	mute := &livekit.MuteTrackRequest{Sid: "TR_none", Muted: true}
	tests := []struct {
		name string
		req  *livekit.SignalRequest
		want *livekit.RequestResponse
	}{
		{"a kind of track that there is not", &livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: addTrack}},
			&livekit.RequestResponse{Reason: livekit.RequestResponse_UNSUPPORTED_TYPE, Request: &livekit.RequestResponse_AddTrack{AddTrack: addTrack}}},
		{"metadata without permission", &livekit.SignalRequest{Message: &livekit.SignalRequest_UpdateMetadata{UpdateMetadata: metadata}},
			&livekit.RequestResponse{RequestId: 7, Reason: livekit.RequestResponse_NOT_ALLOWED, Request: &livekit.RequestResponse_UpdateMetadata{UpdateMetadata: metadata}}},
		{"an unknown track", &livekit.SignalRequest{Message: &livekit.SignalRequest_Mute{Mute: mute}},
			&livekit.RequestResponse{Reason: livekit.RequestResponse_NOT_FOUND, Request: &livekit.RequestResponse_Mute{Mute: mute}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw, err := proto.Marshal(tt.req)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Send(t.Context(), frame{data: raw}); err != nil {
				t.Fatal(err)
			}
			for {
				m, err := receive(t, c)
				if err != nil {
					t.Fatal(err)
				}
				if got := m.GetRequestResponse(); got != nil {
					if d := cmp.Diff(tt.want, got, protocmp.Transform(), protocmp.IgnoreFields(got, "message")); d != "" {
						t.Errorf("(-want +got):\n%s", d)
					}
					return
				}
			}
		})
	}
}

// A client that does not read is cut off instead of being waited for, and instead of missing something unnoticed.
func TestPipeOverflow(t *testing.T) {
	p := newPipe()
	for i := range downQueue {
		if !p.push(frame{data: []byte{byte(i)}}) {
			t.Fatalf("frame %d did not fit", i)
		}
	}
	if p.push(frame{}) {
		t.Fatal("the queue has no end")
	}
	p.finish()
	p.finish()
	for i := range downQueue {
		f, err := p.Receive(t.Context())
		if err != nil || f.data[0] != byte(i) {
			t.Fatalf("frame %d: %v, %v", i, f.data, err)
		}
	}
	if _, err := p.Receive(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for range upQueue + 1 { // nobody takes them any more
		if err := p.Send(t.Context(), frame{}); err != nil {
			return
		}
	}
	t.Error("the session ended and frames still fit")
}

// BenchmarkPipe is the connection of one more client, to whom one frame goes. Whatever it takes up, everybody does for as long as they stay.
func BenchmarkPipe(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		p := newPipe()
		p.push(frame{})
		if _, err := p.Receive(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzRequests feeds a session frames of all sorts. It must not panic, and must then still answer or have said goodbye.
func FuzzRequests(f *testing.F) {
	seed := func(m *livekit.SignalRequest) {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, false)
		text, err := protojson.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, true)
	}
	seed(&livekit.SignalRequest{Message: &livekit.SignalRequest_Offer{Offer: &livekit.SessionDescription{Sdp: "v=0", Id: 1}}})
	seed(&livekit.SignalRequest{Message: &livekit.SignalRequest_Answer{Answer: &livekit.SessionDescription{Sdp: "v=0", Id: 1}}})
	seed(&livekit.SignalRequest{Message: &livekit.SignalRequest_Trickle{Trickle: &livekit.TrickleRequest{CandidateInit: `{"candidate":""}`, Target: 7}}})
	seed(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: &livekit.AddTrackRequest{
		Cid: "c", Type: livekit.TrackType_VIDEO, Layers: []*livekit.VideoLayer{{Quality: 99}}, SimulcastCodecs: []*livekit.SimulcastCodec{{Codec: "vp8"}},
	}}})
	seed(&livekit.SignalRequest{Message: &livekit.SignalRequest_TrackSetting{TrackSetting: &livekit.UpdateTrackSettings{TrackSids: []string{"TR_x"}, Quality: -1}}})
	seed(&livekit.SignalRequest{Message: &livekit.SignalRequest_SyncState{SyncState: &livekit.SyncState{TrackSidsDisabled: []string{"x"}}}})
	seed(&livekit.SignalRequest{Message: &livekit.SignalRequest_Subscription{}})
	seed(&livekit.SignalRequest{Message: &livekit.SignalRequest_Leave{}})
	seed(&livekit.SignalRequest{Message: &livekit.SignalRequest_Simulate{Simulate: &livekit.SimulateScenario{}}})
	f.Add([]byte{}, false)
	f.Add([]byte(`{"addTrack":{"type":"VIDEO"}}`), true)

	n := newNode(f)
	ping, err := proto.Marshal(&livekit.SignalRequest{Message: &livekit.SignalRequest_Ping{Ping: 1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, text bool) {
		c := n.enterRoom(t, "fuzz", "")
		defer c.Close()
		for _, sent := range []frame{{data: data, text: text}, {data: data, text: text}, {data: ping}} {
			if c.Send(t.Context(), sent) != nil {
				break
			}
		}
		for {
			m, err := receive(t, c)
			if errors.Is(err, io.EOF) || m.GetPong() != 0 {
				break
			}
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
		}
		if panics := n.edge.Stats().Panics; panics > 0 {
			t.Fatalf("%d panics", panics)
		}
	})
}
