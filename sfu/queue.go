package sfu

import (
	"sync"
	"time"
)

// queueLimit bounds the events waiting for one participant. All events coalesce by participant or track, so only a reader that
// stopped reading in a room with very much coming and going reaches it: the participant is then closed with StateMismatch,
// which makes its client join anew.
const queueLimit = 8192

// keptItems is up to how many of them the memory is kept for those that come next: in a crowd as many as come together.
const keptItems = 32

type eventKind uint8

const (
	kindParticipant eventKind = iota
	kindRoom
	kindWanted
	kindDropped
	kindFailed
	kindPermission
	kindStream
	kindFirst
	kindQualities
	kindMute
	kindPublished
	kindRemoved
	kindSpeaker
	kindQuality
	kindClosed
)

// queueKey is what events coalesce by: the kind, and the participant or track it is about.
type queueKey struct {
	kind eventKind
	id   SID
}

// queueItem is one event waiting. Per-participant kinds wait one by one and are read as one event.
type queueItem struct {
	key     queueKey
	event   Event
	info    *ParticipantInfo
	speaker Speaker
	quality ParticipantQuality
	dead    bool
}

// queue holds the events of one participant until its session reads them. Safe for concurrent use.
type queue struct {
	owner SID
	ready chan struct{} // capacity 1

	mu     sync.Mutex
	items  []queueItem
	index  map[queueKey]int
	closed bool
	woken  bool      // the reader was told, and has not read yet
	late   bool      // there is news of which it will be told later
	rest   time.Time // until when news waits
}

func newQueue(owner SID, ready chan struct{}) *queue {
	if ready == nil {
		ready = make(chan struct{}, 1)
	}
	return &queue{owner: owner, ready: ready, index: make(map[queueKey]int)}
}

type pushResult uint8

const (
	pushed   pushResult = iota
	first               // wake the reader
	later               // wake it when release says so
	overflow            // the queue is full: close the participant
)

// push appends an item, or lets it take the place of an older one with the same key. News makes the reader read at once, but that which comes within pause of
// the former waits, unless something else is to be read meanwhile: then all is.
func (q *queue) push(it queueItem, now time.Time, pause time.Duration) pushResult {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return pushed
	}
	if at, ok := q.index[it.key]; ok {
		q.items[at] = it
		return pushed
	}
	if len(q.items) >= queueLimit && !q.compactLocked() && it.key.kind != kindClosed {
		return overflow
	}
	q.items = append(q.items, it)
	q.index[it.key] = len(q.items) - 1
	q.closed = it.key.kind == kindClosed
	news := q.news(it.key)
	switch {
	case q.woken:
		return pushed
	case news && now.Before(q.rest):
		if q.late {
			return pushed
		}
		q.late = true
		return later
	case news:
		q.rest = now.Add(pause)
	}
	q.woken = true
	return first
}

// news reports whether an event is about others who come, go and change: with many people in a room there is much of it, and all of them are told.
func (q *queue) news(k queueKey) bool {
	switch k.kind {
	case kindParticipant:
		return k.id != q.owner
	case kindWanted, kindDropped, kindPermission:
		return true
	}
	return false
}

// release reports whether to wake the reader for news that waited, and whether there is still some that waits.
func (q *queue) release(now time.Time, pause time.Duration) (wake, waits bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case !q.late || q.woken: // it was read meanwhile, or will be
		return false, false
	case now.Before(q.rest):
		return false, true
	}
	q.late, q.woken, q.rest = false, true, now.Add(pause)
	return true, false
}

// withdraw takes an unread item back and reports whether there was one.
func (q *queue) withdraw(key queueKey) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	at, ok := q.index[key]
	if !ok {
		return false
	}
	q.items[at] = queueItem{dead: true}
	delete(q.index, key)
	return true
}

// withdrawKind takes back all unread items of a kind.
func (q *queue) withdrawKind(kind eventKind) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.items {
		if it := &q.items[i]; !it.dead && it.key.kind == kind {
			delete(q.index, it.key)
			*it = queueItem{dead: true}
		}
	}
}

// compactLocked removes withdrawn items and reports whether that made room.
func (q *queue) compactLocked() bool {
	kept := q.items[:0]
	for _, it := range q.items {
		if !it.dead {
			q.index[it.key] = len(kept)
			kept = append(kept, it)
		}
	}
	q.items = kept
	return len(kept) < queueLimit
}

// wake tells the reader that there is something to read.
func (q *queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// drain takes everything that waits.
func (q *queue) drain() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	if q.items = nil; cap(items) <= keptItems {
		q.items = items[:0]
		defer clear(items)
	}
	q.woken, q.late = false, false
	clear(q.index)

	var out []Event
	for i := 0; i < len(items); {
		if items[i].dead {
			i++
			continue
		}
		run := i + 1
		for run < len(items) && (items[run].dead || items[run].key.kind == items[i].key.kind) {
			run++
		}
		switch items[i].key.kind {
		case kindParticipant:
			out = append(out, ParticipantsChanged{collect(items[i:run], func(it *queueItem) *ParticipantInfo { return it.info })})
		case kindSpeaker:
			out = append(out, Speakers{collect(items[i:run], func(it *queueItem) Speaker { return it.speaker })})
		case kindQuality:
			out = append(out, Qualities{collect(items[i:run], func(it *queueItem) ParticipantQuality { return it.quality })})
		default:
			out = append(out, items[i].event)
			run = i + 1
		}
		i = run
	}
	return out
}

func collect[T any](items []queueItem, pick func(*queueItem) T) []T {
	out := make([]T, 0, len(items))
	for i := range items {
		if !items[i].dead {
			out = append(out, pick(&items[i]))
		}
	}
	return out
}
