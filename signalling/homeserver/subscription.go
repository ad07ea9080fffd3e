package homeserver

import (
	"slices"
	"sync"

	"maunium.net/go/mautrix/event"
)

// A Subscription is a bounded queue of events. When it is full, newer events are dropped and counted, and the
// subscriber, told so by Take, reads again whatever it derives from them. Safe for concurrent use; what is queued is
// shared by all subscribers and read-only. The content of an event is not parsed: Content.VeryRaw has it.
type Subscription struct {
	inbox *inbox
	types []event.Type
	limit int
	ready chan struct{} // capacity 1

	mu     sync.Mutex
	events []*event.Event
	lost   int
}

// Subscribe queues up to limit events of the given types from now on. The caller must Close the subscription.
func (h *Homeserver) Subscribe(limit int, types ...event.Type) *Subscription {
	s := &Subscription{inbox: &h.inbox, types: types, limit: limit, ready: make(chan struct{}, 1)}
	h.inbox.mu.Lock()
	defer h.inbox.mu.Unlock()
	if h.inbox.subscriptions == nil {
		h.inbox.subscriptions = make(map[*Subscription]struct{})
	}
	h.inbox.subscriptions[s] = struct{}{}
	return s
}

// Ready is signalled when Take has something to return.
func (s *Subscription) Ready() <-chan struct{} { return s.ready }

// Take returns what is queued, oldest first, and how many events were dropped after these.
func (s *Subscription) Take() (events []*event.Event, lost int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, lost = s.events, s.lost
	s.events, s.lost = nil, 0
	return events, lost
}

// Close ends the deliveries. Closing twice is fine.
func (s *Subscription) Close() {
	s.inbox.mu.Lock()
	defer s.inbox.mu.Unlock()
	delete(s.inbox.subscriptions, s)
}

// offer queues those events that are of interest, and returns how many of these were dropped.
func (s *Subscription) offer(events []*event.Event) (dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		switch {
		case !slices.Contains(s.types, e.Type):
			continue
		case len(s.events) >= s.limit:
			dropped++
		default:
			s.events = append(s.events, e)
		}
		s.wake()
	}
	s.lost += dropped
	return dropped
}

func (s *Subscription) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}
