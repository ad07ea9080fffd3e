package homeserver

import (
	"context"
	"fmt"
	"sync"

	"maunium.net/go/mautrix/id"
)

const (
	maxAtOnce = 128 // requests; the next one waits, within its time-out
	maxOfRoom = 16  // of these, requests about one room
)

// Slots bound the requests at a time. A room whose requests hang fills its own slots and leaves the others'. Safe for
// concurrent use.
type slots struct {
	all chan struct{}

	mu    sync.Mutex
	rooms map[id.RoomID]*roomSlots
}

// roomSlots are those of one room, kept while somebody has or waits for one.
type roomSlots struct {
	taken chan struct{}
	users int
}

func newSlots() *slots {
	return &slots{all: make(chan struct{}, maxAtOnce), rooms: map[id.RoomID]*roomSlots{}}
}

// take waits for a slot for a request about a room, or about none. Whoever gets one calls release.
func (s *slots) take(ctx context.Context, room id.RoomID) (release func(), err error) {
	done := func() {}
	if room != "" {
		if done, err = s.takeOf(ctx, room); err != nil {
			return nil, err
		}
	}
	select {
	case s.all <- struct{}{}:
		return func() { <-s.all; done() }, nil
	case <-ctx.Done():
		done()
		return nil, fmt.Errorf("wait for other requests: %w", ctx.Err())
	}
}

func (s *slots) takeOf(ctx context.Context, room id.RoomID) (release func(), err error) {
	s.mu.Lock()
	own := s.rooms[room]
	if own == nil {
		own = &roomSlots{taken: make(chan struct{}, maxOfRoom)}
		s.rooms[room] = own
	}
	own.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if own.users--; own.users == 0 {
			delete(s.rooms, room)
		}
	}
	select {
	case own.taken <- struct{}{}:
		return func() { <-own.taken; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("wait for other requests about the room: %w", ctx.Err())
	}
}

// roomOf is the room that a path is about, empty if it is about none: what follows the word rooms.
func roomOf(path []any) id.RoomID {
	for i, part := range path {
		if room, ok := part.(id.RoomID); ok && i > 0 && path[i-1] == "rooms" {
			return room
		}
	}
	return ""
}
