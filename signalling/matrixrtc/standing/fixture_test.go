package standing

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/internal/testnet/fakeserver"
	"callserver/signalling/homeserver"
	"callserver/signalling/token"
)

const (
	sender = "@_callserver:example.org"
	alice  = "@alice:example.org"
	bob    = "@bob:example.org"
	rob    = "@rob:example.com"
	room   = "!abc:example.org"
)

// A matrix is a homeserver with one room, as its clients and application services see it. Who looks is in the query.
type matrix struct {
	mu      sync.Mutex
	query   bool              // it knows MSC4502
	mute    bool              // it does not know pings, and pushes nothing
	down    bool              // 503
	members map[string]string // user -> membership
	state   map[string]string // type -> content, state key empty
	creator string
	asked   []string      // who asked about members: a user, or MSC4502
	events  []string      // of the room, as /sync has them; since is their number
	news    chan struct{} // closed and made anew when there is an event
	polls   []string      // who polls
}

func newMatrix(members map[string]string) *matrix {
	return &matrix{members: members, state: map[string]string{}, creator: alice, news: make(chan struct{})}
}

func (m *matrix) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who := r.URL.Query().Get("user_id")
	if strings.HasSuffix(r.URL.Path, "/v3/sync") {
		m.sync(w, r, who)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	status, answer := m.answer(r, who)
	if m.down {
		status, answer = 503, code("M_UNKNOWN")
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(answer))
}

func code(errcode string) string { return fmt.Sprintf(`{"errcode":%q}`, errcode) }

func (m *matrix) answer(r *http.Request, who string) (int, string) {
	at, inRoom := strings.CutPrefix(r.URL.Path, "/_matrix/client/v3/rooms/"+room+"/")
	kind, key, _ := strings.Cut(strings.TrimPrefix(at, "state/"), "/")
	switch {
	case strings.HasSuffix(r.URL.Path, "/is_joined"):
		m.asked = append(m.asked, "MSC4502")
		if !m.query {
			return 404, code("M_UNRECOGNIZED")
		}
		return 200, fmt.Sprintf(`{"joined":%v}`, m.members[r.URL.Query().Get("mxid")] == "join")
	case strings.HasSuffix(r.URL.Path, "/joined_rooms") && m.members[who] == "join":
		return 200, `{"joined_rooms":["` + room + `"]}`
	case strings.HasSuffix(r.URL.Path, "/joined_rooms"):
		return 200, `{"joined_rooms":[]}`
	case strings.HasSuffix(r.URL.Path, "/ping") && m.mute:
		return 404, code("M_UNRECOGNIZED")
	case strings.HasSuffix(r.URL.Path, "/ping"):
		return 200, `{"duration_ms":1}`
	case strings.HasSuffix(r.URL.Path, "/versions"):
		return 200, `{}`
	case inRoom && at == "joined_members" && m.members[who] == "join":
		m.asked = append(m.asked, who+" lists")
		joined := map[string]struct{}{}
		for user, membership := range m.members {
			if membership == "join" {
				joined[user] = struct{}{}
			}
		}
		text, _ := json.Marshal(map[string]any{"joined": joined})
		return 200, string(text)
	case !inRoom || !strings.HasPrefix(at, "state/"):
		return 403, code("M_FORBIDDEN")
	case kind == "m.room.member":
		m.asked = append(m.asked, who)
		if m.members[who] != "join" && m.members[who] != "was here" { // who was here sees how it was
			return 403, code("M_FORBIDDEN")
		}
		if m.members[key] == "" {
			return 404, code("M_NOT_FOUND")
		}
		return 200, fmt.Sprintf(`{"membership":%q}`, m.members[key])
	case m.members[who] != "join":
		return 403, code("M_FORBIDDEN")
	case m.state[kind] == "":
		return 404, code("M_NOT_FOUND")
	}
	return 200, fmt.Sprintf(`{"type":%q,"state_key":"","sender":%q,"event_id":"$s","content":%s}`, kind, m.creator, m.state[kind])
}

// sync holds the request until there is news of the room.
func (m *matrix) sync(w http.ResponseWriter, r *http.Request, who string) {
	var since int
	_, err := fmt.Sscanf(r.URL.Query().Get("since"), "s%d", &since)
	first := err != nil
	for {
		m.mu.Lock()
		events, news, down, in := m.events[min(since, len(m.events)):], m.news, m.down, m.members[who]
		next := len(m.events)
		if first {
			m.polls = append(m.polls, who)
		}
		m.mu.Unlock()
		switch {
		case down:
			w.WriteHeader(503)
			return
		case first:
			_, _ = fmt.Fprintf(w, `{"next_batch":"s%d"}`, next)
			return
		case len(events) > 0:
			section := "join"
			if in != "join" {
				section = "leave"
			}
			_, _ = fmt.Fprintf(w, `{"next_batch":"s%d","rooms":{%q:{%q:{"timeline":{"events":[%s]}}}}}`, next, section, room, strings.Join(events, ","))
			return
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
	}
}

// tell appends an event to the room's timeline; m is locked.
func (m *matrix) tell(kind, key, content string) {
	m.events = append(m.events, fmt.Sprintf(`{"type":%q,"state_key":%q,"sender":"@admin:example.org","event_id":"$%d","content":%s}`, kind, key, len(m.events), content))
	close(m.news)
	m.news = make(chan struct{})
}

// become changes a membership, and tells of it.
func (m *matrix) become(user, membership string) {
	m.set(func() {
		m.members[user] = membership
		m.tell("m.room.member", user, fmt.Sprintf(`{"membership":%q}`, membership))
	})
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

// connect makes a connection to the homeserver by the registrations that are given.
func connect(t *testing.T, m *matrix, registrations ...*homeserver.Registration) *homeserver.Homeserver {
	t.Helper()
	h, _ := fakeserver.Connect(t, m, registrations...)
	return h
}

func narrow() *homeserver.Registration {
	return homeserver.NarrowRegistration("example.org", "http://127.0.0.1:7880")
}
func wide() *homeserver.Registration { return homeserver.WideRegistration("example.org") }

// calls are the running ones.
type calls struct {
	mu      sync.Mutex
	origins []token.Origin
	evicted []string
}

func (c *calls) hold(user string, verified time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.origins = append(c.origins, token.Origin{User: user, Conversation: room, Verified: verified})
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

func (c *calls) out() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.evicted)
}

// watched is Members that follow a room with alice and bob in a call.
type watched struct {
	*Members
	calls  *calls
	matrix *matrix
	hs     *homeserver.Homeserver
	events int
}

// watch starts them. The sender is in the room unless members say otherwise.
func watch(t *testing.T, m *matrix, every intervals, registrations ...*homeserver.Registration) *watched {
	t.Helper()
	w := &watched{matrix: m, hs: connect(t, m, registrations...), calls: &calls{}}
	w.Members = New(Options{Connections: []*homeserver.Homeserver{w.hs}, Sessions: w.calls, Revocations: &token.Revocations{}})
	w.every = every
	w.calls.hold(alice, time.Now())
	w.calls.hold(bob, time.Now())
	ctx, stop := context.WithCancel(t.Context())
	done, started := make(chan error), make(chan struct{})
	go func() { close(started); done <- w.Run(ctx) }()
	<-started
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// quick are intervals for tests of the rounds; slow are such that no round comes.
var (
	quick = intervals{tick: 5 * time.Millisecond, patience: 100 * time.Millisecond, assurance: 200 * time.Millisecond, retry: 20 * time.Millisecond}
	slow  = intervals{tick: time.Hour, patience: time.Hour, assurance: time.Hour, retry: time.Hour}
)

// eventually waits for a condition that others bring about.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.After(20 * time.Second); !is(); {
		select {
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// outOf waits until exactly these were taken out.
func (w *watched) outOf(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("taken out: %q", want), func() bool { return slices.Equal(w.calls.out(), want) })
}

// revoked reports whether a token that was verified at a moment is worthless.
func (w *watched) revoked(user string, verified time.Time) bool {
	return w.options.Revocations.Revoked(Place{id.UserID(user), room}.origin(verified))
}
