package expiring

import (
	"testing"
	"time"
)

func TestMap(t *testing.T) {
	now := time.Unix(0, 0)
	e := New[int, string](8)
	e.Put(1, "one", now, now.Add(time.Second))
	if got, ok := e.Get(1, now); !ok || got != "one" {
		t.Errorf("get = %q, %t", got, ok)
	}
	if _, ok := e.Get(1, now.Add(time.Second)); ok {
		t.Error("still there when its time is over")
	}
	for i := range 100 {
		e.Put(i, "", now, now.Add(time.Hour))
		if _, ok := e.Get(i, now); !ok {
			t.Errorf("entry %d is gone at once", i)
		}
		if len(e.entries) > 8 {
			t.Fatalf("holds %d entries, at most 8", len(e.entries))
		}
	}
	e.Drop(99)
	if _, ok := e.Get(99, now); ok {
		t.Error("dropped entry is still there")
	}
}

func TestFirstCounts(t *testing.T) {
	m, now := New[string, int](2), time.Unix(0, 0)
	until := now.Add(time.Hour)
	if got := m.First("a", 1, now, until); got != 1 {
		t.Errorf("first value is %d, want 1", got)
	}
	if got := m.First("a", 2, now.Add(59*time.Minute), until.Add(time.Hour)); got != 1 {
		t.Errorf("within its time the value is %d, want the first, 1", got)
	}
	if got := m.First("a", 3, until, until.Add(time.Hour)); got != 3 {
		t.Errorf("after its time the value is %d, want 3", got)
	}
	for i, key := range []string{"b", "c", "d"} {
		m.First(key, i, until, until.Add(time.Hour))
	}
	if n := len(m.entries); n > 2 {
		t.Errorf("%d entries, at most 2", n)
	}
}

// TestExpiredEntriesGo has entries come one a second and live for ten: the map holds about what lives, far below its limit.
func TestExpiredEntriesGo(t *testing.T) {
	for name, put := range map[string]func(m *Map[int, int], key int, now, until time.Time){
		"Put":   func(m *Map[int, int], key int, now, until time.Time) { m.Put(key, 0, now, until) },
		"First": func(m *Map[int, int], key int, now, until time.Time) { m.First(key, 0, now, until) },
	} {
		m, now := New[int, int](100_000), time.Unix(0, 0)
		for i := range 10_000 {
			now = now.Add(time.Second)
			put(m, i, now, now.Add(10*time.Second))
			if _, ok := m.Get(max(0, i-9), now); !ok {
				t.Fatalf("%s: an entry is gone after 9 s", name)
			}
			if n := len(m.entries); n > firstSweep {
				t.Fatalf("%s: %d entries after %d s, of which 10 live", name, n, i)
			}
		}
	}
}
