package livekit

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"callserver/signalling/token"
)

// twirp calls a method in JSON and returns status and body.
func (n *node) twirp(t testing.TB, g token.Grant, method, body string) (int, string) {
	t.Helper()
	status, answer, _ := do(t, "POST", n.URL+"/twirp/livekit.RoomService/"+method, strings.NewReader(body), map[string]string{
		"Content-Type": "application/json", "Authorization": "Bearer " + mint(t, g),
	})
	return status, answer
}

func TestRoomService(t *testing.T) {
	n := newNode(t)
	alice := n.join(t, "alice", true)
	admin := token.Grant{Room: "room", RoomAdmin: true}
	creator, lister := token.Grant{RoomCreate: true}, token.Grant{RoomList: true}

	tests := []struct {
		name   string
		grant  token.Grant
		method string
		body   string
		status int
		want   string // part of the answer
	}{
		{"create", creator, "CreateRoom", `{"name":"made","empty_timeout":30,"departureTimeout":7}`, 200, `"empty_timeout":30`},
		{"create again", creator, "CreateRoom", `{"name":"made","metadata":"m"}`, 200, `"departure_timeout":7`},
		{"create without grant", admin, "CreateRoom", `{"name":"made"}`, 401, `{"code":"unauthenticated","msg":"permissions denied"}`},
		{"create nameless", creator, "CreateRoom", `{}`, 400, `"invalid_argument"`},
		{"not JSON", creator, "CreateRoom", `{`, 400, `"malformed"`},
		{"list", lister, "ListRooms", `{"names":["made"]}`, 200, `"name":"made"`},
		{"list without grant", creator, "ListRooms", `{}`, 401, `"unauthenticated"`},
		{"participant", admin, "GetParticipant", `{"room":"room","identity":"alice"}`, 200, `"identity":"alice"`},
		{"nobody", admin, "GetParticipant", `{"room":"room","identity":"zoe"}`, 404, `"not_found"`},
		{"other room", admin, "GetParticipant", `{"room":"made","identity":"alice"}`, 401, `"unauthenticated"`},
		{"participants", admin, "ListParticipants", `{"room":"room"}`, 200, `"identity":"alice"`},
		{"unknown track", admin, "MutePublishedTrack", `{"room":"room","identity":"alice","track_sid":"TR_x","muted":true}`, 404, `"not_found"`},
		{"update", admin, "UpdateParticipant", `{"room":"room","identity":"alice","name":"Alice","permission":{"canSubscribe":true,"canPublish":true,"canPublishSources":["MICROPHONE"]}}`, 200, `"name":"Alice"`},
		{"update nobody", admin, "UpdateParticipant", `{"room":"room","identity":"zoe"}`, 404, `"not_found"`},
		{"unknown method", admin, "NoSuch", `{}`, 404, `"bad_route"`},
		{"remove nobody", admin, "RemoveParticipant", `{"room":"room","identity":"zoe"}`, 404, `"not_found"`},
		{"remove", admin, "RemoveParticipant", `{"room":"room","identity":"alice"}`, 200, `{}`},
		{"removed", admin, "GetParticipant", `{"room":"room","identity":"alice"}`, 404, `"not_found"`},
		{"delete", creator, "DeleteRoom", `{"room":"made"}`, 200, `{}`},
		{"delete again", creator, "DeleteRoom", `{"room":"made"}`, 404, `"not_found"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, answer := n.twirp(t, tt.grant, tt.method, tt.body)
			var any any
			if err := json.Unmarshal([]byte(answer), &any); err != nil {
				t.Errorf("answer %q is not JSON: %v", answer, err)
			}
			compact := strings.ReplaceAll(strings.ReplaceAll(answer, ": ", ":"), ", ", ",")
			if status != tt.status || !strings.Contains(compact, strings.ReplaceAll(tt.want, ": ", ":")) {
				t.Errorf("got %d %s, want %d %s", status, answer, tt.status, tt.want)
			}
		})
	}
	alice.until("a token with what changed", func() bool {
		g, err := testKeys.Verify(alice.token, time.Now())
		return err == nil && g.Name == "Alice" && !g.CanPublishData && slices.Equal(g.CanPublishSources, []string{"microphone"})
	})
	leave := heard(alice, "leave", func(m *livekit.SignalResponse) (*livekit.LeaveRequest, bool) {
		return m.GetLeave(), m.GetLeave() != nil
	})
	if leave.Reason != livekit.DisconnectReason_PARTICIPANT_REMOVED || leave.Action != livekit.LeaveRequest_DISCONNECT {
		t.Errorf("removed with %v", leave)
	}
}

func TestRoomServiceProtobuf(t *testing.T) {
	n := newNode(t)
	body, err := proto.Marshal(&livekit.CreateRoomRequest{Name: "made", MaxParticipants: 3})
	if err != nil {
		t.Fatal(err)
	}
	status, answer, header := do(t, "POST", n.URL+"/twirp/livekit.RoomService/CreateRoom", strings.NewReader(string(body)), map[string]string{
		"Content-Type": "application/protobuf", "Authorization": "Bearer " + mint(t, token.Grant{RoomCreate: true}),
	})
	var room livekit.Room
	if err := proto.Unmarshal([]byte(answer), &room); status != 200 || err != nil || header.Get("Content-Type") != "application/protobuf" {
		t.Fatalf("got %d %q (%v)", status, answer, err)
	}
	if room.Name != "made" || room.MaxParticipants != 3 || !strings.HasPrefix(room.Sid, "RM_") || room.CreationTimeMs == 0 {
		t.Errorf("got %s", protojson.Format(&room))
	}
}

// A moderator mutes, removes and ends with the token that the authoriser gave for joining: in that room, while the power
// was read lately, and as long as the token is worth anything. Nobody else can, and a moderator can do nothing else.
func TestRoomServiceOfModerators(t *testing.T) {
	revocations := &token.Revocations{}
	n := newNode(t, func(o *nodeOptions) { o.revocations = revocations })
	of := func(identity string, admin bool, age time.Duration) token.Grant {
		g := grant(identity)
		g.RoomAdmin = admin
		g.Origin = token.Origin{User: "@" + identity, Conversation: "!room", Verified: time.Now().Add(-age)}
		return g
	}
	moderator, kicked := of("mona", true, 0), of("kim", true, time.Second)
	revocations.Revoke("@kim", "!room", time.Now())
	elsewhere := of("else", true, 0)
	elsewhere.Room = "another"
	n.joinAs(t, moderator, true)
	n.joinAs(t, elsewhere, true)
	alice := n.joinAs(t, of("alice", false, 0), true)
	mic := alice.publish("mic", livekit.TrackType_AUDIO, livekit.TrackSource_MICROPHONE)
	alice.send("mic", opusFrame)
	alice.participant("alice", "publishing", func(p *livekit.ParticipantInfo) bool { return len(p.Tracks) == 1 })

	mute := `{"room":"room","identity":"alice","track_sid":"` + mic + `","muted":true}`
	one, self, name := `{"room":"room","identity":"alice"}`, `{"room":"room","identity":"mona","permission":{"canPublish":true}}`, `{"room":"room","identity":"alice","name":"Mallory"}`
	all := []struct{ method, body string }{
		{"MutePublishedTrack", mute}, {"RemoveParticipant", one}, {"GetParticipant", one}, {"ListParticipants", `{"room":"room"}`},
		{"DeleteRoom", `{"room":"room"}`}, {"UpdateParticipant", name}, {"CreateRoom", `{"name":"room"}`}, {"ListRooms", `{}`},
	}
	for _, who := range []struct {
		name string
		g    token.Grant
	}{
		{"a participant", of("bob", false, 0)},
		{"the moderator of another room", elsewhere},
		{"a moderator of long ago", of("mona", true, moderatesFor)},
		{"a moderator who was kicked", kicked},
	} {
		for _, call := range all {
			if status, answer := n.twirp(t, who.g, call.method, call.body); status != 401 {
				t.Errorf("%s may %s: %d %s", who.name, call.method, status, answer)
			}
		}
	}
	for _, call := range []struct {
		method, body string
		status       int
	}{
		{"CreateRoom", `{"name":"new"}`, 401},
		{"ListRooms", `{}`, 401},
		{"UpdateParticipant", name, 401},
		{"UpdateParticipant", self, 401},
		{"RemoveParticipant", `{"room":"another","identity":"else"}`, 401},
		{"DeleteRoom", `{"room":"another"}`, 401},
		{"MutePublishedTrack", mute, 200},
		{"RemoveParticipant", one, 200},
		{"DeleteRoom", `{"room":"room"}`, 200},
	} {
		if status, answer := n.twirp(t, moderator, call.method, call.body); status != call.status {
			t.Errorf("the moderator's %s %s: %d %s, want %d", call.method, call.body, status, answer, call.status)
		}
		if call.method != "MutePublishedTrack" {
			continue
		}
		muted := heard(alice, "mute", func(m *livekit.SignalResponse) (*livekit.MuteTrackRequest, bool) { // before she is removed
			return m.GetMute(), m.GetMute() != nil
		})
		if !muted.Muted || muted.Sid != mic {
			t.Errorf("alice was told %v", muted)
		}
	}
	if leave := alice.leaves(); leave.Reason != livekit.DisconnectReason_PARTICIPANT_REMOVED {
		t.Errorf("alice was removed with %v", leave)
	}
	if _, _, open := n.rooms.Room("room"); open {
		t.Error("the call goes on")
	}
}
