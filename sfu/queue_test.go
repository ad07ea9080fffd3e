package sfu

import (
	"fmt"
	"testing"
	"time"
)

func TestQueueOverflowClosesOnlyThatParticipant(t *testing.T) {
	st := newStage(t, Options{})
	slow, alice := st.join("slow"), st.join("alice")
	for i := range queueLimit {
		id := Identity(fmt.Sprint("visitor", i))
		p, err := st.rooms.Join("room", member(id), st.now)
		if err != nil {
			t.Fatal(err)
		}
		p.Leave(ClientInitiated, st.now)
		alice.Events()
	}
	if !slow.Closed() || alice.Closed() {
		t.Fatalf("closed: slow %t, alice %t", slow.Closed(), alice.Closed())
	}
	events := slow.Events()
	if c, ok := events[len(events)-1].(Closed); !ok || c.Reason != StateMismatch {
		t.Errorf("the last event is %+v", events[len(events)-1])
	}
	if got := st.rooms.Stats().Overflows; got != 1 {
		t.Errorf("%d overflows counted", got)
	}
}

func TestQueueWakesItsReader(t *testing.T) {
	q, now := newQueue("", nil), time.Time{}
	item := func(kind eventKind, id SID) queueItem {
		return queueItem{key: queueKey{kind, id}, event: DownlinkDropped{id}}
	}
	if got := q.push(item(kindDropped, "a"), now, 0); got != first {
		t.Errorf("first push: %v", got)
	}
	if got := q.push(item(kindDropped, "a"), now, 0); got != pushed {
		t.Errorf("the same again: %v", got)
	}
	if !q.withdraw(queueKey{kindDropped, "a"}) || q.withdraw(queueKey{kindDropped, "a"}) {
		t.Error("withdraw does not say what it did")
	}
	if got := q.drain(); len(got) != 0 {
		t.Errorf("drained %v", got)
	}
	if got := q.push(item(kindDropped, "b"), now, 0); got != first {
		t.Errorf("first push after drain: %v", got)
	}
	if got := q.push(item(kindClosed, ""), now, 0); got != pushed {
		t.Errorf("closing: %v", got)
	}
	q.push(item(kindDropped, "c"), now, 0)
	if got := q.drain(); len(got) != 2 {
		t.Errorf("events after the last one: %v", got)
	}
}

func TestQueueMakesRoomOfWhatWasWithdrawn(t *testing.T) {
	q := newQueue("", nil)
	for i := range 3 * queueLimit {
		key := queueKey{kindWanted, SID(fmt.Sprint(i))}
		if q.push(queueItem{key: key, event: DownlinkDropped{}}, time.Time{}, 0) == overflow {
			t.Fatalf("full after %d items of which one lives", i)
		}
		q.withdraw(key)
	}
}
