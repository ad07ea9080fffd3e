package homeserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// A poll starts without a word about the past, goes on where it was, and hands over what is of its room.
func TestPoll(t *testing.T) {
	kick := `{"type":"m.room.member","state_key":"@bob:example.org","sender":"@alice:example.org","event_id":"$%d","content":{"membership":"leave"}}`
	answers := []string{
		`{"next_batch":"s1","rooms":{"join":{"!room:example.org":{"timeline":{"events":[` + fmt.Sprintf(kick, 0) + `]}}}}}`, // the start
		`{"next_batch":"s2","rooms":{"join":{"!other:example.org":{"timeline":{"events":[` + fmt.Sprintf(kick, 1) + `]}},
			"!room:example.org":{"state":{"events":[` + fmt.Sprintf(kick, 2) + `]},"timeline":{"limited":true,"events":[` + fmt.Sprintf(kick, 3) + `,5]}}}}}`,
		`{"next_batch":"s3","rooms":{"leave":{"!room:example.org":{"timeline":{"events":[` + fmt.Sprintf(kick, 4) + `]}}}}}`,
	}
	var fail string // the errcode of the next answer
	w := newWorld(t, func(r *http.Request) (int, string) {
		if fail != "" {
			code := fail
			fail = ""
			return 400, fmt.Sprintf(`{"errcode":%q}`, code)
		}
		answer := answers[0]
		answers = answers[1:]
		return 200, answer
	}, nil)
	s := w.Subscribe(10, event.StateMember)
	defer s.Close()
	agent, err := w.As(alice)
	if err != nil {
		t.Fatal(err)
	}
	p := agent.Poll(room, event.StateMember)
	for i, want := range []Batch{{Started: true}, {Events: 2, Gap: true}, {Events: 1, Gone: true}} {
		if i == 1 {
			fail = "M_LIMIT_EXCEEDED"
			if _, err := p.Next(t.Context()); err == nil {
				t.Fatal("no error")
			}
		}
		if got, err := p.Next(t.Context()); err != nil || got != want {
			t.Fatalf("batch %d is %+v (%v), want %+v", i, got, err, want)
		}
	}
	events, _ := s.Take()
	var ids []id.EventID
	for _, e := range events {
		if e.RoomID != room {
			t.Errorf("%s is of room %q", e.ID, e.RoomID)
		}
		ids = append(ids, e.ID)
	}
	if got, want := fmt.Sprint(ids), "[$2 $3 $4]"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	requests := w.remote.requests()
	for i, since := range []string{"", "since=s1", "since=s1", "since=s2"} {
		r := requests[i]
		if !strings.Contains(r, "set_presence=offline") || !strings.Contains(r, "user_id=%40alice%3Aexample.org") || strings.Contains(r, "device_id") || !strings.Contains(r, since) || since == "" && strings.Contains(r, "since") {
			t.Errorf("request %d: %s", i, r)
		}
	}

	// A homeserver that has forgotten where the poll was starts it anew, and says so.
	answers = []string{`{"next_batch":"s9"}`}
	fail = "M_UNKNOWN"
	if got, err := p.Next(t.Context()); err != nil || got != (Batch{Started: true}) {
		t.Errorf("after a forgotten place: %+v, %v", got, err)
	}
}

// A poll of all rooms hands over what is of any of them.
func TestPollRooms(t *testing.T) {
	said := `{"type":"m.call.hangup","sender":"@bob:example.org","event_id":"$%d","content":{}}`
	answers := []string{
		`{"next_batch":"s1"}`,
		`{"next_batch":"s2","rooms":{"join":{"!other:example.org":{"timeline":{"events":[` + fmt.Sprintf(said, 1) + `]}},
			"!room:example.org":{"timeline":{"events":[` + fmt.Sprintf(said, 2) + `]}}},"leave":{"!left:example.org":{}}}}`,
	}
	w := newWorld(t, func(*http.Request) (int, string) {
		answer := answers[0]
		answers = answers[1:]
		return 200, answer
	}, nil)
	hangup := event.Type{Type: "m.call.hangup", Class: event.MessageEventType}
	s := w.Subscribe(10, hangup)
	defer s.Close()
	agent, err := w.As(alice)
	if err != nil {
		t.Fatal(err)
	}
	p := agent.PollRooms(hangup)
	for i, want := range []Batch{{Started: true}, {Events: 2}} {
		if got, err := p.Next(t.Context()); err != nil || got != want {
			t.Fatalf("batch %d is %+v (%v), want %+v", i, got, err, want)
		}
	}
	rooms := map[id.RoomID]int{}
	events, _ := s.Take()
	for _, e := range events {
		rooms[e.RoomID]++
	}
	if rooms[room] != 1 || rooms["!other:example.org"] != 1 || len(rooms) != 2 {
		t.Errorf("events of %v", rooms)
	}
	if r := w.remote.requests()[1]; strings.Contains(r, "%22rooms%22%3A") || !strings.Contains(r, "m.call.hangup") {
		t.Errorf("asked %s", r)
	}
}

// Many polls that wait keep nobody from asking, and none of them is the probe of the breaker.
func TestPollsTakeNoSlots(t *testing.T) {
	waiting := make(chan struct{})
	release := make(chan struct{})
	w := newWorld(t, func(r *http.Request) (int, string) {
		if r.URL.Query().Get("since") != "" {
			waiting <- struct{}{}
			<-release
		}
		return 200, `{"next_batch":"s1","joined_rooms":[]}`
	}, func(o *Options) { o.Timeout = time.Second })
	agent, err := w.As(alice)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	const polls = maxAtOnce + 1
	for range polls {
		go func() {
			p := agent.Poll(room, event.StateMember)
			_, err := p.Next(t.Context())
			if err == nil {
				_, err = p.Next(t.Context())
			}
			done <- err
		}()
	}
	for range polls {
		<-waiting
	}
	if _, err := agent.JoinedRooms(t.Context()); err != nil {
		t.Errorf("a question beside %d polls: %v", polls, err)
	}
	close(release)
	for range polls {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestPollOfADownHomeserver(t *testing.T) {
	down := true
	w := newWorld(t, func(r *http.Request) (int, string) {
		if down {
			return 503, ""
		}
		return 200, `{"next_batch":"s1"}`
	}, nil)
	agent, err := w.As(alice)
	if err != nil {
		t.Fatal(err)
	}
	p := agent.Poll(room, event.StateMember)
	for range tolerated + 2 {
		if _, err := p.Next(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("error is %v", err)
		}
	}
	if n := len(w.remote.requests()); n != tolerated {
		t.Errorf("asked %d times, want %d", n, tolerated)
	}
	down = false
	w.pass(time.Minute)
	if b, err := p.Next(t.Context()); err != nil || !b.Started {
		t.Errorf("when it is back: %+v, %v", b, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Next(ctx); err == nil {
		t.Error("a poll that nobody waits for goes on")
	}
}
