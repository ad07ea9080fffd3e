package matrixrtc

import (
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"callserver/sfu"
	"callserver/signalling/federation"
	"callserver/signalling/token"
)

var testKeys = token.Keys{"devkey": "secret"}

// rooms records what was created.
type rooms struct {
	fail error

	mu      sync.Mutex
	created []string
	sizes   []int // participants they may have
}

func (r *rooms) CreateRoom(name string, o sfu.RoomOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.EmptyTimeout != 300*time.Second || o.DepartureTimeout != 20*time.Second {
		panic("room created with other time-outs")
	}
	if r.fail == nil {
		r.created = append(r.created, name)
		r.sizes = append(r.sizes, o.MaxParticipants)
	}
	return r.fail
}

func (r *rooms) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.created...)
}

// calls are the running ones.
type calls struct {
	mu      sync.Mutex
	origins []token.Origin
	evicted []string
	refuse  error // to whoever asks for a place
}

func (c *calls) Check(token.Grant) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refuse
}

// hold puts a user into the call of the requests of these tests.
func (c *calls) hold(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.origins = append(c.origins, token.Origin{User: user, Conversation: "!abc:example.org"})
}

func (c *calls) Origins(string) []token.Origin {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.origins)
}

func (c *calls) Evict(user, conversation string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.origins)
	c.origins = slices.DeleteFunc(c.origins, func(o token.Origin) bool { return o.User == user && o.Conversation == conversation })
	if n := before - len(c.origins); n > 0 {
		c.evicted = append(c.evicted, user)
		return n
	}
	return 0
}

// vouching answers about OpenID tokens: whoever holds the token T is its entry under T; an entry that is no user id
// is the whole answer.
type vouching struct {
	users map[string]string

	mu    sync.Mutex
	asked int
	hosts []string
}

func (h *vouching) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.asked++
	h.hosts = append(h.hosts, r.Host)
	h.mu.Unlock()
	first, _, _ := strings.Cut(r.URL.Query().Get("access_token"), "#") // T#2 is another token of the same user
	user, known := h.users[first]
	switch {
	case r.URL.Path != "/_matrix/federation/v1/openid/userinfo":
		http.NotFound(w, r)
	case !known:
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errcode":"M_UNKNOWN_TOKEN","error":"no"}`)
	case strings.HasPrefix(user, "@"):
		_ = json.NewEncoder(w).Encode(map[string]string{"sub": user})
	default:
		_, _ = io.WriteString(w, user)
	}
}

func (h *vouching) requests() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// world is an Authoriser with one homeserver, example.org, known by the override for development.
type world struct {
	*Authoriser
	rooms *rooms
	calls *calls
	hs    *vouching
	url   string // of hs
	now   time.Time
}

// alice's token is T; the others are what hostile homeservers answer.
var tokens = map[string]string{
	"T":           "@alice:example.org",
	"foreign":     "@alice:example.com",
	"subdomain":   "@alice:sub.example.org",
	"case":        "@alice:Example.org",
	"port":        "@alice:example.org:8448",
	"two domains": "@alice:example.com:example.org",
	"no domain":   "@alice",
	"no local":    "@:example.org",
	"control":     "@al\nice:example.org",
	"long":        "@" + strings.Repeat("a", 255) + ":example.org",
	"no sigil":    `{"sub":"alice:example.org"}`,
	"number":      `{"sub":5}`,
	"array":       `[]`,
	"no sub":      `{}`,
	"not JSON":    `<html>`,
	"huge":        `{"sub":"@alice:example.org","x":"` + strings.Repeat("x", 64<<10) + `"}`,
	"é/+":         "@é:example.org",
}

func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{rooms: &rooms{}, calls: &calls{}, hs: &vouching{users: tokens}, now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	server := httptest.NewServer(w.hs)
	t.Cleanup(server.Close)
	o := Options{
		Keys:        testKeys,
		Rooms:       w.rooms,
		Directory:   federation.New(federation.Options{}),
		Sessions:    w.calls,
		Homeservers: []Homeserver{{ServerName: "example.org", ClientAPI: "https://matrix.example.org/", Unverified: true}},
		SFUURL:      "wss://rtc.example.org/livekit/sfu/",
		ServiceURL:  "https://rtc.example.org/livekit/jwt/",
		Now:         func() time.Time { return w.now },
	}
	if change != nil {
		change(&o)
	}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	w.Authoriser, w.url = a, server.URL
	w.servers(t)
	return w
}

// servers sets where homeservers are, besides example.org.
func (w *world) servers(t *testing.T, more ...federation.Server) {
	w.direct(t, federation.Options{Servers: append(more, federation.Server{Name: "example.org", Base: w.url + "/"})})
}

func (w *world) direct(t *testing.T, o federation.Options) {
	w.options.Directory = federation.New(o)
	t.Cleanup(w.options.Directory.Close)
}

// another starts a homeserver that is not configured, somewhere inside where it may be, and returns its name.
func (w *world) another(t *testing.T, h http.Handler) string {
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	w.direct(t, federation.Options{
		Servers: []federation.Server{{Name: "example.org", Base: w.url}},
		RootCAs: roots, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	return server.Listener.Addr().String()
}

// do sends a request from a public address and checks what holds for every answer.
func (w *world) do(t *testing.T, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = "8.8.8.8:1234"
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r)
	if got := rec.Header().Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("%s %s: Access-Control-Allow-Origin is %q, want *", method, path, got)
	}
	return rec
}

// expect checks status and errcode; an empty code means that the answer is no error.
func expect(t *testing.T, rec *httptest.ResponseRecorder, status int, code string) {
	t.Helper()
	var body struct {
		Code string `json:"errcode"`
		Text string `json:"error"`
	}
	if rec.Body.Len() > 0 {
		if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
			t.Fatalf("answer %q is not JSON: %v", rec.Body, err)
		}
	}
	if rec.Code != status || body.Code != code {
		t.Fatalf("answer is %d %s, want %d %s; body: %s", rec.Code, body.Code, status, code, rec.Body)
	}
	if code != "" && body.Text == "" {
		t.Errorf("error %s has no text for the person", code)
	}
}

// granted checks that the answer is a token and returns what it says and where to take it.
func (w *world) granted(t *testing.T, rec *httptest.ResponseRecorder) (token.Grant, string) {
	t.Helper()
	expect(t, rec, http.StatusOK, "")
	var body struct{ URL, JWT string }
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	g, err := testKeys.Verify(body.JWT, w.now)
	if err != nil {
		t.Fatalf("token in the answer: %v", err)
	}
	return g, body.URL
}

func openID(token string) string {
	return `"openid_token":{"access_token":"` + token + `","token_type":"Bearer","matrix_server_name":"example.org","expires_in":3600}`
}

func bodyFor(server, token string) string {
	return edit(sfuGetBody(token), func(b map[string]any) {
		b["openid_token"].(map[string]any)["matrix_server_name"] = server
	})
}

func sfuGetBody(token string) string {
	return `{"room":"!abc:example.org","device_id":"DEVICE",` + openID(token) + `}`
}

func getTokenBody(token, user string) string {
	return `{"room_id":"!abc:example.org","slot_id":"m.call#ROOM",` + openID(token) +
		`,"member":{"id":"m1","claimed_user_id":"` + user + `","claimed_device_id":"DEVICE"}}`
}
