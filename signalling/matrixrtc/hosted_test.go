package matrixrtc

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
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

	"callserver/internal/canonical"
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

// other is another homeserver: it signs, publishes its key, and answers requests for tokens.
type other struct {
	key    *federation.SigningKey
	secret ed25519.PrivateKey
	name   string
	answer func(path string) (int, string)

	mu   sync.Mutex
	keys int
	got  []string
}

func newOther(t *testing.T, w *world) *other {
	t.Helper()
	seed := bytes.Repeat([]byte{7}, ed25519.SeedSize)
	o := &other{secret: ed25519.NewKeyFromSeed(seed), key: signingKey(t, "a_1", seed)}
	o.name = w.another(t, o)
	return o
}

func signingKey(t *testing.T, name string, seed []byte) *federation.SigningKey {
	t.Helper()
	key, err := federation.ParseSigningKey([]byte("ed25519 " + name + " " + base64.RawStdEncoding.EncodeToString(seed)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (o *other) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.URL.Path == "/_matrix/key/v2/server" {
		o.keys++
		object := map[string]any{
			"server_name": o.name, "valid_until_ts": time.Now().Add(time.Hour).UnixMilli(),
			"verify_keys": map[string]any{o.key.ID(): map[string]any{"key": base64.RawStdEncoding.EncodeToString(o.secret.Public().(ed25519.PublicKey))}},
		}
		signature := base64.RawStdEncoding.EncodeToString(ed25519.Sign(o.secret, canonical.Append(nil, object)))
		object["signatures"] = map[string]any{o.name: map[string]any{o.key.ID(): signature}}
		_, _ = w.Write(canonical.Append(nil, object))
		return
	}
	body, _ := io.ReadAll(r.Body)
	o.got = append(o.got, r.URL.Path+" "+r.Header.Get("Authorization")+" "+string(body))
	status, text := o.answer(r.URL.Path)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// sign makes the header of a request with the body.
func (o *other) sign(t *testing.T, origin, destination, path, body string) string {
	t.Helper()
	content, err := canonical.Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return o.key.Sign(origin, federation.Message{Method: "POST", URI: path, Destination: destination, Content: content.(map[string]any)}).String()
}

// inRoom is a world whose homeserver says that rob of another one is in the room, with alice in the call.
func inRoom(t *testing.T, registrations ...*homeserver.Registration) (*world, *other, string) {
	t.Helper()
	m := &matrix{query: true}
	_, connect := withMatrix(t, m, append(registrations, wide())...)
	w := newWorld(t, func(o *Options) { connect(o); o.Remote = RemoteSubscribe })
	o := newOther(t, w)
	rob := "@rob:" + o.name
	m.members = map[string]string{rob: "join", "@alice:example.org": "join"}
	w.calls.hold("@alice:example.org")
	return w, o, with(hostedBody, "user_id", rob)
}

func TestSignedRequest(t *testing.T) {
	w, o, body := inRoom(t)
	for _, path := range []string{federatedToken, "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token"} {
		g := jwt(t, w.do(t, "POST", path, body, "Authorization", o.sign(t, o.name, "example.org", path, body)))
		if g.Identity != member.Hash("@rob:"+o.name, "xyz") || g.CanPublish || g.CanCreateRoom() || !g.CanSubscribe {
			t.Errorf("granted %+v", g)
		}
	}
	if o.keys != 1 {
		t.Errorf("asked %d times for the key", o.keys)
	}
	outsider := with(hostedBody, "user_id", "@out:"+o.name)
	expect(t, w.do(t, "POST", federatedToken, outsider, "Authorization", o.sign(t, o.name, "example.org", federatedToken, outsider)), 403, "M_FORBIDDEN")
	wrong := with(body, "url", "wss://rtc.example.com/livekit/sfu")
	expect(t, w.do(t, "POST", federatedToken, wrong, "Authorization", o.sign(t, o.name, "example.org", federatedToken, wrong)), 400, "M_INVALID_PARAM")
	expect(t, w.do(t, "POST", federatedToken, hostedBody, "Authorization", o.sign(t, o.name, "example.org", federatedToken, hostedBody)), 400, "M_BAD_JSON")
	w.calls.Evict("@alice:example.org", "!abc:example.org")
	expect(t, w.do(t, "POST", federatedToken, body, "Authorization", o.sign(t, o.name, "example.org", federatedToken, body)), 403, "M_FORBIDDEN") // nobody of ours
}

func TestForgedMatrixHeaders(t *testing.T) {
	w, o, body := inRoom(t)
	good := o.sign(t, o.name, "example.org", federatedToken, body)
	stranger := &other{name: o.name, key: signingKey(t, "a_1", bytes.Repeat([]byte{8}, 32))}
	cases := []struct {
		name, auth, body string
		status           int
		code             string
	}{
		{"no header", "", body, 401, "M_UNAUTHORIZED"},
		{"no signature", good[:strings.Index(good, ",sig")], body, 401, "M_UNAUTHORIZED"},
		{"empty signature", good[:strings.Index(good, ",sig")] + `,sig=""`, body, 401, "M_UNAUTHORIZED"},
		{"wrong key", stranger.sign(t, o.name, "example.org", federatedToken, body), body, 401, "M_UNAUTHORIZED"},
		{"unknown key", strings.Replace(good, "a_1", "a_2", 1), body, 401, "M_UNAUTHORIZED"},
		{"wrong destination", o.sign(t, o.name, "example.com", federatedToken, body), body, 401, "M_UNAUTHORIZED"},
		{"destination changed", strings.Replace(o.sign(t, o.name, "example.com", federatedToken, body), `"example.com"`, `"example.org"`, 1), body, 401, "M_UNAUTHORIZED"},
		{"replayed with another body", good, with(body, "member_id", "other"), 401, "M_UNAUTHORIZED"},
		{"of another path", o.sign(t, o.name, "example.org", "/_matrix/federation/v1/other", body), body, 401, "M_UNAUTHORIZED"},
		{"origin is not the user's", good, with(body, "user_id", "@alice:example.org"), 403, "M_FORBIDDEN"},
		{"hostile server vouches for another's user", o.sign(t, o.name, "example.org", federatedToken, with(body, "user_id", "@victim:example.com")), with(body, "user_id", "@victim:example.com"), 403, "M_FORBIDDEN"},
		{"user id is none", o.sign(t, o.name, "example.org", federatedToken, with(body, "user_id", o.name)), with(body, "user_id", o.name), 403, "M_FORBIDDEN"},
		{"origin is our own server", strings.Replace(good, `origin="`+o.name, `origin="example.org`, 1), with(body, "user_id", "@alice:example.org"), 401, "M_UNAUTHORIZED"},
		{"access token in place of it", "Bearer A", body, 401, "M_UNAUTHORIZED"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			expect(t, w.do(t, "POST", federatedToken, c.body, "Authorization", c.auth), c.status, c.code)
		})
	}
	t.Run("X-Matrix-Origin without hs_token", func(t *testing.T) {
		expect(t, w.do(t, "POST", federatedToken, body, "X-Matrix-Origin", o.name), 401, "M_UNAUTHORIZED")
		expect(t, w.do(t, "POST", federatedToken, body, "Authorization", "Bearer x", "X-Matrix-Origin", o.name), 401, "M_UNAUTHORIZED")
	})
	t.Run("still good", func(t *testing.T) { jwt(t, w.do(t, "POST", federatedToken, body, "Authorization", good)) })
}

func TestFederatedByTheHomeserver(t *testing.T) {
	r := proxying()
	w, o, body := inRoom(t, r)
	ask := func(token, origin string) *httptest.ResponseRecorder {
		return w.do(t, "POST", federatedToken, body, "Authorization", "Bearer "+token, "X-Matrix-Origin", origin)
	}
	if g := jwt(t, ask(r.ServerToken, o.name)); g.CanPublish {
		t.Errorf("granted %+v", g)
	}
	expect(t, ask(r.ServerToken, "example.com"), 403, "M_FORBIDDEN")
	expect(t, ask(r.ServerToken, ""), 403, "M_FORBIDDEN")
	expect(t, ask(r.AppToken, o.name), 401, "M_UNAUTHORIZED")
	if o.keys != 0 {
		t.Error("keys were asked for though the homeserver had verified the request")
	}
}

// Users of servers that get nothing here make us ask nobody for keys.
func TestSignedRequestOfUnlistedServer(t *testing.T) {
	w, o, body := inRoom(t)
	w.options.Remote = RemoteRefuse
	expect(t, w.do(t, "POST", federatedToken, body, "Authorization", o.sign(t, o.name, "example.org", federatedToken, body)), 403, "M_FORBIDDEN")
	if o.keys != 0 {
		t.Error("keys were asked for")
	}
}

// Keys are fetched by the name in a header that anybody can write.
func TestOriginInside(t *testing.T) {
	w, o, _ := inRoom(t)
	w.direct(t, federation.Options{}) // the public internet only
	for _, origin := range []string{o.name, "[::ffff:127.0.0.1]:" + o.name[strings.LastIndexByte(o.name, ':')+1:], "localhost:1", "10.0.0.1", "169.254.169.254", "[fe80::1]"} {
		body := with(hostedBody, "user_id", "@rob:"+origin)
		expect(t, w.do(t, "POST", federatedToken, body, "Authorization", o.sign(t, origin, "example.org", federatedToken, body)), 401, "M_UNAUTHORIZED")
	}
	if o.keys != 0 {
		t.Error("a server inside was asked")
	}
}

func TestTokenOfAnotherServer(t *testing.T) {
	answers := []struct {
		name   string
		answer func(string) (int, string)
		status int
		code   string
	}{
		{"token", func(string) (int, string) { return 200, `{"jwt":"theirs"}` }, 200, ""},
		{"only the stable path", func(path string) (int, string) {
			if strings.Contains(path, "unstable") {
				return 404, `{"errcode":"M_UNRECOGNIZED"}`
			}
			return 200, `{"jwt":"theirs"}`
		}, 200, ""},
		{"forbidden", func(string) (int, string) { return 403, `{"errcode":"M_FORBIDDEN","error":"no"}` }, 403, "M_FORBIDDEN"},
		{"bad url", func(string) (int, string) { return 400, `{"errcode":"M_INVALID_PARAM","error":"no"}` }, 400, "M_INVALID_PARAM"},
		{"no such thing", func(string) (int, string) { return 404, `{"errcode":"M_UNRECOGNIZED"}` }, 502, "M_UNKNOWN"},
		{"not authorised", func(string) (int, string) { return 401, `{"errcode":"M_UNAUTHORIZED"}` }, 502, "M_UNKNOWN"},
		{"broken", func(string) (int, string) { return 500, `{}` }, 502, "M_UNKNOWN"},
		{"no jwt", func(string) (int, string) { return 200, `{}` }, 502, "M_UNKNOWN"},
	}
	check := func(t *testing.T, rec *httptest.ResponseRecorder, status int, code string) {
		t.Helper()
		expect(t, rec, status, code)
		if status == 200 && rec.Body.String() != `{"jwt":"theirs"}` {
			t.Errorf("the answer is %s", rec.Body)
		}
	}
	for _, a := range answers {
		t.Run("signed: "+a.name, func(t *testing.T) {
			w, _ := hosting(t, func(o *Options) { o.Homeservers[0].SigningKey = signingKey(t, "own", bytes.Repeat([]byte{9}, 32)) })
			o := newOther(t, w)
			o.answer = a.answer
			ask := with(with(hostedBody, "server_name", o.name), "url", "wss://theirs.example/sfu")
			check(t, w.do(t, "POST", hostedToken, ask, "Authorization", "Bearer A"), a.status, a.code)
			want := `{"member_id":"xyz","room_id":"!abc:example.org","slot_id":"m.call#ROOM","url":"wss://theirs.example/sfu","user_id":"@alice:example.org"}`
			if len(o.got) == 0 || !strings.Contains(o.got[0], `X-Matrix origin="example.org",destination="`+o.name+`",key="ed25519:own",sig=`) || !strings.HasSuffix(o.got[0], want) {
				t.Errorf("the other server got %q, want %s", o.got, want)
			}
		})
		t.Run("by the homeserver: "+a.name, func(t *testing.T) {
			w, h := hosting(t, nil, proxying())
			h.proxy = func(destination, path string, body map[string]any) (int, string) {
				if destination != "theirs.example" || body["user_id"] != "@alice:example.org" || body["url"] != "wss://theirs.example/sfu" {
					return 599, "{}"
				}
				return a.answer(path)
			}
			ask := with(with(hostedBody, "server_name", "theirs.example"), "url", "wss://theirs.example/sfu")
			check(t, w.do(t, "POST", hostedToken, ask, "Authorization", "Bearer A"), a.status, a.code)
		})
	}
}

func TestTokenOfAnotherServerWithoutMeans(t *testing.T) {
	var log bytes.Buffer
	w, _ := hosting(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	o := newOther(t, w)
	expect(t, w.do(t, "POST", hostedToken, with(hostedBody, "server_name", o.name), "Authorization", "Bearer A"), 502, "M_UNKNOWN")
	if !strings.Contains(log.String(), "homeservers[].signing_key_file") {
		t.Errorf("the log does not name the setting:\n%s", &log)
	}
	// Who is not in the room gets nothing sent in its name.
	expect(t, w.do(t, "POST", hostedToken, with(hostedBody, "server_name", o.name), "Authorization", "Bearer E"), 403, "M_FORBIDDEN")
	if len(o.got) != 0 {
		t.Errorf("the other server got %q", o.got)
	}
}

func TestServerNameInside(t *testing.T) {
	w, _ := hosting(t, func(o *Options) { o.Homeservers[0].SigningKey = signingKey(t, "own", bytes.Repeat([]byte{9}, 32)) })
	o := newOther(t, w)
	o.answer = func(string) (int, string) { return 200, `{"jwt":"inside"}` }
	w.direct(t, federation.Options{}) // the public internet only
	port := o.name[strings.LastIndexByte(o.name, ':'):]
	for _, name := range []string{
		o.name, "127.1.2.3" + port, "localhost" + port, "[::1]" + port, "[::ffff:127.0.0.1]" + port, "[::ffff:7f00:1]" + port, "0.0.0.0" + port,
		"10.0.0.1:22", "192.168.1.1:22", "172.16.0.1", "169.254.169.254:80", "[fe80::1]" + port, "[fd00::1]" + port, "100.64.0.1",
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, w.do(t, "POST", hostedToken, with(hostedBody, "server_name", name), "Authorization", "Bearer A"), 502, "M_UNKNOWN")
		})
	}
	if len(o.got) != 0 {
		t.Errorf("a server inside got %q", o.got)
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
