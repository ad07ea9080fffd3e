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
