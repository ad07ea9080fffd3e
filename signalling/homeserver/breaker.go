package homeserver

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"
)

const (
	tolerated  = 3 // failures in a row
	firstPause = 500 * time.Millisecond
	maxPause   = 15 * time.Second
)

// A breaker stops asking a homeserver that does not answer:
//
//	closed --(3 failures in a row)--> open --(pause over: one request)--> closed, or open for twice as long
//
// Whoever was allowed says how it ended: succeeded, failed or abandoned. In a row means since anybody was answered; what was
// sent before that is not counted, nor is a second failure that is about the same room alone: either says that something is
// slow, not that nobody is there. Safe for concurrent use; the zero value is closed.
type breaker struct {
	mu       sync.Mutex
	answers  mark
	failures int
	stalled  []id.RoomID // that are among the failures
	pause    time.Duration
	until    time.Time // open until then
	probing  bool      // the one request after a pause is on its way
}

// A mark is a moment, by how many were answered before it.
type mark uint64

// mark is now.
func (b *breaker) mark() mark {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.answers
}

func (b *breaker) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < tolerated {
		return true
	}
	if b.probing || now.Before(b.until) {
		return false
	}
	b.probing = true
	return true
}

func (b *breaker) closed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures < tolerated
}

func (b *breaker) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers++
	b.failures, b.stalled, b.pause, b.probing = 0, b.stalled[:0], 0, false
}

// abandoned notes that nobody waited for the answer, which says nothing about the homeserver.
func (b *breaker) abandoned() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
}

// failed notes that nobody answered what was sent at some moment, be it only about a room, and reports whether this opened the
// breaker.
func (b *breaker) failed(now time.Time, sent mark, room id.RoomID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures >= tolerated && !b.probing {
		return false // sent before it opened
	}
	if b.failures < tolerated && (sent != b.answers || room != "" && slices.Contains(b.stalled, room)) {
		return false
	}
	if room != "" && b.failures < tolerated {
		b.stalled = append(b.stalled, room)
	}
	b.failures++
	if b.failures < tolerated {
		return false
	}
	b.probing = false
	b.pause = min(maxPause, max(firstPause, 2*b.pause))
	// Several servers may have lost the same homeserver: come back at different moments.
	b.until = now.Add(b.pause*3/4 + rand.N(b.pause/2))
	return b.failures == tolerated
}
