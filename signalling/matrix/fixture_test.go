package matrix

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"callserver/internal/testnet/fakeserver"
	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/standing"
	"callserver/signalling/token"
)

const (
	bot   = "@_callserver:example.org"
	alice = "@alice:example.org" // a moderator
	bob   = "@bob:example.org"
	rob   = "@rob:example.com"
	room  = "!room:example.org"
)

// A matrix is a homeserver as its application service sees it: one room, and the rooms for two that were made.
type matrix struct {
	mu        sync.Mutex
	members   map[string]map[string]string // room > user > membership
	data      map[string]string            // account data by user and name
	state     []string                     // further events of the state
	asked     []string                     // METHOD what
	sent      []sent
	encrypted bool
	broken    map[string]bool // rooms whose requests are answered 500
}

// What was sent to a room.
type sent struct {
	room, as, kind, transaction string
	content                     map[string]any
}

func (m *matrix) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	path, _ := strings.CutPrefix(r.URL.EscapedPath(), "/_matrix/client/v3/")
	parts := strings.Split(path, "/")
	for i := range parts {
		parts[i], _ = url.PathUnescape(parts[i])
	}
	status, answer := m.answer(r.Method, r.URL.Query().Get("user_id"), parts, string(body))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer)
}

const forbidden = `{"errcode":"M_FORBIDDEN"}`

func (m *matrix) answer(method, as string, parts []string, body string) (int, string) {
	if parts[0] != "rooms" {
		m.asked = append(m.asked, method+" "+strings.Join(parts, " "))
	}
	switch {
	case parts[0] == "createRoom":
		made := fmt.Sprintf("!direct%d:example.org", len(m.members))
		var c struct{ Invite []string }
		_ = json.Unmarshal([]byte(body), &c)
		m.members[made] = map[string]string{as: "join", c.Invite[0]: "invite"}
		return 200, fmt.Sprintf(`{"room_id":%q}`, made)
	case parts[0] == "user" && method == "PUT":
		m.data[parts[3]] = body
		return 200, `{}`
	case parts[0] == "user":
		if m.data[parts[3]] == "" {
			return 404, `{"errcode":"M_NOT_FOUND"}`
		}
		return 200, m.data[parts[3]]
	case parts[0] == "rooms" && m.broken[parts[1]]:
		return 500, `{"errcode":"M_UNKNOWN"}`
	case parts[0] == "rooms":
		m.asked = append(m.asked, strings.Join(append([]string{method, parts[1]}, parts[2:]...), " "))
		return m.inRoom(method, as, parts[1], parts[2:], body)
	}
	return 404, `{"errcode":"M_UNRECOGNIZED"}`
}

func (m *matrix) inRoom(method, as, room string, what []string, body string) (int, string) {
	members := m.members[room]
	switch {
	case what[0] == "join" && members[as] == "invite":
		members[as] = "join"
		return 200, `{}`
	case what[0] == "leave":
		members[as] = "leave"
		return 200, `{}`
	case members[as] != "join":
		return 403, forbidden
	case what[0] == "joined_members":
		joined := map[string]struct{}{}
		for user, membership := range members {
			if membership == "join" {
				joined[user] = struct{}{}
			}
		}
		text, _ := json.Marshal(map[string]any{"joined": joined})
		return 200, string(text)
	case what[0] == "send":
		var content map[string]any
		_ = json.Unmarshal([]byte(body), &content)
		m.sent = append(m.sent, sent{room, as, what[1], what[2], content})
		return 200, `{"event_id":"$sent"}`
	case len(what) == 1 && what[0] == "state":
		events := slices.Clone(m.state)
		for user, membership := range members {
			events = append(events, fmt.Sprintf(`{"type":"m.room.member","state_key":%q,"sender":%q,"event_id":"$m","content":{"membership":%q}}`, user, user, membership))
		}
		return 200, "[" + strings.Join(events, ",") + "]"
	case what[0] == "state" && what[1] == "m.room.member" && members[what[2]] != "":
		return 200, fmt.Sprintf(`{"membership":%q}`, members[what[2]])
	case what[0] == "state" && what[1] == "m.room.encryption" && m.encrypted:
		return 200, `{"algorithm":"m.megolm.v1.aes-sha2"}`
	case what[0] == "state" && method == "PUT":
		return 200, `{"event_id":"$state"}`
	}
	return 404, `{"errcode":"M_NOT_FOUND"}`
}

func (m *matrix) requests(of string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, asked := range m.asked {
		if asked == of {
			n++
		}
	}
	return n
}

func (m *matrix) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// A world is a bot that runs, before a homeserver and calls.
type world struct {
	*Bot
	matrix *matrix
	narrow *homeserver.Registration
	hs     *homeserver.Homeserver
	rooms  *sfu.Rooms
	events int

	mu       sync.Mutex
	present  []signalling.Attendee
	expelled []string
	refusal  *Refusal
}

func (w *world) Attendance(of string) (all []signalling.Attendee) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.present {
		if p := w.rooms.BySID(a.Call, a.Info.SID); p != nil && a.Origin.Conversation == of {
			a.Info = p.Info()
			all = append(all, a)
		}
	}
	return all
}

func (w *world) Expel(user, _ string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expelled = append(w.expelled, user)
	return 1
}

// join brings a user into the call, with a microphone.
func (w *world) join(t *testing.T, user, device string) {
	t.Helper()
	permission := sfu.Permission{CanSubscribe: true, CanPublish: true}
	p, err := w.rooms.Join("call", sfu.Member{Identity: sfu.Identity(user + ":" + device), Owner: user, Permission: permission}, w.now())
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.present = append(w.present, signalling.Attendee{
		Origin: token.Origin{User: user, Conversation: room, Device: device}, Call: "call", Info: p.Info(), Quality: sfu.Good, Judged: true,
	})
}

// standing says that everybody is in the room, and alice a moderator.
func (w *world) standing(_ context.Context, p standing.Place) (standing.Finding, error) {
	w.matrix.mu.Lock()
	defer w.matrix.mu.Unlock()
	f := standing.Finding{Standing: standing.Outside}
	if w.matrix.members[string(p.Room)][string(p.User)] == "join" {
		f = standing.Finding{Standing: standing.Joined, Moderator: p.User == alice}
	}
	return f, nil
}

// newWorld starts a bot that is in the room with alice and bob. Wide adds the registration that acts for everybody.
func newWorld(t *testing.T, wide bool, change func(*Options)) *world {
	t.Helper()
	w := &world{rooms: sfu.New(sfu.Options{AutoCreate: true})}
	w.matrix = &matrix{data: map[string]string{}, broken: map[string]bool{}, members: map[string]map[string]string{
		room: {bot: "join", alice: "join", bob: "join"},
	}}
	registrations := []*homeserver.Registration{homeserver.NarrowRegistration("example.org", "http://127.0.0.1:7880")}
	if wide {
		registrations = append(registrations, homeserver.WideRegistration("example.org"))
	}
	w.hs, registrations = fakeserver.Connect(t, w.matrix, registrations...)
	w.narrow = registrations[0]
	o := Options{
		Connections: []*homeserver.Homeserver{w.hs}, Sessions: w, Rooms: w.rooms, Standing: w.standing,
		Refusal: func(user string) (Refusal, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.refusal == nil || user != bob {
				return Refusal{}, false
			}
			return *w.refusal, true
		},
	}
	if change != nil {
		change(&o)
	}
	var err error
	if w.Bot, err = New(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// push has the homeserver push events.
func (w *world) push(t *testing.T, events ...string) {
	t.Helper()
	w.events++
	w.deliver(t, fmt.Sprint(w.events), events...)
}

func (w *world) deliver(t *testing.T, transaction string, events ...string) {
	t.Helper()
	r := httptest.NewRequest("PUT", "/_matrix/app/v1/transactions/"+transaction, strings.NewReader(`{"events":[`+strings.Join(events, ",")+`]}`))
	r.Header.Set("Authorization", "Bearer "+w.narrow.ServerToken)
	answer := httptest.NewRecorder()
	homeserver.Handler(w.hs).ServeHTTP(answer, r)
	if answer.Code != 200 {
		t.Fatalf("transaction: %d %s", answer.Code, answer.Body)
	}
}

// text makes an event of a message of now.
func (w *world) text(in, user, body string) string {
	w.events++
	content, _ := json.Marshal(map[string]string{"msgtype": "m.text", "body": body})
	return fmt.Sprintf(`{"type":"m.room.message","room_id":%q,"event_id":"$%d","sender":%q,"origin_server_ts":%d,"content":%s}`, in, w.events, user, time.Now().UnixMilli(), content)
}

func membership(in, user, by, is string) string {
	return fmt.Sprintf(`{"type":"m.room.member","room_id":%q,"event_id":"$%s%s%s","state_key":%q,"sender":%q,"content":{"membership":%q}}`, in, user, by, is, user, by, is)
}

// says pushes a message and returns what is sent to the room next.
func (w *world) says(t *testing.T, user, body string) sent {
	t.Helper()
	before := len(w.sentTo(room))
	w.push(t, w.text(room, user, body))
	return w.next(t, room, before)
}

// next waits for the message of a number that is sent to a room.
func (w *world) next(t *testing.T, room string, number int) sent {
	t.Helper()
	eventually(t, fmt.Sprintf("message %d in %s", number, room), func() bool { return len(w.sentTo(room)) > number })
	return w.sentTo(room)[number]
}

func (w *world) sentTo(room string) (all []sent) {
	w.matrix.mu.Lock()
	defer w.matrix.mu.Unlock()
	for _, s := range w.matrix.sent {
		if s.room == room {
			all = append(all, s)
		}
	}
	return all
}

func (s sent) body() string { text, _ := s.content["body"].(string); return text }

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// expectBody checks the text of a message.
func expectBody(t *testing.T, s sent, want string) {
	t.Helper()
	if s.body() != want {
		t.Errorf("got %q, want %q", s.body(), want)
	}
}
