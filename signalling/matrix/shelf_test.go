package matrix

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// put puts an event on a shelf that needs the key of a session.
func put(s *shelf, name, room, session string, now time.Time) bool {
	return s.put(unread{since: now, event: &event.Event{
		ID: id.EventID(name), RoomID: id.RoomID(room), Content: event.Content{VeryRaw: fmt.Appendf(nil, `{"session_id":%q}`, session)},
	}})
}

func (d due) String() string {
	var parts []string
	for _, list := range []struct {
		what   string
		events []unread
	}{{"read", d.readable}, {"ask", d.late}, {"lost", d.lost}} {
		for _, u := range list.events {
			parts = append(parts, list.what+" "+string(u.event.ID))
		}
	}
	return strings.Join(parts, ", ")
}

func TestShelf(t *testing.T) {
	now := time.Unix(1_750_000_000, 0)
	for _, tc := range []struct {
		name  string
		steps []string // what happens | what is due then
	}{
		{"the key comes later", []string{"put a | ", "wait 3s | ", "key a | read a", "wait 1h | "}},
		{"the key came while the event was on its way here", []string{"key a | ", "wait 5s | ", "put a | read a"}},
		{"the key came long ago, and did not help", []string{"key a | ", "wait 11s | ", "put a | ", "wait 10s | ask a"}},
		{"the key of another", []string{"put a | ", "key b | "}},
		{"no key comes: it is asked for once, then the event is given up", []string{"put a | ", "wait 10s | ask a", "wait 10s | ", "wait 40s | lost a", "wait 1h | "}},
		{"the key comes when it was asked for", []string{"put a | ", "wait 10s | ask a", "key a | read a"}},
		{"a new device tries everything", []string{"put a | ", "put b | ", "revive | read a, read b", "put c | "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, now := newShelf(), now
			for _, line := range tc.steps {
				step, want, _ := strings.Cut(line, " | ")
				verb, name, _ := strings.Cut(step, " ")
				switch verb {
				case "put":
					put(s, name, "!room", name, now)
				case "key":
					s.arrived(id.SessionID(name), now)
				case "revive":
					s.revive()
				case "wait":
					d, err := time.ParseDuration(name)
					if err != nil {
						t.Fatal(err)
					}
					now = now.Add(d)
				}
				if got := s.take(now).String(); got != want {
					t.Fatalf("after %q: %q, want %q", step, got, want)
				}
			}
		})
	}
}

func TestShelfIsBounded(t *testing.T) {
	now := time.Unix(1_750_000_000, 0)
	s := newShelf()
	for i := range maxShelfRoom {
		if !put(s, fmt.Sprint(i), "!loud", "x", now) {
			t.Fatalf("event %d of a room is refused, want room for %d", i, maxShelfRoom)
		}
	}
	if put(s, "one more", "!loud", "x", now) {
		t.Error("a loud room is not bounded")
	}
	if !put(s, "other", "!quiet", "y", now) {
		t.Error("a loud room leaves none for a quiet one")
	}
	for i := range 2 * maxShelf {
		put(s, fmt.Sprint(i), fmt.Sprint("!room", i), "z", now)
		s.arrived(id.SessionID(fmt.Sprint(i)), now)
	}
	if len(s.events) != maxShelf || len(s.keys) > maxShelf {
		t.Errorf("%d events and %d keys, want no more than %d", len(s.events), len(s.keys), maxShelf)
	}
}
