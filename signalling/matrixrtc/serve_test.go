package matrixrtc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"callserver/signalling/federation"
	"callserver/signalling/matrixrtc/member"
)

func TestBothEndpointsLeadToOneRoom(t *testing.T) {
	w := newWorld(t, nil)
	room := member.Hash("!abc:example.org", "m.call#ROOM")
	cases := []struct{ path, body, identity string }{
		{"/sfu/get", sfuGetBody("T"), "@alice:example.org:DEVICE"},
		{"/get_token", getTokenBody("T", "@alice:example.org"), member.Hash("@alice:example.org", "DEVICE", "m1")},
	}
	for _, c := range cases {
		t.Run(c.path, func(t *testing.T) {
			g, url := w.granted(t, w.do(t, "POST", c.path, c.body))
			if url != "wss://rtc.example.org/livekit/sfu" {
				t.Errorf("media server is %q, want the configured one without slash at the end", url)
			}
			if g.Identity != c.identity || g.Room != room {
				t.Errorf("token is for %q in %q, want %q in %q", g.Identity, g.Room, c.identity, room)
			}
			if !g.RoomJoin || !g.CanPublish || !g.CanSubscribe || !g.CanPublishData || g.RoomCreate || !g.CanCreateRoom() {
				t.Errorf("token of a member with full access grants %+v", g)
			}
			if !g.NotBefore.Equal(w.now) || g.Expires.Sub(w.now) != 10*time.Minute {
				t.Errorf("token is valid from %s to %s, want ten minutes from %s", g.NotBefore, g.Expires, w.now)
			}
		})
	}
	if want := []string{room, room}; !slices.Equal(w.rooms.names(), want) {
		t.Errorf("rooms created: %q, want %q", w.rooms.names(), want)
	}
}

// Clients decode the token themselves.
func TestClaimsOnTheWire(t *testing.T) {
	w := newWorld(t, nil)
	rec := w.do(t, "POST", "/sfu/get", sfuGetBody("T"))
	var body struct{ JWT string }
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(body.JWT, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"iss": "devkey", "sub": "@alice:example.org:DEVICE",
		"nbf": float64(w.now.Unix()), "exp": float64(w.now.Add(10 * time.Minute).Unix()),
		"video": map[string]any{
			"room": member.Hash("!abc:example.org", "m.call#ROOM"), "roomJoin": true, "roomCreate": false,
			"canPublish": true, "canSubscribe": true, "canPublishData": true, "canUpdateOwnMetadata": false, "hidden": false,
		},
		"callserver": map[string]any{
			"room": true, "user": "@alice:example.org", "conversation": "!abc:example.org", "device": "DEVICE", "verified": float64(w.now.UnixMilli()),
			"assumed": true, // this world has nobody to ask
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("claims (-want +got):\n%s", d)
	}
}

// TestRefusals is the table of the reference service's conditions, and ours beside it.
func TestRefusals(t *testing.T) {
	get := func(change func(map[string]any)) string { return edit(sfuGetBody("T"), change) }
	slot := func(change func(map[string]any)) string { return edit(getTokenBody("T", "@alice:example.org"), change) }
	without := func(name string) func(map[string]any) { return func(b map[string]any) { delete(b, name) } }
	in := func(object, name string, value any) func(map[string]any) {
		return func(b map[string]any) { b[object].(map[string]any)[name] = value }
	}
	set := func(name string, value any) func(map[string]any) { return func(b map[string]any) { b[name] = value } }
	cases := []struct {
		name, path, body string
		status           int
		code             string
	}{
		{"empty body", "/sfu/get", "", 400, "M_NOT_JSON"},
		{"not JSON", "/sfu/get", "room=!abc", 400, "M_NOT_JSON"},
		{"cut short", "/get_token", `{"room_id":"!abc`, 400, "M_NOT_JSON"},
		{"more than JSON", "/sfu/get", sfuGetBody("T") + "x", 400, "M_NOT_JSON"},
		{"unknown field", "/sfu/get", get(set("new_field", map[string]any{"a": 1})), 200, ""},
		{"unknown field in member", "/get_token", slot(in("member", "new", true)), 200, ""},
		{"odd expires_in", "/sfu/get", get(in("openid_token", "expires_in", "soon")), 200, ""},
		{"array", "/sfu/get", "[]", 400, "M_BAD_JSON"},
		{"null", "/sfu/get", "null", 400, "M_BAD_JSON"},
		{"room is a number", "/sfu/get", get(set("room", 5)), 400, "M_BAD_JSON"},
		{"member is a string", "/get_token", slot(set("member", "m1")), 400, "M_BAD_JSON"},
		{"no room", "/sfu/get", get(without("room")), 400, "M_BAD_JSON"},
		{"empty room", "/sfu/get", get(set("room", "")), 400, "M_BAD_JSON"},
		{"no device", "/sfu/get", get(without("device_id")), 400, "M_BAD_JSON"},
		{"no openid token", "/sfu/get", get(without("openid_token")), 400, "M_BAD_JSON"},
		{"no access token", "/sfu/get", get(in("openid_token", "access_token", "")), 400, "M_BAD_JSON"},
		{"no server name", "/sfu/get", get(in("openid_token", "matrix_server_name", "")), 400, "M_BAD_JSON"},
		{"no room_id", "/get_token", slot(without("room_id")), 400, "M_BAD_JSON"},
		{"no slot_id", "/get_token", slot(without("slot_id")), 400, "M_BAD_JSON"},
		{"no member", "/get_token", slot(without("member")), 400, "M_BAD_JSON"},
		{"no member id", "/get_token", slot(in("member", "id", "")), 400, "M_BAD_JSON"},
		{"no claimed user", "/get_token", slot(in("member", "claimed_user_id", "")), 400, "M_BAD_JSON"},
		{"no claimed device", "/get_token", slot(in("member", "claimed_device_id", "")), 400, "M_BAD_JSON"},
		{"no openid token in get_token", "/get_token", slot(without("openid_token")), 400, "M_BAD_JSON"},
		{"long room", "/sfu/get", get(set("room", strings.Repeat("r", maxField+1))), 400, "M_BAD_JSON"},
		{"device that reads as a port", "/sfu/get", get(set("device_id", "8448:DEVICE")), 400, "M_BAD_JSON"},
		{"device with a colon", "/sfu/get", get(set("device_id", "a:b")), 200, ""},
		{"delay id alone", "/sfu/get", get(set("delay_id", "syd_1")), 400, "M_BAD_JSON"},
		{"delay timeout alone", "/sfu/get", get(set("delay_timeout", 3600000)), 400, "M_BAD_JSON"},
		{"delegation", "/get_token", slot(func(b map[string]any) {
			b["delay_id"], b["delay_timeout"], b["delay_cs_api_url"] = "syd_1", 3600000, "https://matrix.example.org"
		}), 400, "M_BAD_JSON"},
		{"delay fields of null", "/sfu/get", get(set("delay_id", nil)), 200, ""},
		{"token unknown to the homeserver", "/sfu/get", sfuGetBody("stolen"), 401, "M_UNAUTHORIZED"},
		{"another user claimed", "/get_token", getTokenBody("T", "@bob:example.org"), 401, "M_UNAUTHORIZED"},
		{"user of another homeserver", "/sfu/get", get(in("openid_token", "matrix_server_name", "example.com")), 403, "M_FORBIDDEN"},
		{"homeserver in another case", "/sfu/get", get(in("openid_token", "matrix_server_name", "EXAMPLE.org")), 403, "M_FORBIDDEN"},
		{"one byte too many", "/sfu/get", sfuGetBody("T") + strings.Repeat(" ", maxBody), 413, "M_TOO_LARGE"},
		{"as long as allowed", "/sfu/get", sfuGetBody("T") + strings.Repeat(" ", maxBody-len(sfuGetBody("T"))), 200, ""},
		{"two slashes", "//sfu//get", sfuGetBody("T"), 200, ""},
		{"below the prefix", "/livekit/jwt/sfu/get", sfuGetBody("T"), 200, ""},
		{"below the prefix with two slashes", "/livekit/jwt//get_token", getTokenBody("T", "@alice:example.org"), 200, ""},
		{"slash at the end", "/sfu/get/", sfuGetBody("T"), 200, ""},
		{"unknown path", "/sfu/got", sfuGetBody("T"), 404, "M_UNRECOGNIZED"},
		{"probe of the service", "/livekit/jwt/delegate_delayed_leave", "", 404, "M_UNRECOGNIZED"},
		{"probe of the service at the root", "/delegate_delayed_leave", "", 404, "M_UNRECOGNIZED"},
		{"probe of the homeserver", "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave", "", 404, "M_UNRECOGNIZED"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			expect(t, w.do(t, "POST", c.path, c.body), c.status, c.code)
			if created := len(w.rooms.names()); (created == 1) != (c.status == 200) {
				t.Errorf("answer %d created %d rooms", c.status, created)
			}
		})
	}
}

func TestHostileSubjects(t *testing.T) {
	for name := range tokens {
		if name == "T" || name == "é/+" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			expect(t, w.do(t, "POST", "/sfu/get", sfuGetBody(name)), 401, "M_UNAUTHORIZED")
			if s := w.Stats(); s.Unauthorized != 1 || s.Federation.LookupFailures != 1 {
				t.Errorf("counted %+v", s)
			}
		})
	}
}

func TestUnusualUser(t *testing.T) {
	w := newWorld(t, nil)
	g, _ := w.granted(t, w.do(t, "POST", "/sfu/get", sfuGetBody("é/+")))
	if want := "@é:example.org:DEVICE"; g.Identity != want {
		t.Errorf("identity is %q, want %q", g.Identity, want)
	}
}

func TestRemoteUsersSubscribeOnly(t *testing.T) {
	remote := &vouching{users: map[string]string{}}
	m := &matrix{query: true, members: map[string]string{}}
	_, connect := withMatrix(t, m, narrow())
	w := newWorld(t, func(o *Options) { connect(o); o.Remote = RemoteSubscribe })
	w.now = time.Now()
	name := w.another(t, remote)
	remote.users["R"] = "@rob:" + name
	m.set(func() { m.members["@rob:"+name] = "join" })
	ask := func() *httptest.ResponseRecorder { return w.do(t, "POST", "/sfu/get", bodyFor(name, "R")) }
	expect(t, ask(), 403, "M_FORBIDDEN") // nobody of ours is in the call
	w.calls.hold("@rob:" + name)
	expect(t, ask(), 403, "M_FORBIDDEN") // still nobody of ours
	w.calls.hold("@alice:example.org")
	g, _ := w.granted(t, ask())
	if g.CanPublish || g.CanPublishData || g.CanCreateRoom() || !g.CanSubscribe || !g.RoomJoin {
		t.Errorf("token of a remote user grants %+v", g)
	}
	if len(w.rooms.names()) > 0 {
		t.Errorf("a remote user had %q created", w.rooms.names())
	}
	if s := w.Stats(); s.Restricted != 1 || s.Tokens != 0 {
		t.Errorf("counted %+v", s)
	}
}

func TestRoomFailure(t *testing.T) {
	w := newWorld(t, nil)
	w.rooms.fail = errors.New("too many rooms: 3 of 3")
	rec := w.do(t, "POST", "/sfu/get", sfuGetBody("T"), "X-Request-Id", "R123")
	expect(t, rec, 500, "M_UNKNOWN")
	if body := rec.Body.String(); strings.Contains(body, "3 of 3") || !strings.Contains(body, "R123") {
		t.Errorf("the client should learn the request id and not the operator's error: %s", body)
	}
	if s := w.Stats(); s.RoomFailures != 1 || s.Failures != 1 || s.Tokens != 0 {
		t.Errorf("counted %+v", s)
	}
}

func TestShuttingDown(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, w.do(t, "POST", "/get_token", getTokenBody("T", "@alice:example.org")), 503, "M_UNKNOWN")
}

func TestMethods(t *testing.T) {
	w := newWorld(t, nil)
	for _, path := range []string{"/sfu/get", "/get_token"} {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH"} {
			rec := w.do(t, method, path, sfuGetBody("T"))
			expect(t, rec, 405, "M_UNRECOGNIZED")
			if rec.Header().Get("Allow") != "POST, OPTIONS" {
				t.Errorf("%s %s: Allow is %q", method, path, rec.Header().Get("Allow"))
			}
		}
	}
	for _, path := range []string{"/sfu/get", "/get_token", "/delegate_delayed_leave", pathTransports, pathWellKnown, "/nothing"} {
		rec := w.do(t, "OPTIONS", path, "")
		if rec.Code != http.StatusOK || rec.Body.Len() > 0 || rec.Header().Get("Access-Control-Allow-Methods") == "" {
			t.Errorf("preflight for %s: %d %q %v", path, rec.Code, rec.Body, rec.Header())
		}
	}
}

// Nobody's token may end up in a cache key, an error or a log line; what a refused token costs is one lookup.
func TestRefusedTokenIsAskedOnce(t *testing.T) {
	w := newWorld(t, nil)
	for range 3 {
		expect(t, w.do(t, "POST", "/sfu/get", sfuGetBody("stolen")), 401, "M_UNAUTHORIZED")
	}
	if got := w.hs.requests(); got != 1 {
		t.Errorf("homeserver was asked %d times, want once", got)
	}
	w.granted(t, w.do(t, "POST", "/sfu/get", sfuGetBody("T")))
	w.now = w.now.Add(30 * time.Second)
	expect(t, w.do(t, "POST", "/sfu/get", sfuGetBody("stolen")), 401, "M_UNAUTHORIZED")
	if got := w.hs.requests(); got != 3 {
		t.Errorf("homeserver was asked %d times, want 3", got)
	}
	if s := w.Stats(); s.Federation.LookupsSpared != 2 {
		t.Errorf("counted %+v", s)
	}
}

func TestLogsHideTokens(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t, func(o *Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.Homeservers = append(o.Homeservers, Homeserver{ServerName: "down.example.org"})
	})
	w.servers(t, federation.Server{Name: "down.example.org", Base: "http://127.0.0.1:1"})
	w.do(t, "POST", "/sfu/get", sfuGetBody("T"))
	w.do(t, "POST", "/sfu/get", sfuGetBody("S3CRET"))
	w.do(t, "POST", "/sfu/get", sfuGetBody("S3CRET"))
	w.do(t, "POST", "/sfu/get", bodyFor("down.example.org", "S3CRET"))
	w.rooms.fail = errors.New("no more rooms")
	w.do(t, "POST", "/sfu/get", sfuGetBody("T"))
	w.do(t, "POST", "/sfu/get", bodyFor("example.com", "S3CRET"))
	if got := strings.Count(log.String(), "level=INFO"); got != 6 { // a record of each request
		t.Errorf("%d lines for the operator, want 6:\n%s", got, &log)
	}
	for _, want := range []string{"not verified", "answers 401", "connection refused", "no more rooms", "unlisted"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, &log)
		}
	}
	for _, secret := range []string{"S3CRET", "eyJ", "access_token"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log contains %q:\n%s", secret, &log)
		}
	}
}

// edit changes a JSON object.
func edit(body string, change func(map[string]any)) string {
	var object map[string]any
	if err := json.Unmarshal([]byte(body), &object); err != nil {
		panic(err)
	}
	change(object)
	text, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return string(text)
}
