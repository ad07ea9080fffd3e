package homeserver

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
)

func kick(n int) string {
	return fmt.Sprintf(`{"type":"m.room.member","state_key":"@u%d:example.org","sender":"@alice:example.org","event_id":"$%d","room_id":"!room:example.org","content":{"membership":"leave"}}`, n, n)
}

func push(w *world, method, path, token, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	rec := httptest.NewRecorder()
	Handler(w.Homeserver).ServeHTTP(rec, r)
	return rec
}

func (w *world) transaction(t testing.TB, id, body string) {
	t.Helper()
	if rec := push(w, "PUT", "/_matrix/app/v1/transactions/"+id, "Bearer "+w.narrow.ServerToken, body); rec.Code != 200 || rec.Body.String() != "{}" {
		t.Fatalf("transaction %s: %d %s", id, rec.Code, rec.Body)
	}
}

func TestWhoMayPush(t *testing.T) {
	w := newWorld(t, always(200, `{}`), nil)
	s := w.Subscribe(8, event.StateMember)
	defer s.Close()
	for name, tc := range map[string]struct {
		token  string
		status int
	}{
		"none":                       {"", 401},
		"another scheme":             {"Basic " + w.narrow.ServerToken, 401},
		"empty":                      {"Bearer ", 403},
		"wrong":                      {"Bearer " + strings.Repeat("0", 64), 403},
		"prefix":                     {"Bearer " + w.narrow.ServerToken[:63], 403},
		"our own token":              {"Bearer " + w.narrow.AppToken, 403},
		"the wide one has no pushes": {"Bearer " + w.wide.ServerToken, 403},
	} {
		for _, to := range [][2]string{{"PUT", "/_matrix/app/v1/transactions/1"}, {"POST", "/_matrix/app/v1/ping"}, {"GET", "/_matrix/app/v1/users/@a:b"}} {
			if rec := push(w, to[0], to[1], tc.token, `{"events":[`+kick(1)+`]}`); rec.Code != tc.status {
				t.Errorf("%s: %s %s answers %d, want %d", name, to[0], to[1], rec.Code, tc.status)
			}
		}
	}
	if events, _ := s.Take(); len(events) > 0 {
		t.Errorf("delivered %v", events)
	}
	right := "Bearer " + w.narrow.ServerToken
	for _, tc := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/_matrix/app/v1/ping", `{"transaction_id":"x"}`, 200},
		{"GET", "/_matrix/app/v1/users/@_callserver_x:example.org", "", 404},
		{"GET", "/_matrix/app/v1/rooms/%23x:example.org", "", 404},
		{"GET", "/_matrix/app/v1/thirdparty/location", "", 404},
		{"PUT", "/_matrix/app/v1/transactions/2", "", 400},
		{"PUT", "/_matrix/app/v1/transactions/2", "<html>", 400},
		{"PUT", "/_matrix/app/v1/transactions/2", `{"events":5}`, 400},
		{"PUT", "/_matrix/app/v1/transactions/2", `{"events":["` + strings.Repeat("x", maxTransaction) + `"]}`, 413},
		{"PUT", "/_matrix/app/v1/transactions/2", `{}`, 200},
	} {
		if rec := push(w, tc.method, tc.path, right, tc.body); rec.Code != tc.status {
			t.Errorf("%s %s answers %d, want %d", tc.method, tc.path, rec.Code, tc.status)
		}
	}
}

func TestTransactions(t *testing.T) {
	w := newWorld(t, always(200, `{}`), nil)
	members := w.Subscribe(8, event.StateMember)
	keys := w.Subscribe(8, event.ToDeviceEncrypted, event.Type{Type: "x", Class: event.ToDeviceEventType})
	defer members.Close()
	defer keys.Close()
	took := func() string {
		events, lost := members.Take()
		var ids []string
		for _, e := range events {
			ids = append(ids, string(e.ID))
		}
		return fmt.Sprintf("%v %d", ids, lost)
	}

	w.transaction(t, "1", `{"events":[`+kick(1)+`,5,{"type":"m.room.member"},`+kick(2)+`,
		{"type":"m.room.message","sender":"@a:b","event_id":"$m","room_id":"!r:b","content":{}},
		{"type":"m.room.member","sender":"@a:b","event_id":"$no-state","room_id":"!r:b","content":{}}],
		"de.sorunome.msc2409.to_device":[{"type":"x","sender":"@a:b","content":{"k":1}},7],"ephemeral":[{}]}`)
	select {
	case <-members.Ready():
	default:
		t.Error("not woken")
	}
	if got := took(); got != "[$1 $2] 0" {
		t.Errorf("first transaction: %s", got)
	}
	if events, _ := keys.Take(); len(events) != 1 || string(events[0].Content.VeryRaw) != `{"k":1}` {
		t.Errorf("to-device events: %v", events)
	}

	w.transaction(t, "1", `{"events":[`+kick(1)+`,`+kick(2)+`],"to_device":[{"type":"x","sender":"@a:b","content":{}}]}`)
	if got := took(); got != "[] 0" {
		t.Errorf("repeated transaction: %s", got)
	}
	if events, _ := keys.Take(); len(events) != 0 {
		t.Errorf("repeated to-device events: %v", events)
	}
	w.transaction(t, "1", `{"events":[`+kick(3)+`]}`)
	if got := took(); got != "[$3] 0" {
		t.Errorf("another transaction with the same id: %s", got)
	}
	// What a stranger puts into an event does not hide it.
	w.transaction(t, "2", `{"events":[{"msc4354_sticky":"x","origin_server_ts":"y",`+kick(4)[1:]+`]}`)
	if got := took(); got != "[$4] 0" {
		t.Errorf("odd event: %s", got)
	}
	if s := w.Stats(); s.Transactions != 4 || s.Replayed != 2 || s.BadEvents != 3 || s.Dropped != 0 || s.Events != 7 {
		t.Errorf("stats %+v", s)
	}
}

func TestSlowSubscriber(t *testing.T) {
	w := newWorld(t, always(200, `{}`), nil)
	slow, quick := w.Subscribe(2, event.StateMember), w.Subscribe(100, event.StateMember)
	defer slow.Close()
	for n := range 50 {
		w.transaction(t, fmt.Sprint(n), `{"events":[`+kick(n)+`]}`)
	}
	if events, lost := quick.Take(); len(events) != 50 || lost != 0 {
		t.Errorf("the quick one got %d events and lost %d", len(events), lost)
	}
	if events, lost := slow.Take(); len(events) != 2 || events[0].ID != "$0" || lost != 48 {
		t.Errorf("the slow one got %d events and lost %d, want 2 and 48", len(events), lost)
	}
	if got := w.Stats().Dropped; got != 48 {
		t.Errorf("%d dropped, want 48", got)
	}
	quick.Close()
	quick.Close()
	w.transaction(t, "last", `{"events":[`+kick(99)+`]}`)
	if events, _ := quick.Take(); len(events) != 0 {
		t.Error("events after Close")
	}
	if events, lost := slow.Take(); len(events) != 1 || lost != 0 {
		t.Errorf("the slow one, having caught up, got %d events and lost %d", len(events), lost)
	}
}

func TestTransactionsAreForgotten(t *testing.T) {
	w := newWorld(t, always(200, `{}`), nil)
	for n := range 3 * remembered {
		w.transaction(t, fmt.Sprint(n), `{}`)
	}
	if len(w.inbox.seen) != remembered || len(w.inbox.order) != remembered {
		t.Errorf("%d transactions remembered, want %d", len(w.inbox.seen), remembered)
	}
}

func TestHandlerTellsHomeserversApart(t *testing.T) {
	one, two := newWorld(t, always(200, `{}`), nil), newWorld(t, always(200, `{}`), nil)
	s := two.Subscribe(8, event.StateMember)
	defer s.Close()
	r := httptest.NewRequest("PUT", "/_matrix/app/v1/transactions/1", strings.NewReader(`{"events":[`+kick(1)+`]}`))
	r.Header.Set("Authorization", "Bearer "+two.narrow.ServerToken)
	Handler(one.Homeserver, two.Homeserver).ServeHTTP(httptest.NewRecorder(), r)
	if events, _ := s.Take(); len(events) != 1 || one.Stats().Transactions != 0 {
		t.Errorf("the second homeserver's subscriber got %v, the first has %+v", events, one.Stats())
	}
}

func FuzzTransaction(f *testing.F) {
	f.Add([]byte(`{"events":[` + kick(1) + `,5],"to_device":[{"type":"x","sender":"@a:b","content":{}}]}`))
	f.Add([]byte(`{"events":[{"type":"m.room.member","unsigned":{"age":"x"},"prev_content":5,"msc4354_sticky":{"duration_ms":-1}}]}`))
	w := newWorld(f, always(200, `{}`), nil)
	s := w.Subscribe(1000, event.StateMember)
	f.Cleanup(s.Close)
	n := 0
	f.Fuzz(func(t *testing.T, body []byte) {
		n++
		rec := push(w, "PUT", fmt.Sprint("/_matrix/app/v1/transactions/", n), "Bearer "+w.narrow.ServerToken, string(body))
		if rec.Code != 200 && rec.Code != 400 {
			t.Errorf("%q is answered %d", body, rec.Code)
		}
		events, _ := s.Take()
		for _, e := range events {
			if e.StateKey == nil || e.Sender == "" || e.ID == "" || e.RoomID == "" || e.Type != event.StateMember {
				t.Errorf("delivered %+v of %q", e, body)
			}
		}
	})
}
