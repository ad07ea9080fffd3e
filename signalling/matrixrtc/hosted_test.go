package matrixrtc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"callserver/signalling/federation"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
	"callserver/signalling/token"
)

// A host is the homeserver example.org as a client with a token of its own sees it, and as the proxy to others (MSC4512).
type host struct {
	mu      sync.Mutex
	down    bool
	members map[string]string // user -> membership in !abc:example.org
	delays  map[string]string // delay id -> room
	proxy   func(destination, path string, body map[string]any) (int, string)
	tokens  []string // that it was shown
}

func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	answer := func(status int, text string) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	h.tokens = append(h.tokens, token)
	users := map[string]string{"A": "@alice:example.org", "G": "@guest:example.org", "E": "@eve:example.org"}
	who := users[token]
	room := "/_matrix/client/v3/rooms/!abc:example.org/state/"
	switch {
	case h.down:
		answer(503, "<html>")
	case strings.HasSuffix(r.URL.Path, "/fed_proxy") && h.proxy != nil:
		var body struct {
			Destination, Method, Path string
			Body                      map[string]any
		}
		_ = json.NewDecoder(r.Body).Decode(&body)
		status, text := h.proxy(body.Destination, body.Path, body.Body)
		answer(200, fmt.Sprintf(`{"status":%d,"content":%s}`, status, text))
	case token == "walled":
		answer(403, "<html>")
	case who == "" || token == "":
		answer(401, `{"errcode":"M_UNKNOWN_TOKEN","error":"no"}`)
	case strings.HasSuffix(r.URL.Path, "/account/whoami"):
		answer(200, fmt.Sprintf(`{"user_id":%q,"device_id":"D","is_guest":%v}`, who, token == "G"))
	case strings.Contains(r.URL.Path, "/delayed_events/"):
		id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		if h.delays[id] == "" {
			answer(404, `{"errcode":"M_NOT_FOUND"}`)
			return
		}
		answer(200, fmt.Sprintf(`{"room_id":%q,"type":%q,"state_key":"_@alice:example.org_DEVICE_m.call","content":{},"delay_ms":3600000}`, h.delays[id], member.TypeState))
	case r.URL.Path == room+"m.room.member/"+who && h.members[who] != "":
		answer(200, fmt.Sprintf(`{"membership":%q}`, h.members[who]))
	case strings.HasPrefix(r.URL.Path, room) && h.members[who] == "join":
		answer(404, `{"errcode":"M_NOT_FOUND"}`)
	default:
		answer(403, `{"errcode":"M_FORBIDDEN"}`)
	}
}

func (h *host) set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

// hosting is a world in front of that homeserver. Registrations may be none.
func hosting(t *testing.T, change func(*Options), registrations ...*homeserver.Registration) (*world, *host) {
	t.Helper()
	h := &host{members: map[string]string{"@alice:example.org": "join", "@guest:example.org": "join", "@eve:example.org": "leave"}}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := homeserver.New(homeserver.Options{ServerName: "example.org", ClientAPI: s.URL, Registrations: registrations})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return newWorld(t, func(o *Options) {
		o.Homeservers[0].Connection, o.Homeservers[0].Unverified = c, false
		o.Now = time.Now // the clock of the connection
		if change != nil {
			change(o)
		}
	}), h
}

// proxying is a registration by which the homeserver hands requests on.
func proxying() *homeserver.Registration {
	r := homeserver.NarrowRegistration("example.org", "http://127.0.0.1:7880")
	r.ProxyPrefix, r.ProxyURL = "rtc/livekit", "http://127.0.0.1:7880"
	return r
}

const (
	hostedToken    = "/_matrix/client/v1/rtc/livekit/get_token"
	hostedDelegate = "/_matrix/client/v1/rtc/livekit/delegate_delayed_leave"
	federatedToken = "/_matrix/federation/v1/rtc/livekit/get_token"
	hostedBody     = `{"url":"wss://rtc.example.org/livekit/sfu","room_id":"!abc:example.org","slot_id":"m.call#ROOM","member_id":"xyz"}`
)

func with(body, name string, value any) string {
	return edit(body, func(b map[string]any) { b[name] = value })
}

// jwt checks that the answer is a token and nothing else, and returns what it says.
func jwt(t *testing.T, rec *httptest.ResponseRecorder) token.Grant {
	t.Helper()
	expect(t, rec, http.StatusOK, "")
	var body map[string]string
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil || len(body) != 1 {
		t.Fatalf("the answer is %s, want only a jwt (%v)", rec.Body, err)
	}
	g, err := testKeys.Verify(body["jwt"], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestTokenByOwnAccessToken(t *testing.T) {
	w, h := hosting(t, nil)
	identity := member.Hash("@alice:example.org", "xyz")
	room := member.Hash("!abc:example.org", "m.call#ROOM")
	old := edit(hostedBody, func(b map[string]any) {
		delete(b, "member_id")
		b["member"] = map[string]any{"id": "xyz", "claimed_device_id": "D"}
	})
	for name, c := range map[string]struct{ path, body string }{
		"stable":               {hostedToken, hostedBody},
		"unstable":             {"/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token", hostedBody},
		"slashes":              {"//_matrix//client/v1/rtc/livekit/get_token/", hostedBody},
		"own server named":     {hostedToken, with(hostedBody, "server_name", "example.org")},
		"older text":           {hostedToken, old},
		"new field":            {hostedToken, with(hostedBody, "new", 1.5)},
		"url with a slash":     {hostedToken, with(hostedBody, "url", "WSS://RTC.example.org/livekit/sfu/")},
		"url by its http name": {hostedToken, with(hostedBody, "url", "https://rtc.example.org/livekit/sfu")},
	} {
		t.Run(name, func(t *testing.T) {
			g := jwt(t, w.do(t, "POST", c.path, c.body, "Authorization", "Bearer A"))
			if g.Identity != identity || g.Room != room || !g.CanPublish {
				t.Errorf("token for %q in %q, publish %v, want %q in %q", g.Identity, g.Room, g.CanPublish, identity, room)
			}
			if g.Origin.User != "@alice:example.org" || g.Origin.Assumed || g.Origin.Verified.IsZero() {
				t.Errorf("origin %+v", g.Origin)
			}
		})
	}
	t.Run("guest", func(t *testing.T) {
		if g := jwt(t, w.do(t, "POST", hostedToken, hostedBody, "Authorization", "Bearer G")); g.Origin.User != "@guest:example.org" {
			t.Errorf("origin %+v", g.Origin)
		}
	})
	h.set(func() { h.members["@alice:example.org"] = "ban" })
	w.members.Forget()
	expect(t, w.do(t, "POST", hostedToken, hostedBody, "Authorization", "Bearer A"), 403, "M_FORBIDDEN")
}

func TestRefusalsToOwnAccessToken(t *testing.T) {
	for _, c := range []struct {
		name, auth, body string
		status           int
		code             string
	}{
		{"no token", "", hostedBody, 401, "M_MISSING_TOKEN"},
		{"empty token", "Bearer ", hostedBody, 401, "M_MISSING_TOKEN"},
		{"other scheme", "Basic A", hostedBody, 401, "M_MISSING_TOKEN"},
		{"unknown token", "Bearer stolen", hostedBody, 401, "M_UNKNOWN_TOKEN"},
		{"refused before the homeserver", "Bearer walled", hostedBody, 403, "M_FORBIDDEN"},
		{"not in the room", "Bearer E", hostedBody, 403, "M_FORBIDDEN"},
		{"room of others", "Bearer A", with(hostedBody, "room_id", "!other:example.org"), 403, "M_FORBIDDEN"},
		{"another media server", "Bearer A", with(hostedBody, "url", "wss://rtc.example.com/livekit/sfu"), 400, "M_INVALID_PARAM"},
		{"url that is none", "Bearer A", with(hostedBody, "url", "rtc.example.org"), 400, "M_INVALID_PARAM"},
		{"no url", "Bearer A", with(hostedBody, "url", nil), 400, "M_BAD_JSON"},
		{"no room", "Bearer A", with(hostedBody, "room_id", nil), 400, "M_BAD_JSON"},
		{"no slot", "Bearer A", with(hostedBody, "slot_id", ""), 400, "M_BAD_JSON"},
		{"no member", "Bearer A", with(hostedBody, "member_id", nil), 400, "M_BAD_JSON"},
		{"server_name that is none", "Bearer A", with(hostedBody, "server_name", "exa mple/../"), 400, "M_INVALID_PARAM"},
		{"long server_name", "Bearer A", with(hostedBody, "server_name", strings.Repeat("a", maxField+1)), 400, "M_BAD_JSON"},
		{"not JSON", "Bearer A", "url=x", 400, "M_NOT_JSON"},
		{"10 MB", "Bearer A", with(hostedBody, "x", strings.Repeat("x", 10<<20)), 413, "M_TOO_LARGE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, _ := hosting(t, nil)
			expect(t, w.do(t, "POST", hostedToken, c.body, "Authorization", c.auth), c.status, c.code)
		})
	}
	t.Run("homeserver down", func(t *testing.T) {
		w, h := hosting(t, nil)
		h.down = true
		expect(t, w.do(t, "POST", hostedToken, hostedBody, "Authorization", "Bearer A"), 502, "M_UNKNOWN")
	})
	t.Run("methods", func(t *testing.T) {
		w, _ := hosting(t, nil)
		expect(t, w.do(t, "GET", hostedToken, "", "Authorization", "Bearer A"), 405, "M_UNRECOGNIZED")
		rec := w.do(t, "OPTIONS", hostedToken, "")
		if rec.Code != 200 || !strings.Contains(rec.Header().Get("Access-Control-Allow-Headers"), "Authorization") {
			t.Errorf("preflight: %d %v", rec.Code, rec.Header())
		}
	})
}

func TestAccessTokenGoesToTheHomeserverOnly(t *testing.T) {
	var log bytes.Buffer
	others := &vouching{}
	w, h := hosting(t, func(o *Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.Remote = RemoteSubscribe
	})
	name := w.another(t, others)
	for _, body := range []string{hostedBody, with(hostedBody, "server_name", name), with(hostedBody, "room_id", "!o:example.org")} {
		for _, token := range []string{"A", "S3CRET"} {
			rec := w.do(t, "POST", hostedToken, body, "Authorization", "Bearer "+token, "Host", name)
			if strings.Contains(rec.Body.String(), "S3CRET") {
				t.Errorf("the answer has the token: %s", rec.Body)
			}
		}
	}
	h.set(func() { h.down = true })
	w.do(t, "POST", hostedToken, hostedBody, "Authorization", "Bearer S3CRET")
	if strings.Contains(log.String(), "S3CRET") {
		t.Errorf("the log has the token:\n%s", &log)
	}
	if !slices.Contains(h.tokens, "S3CRET") || others.requests() != 0 {
		t.Errorf("the homeserver was shown %q, others asked %d times", h.tokens, others.requests())
	}
}

// Of several homeservers, the one is asked whose name or API the client named.
func TestAddressedHomeserver(t *testing.T) {
	w, h := hosting(t, func(o *Options) { o.Homeservers = append(o.Homeservers, Homeserver{ServerName: "example.net"}) })
	ask := func(host string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", hostedToken, strings.NewReader(hostedBody))
		r.Host = host
		r.Header.Set("Authorization", "Bearer A")
		rec := httptest.NewRecorder()
		w.Handler().ServeHTTP(rec, r)
		return rec
	}
	jwt(t, ask("matrix.example.org"))
	jwt(t, ask("example.org:8448"))
	before := len(h.tokens)
	expect(t, ask("elsewhere.example.com"), 404, "M_UNRECOGNIZED")
	expect(t, ask("example.net"), 404, "M_UNRECOGNIZED") // no connection
	if len(h.tokens) != before {
		t.Error("a token for nobody went to a homeserver")
	}
}

func TestHomeserverHandsOn(t *testing.T) {
	r := proxying()
	whole := wide()
	w, h := hosting(t, nil, r, whole)
	ask := func(token string, headers ...string) *httptest.ResponseRecorder {
		return w.do(t, "POST", hostedToken, hostedBody, append([]string{"Authorization", "Bearer " + token}, headers...)...)
	}
	const user = "X-Matrix-User-Identifier"
	for name, c := range map[string]struct {
		rec  *httptest.ResponseRecorder
		want int
		code string
	}{
		"nobody named":                            {ask(r.ServerToken), 403, "M_FORBIDDEN"},
		"user of another":                         {ask(r.ServerToken, user, "@alice:example.com"), 403, "M_FORBIDDEN"},
		"no user id":                              {ask(r.ServerToken, user, "alice:example.org"), 403, "M_FORBIDDEN"},
		"wrong hs_token":                          {ask(r.ServerToken[1:]+"0", user, "@alice:example.org"), 401, "M_UNKNOWN_TOKEN"},
		"as_token":                                {ask(r.AppToken, user, "@alice:example.org"), 401, "M_UNKNOWN_TOKEN"},
		"header with the token of somebody else":  {ask("E", user, "@alice:example.org"), 403, "M_FORBIDDEN"},
		"federation header to the client's side":  {ask("stolen", "X-Matrix-Origin", "example.org"), 401, "M_UNKNOWN_TOKEN"},
		"hs_token of one that hands nothing over": {ask(whole.ServerToken, user, "@alice:example.org"), 401, "M_UNKNOWN_TOKEN"},
	} {
		t.Run(name, func(t *testing.T) { expect(t, c.rec, c.want, c.code) })
	}
	if slices.Contains(h.tokens, r.ServerToken) {
		t.Error("the hs_token was shown to the homeserver as an access token")
	}
}

func TestHandedOnUserInTheRoom(t *testing.T) {
	r := proxying()
	m := &matrix{members: map[string]string{"@alice:example.org": "join"}}
	_, connect := withMatrix(t, m, r, wide())
	w := newWorld(t, func(o *Options) { connect(o); o.Requests.Address = 2 })
	ask := func(user string) *httptest.ResponseRecorder {
		return w.do(t, "POST", hostedToken, hostedBody, "Authorization", "Bearer "+r.ServerToken, "X-Matrix-User-Identifier", user)
	}
	if g := jwt(t, ask("@alice:example.org")); g.Identity != member.Hash("@alice:example.org", "xyz") || !g.CanPublish {
		t.Errorf("granted %+v", g)
	}
	expect(t, ask("@bob:example.org"), 403, "M_FORBIDDEN")
	for range 5 { // everybody comes from the homeserver's address
		jwt(t, ask("@alice:example.org"))
	}
	expect(t, w.do(t, "POST", hostedToken, hostedBody), 401, "M_MISSING_TOKEN") // whatever else comes from there is limited
	expect(t, w.do(t, "POST", hostedToken, hostedBody), 401, "M_MISSING_TOKEN")
	expect(t, w.do(t, "POST", hostedToken, hostedBody), 429, "M_LIMIT_EXCEEDED")
}

// The name of the homeserver in an OpenID token is anybody's word. What redirects and changing names lead to is tested in
// package federation.
func TestMatrixServerNameInside(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Remote = RemoteSubscribe })
	hs := &vouching{users: map[string]string{}}
	name := w.another(t, hs)
	w.direct(t, federation.Options{}) // the public internet only
	port := name[strings.LastIndexByte(name, ':'):]
	for _, server := range []string{
		name, "127.1.2.3" + port, "localhost" + port, "[::1]" + port, "[::ffff:127.0.0.1]" + port, "[::ffff:7f00:1]" + port, "0.0.0.0" + port,
		"10.0.0.1:22", "192.168.1.1:22", "172.16.0.1:22", "169.254.169.254:80", "[fe80::1]" + port, "[fd00::1]" + port,
	} {
		hs.users["T"] = "@alice:" + server
		for path, body := range map[string]string{
			"/sfu/get": bodyFor(server, "T"),
			"/get_token": edit(getTokenBody("T", "@alice:"+server), func(b map[string]any) {
				b["openid_token"].(map[string]any)["matrix_server_name"] = server
			}),
		} {
			t.Run(server+path, func(t *testing.T) { expect(t, w.do(t, "POST", path, body), 401, "M_UNAUTHORIZED") })
		}
	}
	if hs.requests() != 0 {
		t.Error("a server inside was asked")
	}
}

func TestHostedDelegation(t *testing.T) {
	_, k := delegating(t)
	r := proxying()
	w, h := hosting(t, func(o *Options) { o.Leaves = k }, r)
	h.delays = map[string]string{"syd_1": "!abc:example.org", "syd_2": "!other:example.org"}
	expect(t, w.do(t, "POST", hostedDelegate, ""), 400, "M_NOT_JSON") // the probe: anything but 404
	ask := func(body string) *httptest.ResponseRecorder {
		return w.do(t, "POST", hostedDelegate, body, "Authorization", "Bearer A")
	}
	body := with(hostedBody, "delay_id", "syd_1")
	expect(t, ask(body), 200, "")
	if s := k.Stats(); s.Delegated != 1 || s.Held != 1 {
		t.Errorf("after a delegation: %+v", s)
	}
	expect(t, ask(with(body, "delay_timeout", 3600000)), 200, "")
	for name, c := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"unknown delay id":        {with(body, "delay_id", "syd_3"), 400, "M_INVALID_PARAM"},
		"of another room":         {with(body, "delay_id", "syd_2"), 400, "M_INVALID_PARAM"},
		"wrong url":               {with(body, "url", "wss://rtc.example.com/livekit/sfu"), 400, "M_INVALID_PARAM"},
		"another server's":        {with(body, "server_name", "example.com"), 400, "M_INVALID_PARAM"},
		"no delay id":             {hostedBody, 400, "M_BAD_JSON"},
		"delay id that is a path": {with(body, "delay_id", "../syd_1"), 400, "M_INVALID_PARAM"},
		"delay id is a number":    {with(body, "delay_id", 5), 400, "M_BAD_JSON"},
	} {
		t.Run(name, func(t *testing.T) { expect(t, ask(c.body), c.status, c.code) })
	}
	t.Run("not in the room", func(t *testing.T) {
		expect(t, w.do(t, "POST", hostedDelegate, body, "Authorization", "Bearer E"), 403, "M_FORBIDDEN")
	})
	t.Run("nobody's", func(t *testing.T) { expect(t, w.do(t, "POST", hostedDelegate, body), 401, "M_MISSING_TOKEN") })
}

func TestHostedProbeWithoutDelegation(t *testing.T) {
	w, _ := hosting(t, nil)
	for _, path := range []string{hostedDelegate, "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave"} {
		expect(t, w.do(t, "POST", path, ""), 404, "M_UNRECOGNIZED")
	}
}
