package homeserver

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"
)

const (
	server = "example.org"
	alice  = id.UserID("@alice:example.org")
	room   = id.RoomID("!room:example.org")
)

// A remote is a homeserver that answers every request by a function and remembers what it was asked.
type remote struct {
	answer func(r *http.Request) (status int, body string)

	mu    sync.Mutex
	asked []string // METHOD escaped-path?query token body
}

func (m *remote) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	m.mu.Lock()
	m.asked = append(m.asked, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Authorization")+" "+string(body))
	m.mu.Unlock()
	status, text := m.answer(r)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

func (m *remote) requests() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.asked...)
}

// world is a Homeserver with both registrations before a remote.
type world struct {
	*Homeserver
	remote       *remote
	narrow, wide *Registration

	mu  sync.Mutex
	now time.Time
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// parsed passes a registration through its file, as serving does.
func parsed(t testing.TB, r *Registration) *Registration {
	t.Helper()
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParseRegistration(text)
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	return p
}

func newWorld(t testing.TB, answer func(r *http.Request) (int, string), change func(*Options)) *world {
	t.Helper()
	w := &world{
		remote: &remote{answer: answer}, now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC),
		narrow: parsed(t, NarrowRegistration(server, "http://127.0.0.1:7880")),
		wide:   parsed(t, WideRegistration(server)),
	}
	s := httptest.NewServer(w.remote)
	t.Cleanup(s.Close)
	o := Options{ServerName: server, ClientAPI: s.URL + "/", Registrations: []*Registration{w.narrow, w.wide}, Now: w.clock}
	if change != nil {
		change(&o)
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	w.Homeserver = h
	return w
}

func always(status int, body string) func(*http.Request) (int, string) {
	return func(*http.Request) (int, string) { return status, body }
}

func text(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
