package standin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"callserver/internal/testnet/fakeserver"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/leave"
	"callserver/signalling/matrixrtc/member"
)

const room = "!room:example.org"

// A matrix is a homeserver that writes down what it is asked; it may have delayed events, and may forbid everything, or what one user asks.
type matrix struct {
	delays, forbids bool
	outside         string

	mu    sync.Mutex
	asked []string
}

func (m *matrix) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	path, _ := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/_matrix/client/"))
	query := r.URL.Query()
	delayed := query.Get("org.matrix.msc4140.delay")
	switch {
	case path == "versions":
		_ = json.NewEncoder(w).Encode(map[string]any{"versions": []string{"v1.11"}, "unstable_features": map[string]bool{"org.matrix.msc4140": m.delays}})
		return
	case m.forbids, m.outside != "" && query.Get("user_id") == m.outside:
		w.WriteHeader(403)
		_, _ = io.WriteString(w, `{"errcode":"M_FORBIDDEN"}`)
		return
	}
	what := r.Method + " " + path[strings.LastIndex(path, "/")+1:] + " as " + query.Get("user_id")
	switch {
	case delayed != "":
		what += " after " + delayed
	case string(body) == "{}":
		what += " empty"
	}
	m.asked = append(m.asked, what)
	_, _ = io.WriteString(w, `{"event_id":"$sent","delay_id":"d1"}`)
}

func place(t *testing.T, m *matrix) Place {
	t.Helper()
	h, _ := fakeserver.Connect(t, m, homeserver.NarrowRegistration("example.org", "http://127.0.0.1:7880"), homeserver.WideRegistration("example.org"))
	return Place{Homeserver: h, Room: room, User: "@bob:example.org", Device: "D", Name: "Bob", Intent: "video"}
}

func TestDeclareAndClear(t *testing.T) {
	const key = "_@bob:example.org_D_m.call"
	refused := func(context.Context, leave.Delegation) error { return errors.New("not real") }
	for _, tc := range []struct {
		name     string
		delays   bool
		delegate func(context.Context, leave.Delegation) error
		want     []string
	}{
		{"with delayed events", true, func(_ context.Context, d leave.Delegation) error {
			if d.User != "@bob:example.org" || d.Device != "D" || d.Room != room || d.Delay != "d1" || d.Length != owedAfter || d.Slot != member.SlotRoom {
				t.Errorf("delegated %+v", d)
			}
			return nil
		}, []string{"PUT " + key + " as @bob:example.org after 30000", "PUT " + key + " as @bob:example.org", "PUT " + key + " as @bob:example.org empty"}},
		{"that nobody puts off", true, refused, []string{"PUT " + key + " as @bob:example.org after 30000", "POST cancel as @bob:example.org empty", "PUT " + key + " as @bob:example.org", "PUT " + key + " as @bob:example.org empty"}},
		{"without", false, refused, []string{"PUT " + key + " as @bob:example.org", "PUT " + key + " as @bob:example.org empty"}},
		{"without anybody to take them over", true, nil, []string{"PUT " + key + " as @bob:example.org", "PUT " + key + " as @bob:example.org empty"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &matrix{delays: tc.delays}
			p := place(t, m)
			event, err := Rules{Service: "https://rtc.example.org", Delegate: tc.delegate}.Declare(t.Context(), p)
			if err != nil || event != "$sent" {
				t.Fatalf("got %q, %v", event, err)
			}
			if err := Clear(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if got, want := strings.Join(m.asked, "\n"), strings.Join(tc.want, "\n"); got != want {
				t.Errorf("asked\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Who may not be a member is not, and who is in the room no more needs no leave.
func TestForbidden(t *testing.T) {
	m := &matrix{forbids: true}
	p := place(t, m)
	if _, err := (Rules{}).Declare(t.Context(), p); homeserver.Code(err) != "M_FORBIDDEN" {
		t.Errorf("got %v", err)
	}
	if err := Clear(t.Context(), p); err != nil {
		t.Errorf("got %v", err)
	}
	p.User = "@bob:example.com"
	if _, err := (Rules{}).Declare(t.Context(), p); !errors.Is(err, homeserver.ErrNoPrivilege) {
		t.Errorf("got %v", err)
	}
}

// The membership of somebody who has left the room is cleared by the bot.
func TestClearAfterLeaving(t *testing.T) {
	m := &matrix{outside: "@bob:example.org"}
	if err := Clear(t.Context(), place(t, m)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"PUT _@bob:example.org_D_m.call as @_callserver:example.org empty"}; !slices.Equal(m.asked, want) {
		t.Errorf("asked %q, want %q", m.asked, want)
	}
}

func TestGrant(t *testing.T) {
	p := Place{Room: room, User: "@bob:example.org", Device: "D", Name: "Bob"}
	now := time.Now()
	g := p.Grant(now)
	if g.Identity != "@bob:example.org:D" || g.Room != member.RoomName(room, member.SlotRoom) || !g.CanCreateRoom() || g.CanPublishData || !g.CanPublish {
		t.Errorf("got %+v", g)
	}
	if o := g.Origin; o.Person() != "@bob:example.org" || o.User != "@bob:example.org" || o.Conversation != room || o.Device != "D" || !o.Verified.Equal(now) || o.Assumed {
		t.Errorf("got %+v", o)
	}
}
