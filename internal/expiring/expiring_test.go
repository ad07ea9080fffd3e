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
