package matrixrtc

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"callserver/internal/testnet/fakeserver"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/standing"
)

// A matrix is a homeserver with one room, as its clients and application services see it. Who looks is in the query.
type matrix struct {
	mu      sync.Mutex
	query   bool              // it knows MSC4502
	down    bool              // 503
	members map[string]string // user -> membership in !abc:example.org
	acl     string            // content of m.room.server_acl
	levels  string            // content of m.room.power_levels
	asked   []string          // who looked: a user, or MSC4502
	during  func()            // what happens while somebody looks; nil = nothing
}

func (m *matrix) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fail := func(status int, code string) {
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"errcode":%q}`, code)
	}
	who := r.URL.Query().Get("user_id")
	inRoom := strings.HasPrefix(r.URL.EscapedPath(), "/_matrix/client/v3/rooms/%21abc:example.org/")
	_, target, state := strings.Cut(r.URL.Path, "/state/m.room.member/")
	switch {
	case m.down:
		fail(503, "M_UNKNOWN")
	case strings.HasSuffix(r.URL.Path, "/is_joined"):
		m.asked = append(m.asked, "MSC4502")
		if !m.query {
			fail(404, "M_UNRECOGNIZED")
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]bool{"joined": m.members[r.URL.Query().Get("mxid")] == "join"})
	case !state && m.acl != "" && strings.Contains(r.URL.Path, "/state/m.room.server_acl"):
		_, _ = fmt.Fprintf(w, `{"type":"m.room.server_acl","state_key":"","sender":"@a:b","event_id":"$e","content":%s}`, m.acl)
	case !state && m.levels != "" && m.members[who] == "join" && strings.Contains(r.URL.Path, "/state/m.room.power_levels"):
		_, _ = fmt.Fprintf(w, `{"type":"m.room.power_levels","state_key":"","sender":"@a:b","event_id":"$l","content":%s}`, m.levels)
	case !state && strings.Contains(r.URL.Path, "/state/") && m.members[who] == "join":
		fail(404, "M_NOT_FOUND")
	case !state:
		fail(404, "M_UNRECOGNIZED")
	default:
		m.asked = append(m.asked, who)
		if m.during != nil {
			m.during()
		}
		switch {
		case !inRoom || m.members[who] != "join":
			fail(403, "M_FORBIDDEN")
		case m.members[target] == "":
			fail(404, "M_NOT_FOUND")
		default:
			_ = json.NewEncoder(w).Encode(map[string]string{"membership": m.members[target]})
		}
	}
}

func (m *matrix) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *matrix) looked() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.asked)
}

// withMatrix connects the authoriser's homeserver by the registrations that are given.
func withMatrix(t *testing.T, m *matrix, registrations ...*homeserver.Registration) (*homeserver.Homeserver, func(*Options)) {
	t.Helper()
	h, _ := fakeserver.Connect(t, m, registrations...)
	return h, func(o *Options) {
		o.Homeservers[0].Connection, o.Homeservers[0].Unverified = h, false
		o.Now = time.Now // the clock of the connection
	}
}

func narrow() *homeserver.Registration {
	return homeserver.NarrowRegistration("example.org", "http://127.0.0.1:7880")
}
func wide() *homeserver.Registration { return homeserver.WideRegistration("example.org") }

func TestAdmission(t *testing.T) {
	const alice = "@alice:example.org"
	m := &matrix{members: map[string]string{alice: "join"}}
	_, connect := withMatrix(t, m, wide())
	w := newWorld(t, connect)
	ask := func() *httptest.ResponseRecorder { return w.do(t, "POST", "/sfu/get", sfuGetBody("T")) }
	var body struct{ JWT string }
	if err := json.Unmarshal(ask().Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	g, err := testKeys.Verify(body.JWT, time.Now())
	if err != nil || g.Origin.User != alice || g.Origin.Conversation != "!abc:example.org" || g.Origin.Verified.IsZero() {
		t.Errorf("origin of the token: %+v, %v", g.Origin, err)
	}
	// The requests of one join ask once; what is not known by then is asked with the homeserver down.
	m.set(func() { m.down = true })
	expect(t, ask(), 200, "")
	expect(t, w.do(t, "POST", "/get_token", getTokenBody("T", alice)), 200, "")
	if n := len(m.looked()); n != 3 { // MSC4502, once, and alice, for herself and for the rules of the room
		t.Errorf("three requests of one join looked %d times", n)
	}
	w.members.Forget()
	expect(t, ask(), 502, "M_UNKNOWN")
	m.set(func() { m.down = false; m.members[alice] = "leave" })
	expect(t, ask(), 403, "M_FORBIDDEN")
	m.set(func() { m.members[alice] = "join" })
	expect(t, ask(), 200, "")
	elsewhere := edit(sfuGetBody("T#2"), func(b map[string]any) { b["room"] = "!other:example.org" })
	expect(t, w.do(t, "POST", "/sfu/get", elsewhere), 403, "M_FORBIDDEN")
	for _, room := range []string{"..", ".", "!abc:example.org/../../x", "#abc:example.org"} {
		odd := edit(sfuGetBody("T#"+room), func(b map[string]any) { b["room"] = room })
		expect(t, w.do(t, "POST", "/sfu/get", odd), 403, "M_FORBIDDEN")
	}
	if s := w.Stats().Members; s.Outside != 6 || s.Unavailable != 1 || s.Unverifiable != 0 || s.Unverified != 0 {
		t.Errorf("counted %+v", s)
	}
}

// A membership that an event speaks against while it is asked for is asked for again: who is in then is let in, and nobody on an answer that was overtaken.
func TestOvertaken(t *testing.T) {
	m := &matrix{members: map[string]string{"@alice:example.org": "join"}}
	_, connect := withMatrix(t, m, wide())
	w := newWorld(t, connect)
	events := 1
	m.set(func() {
		m.during = func() {
			if events > 0 {
				events--
				w.members.Forget()
			}
		}
	})
	expect(t, w.do(t, "POST", "/sfu/get", sfuGetBody("T")), 200, "")
	w.members.Forget()
	m.set(func() { events = 10 }) // it goes on changing
	expect(t, w.do(t, "POST", "/sfu/get", sfuGetBody("T")), 403, "M_FORBIDDEN")
}

func TestUnverifiable(t *testing.T) {
	m := &matrix{members: map[string]string{"@alice:example.org": "join"}}
	_, connect := withMatrix(t, m, narrow()) // its sender is not in the room
	refusing := newWorld(t, connect)
	expect(t, refusing.do(t, "POST", "/sfu/get", sfuGetBody("T")), 403, "M_FORBIDDEN")
	allowing := newWorld(t, func(o *Options) { connect(o); o.Homeservers[0].Unverified = true })
	expect(t, allowing.do(t, "POST", "/sfu/get", sfuGetBody("T")), 200, "")
	m.set(func() { m.members["@_callserver:example.org"] = "join"; m.members["@alice:example.org"] = "ban" })
	expect(t, allowing.do(t, "POST", "/sfu/get", sfuGetBody("T")), 403, "M_FORBIDDEN") // who can be verified must be
	if r, a := refusing.Stats().Members, allowing.Stats().Members; r.Unverifiable != 1 || a.Unverified != 1 || a.Outside != 1 {
		t.Errorf("counted %+v and %+v", r, a)
	}
}

// A denied server is not even asked whether it vouches for the user.
func TestDeniedServer(t *testing.T) {
	for _, tc := range []struct {
		name    string
		servers standing.Servers
		want    int
	}{
		{"deny", standing.Servers{Deny: []string{"example.*"}}, 403},
		{"allow others", standing.Servers{Allow: []string{"*.org.uk"}}, 403},
		{"allow", standing.Servers{Allow: []string{"example.org"}}, 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, func(o *Options) { o.Servers = tc.servers })
			rec := w.do(t, "POST", "/sfu/get", sfuGetBody("T"))
			if rec.Code != tc.want {
				t.Fatalf("answer is %d, want %d: %s", rec.Code, tc.want, rec.Body)
			}
			if tc.want == 403 {
				expect(t, rec, 403, "M_FORBIDDEN")
				if w.hs.requests() > 0 {
					t.Error("the homeserver was asked")
				}
			}
		})
	}
}

func TestServerACLRefuses(t *testing.T) {
	m := &matrix{members: map[string]string{"@alice:example.org": "join"}, acl: `{"allow":["*"],"deny":["example.org"]}`}
	_, connect := withMatrix(t, m, wide())
	w := newWorld(t, connect)
	expect(t, w.do(t, "POST", "/sfu/get", sfuGetBody("T")), 403, "M_FORBIDDEN")
}
