package livekit

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"callserver/sfu"
)

func TestStamp(t *testing.T) {
	alice := sfu.ParticipantInfo{SID: "PA_alice", Identity: "alice"}
	hidden := sfu.ParticipantInfo{SID: "PA_spy", Identity: "spy", Permission: sfu.Permission{Hidden: true}}
	agent := sfu.ParticipantInfo{SID: "PA_agent", Identity: "agent", Kind: sfu.KindAgent}
	chat := &livekit.DataPacket_ChatMessage{ChatMessage: &livekit.ChatMessage{Message: "hi"}}
	user := func(u *livekit.UserPacket) *livekit.DataPacket_User { return &livekit.DataPacket_User{User: u} }

	tests := []struct {
		name     string
		self     sfu.ParticipantInfo
		reliable bool
		in, want *livekit.DataPacket
	}{
		{"a lie about the sender", alice, true,
			&livekit.DataPacket{ParticipantIdentity: "bob", ParticipantSid: "PA_bob", Kind: livekit.DataPacket_LOSSY, Sequence: 7, Value: chat},
			&livekit.DataPacket{ParticipantIdentity: "alice", ParticipantSid: "PA_alice", Sequence: 7, Value: chat}},
		{"hidden", hidden, false,
			&livekit.DataPacket{Value: chat},
			&livekit.DataPacket{ParticipantSid: "PA_spy", Kind: livekit.DataPacket_LOSSY, Value: chat}},
		{"agent for somebody", agent, true,
			&livekit.DataPacket{ParticipantIdentity: "alice", Value: chat},
			&livekit.DataPacket{ParticipantIdentity: "alice", ParticipantSid: "PA_agent", Value: chat}},
		{"user packet", alice, true,
			&livekit.DataPacket{Value: user(&livekit.UserPacket{ParticipantIdentity: "bob", Payload: []byte("x"), DestinationIdentities: []string{"carol"}})},
			&livekit.DataPacket{ParticipantIdentity: "alice", ParticipantSid: "PA_alice", DestinationIdentities: []string{"carol"},
				Value: user(&livekit.UserPacket{ParticipantIdentity: "alice", ParticipantSid: "PA_alice", Payload: []byte("x"), DestinationIdentities: []string{"carol"}})}},
		{"user packet, destinations outside", alice, true,
			&livekit.DataPacket{DestinationIdentities: []string{"bob"}, Value: user(&livekit.UserPacket{})},
			&livekit.DataPacket{ParticipantIdentity: "alice", ParticipantSid: "PA_alice", DestinationIdentities: []string{"bob"},
				Value: user(&livekit.UserPacket{ParticipantIdentity: "alice", ParticipantSid: "PA_alice", DestinationIdentities: []string{"bob"}})}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stamp(tt.in, tt.self, tt.reliable)
			if d := cmp.Diff(tt.want, tt.in, protocmp.Transform()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestMayPass(t *testing.T) {
	alice, agent := sfu.ParticipantInfo{}, sfu.ParticipantInfo{Kind: sfu.KindAgent}
	tests := []struct {
		name string
		self sfu.ParticipantInfo
		p    *livekit.DataPacket
		want bool
	}{
		{"chat", alice, &livekit.DataPacket{Value: &livekit.DataPacket_ChatMessage{}}, true},
		{"encrypted", alice, &livekit.DataPacket{Value: &livekit.DataPacket_EncryptedPacket{}}, true},
		{"of a later protocol", alice, &livekit.DataPacket{}, true},
		{"speakers", alice, &livekit.DataPacket{Value: &livekit.DataPacket_Speaker{}}, false},
		{"metrics", alice, &livekit.DataPacket{Value: &livekit.DataPacket_Metrics{}}, false},
		{"transcription", alice, &livekit.DataPacket{Value: &livekit.DataPacket_Transcription{}}, false},
		{"transcription of an agent", agent, &livekit.DataPacket{Value: &livekit.DataPacket_Transcription{}}, true},
	}
	for _, tt := range tests {
		if got := mayPass(tt.p, tt.self); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Clients of a later protocol send fields that we do not know; they must arrive.
func TestUnknownFieldsSurvive(t *testing.T) {
	raw := protowire.AppendTag(nil, 999, protowire.BytesType)
	raw = protowire.AppendBytes(raw, []byte("later"))
	var p livekit.DataPacket
	if err := proto.Unmarshal(raw, &p); err != nil {
		t.Fatal(err)
	}
	stamp(&p, sfu.ParticipantInfo{SID: "PA_1", Identity: "alice"}, true)
	out, err := proto.Marshal(&p)
	if err != nil {
		t.Fatal(err)
	}
	var again livekit.DataPacket
	if err := proto.Unmarshal(out, &again); err != nil {
		t.Fatal(err)
	}
	if got := string(again.ProtoReflect().GetUnknown()); got != string(raw) {
		t.Errorf("unknown fields %q, want %q", got, raw)
	}
}

func TestSequence(t *testing.T) {
	var c client
	for i, step := range []struct {
		sequence uint32
		want     bool
	}{{1, true}, {2, true}, {2, false}, {1, false}, {0, true}, {5, true}, {4, false}} {
		if got := c.inSequence(step.sequence); got != step.want {
			t.Errorf("step %d, sequence %d: %v, want %v", i, step.sequence, got, step.want)
		}
	}
}

func TestNonces(t *testing.T) {
	var n nonces
	nonce := func(i int) []byte { return append(make([]byte, nonceSize-2), byte(i>>8), byte(i)) }
	for i := range 3 * nonceHistory {
		if n.seen(nonce(i)) {
			t.Fatalf("nonce %d is new", i)
		}
		if !n.seen(nonce(i)) {
			t.Fatalf("nonce %d is known", i)
		}
	}
	if len(n.known) != nonceHistory {
		t.Errorf("remembers %d, want %d", len(n.known), nonceHistory)
	}
	for range 2 {
		if n.seen(nil) {
			t.Error("messages without a nonce are always new")
		}
	}
}
