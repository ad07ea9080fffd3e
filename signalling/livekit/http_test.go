package livekit

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/livekit"

	"callserver/sfu"
	"callserver/signalling/token"
)

func TestValidate(t *testing.T) {
	n := newNode(t, func(o *nodeOptions) { o.rooms.AutoCreate = false })
	n.rooms.Create("room", sfu.RoomOptions{}, time.Now())

	with := func(change func(*token.Grant)) string {
		g := grant("alice")
		change(&g)
		return mint(t, g)
	}
	good := mint(t, grant("alice"))
	join := "&join_request=" + url.QueryEscape(wrap(t, sampleJoin, livekit.WrappedJoinRequest_GZIP))
	named := "&join_request=" + url.QueryEscape(wrap(t, &livekit.JoinRequest{Metadata: "m"}, livekit.WrappedJoinRequest_NONE))
	expired, err := testKeys.Mint(testKey, grant("alice"), time.Minute, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name, path, token string
		status            int
		body              string
	}{
		{"v0", "/rtc/validate?", good, 200, "success"},
		{"v1", "/rtc/v1/validate?" + join, good, 200, "success"},
		{"doubled slash", "//rtc/v1/validate?" + join, good, 200, "success"},
		{"v1 without join request", "/rtc/v1/validate?", good, 400, "join_request is required"},
		{"v1 with nonsense", "/rtc/v1/validate?join_request=x", good, 400, "cannot base64 decode wrapped join request"},
		{"no token", "/rtc/validate?", "", 401, "permissions denied"},
		{"not a token", "/rtc/validate?", "nonsense", 401, "invalid token: token is malformed"},
		{"expired", "/rtc/validate?", expired, 401, "invalid token: token has expired"},
		{"may not join", "/rtc/validate?", with(func(g *token.Grant) { g.RoomJoin = false }), 401, "permissions denied"},
		{"nobody", "/rtc/validate?", with(func(g *token.Grant) { g.Identity = "" }), 400, "identity cannot be empty"},
		{"long name", "/rtc/validate?", with(func(g *token.Grant) { g.Identity = strings.Repeat("x", 257) }), 400, "identity exceeds"},
		{"no room", "/rtc/validate?", with(func(g *token.Grant) { g.Room = "" }), 400, "no room name"},
		{"no such room", "/rtc/v1/validate?" + join, with(func(g *token.Grant) { g.Room = "other" }), 404, "requested room does not exist"},
		{"may create it", "/rtc/v1/validate?" + join, with(func(g *token.Grant) { g.Room, g.RoomCreate = "other", true }), 200, "success"},
		{"full access creates it", "/rtc/validate?", with(func(g *token.Grant) { g.Room, g.FullAccess = "other", true }), 200, "success"},
		{"metadata without permission", "/rtc/v1/validate?" + named, good, 401, "permissions denied"},
		{"metadata with permission", "/rtc/v1/validate?" + named, with(func(g *token.Grant) { g.CanUpdateOwnMetadata = true }), 200, "success"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			target := n.URL + tt.path + "&access_token=" + url.QueryEscape(tt.token)
			status, body, header := get(t, target, nil)
			if status != tt.status || !strings.Contains(body, tt.body) {
				t.Errorf("got %d %q, want %d %q", status, body, tt.status, tt.body)
			}
			if got := header.Get("Access-Control-Allow-Origin"); got != "*" {
				t.Errorf("Access-Control-Allow-Origin = %q, want *", got)
			}
			if !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
				t.Errorf("Content-Type = %q, want text/plain", header.Get("Content-Type"))
			}
		})
	}
	if list := n.rooms.List(); len(list) != 1 {
		t.Errorf("validating made rooms: %v", list)
	}
}

func TestPlainRequests(t *testing.T) {
	n := newNode(t)
	token := mint(t, grant("alice"))
	tests := []struct {
		name, method, path string
		header             map[string]string
		status             int
		body               string
	}{
		{"root", "GET", "/", nil, 200, "OK"},
		{"head of root", "HEAD", "/", nil, 200, ""},
		{"v0 without upgrade", "GET", "/rtc?access_token=" + token, nil, 404, ""},
		{"v1 without upgrade", "GET", "/rtc/v1?access_token=" + token, nil, 426, "this is a websocket"},
		{"header wins over query", "GET", "/rtc/validate?access_token=" + token, map[string]string{"Authorization": "Bearer x"}, 401, "malformed"},
		{"header", "GET", "/rtc/validate?access_token=x", map[string]string{"Authorization": "Bearer " + token}, 200, "success"},
		{"other scheme", "GET", "/rtc/validate?access_token=" + token, map[string]string{"Authorization": "Basic x"}, 401, "denied"},
		{"unknown path", "GET", "/nothing", nil, 404, "404"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, body, header := do(t, tt.method, n.URL+tt.path, nil, tt.header)
			if status != tt.status || !strings.Contains(body, tt.body) || tt.body == "" && body != "" {
				t.Errorf("got %d %q, want %d %q", status, body, tt.status, tt.body)
			}
			if header.Get("Access-Control-Allow-Origin") != "*" {
				t.Error("no CORS header")
			}
		})
	}
}

func TestPreflight(t *testing.T) {
	n := newNode(t)
	status, _, header := do(t, "OPTIONS", n.URL+"/twirp/livekit.RoomService/ListRooms", nil, map[string]string{
		"Origin": "https://app.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type",
	})
	if status != 204 {
		t.Errorf("status %d, want 204", status)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":  "*",
		"Access-Control-Allow-Methods": "OPTIONS, HEAD, GET, POST, PATCH, DELETE",
		"Access-Control-Allow-Headers": "authorization,content-type",
		"Access-Control-Max-Age":       "86400",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

// A failed join is an HTTP status, never a websocket that closes.
func TestUpgradeRefused(t *testing.T) {
	n := newNode(t, func(o *nodeOptions) { o.rooms.AutoCreate = false })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, resp, err := websocket.Dial(ctx, n.ws("/rtc?access_token="+mint(t, grant("alice"))), nil)
	if err == nil {
		t.Fatal("joined a room that does not exist")
	}
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 404 || !strings.Contains(string(body), "requested room does not exist") {
		t.Errorf("got %d %q", resp.StatusCode, body)
	}
}

func get(t testing.TB, target string, header map[string]string) (int, string, http.Header) {
	t.Helper()
	return do(t, "GET", target, nil, header)
}

func do(t testing.TB, method, target string, body io.Reader, header map[string]string) (int, string, http.Header) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Header
}
