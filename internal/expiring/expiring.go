// Package expiring is a map that forgets: each entry at the time it was given, and arbitrary ones when it is full.
// It owns the bound, so that what strangers make a server remember never grows beyond it. It never reads the clock and
// starts no goroutine: callers pass now, and what has expired is swept when the entries have doubled since the last sweep.
package expiring

import (
	"sync"
	"time"
)

// A Map has an upper bound of entries. Safe for concurrent use; made by [New].
type Map[K comparable, V any] struct {
	max int // entries

	mu      sync.Mutex
	entries map[K]entry[V]
	sweepAt int // entries
}

// firstSweep is how many entries are not worth a sweep.
const firstSweep = 64

type entry[V any] struct {
	value V
	until time.Time
}

// New returns an empty map for at most limit entries.
func New[K comparable, V any](limit int) *Map[K, V] {
	return &Map[K, V]{max: limit, entries: make(map[K]entry[V]), sweepAt: min(limit, firstSweep)}
}

// Get returns what was put under the key, unless it has expired by now.
func (m *Map[K, V]) Get(key K, now time.Time) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, ok := m.entries[key]
	if !ok || !now.Before(found.until) {
		var none V
		return none, false
	}
	return found.value, true
}

// Put sets the value of a key until then. When the map is full, what has expired goes first, then arbitrary entries.
func (m *Map[K, V]) Put(key K, value V, now, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.entries[key]; !known && len(m.entries) >= m.sweepAt {
		m.sweepLocked(now)
	}
	m.entries[key] = entry[V]{value, until}
}

// First sets the value of a key until then unless there is one, and returns the one that counts.
func (m *Map[K, V]) First(key K, value V, now, until time.Time) V {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, known := m.entries[key]
	switch {
	case known && now.Before(found.until):
		return found.value
	case !known && len(m.entries) >= m.sweepAt:
		m.sweepLocked(now)
	}
	m.entries[key] = entry[V]{value, until}
	return value
}

// sweepLocked removes what has expired, and makes room in a map that is full all the same.
func (m *Map[K, V]) sweepLocked(now time.Time) {
	defer func() { m.sweepAt = min(m.max, max(firstSweep, 2*len(m.entries))) }()
	for k, found := range m.entries {
		if !now.Before(found.until) {
			delete(m.entries, k)
		}
	}
	if len(m.entries) < m.max {
		return
	}
	for k := range m.entries {
		if len(m.entries) <= m.max*3/4 { // far enough not to sweep for every newcomer
			return
		}
		delete(m.entries, k)
	}
}

// Drop forgets a key.
func (m *Map[K, V]) Drop(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, key)
}
