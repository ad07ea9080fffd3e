package matrix

import (
	"maps"
	"sync"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/device"
)

const (
	maxShelf     = 1024 // events that wait for their keys
	maxShelfRoom = 32   // of one room: a loud one leaves room for others
	// keyNews is how long a key counts as having arrived: an event that needs it may be on its way to the shelf.
	keyNews = 2 * shelfPause
)

// An unread is an encrypted event that may be a command.
type unread struct {
	hs    *homeserver.Homeserver
	event *event.Event
	since time.Time
	asked bool // for its key
}

// A shelf holds events until their keys arrive, as long as that may be soon. What there is no room for is refused. Safe for
// concurrent use.
type shelf struct {
	ready chan struct{} // capacity 1: keys arrived

	mu     sync.Mutex
	events []unread
	keys   map[id.SessionID]time.Time // when they arrived, lately
	all    bool                       // everything may be readable now
}

func newShelf() *shelf {
	return &shelf{ready: make(chan struct{}, 1), keys: make(map[id.SessionID]time.Time)}
}

// put reports whether there was room.
func (s *shelf) put(u unread) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ofRoom := 0
	for _, other := range s.events {
		if other.event.RoomID == u.event.RoomID {
			ofRoom++
		}
	}
	if len(s.events) >= maxShelf || ofRoom >= maxShelfRoom {
		return false
	}
	s.events = append(s.events, u)
	return true
}

// arrived notes the key of a session, also one for which nothing waits yet.
func (s *shelf) arrived(session id.SessionID, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys) < maxShelf {
		s.keys[session] = now
	} else {
		s.all = true
	}
	s.wake()
}

// revive has everything tried again: there is a device that can.
func (s *shelf) revive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = true
	s.wake()
}

func (s *shelf) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// What to do about events on a shelf: those to be read are off it, and those that are lost.
type due struct{ readable, late, lost []unread }

// take returns what is due. Of those whose key is late each is returned once.
func (s *shelf) take(now time.Time) (d due) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.events[:0]
	maps.DeleteFunc(s.keys, func(_ id.SessionID, at time.Time) bool { return now.Sub(at) > keyNews })
	for _, u := range s.events {
		_, arrived := s.keys[device.SessionOf(u.event)]
		switch waited := now.Sub(u.since); {
		case s.all || arrived:
			d.readable = append(d.readable, u)
			continue
		case waited >= keyDeadline:
			d.lost = append(d.lost, u)
			continue
		case waited >= keyPatience && !u.asked:
			u.asked = true
			d.late = append(d.late, u)
		}
		kept = append(kept, u)
	}
	clear(s.events[len(kept):])
	s.events, s.all = kept, false
	return d
}
