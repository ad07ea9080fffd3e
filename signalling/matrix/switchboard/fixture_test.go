package switchboard

import (
	"context"
	"encoding/json"
	"errors"
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

	"maunium.net/go/mautrix/id"

	"callserver/internal/testnet/fakeserver"
	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/standin"
	"callserver/signalling/matrixrtc/member"
	"callserver/signalling/token"
)

const (
	bot     = "@_callserver:example.org"
	alice   = "@alice:example.org" // has MatrixRTC
	bob     = "@bob:example.org"   // has the old calls
	many    = "!many:example.org"
	two     = "!two:example.org"
	secret  = "!secret:example.org" // two in an encrypted room
	service = "https://rtc.example.org/livekit/jwt"
	offer   = "v=0\r\nm=audio 9 x\r\nm=video 9 x\r\n"
)

// A matrix is a homeserver as its application service sees it.
type matrix struct {
	mu      sync.Mutex
	members map[string][]string       // of a room, joined
	state   map[string]map[string]any // room > type|key > content
	senders map[string]string         // room|type|key > sender
	sent    []sent
	hangs   map[string]chan struct{} // rooms whose requests wait
	gate    *gate                    // nil: open
	refused string                   // type of events that are not taken
	rings   map[string]string        // room > id of the last ring
	syncs   chan string              // what bob sees
	polls   map[string]int           // user > polls that have begun
	done    chan struct{}
	events  int
}

// A gate is where the next membership in a call waits that is written as one user. Who gives up there has written nothing.
type gate struct {
	as            string
	reached, open chan struct{}
}

// What was sent to a room: state has a key.
type sent struct {
	room, as, kind, key string
	content             map[string]any
}

func (m *matrix) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/_matrix/client/v3/rooms/"), "/")
	for i := range parts {
		parts[i], _ = url.PathUnescape(parts[i])
	}
	m.mu.Lock()
	hang := m.hangs[parts[0]]
	m.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/sync"):
		m.serveSync(w, r)
		return
	case strings.Contains(r.URL.Path, "/profile/"):
		_, _ = io.WriteString(w, `{"displayname":"Calls"}`) // of the bot, which alone asks
		return
	}
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}
	if gate := m.passes(r, parts); gate != nil {
		close(gate.reached)
		select {
		case <-gate.open:
		case <-r.Context().Done():
			return
		}
	}
	status, answer := m.answer(r.Method, r.URL.Query().Get("user_id"), parts, body)
	w.WriteHeader(status)
	text, _ := json.Marshal(answer)
	_, _ = w.Write(text)
}

// passes is the gate at which a request waits.
func (m *matrix) passes(r *http.Request, parts []string) (gate *gate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gate != nil && r.URL.Query().Get("user_id") == m.gate.as && r.Method == http.MethodPut && slices.Contains(parts, member.TypeState) {
		gate, m.gate = m.gate, nil
	}
	return gate
}

// serveSync answers bob alone: once with what there is for him, then never.
func (m *matrix) serveSync(w http.ResponseWriter, r *http.Request) {
	user, since := r.URL.Query().Get("user_id"), r.URL.Query().Get("since")
	m.mu.Lock()
	m.polls[user]++
	m.mu.Unlock()
	switch {
	case user != bob || since == "told":
		select {
		case <-r.Context().Done():
		case <-m.done:
		}
	case since == "":
		_, _ = io.WriteString(w, `{"next_batch":"begun"}`)
	default:
		select {
		case text := <-m.syncs:
			_, _ = io.WriteString(w, text)
		case <-r.Context().Done():
		case <-m.done:
		}
	}
}

func (m *matrix) answer(method, as string, parts []string, body []byte) (int, any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	type none map[string]string
	if len(parts) < 2 {
		return 404, none{"errcode": "M_UNRECOGNIZED"}
	}
	room, what := parts[0], parts[1:]
	var content map[string]any
	_ = json.Unmarshal(body, &content)
	m.events++
	event := fmt.Sprint("$sent", m.events)
	switch {
	case !slices.Contains(m.members[room], as):
		return 403, none{"errcode": "M_FORBIDDEN"}
	case what[0] == "joined_members":
		joined := map[string]any{}
		for _, user := range m.members[room] {
			joined[user] = map[string]string{"display_name": shownAs(user)}
		}
		return 200, map[string]any{"joined": joined}
	case what[0] == "send" && what[1] == m.refused:
		return 403, none{"errcode": "M_FORBIDDEN"}
	case what[0] == "send":
		m.sent = append(m.sent, sent{room, as, what[1], "", content})
		if what[1] == member.TypeNotification {
			m.rings[room] = event
		}
		return 200, none{"event_id": event}
	case method == http.MethodPut:
		m.sent = append(m.sent, sent{room, as, what[1], what[2], content})
		m.putLocked(room, what[1], what[2], as, content)
		return 200, none{"event_id": event}
	case len(what) == 1:
		all := []any{}
		for key, content := range m.state[room] {
			kind, name, _ := strings.Cut(key, "|")
			all = append(all, map[string]any{"type": kind, "state_key": name, "sender": m.senders[room+"|"+key], "event_id": "$state", "origin_server_ts": time.Now().UnixMilli(), "content": content})
		}
		return 200, all
	}
	if content, ok := m.state[room][what[1]+"|"+strings.Join(what[2:], "/")]; ok {
		return 200, content
	}
	return 404, none{"errcode": "M_NOT_FOUND"}
}

// shownAs is how rooms call a user: Alice.
func shownAs(user string) string {
	return strings.ToUpper(user[1:2]) + user[2:strings.Index(user, ":")]
}

func (m *matrix) putLocked(room, kind, key, sender string, content any) {
	if m.state[room] == nil {
		m.state[room] = map[string]any{}
	}
	m.state[room][kind+"|"+key], m.senders[room+"|"+kind+"|"+key] = content, sender
}

// A fakeLeg is media that does what the test says.
type fakeLeg struct {
	grant token.Grant

	ready chan struct{}
	mu    sync.Mutex
	queue []signalling.Event
	did   []string
	peers []*sfu.ParticipantInfo
	gone  bool
}

func (l *fakeLeg) note(format string, of ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.did = append(l.did, fmt.Sprintf(format, of...))
}

func (l *fakeLeg) says(events ...signalling.Event) {
	l.mu.Lock()
	l.queue = append(l.queue, events...)
	l.mu.Unlock()
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

func (l *fakeLeg) Ready() <-chan struct{} { return l.ready }
func (l *fakeLeg) Events() []signalling.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.queue
	l.queue = nil
	return e
}
func (l *fakeLeg) Others() []*sfu.ParticipantInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.peers)
}
func (l *fakeLeg) Answer(_ context.Context, offer string) (signalling.LegDescription, error) {
	l.note("answer")
	if strings.Contains(offer, "bad") {
		return signalling.LegDescription{}, errors.New("bad offer")
	}
	return signalling.LegDescription{SDP: "our answer", Streams: map[string]signalling.LegStream{"S": {}}}, nil
}
func (l *fakeLeg) Offer(context.Context) (signalling.LegDescription, error) {
	l.note("offer")
	return signalling.LegDescription{SDP: "our offer", Streams: map[string]signalling.LegStream{"S": {}}}, nil
}
func (l *fakeLeg) Accept(answer string) error { l.note("accept %s", answer); return nil }
func (l *fakeLeg) Candidate(init string)      { l.note("candidate %s", init) }
func (l *fakeLeg) Streams(remote map[string]signalling.LegStream) {
	for _, s := range remote {
		l.note("stream muted %v", s.AudioMuted)
	}
}
func (l *fakeLeg) SetKey(of sfu.Identity, index uint8, _ []byte) error {
	l.note("key %d of %s", index, of)
	return nil
}
func (l *fakeLeg) SetOwnKey(index uint8, _ []byte) error { l.note("own key %d", index); return nil }
func (l *fakeLeg) Leave(sfu.Reason) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
}

func (l *fakeLeg) left() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gone
}

// A memory is a Store.
type memory struct {
	mu    sync.Mutex
	words Words
	calls []Record
}

func (m *memory) Consent(context.Context) (Words, error) { return m.words, nil }
func (m *memory) Say(_ context.Context, w Words) error   { return nil }
func (m *memory) Calls(context.Context) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls), nil
}
func (m *memory) Keep(_ context.Context, r Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, r)
	return nil
}
func (m *memory) Forget(_ context.Context, r Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = slices.DeleteFunc(m.calls, func(x Record) bool { return x.Call == r.Call })
	return nil
}

// A world is a switchboard that runs, before a homeserver and calls without media.
type world struct {
	*Switchboard
	t      *testing.T
	matrix *matrix
	narrow *homeserver.Registration
	hs     *homeserver.Homeserver
	store  *memory
	stop   func()
	pushed int
	bot    Bot // nil: none

	mu   sync.Mutex
	legs []*fakeLeg
	full bool
}

func (w *world) JoinLeg(_ context.Context, g token.Grant, _ signalling.LegOptions) (Leg, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full {
		return nil, errors.New("full")
	}
	l := &fakeLeg{grant: g, ready: make(chan struct{}, 1)}
	w.legs = append(w.legs, l)
	return l, nil
}

func (w *world) Attendance(string) []signalling.Attendee {
	return []signalling.Attendee{{Origin: token.Origin{User: alice}, Info: sfu.ParticipantInfo{Identity: alice + ":A"}}}
}

// leg waits for the leg of a number.
func (w *world) leg(number int) *fakeLeg {
	w.t.Helper()
	var l *fakeLeg
	w.eventually(fmt.Sprintf("leg %d", number), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.legs) > number {
			l = w.legs[number]
		}
		return l != nil
	})
	return l
}

// newWorld starts a switchboard whose bot is in all rooms.
func newWorld(t *testing.T, change func(*world)) *world {
	t.Helper()
	w := &world{t: t, store: &memory{}}
	w.matrix = &matrix{
		members: map[string][]string{many: {bot, alice, bob, "@carol:example.org"}, two: {bot, alice, bob}, secret: {bot, alice, bob}},
		state:   map[string]map[string]any{}, senders: map[string]string{}, hangs: map[string]chan struct{}{}, rings: map[string]string{}, polls: map[string]int{}, syncs: make(chan string, 1), done: make(chan struct{}),
	}
	for room, users := range w.matrix.members {
		for _, user := range users {
			w.matrix.putLocked(room, "m.room.member", user, user, map[string]any{"membership": "join", "displayname": shownAs(user)})
		}
	}
	w.matrix.putLocked(secret, "m.room.encryption", "", alice, map[string]string{"algorithm": "m.megolm.v1.aes-sha2"})
	if change != nil {
		change(w)
	}
	hs, registrations := fakeserver.Connect(t, w.matrix, homeserver.NarrowRegistration("example.org", "http://127.0.0.1:7880"), homeserver.WideRegistration("example.org"))
	t.Cleanup(func() { close(w.matrix.done) })
	w.hs, w.narrow = hs, registrations[0]
	var err error
	if w.Switchboard, err = New(t.Context(), Options{
		Connections: []*homeserver.Homeserver{hs}, Media: w, Standin: standin.Rules{Service: service}, Store: w.store,
	}); err != nil {
		t.Fatal(err)
	}
	if w.bot != nil {
		w.Use(w.bot)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// push has the homeserver push events together, each a room, sender, type and content; a state key stands behind a |.
func (w *world) push(events ...[4]string) {
	w.t.Helper()
	var texts []string
	for _, e := range events {
		w.pushed++
		kind, key, state := strings.Cut(e[2], "|")
		stateKey := ""
		if state {
			stateKey = fmt.Sprintf(`"state_key":%q,`, key)
		}
		texts = append(texts, fmt.Sprintf(`{"type":%q,%s"room_id":%q,"event_id":"$%d","sender":%q,"origin_server_ts":%d,"content":%s}`,
			kind, stateKey, e[0], w.pushed, e[1], time.Now().UnixMilli(), e[3]))
	}
	r := httptest.NewRequest("PUT", fmt.Sprint("/_matrix/app/v1/transactions/", w.pushed), strings.NewReader(`{"events":[`+strings.Join(texts, ",")+`]}`))
	r.Header.Set("Authorization", "Bearer "+w.narrow.ServerToken)
	answer := httptest.NewRecorder()
	homeserver.Handler(w.hs).ServeHTTP(answer, r)
	if answer.Code != 200 {
		w.t.Fatalf("transaction: %d %s", answer.Code, answer.Body)
	}
}

// says makes an event of bob's client in a call.
func says(room, kind, call, more string) [4]string {
	return [4]string{room, bob, "m.call." + kind, fmt.Sprintf(`{"call_id":%q,"party_id":"B","version":"1"%s}`, call, more)}
}

// invites makes an invitation of bob's client.
func invites(room, call string) [4]string {
	text, _ := json.Marshal(offer)
	return says(room, "invite", call, fmt.Sprintf(`,"lifetime":60000,"offer":{"type":"offer","sdp":%s},"sdp_stream_metadata":{"T":{"purpose":"m.usermedia"}}`, text))
}

// isIn makes the membership of alice's device in a room's call.
func isIn(room string) [4]string {
	key, content := member.Declare(member.Declaration{User: alice, Device: "A", Room: room, Service: service, Intent: "video"})
	text, _ := json.Marshal(content)
	return [4]string{room, alice, member.TypeState + "|" + key, string(text)}
}

// joins has alice's device in the room's call, and the homeserver tell of it.
func (w *world) joins(room string) {
	e := isIn(room)
	var content map[string]any
	_ = json.Unmarshal([]byte(e[3]), &content)
	kind, key, _ := strings.Cut(e[2], "|")
	w.matrix.mu.Lock()
	w.matrix.putLocked(room, kind, key, alice, content)
	w.matrix.mu.Unlock()
	w.push(e)
}

// hold keeps a user's next membership in a call back, from when reached is closed until open is called.
func (w *world) hold(user string) (reached <-chan struct{}, open func()) {
	g := &gate{user, make(chan struct{}), make(chan struct{})}
	w.matrix.mu.Lock()
	defer w.matrix.mu.Unlock()
	w.matrix.gate = g
	return g.reached, func() { close(g.open) }
}

// rings has alice's client ring bob.
func (w *world) rings(room string) {
	text, _ := json.Marshal(member.NewRing(bob, "$state", "video", time.Now(), 30*time.Second))
	w.push([4]string{room, alice, member.TypeNotification, string(text)})
}

// agree has users agree to be spoken for.
func (w *world) agree(users ...id.UserID) {
	for _, user := range users {
		if err := w.BridgeUser(w.t.Context(), user, true); err != nil {
			w.t.Fatal(err)
		}
	}
}

// polled waits until so many polls of a user have begun.
func (w *world) polled(user string, count int) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("poll %d of %s", count, user), func() bool {
		w.matrix.mu.Lock()
		defer w.matrix.mu.Unlock()
		return w.matrix.polls[user] >= count
	})
}

// sentTo is what was sent to a room of a type; a state key narrows it.
func (w *world) sentTo(room, kind string) (all []sent) {
	w.matrix.mu.Lock()
	defer w.matrix.mu.Unlock()
	for _, s := range w.matrix.sent {
		if s.room == room && s.kind == kind {
			all = append(all, s)
		}
	}
	return all
}

// next waits for the sending of a number to a room.
func (w *world) next(room, kind string, number int) sent {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%s number %d in %s", kind, number, room), func() bool { return len(w.sentTo(room, kind)) > number })
	return w.sentTo(room, kind)[number]
}

// ends waits until no call is left.
func (w *world) ends() {
	w.t.Helper()
	w.eventually("the end of all calls", func() bool { return w.Stats().Calls == 0 })
}

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.matrix.mu.Lock()
			defer w.matrix.mu.Unlock()
			w.t.Fatalf("not within 20 s: %s; sent: %+v", what, w.matrix.sent)
		}
	}
}
