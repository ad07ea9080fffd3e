package livekit

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"callserver/sfu"
)

// crowdOf is a room full of people, as one who joins is told of them.
func crowdOf(t testing.TB, n int) []*sfu.ParticipantInfo {
	t.Helper()
	rooms := sfu.New(sfu.Options{AutoCreate: true})
	for i := range n {
		_, err := rooms.Join("room", sfu.Member{
			Identity: sfu.Identity(fmt.Sprint("@user", i, ":example.org:DEVICE")), Name: fmt.Sprint("User ", i), Attributes: map[string]string{"hand": "up"},
			Permission: sfu.Permission{CanSubscribe: true, CanPublish: true, CanPublishSources: []sfu.TrackSource{sfu.Camera, sfu.Microphone}},
			Client:     sfu.ClientInfo{SDK: "js", Version: "2.15.0"},
		}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
	}
	_, people, _ := rooms.Room("room")
	return people
}

// TestList has people added as bytes, and expects on the wire what the protocol's own messages would be.
func TestList(t *testing.T) {
	people := crowdOf(t, 3)
	update := &livekit.ParticipantUpdate{FullSnapshot: true}
	list(update, participantsOfUpdate, people...)
	join := &livekit.JoinResponse{ServerVersion: "1"}
	list(join, othersOfJoin, people...)
	for _, c := range []struct{ given, want *livekit.SignalResponse }{
		{&livekit.SignalResponse{Message: &livekit.SignalResponse_Update{Update: update}},
			&livekit.SignalResponse{Message: &livekit.SignalResponse_Update{Update: &livekit.ParticipantUpdate{FullSnapshot: true, Participants: participants(people)}}}},
		{&livekit.SignalResponse{Message: &livekit.SignalResponse_Join{Join: join}},
			&livekit.SignalResponse{Message: &livekit.SignalResponse_Join{Join: &livekit.JoinResponse{ServerVersion: "1", OtherParticipants: participants(people)}}}},
	} {
		f, err := encode(c.given, false)
		if err != nil {
			t.Fatal(err)
		}
		var got livekit.SignalResponse
		if err := proto.Unmarshal(f.data, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, &got, protocmp.Transform()); d != "" {
			t.Errorf("in protobuf (-want +got):\n%s", d)
		}
	}
	f, err := encode(&livekit.SignalResponse{Message: &livekit.SignalResponse_Update{Update: update}}, true)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Update struct{ Participants []struct{ Name string } }
	}
	if err := json.Unmarshal(f.data, &got); err != nil || len(got.Update.Participants) != 3 || got.Update.Participants[2].Name != "User 2" {
		t.Errorf("in JSON: %s, %v", f.data, err)
	}
}

// BenchmarkCrowd is the message by which one more is told of 300 people.
func BenchmarkCrowd(b *testing.B) {
	people := crowdOf(b, 300)
	b.ReportAllocs()
	for b.Loop() {
		join := &livekit.JoinResponse{}
		list(join, othersOfJoin, people...)
		if _, err := encode(&livekit.SignalResponse{Message: &livekit.SignalResponse_Join{Join: join}}, false); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCrowdAnew is the same with everybody encoded for this one message.
func BenchmarkCrowdAnew(b *testing.B) {
	people := crowdOf(b, 300)
	b.ReportAllocs()
	for b.Loop() {
		join := &livekit.JoinResponse{OtherParticipants: participants(people)}
		if _, err := encode(&livekit.SignalResponse{Message: &livekit.SignalResponse_Join{Join: join}}, false); err != nil {
			b.Fatal(err)
		}
	}
}
