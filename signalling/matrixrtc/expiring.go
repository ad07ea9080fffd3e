package matrixrtc

import (
	"sync"
	"time"
)

// An expiring map forgets its entries at the time each was given, and arbitrary ones when it is full.
// Safe for concurrent use.
type expiring[K comparable, V any] struct {
	max int // entries

	mu      sync.Mutex
	entries map[K]entry[V]
}

type entry[V any] struct {
	value V
	until time.Time
}

func newExpiring[K comparable, V any](limit int) *expiring[K, V] {
	return &expiring[K, V]{max: limit, entries: make(map[K]entry[V])}
}

func (e *expiring[K, V]) get(key K, now time.Time) (V, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	found, ok := e.entries[key]
	if !ok || !now.Before(found.until) {
		var none V
		return none, false
	}
	return found.value, true
}

func (e *expiring[K, V]) put(key K, value V, now, until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := e.entries[key]; !known && len(e.entries) >= e.max {
		e.sweepLocked(now)
	}
	e.entries[key] = entry[V]{value, until}
}

func (e *expiring[K, V]) sweepLocked(now time.Time) {
	for k, found := range e.entries {
		if !now.Before(found.until) {
			delete(e.entries, k)
		}
	}
	if len(e.entries) < e.max {
		return
	}
	for k := range e.entries {
		if len(e.entries) <= e.max*3/4 { // far enough not to sweep for every newcomer
			return
		}
		delete(e.entries, k)
	}
}

func (e *expiring[K, V]) drop(key K) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.entries, key)
}
