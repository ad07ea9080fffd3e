package livekit

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/token"
)

func modes(t *testing.T, run func(t *testing.T, single bool)) {
	t.Run("one connection", func(t *testing.T) { run(t, true) })
	t.Run("two connections", func(t *testing.T) { run(t, false) })
}

// leaves waits for the server's leave.
func (f *fake) leaves() *livekit.LeaveRequest {
	f.t.Helper()
	return heard(f, "leave", func(m *livekit.SignalResponse) (*livekit.LeaveRequest, bool) {
		return m.GetLeave(), m.GetLeave() != nil
	})
}

// An overloaded server turns newcomers away before the upgrade, where clients see why, and serves everybody else.
func TestOverload(t *testing.T) {
	modes(t, func(t *testing.T, single bool) {
		n := newNode(t)
		alice, bob := n.join(t, "alice", single), n.join(t, "bob", true)
		track := alice.publish("mic", livekit.TrackType_AUDIO, livekit.TrackSource_MICROPHONE)
		alice.send("mic", opusFrame)
		bob.receives(track, 10)

		n.calls.Overload(true)
		newcomer := "?access_token=" + url.QueryEscape(mint(t, grant("carol")))
		if status, body, _ := get(t, n.URL+"/rtc/validate"+newcomer, nil); status != 503 || !strings.Contains(body, "at its limit") {
			t.Errorf("validate: %d %q", status, body)
		}
		_, answer, err := websocket.Dial(t.Context(), n.ws("/rtc"+newcomer), nil)
		if err == nil || answer == nil || answer.StatusCode != 503 {
			t.Errorf("websocket of a newcomer: %v", err)
		}
		alice.drop()
		if first := alice.resume(); first.GetReconnect() == nil {
			t.Errorf("first message after a resume is %v, want reconnect", first)
		}
		bob.receives(track, 20)
		n.join(t, "bob", true) // anew, by the same identity

		n.calls.Overload(false)
		n.join(t, "carol", true)
	})
}

// Who joins and who comes back is told of relays, each time with a fresh credential for its session.
func TestRelayCredentials(t *testing.T) {
	modes(t, func(t *testing.T, single bool) {
		var given atomic.Int64
		n := newNode(t, func(o *nodeOptions) {
			o.ice = func(session sfu.SID) []signalling.ICEServer {
				return []signalling.ICEServer{{URLs: []string{"turn:a", "turn:b"}, Username: fmt.Sprint(session, " ", given.Add(1)), Credential: "secret"}}
			}
		})
		alice := n.join(t, "alice", single)
		alice.mu.Lock()
		joined := alice.told[0].GetJoin()
		alice.mu.Unlock()
		bob := n.join(t, "bob", true)
		track := alice.publish("mic", livekit.TrackType_AUDIO, livekit.TrackSource_MICROPHONE)
		alice.send("mic", opusFrame)
		bob.receives(track, 1) // before media flows there is no coming back
		alice.drop()
		back := alice.resume().GetReconnect()
		for i, servers := range [][]*livekit.ICEServer{joined.GetIceServers(), back.GetIceServers()} {
			want := []*livekit.ICEServer{{Urls: []string{"turn:a", "turn:b"}, Username: fmt.Sprint(joined.GetParticipant().GetSid(), " ", 1+2*i), Credential: "secret"}}
			if diff := cmp.Diff(want, servers, protocmp.Transform()); diff != "" {
				t.Errorf("time %d (-want +got):\n%s", i+1, diff)
			}
		}
	})
}

// A websocket that breaks costs nothing: media goes on, nobody else hears of it, and the client takes up its session.
func TestResume(t *testing.T) {
	modes(t, func(t *testing.T, single bool) {
		n := newNode(t)
		alice, bob := n.join(t, "alice", single), n.join(t, "bob", true)
		track := alice.publish("mic", livekit.TrackType_AUDIO, livekit.TrackSource_MICROPHONE)
		answer := bob.publish("mic", livekit.TrackType_AUDIO, livekit.TrackSource_MICROPHONE)
		alice.send("mic", opusFrame)
		bob.send("mic", opusFrame)
		bob.receives(track, 10)
		alice.receives(answer, 10)

		alice.drop()
		bob.receives(track, 10)
		first := alice.resume()
		if first.GetReconnect().GetServerInfo().GetVersion() == "" {
			t.Fatalf("first message is %v, want reconnect", first)
		}
		heard(alice, "refresh_token", func(m *livekit.SignalResponse) (string, bool) { return m.GetRefreshToken(), m.GetRefreshToken() != "" })
		alice.mu.Lock()
		got := summary(alice.told)[:4]
		update := alice.told[1].GetUpdate()
		alice.mu.Unlock()
		if want := []string{"Reconnect", "Update", "RoomUpdate", "RefreshToken"}; !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
		var names []string
		for _, p := range update.GetParticipants() {
			names = append(names, p.Identity)
		}
		if slices.Sort(names); !update.GetFullSnapshot() || !slices.Equal(names, []string{"alice", "bob"}) {
			t.Errorf("update after resume holds %v, snapshot %v", names, update.GetFullSnapshot())
		}

		alice.offer(true) // new ICE credentials
		bob.receives(track, 20)
		alice.receives(answer, 20)
		bob.mu.Lock()
		defer bob.mu.Unlock()
		for _, m := range bob.told {
			for _, p := range m.GetUpdate().GetParticipants() {
				if p.State == livekit.ParticipantInfo_DISCONNECTED || p.Identity == "alice" && p.Sid != alice.sid {
					t.Errorf("bob was told %v", p)
				}
			}
		}
	})
}

// dial opens a websocket that understands nothing and returns it with its first message.
func dial(t *testing.T, n *node, path string, query url.Values) (*websocket.Conn, *livekit.SignalResponse) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, n.ws(path+"?"+query.Encode()), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return ws, next(t, ws)
}

// next reads a message, nil once the websocket is closed.
func next(t *testing.T, ws *websocket.Conn) *livekit.SignalResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	kind, raw, err := ws.Read(ctx)
	if err != nil {
		if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
			t.Errorf("websocket ended with %v, want a normal closure", err)
		}
		return nil
	}
	m := &livekit.SignalResponse{}
	if kind == websocket.MessageText {
		err = protojson.Unmarshal(raw, m)
	} else {
		err = proto.Unmarshal(raw, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tell(t *testing.T, ws *websocket.Conn, m *livekit.SignalRequest) {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := ws.Write(ctx, websocket.MessageBinary, raw); err != nil {
		t.Fatal(err)
	}
}

// A session that the server does not know, or that is somebody else's, is answered first and then closed.
func TestResumeMismatch(t *testing.T) {
	n := newNode(t)
	alice := n.join(t, "alice", true)
	tests := []struct{ name, identity, sid string }{
		{"unknown", "alice", "PA_unknown"},
		{"of somebody else", "mallory", alice.sid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ws, first := dial(t, n, "/rtc", url.Values{"access_token": {mint(t, grant(tt.identity))}, "reconnect": {"1"}, "sid": {tt.sid}})
			leave := first.GetLeave()
			if leave.GetReason() != livekit.DisconnectReason_STATE_MISMATCH || leave.GetAction() != livekit.LeaveRequest_RECONNECT {
				t.Errorf("first message %v", first)
			}
			if more := next(t, ws); more != nil {
				t.Errorf("then %v, want the end", more)
			}
		})
	}
	if n.rooms.Participant("room", "alice") == nil {
		t.Error("alice is gone")
	}
}

// A client whose media was never up is gone with its websocket.
func TestSignalLostBeforeMedia(t *testing.T) {
	n := newNode(t)
	bob := n.join(t, "bob", true)
	ws, first := dial(t, n, "/rtc", url.Values{"access_token": {mint(t, grant("alice"))}})
	if first.GetJoin() == nil {
		t.Fatalf("first message %v", first)
	}
	bob.participant("alice", "present", func(*livekit.ParticipantInfo) bool { return true })
	_ = ws.CloseNow()
	gone := bob.participant("alice", "gone", func(p *livekit.ParticipantInfo) bool { return p.State == livekit.ParticipantInfo_DISCONNECTED })
	if gone.DisconnectReason != livekit.DisconnectReason_SIGNAL_CLOSE {
		t.Errorf("reason %v", gone.DisconnectReason)
	}
}

// A client whose media connection dies is told to resume, and is gone when it does not.
func TestTransportFailed(t *testing.T) {
	n := newNode(t, func(o *nodeOptions) { // soon, but a busy machine must connect within both
		o.rtc.ICEKeepalive, o.rtc.ICEDisconnected, o.rtc.ICEFailed = 100*time.Millisecond, 300*time.Millisecond, 2*time.Second
	})
	alice, bob := n.join(t, "alice", true), n.join(t, "bob", true)
	alice.participant("alice", "active", func(p *livekit.ParticipantInfo) bool { return p.State == livekit.ParticipantInfo_ACTIVE })
	_ = alice.pub.Close()
	if leave := alice.leaves(); leave.Action != livekit.LeaveRequest_RESUME {
		t.Errorf("told %v", leave)
	}
	gone := bob.participant("alice", "gone", func(p *livekit.ParticipantInfo) bool { return p.State == livekit.ParticipantInfo_DISCONNECTED })
	if gone.DisconnectReason != livekit.DisconnectReason_CONNECTION_TIMEOUT {
		t.Errorf("reason %v", gone.DisconnectReason)
	}
}

// A client that leaves closes its media first, and its leave comes after: it has left, and is not a ghost.
func TestLeaveAfterMedia(t *testing.T) {
	n := newNode(t)
	alice, bob := n.join(t, "alice", true), n.join(t, "bob", true)
	alice.participant("alice", "active", func(p *livekit.ParticipantInfo) bool { return p.State == livekit.ParticipantInfo_ACTIVE })
	_ = alice.pub.Close()
	alice.leaves() // by now the server has noticed
	alice.say(&livekit.SignalRequest{Message: &livekit.SignalRequest_Leave{Leave: &livekit.LeaveRequest{}}})
	gone := bob.participant("alice", "gone", func(p *livekit.ParticipantInfo) bool { return p.State == livekit.ParticipantInfo_DISCONNECTED })
	if gone.DisconnectReason != livekit.DisconnectReason_CLIENT_INITIATED {
		t.Errorf("reason %v", gone.DisconnectReason)
	}
}

// A client's leave is answered, and it is out of the room before its websocket closes.
func TestLeave(t *testing.T) {
	n := newNode(t)
	ws, _ := dial(t, n, "/rtc", url.Values{"access_token": {mint(t, grant("alice"))}})
	tell(t, ws, &livekit.SignalRequest{Message: &livekit.SignalRequest_Leave{Leave: &livekit.LeaveRequest{}}})
	var leave *livekit.LeaveRequest
	for m := next(t, ws); m != nil; m = next(t, ws) {
		if m.GetLeave() != nil {
			leave = m.GetLeave()
		}
	}
	if leave == nil || leave.Reason != livekit.DisconnectReason_CLIENT_INITIATED || leave.Action != livekit.LeaveRequest_DISCONNECT {
		t.Errorf("answered %v", leave)
	}
	if p := n.rooms.Participant("room", "alice"); p != nil {
		t.Errorf("still in the room: %v", p.Info())
	}
}

func TestDuplicateIdentity(t *testing.T) {
	n := newNode(t)
	bob := n.join(t, "bob", true)
	first := n.join(t, "alice", true)
	bob.participant("alice", "present", func(p *livekit.ParticipantInfo) bool { return p.Sid == first.sid })
	second := n.join(t, "alice", false)
	if leave := first.leaves(); leave.Reason != livekit.DisconnectReason_DUPLICATE_IDENTITY || leave.Action != livekit.LeaveRequest_DISCONNECT {
		t.Errorf("the first was told %v", leave)
	}
	bob.participant("alice", "replaced", func(p *livekit.ParticipantInfo) bool { return p.Sid == second.sid })
	if _, people, _ := n.rooms.Room("room"); len(people) != 2 {
		t.Errorf("%d people in the room, want 2", len(people))
	}
}

// A server that stops has its clients join again by themselves, and a full-access token makes their room anew.
func TestRestart(t *testing.T) {
	strict := func(o *nodeOptions) { o.rooms.AutoCreate = false }
	old := newNode(t, strict)
	old.rooms.Create("room", sfu.RoomOptions{}, time.Now())
	alice := old.join(t, "alice", true)
	old.stop()
	if leave := alice.leaves(); leave.Reason != livekit.DisconnectReason_SERVER_SHUTDOWN || leave.Action != livekit.LeaveRequest_RECONNECT {
		t.Errorf("told %v", leave)
	}

	fresh := newNode(t, strict)
	status, body, _ := get(t, fresh.URL+"/rtc/validate?access_token="+alice.token, nil)
	if status != 404 || !strings.Contains(body, "requested room does not exist") {
		t.Errorf("without the right to create: %d %q", status, body)
	}
	full := grant("alice")
	full.FullAccess = true
	again := fresh.joinAs(t, full, true)
	var raw string
	again.until("a token", func() bool { raw = again.token; return true }) // a new one may come at any moment
	kept, err := testKeys.Verify(raw, time.Now())
	if err != nil || !kept.FullAccess {
		t.Errorf("the refreshed token lost its right: %+v, %v", kept, err)
	}
}

// A server that stops does not send a client away whose first connection is being made: it would give the call up.
func TestRestartWhileJoining(t *testing.T) {
	modes(t, func(t *testing.T, single bool) {
		n := newNode(t)
		alice := n.join(t, "alice", single) // it has not even read the answer
		n.stop()
		if leave := alice.leaves(); leave.Reason != livekit.DisconnectReason_SERVER_SHUTDOWN || leave.Action != livekit.LeaveRequest_RECONNECT {
			t.Errorf("told %v", leave)
		}
		alice.mu.Lock()
		defer alice.mu.Unlock()
		for _, m := range alice.told {
			for _, p := range m.GetUpdate().GetParticipants() {
				if p.Identity == "alice" && p.State == livekit.ParticipantInfo_ACTIVE {
					return
				}
			}
			if m.GetLeave() != nil {
				t.Fatalf("sent away before its media was up: %v", summary(alice.told))
			}
		}
	})
}

// A client that does not get its first connection up is not waited for long.
func TestRestartWithoutMedia(t *testing.T) {
	n := newNode(t)
	ws, first := dial(t, n, "/rtc", url.Values{"access_token": {mint(t, grant("alice"))}})
	if first.GetJoin() == nil {
		t.Fatalf("first message %v", first)
	}
	began, stopped := time.Now(), make(chan struct{})
	go func() { n.stop(); close(stopped) }()
	defer func() { <-stopped }()
	for m := next(t, ws); m.GetLeave() == nil; m = next(t, ws) {
		if m == nil {
			t.Fatal("the websocket ended without a leave")
		}
	}
	if took := time.Since(began); took < arriveWithin {
		t.Errorf("sent away after %v", took)
	}
}

// What a client says of itself is in its next token, or a full reconnect would undo it.
func TestTokenFollowsMetadata(t *testing.T) {
	n := newNode(t)
	g := grant("alice")
	g.CanUpdateOwnMetadata, g.Metadata = true, "old"
	alice := n.joinAs(t, g, true)
	alice.say(&livekit.SignalRequest{Message: &livekit.SignalRequest_UpdateMetadata{UpdateMetadata: &livekit.UpdateParticipantMetadata{
		Metadata: "new", Attributes: map[string]string{"hand": "up"}, RequestId: 3,
	}}})
	ok := heard(alice, "request_response", func(m *livekit.SignalResponse) (*livekit.RequestResponse, bool) {
		return m.GetRequestResponse(), m.GetRequestResponse() != nil
	})
	if ok.RequestId != 3 || ok.Reason != livekit.RequestResponse_OK {
		t.Errorf("answered %v", ok)
	}
	alice.until("a token that says so", func() bool {
		g, err := testKeys.Verify(alice.token, time.Now())
		return err == nil && g.Metadata == "new" && g.Attributes["hand"] == "up" && g.CanUpdateOwnMetadata
	})
	alice.participant("alice", "changed", func(p *livekit.ParticipantInfo) bool { return p.Metadata == "new" && p.Attributes["hand"] == "up" })
}

// Refreshed tokens say all that the first one said, and who lost the place gets none, nor comes back with an old one.
func TestRefreshedTokens(t *testing.T) {
	revocations := &token.Revocations{}
	n := newNode(t, func(o *nodeOptions) { o.revocations = revocations })
	g := grant("alice")
	g.RoomAdmin, g.CanPublishSources = true, []string{"microphone"}
	g.Origin = token.Origin{
		User: "@alice:example.org", Conversation: "!room:example.org", Device: "D", Member: "m",
		Verified: time.UnixMilli(time.Now().UnixMilli()), Assumed: true,
	}
	alice := n.joinAs(t, g, true)
	var fresh string
	alice.until("a token", func() bool { fresh = alice.token; return fresh != "" })
	got, err := testKeys.Verify(fresh, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got.Expires.Before(time.Now().Add(refreshEvery + 4*time.Minute)) {
		t.Errorf("it lives until %s: not long enough until the next one", got.Expires)
	}
	got.Validity = token.Validity{}
	if d := cmp.Diff(g, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("refreshed token (-first +refreshed):\n%s", d)
	}

	c := &client{edge: n.edge, grant: g, pipe: newPipe(), log: slog.New(slog.DiscardHandler)}
	c.grant.Key = testKey
	c.sendToken()
	if len(c.pipe.down) != 1 {
		t.Fatal("no token is sent")
	}
	revocations.Revoke("@alice:example.org", "!room:example.org", time.Now())
	c.sendToken()
	if len(c.pipe.down) != 1 || !c.refresh.After(time.Now()) {
		t.Error("a token is sent to who lost the place")
	}
	alice.drop()
	if first := alice.resume(); first.GetLeave() == nil {
		t.Errorf("resumed with a revoked token: %v", first)
	}
}

// A client that speaks JSON is answered in JSON.
func TestText(t *testing.T) {
	n := newNode(t)
	ws, _ := dial(t, n, "/rtc", url.Values{"access_token": {mint(t, grant("alice"))}})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := ws.Write(ctx, websocket.MessageText, []byte(`{"pingReq":{"timestamp":"42"},"later":true}`)); err != nil {
		t.Fatal(err)
	}
	for {
		kind, raw, err := ws.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "pongResp") {
			if kind != websocket.MessageText || !strings.Contains(strings.ReplaceAll(string(raw), " ", ""), `"lastPingTimestamp":"42"`) {
				t.Errorf("got %v %s", kind, raw)
			}
			return
		}
	}
}
