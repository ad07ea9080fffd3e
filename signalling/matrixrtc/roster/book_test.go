package roster

import (
	"fmt"
	"testing"
	"time"

	"callserver/signalling/matrixrtc/member"
)

// TestIdentitiesAreBounded has somebody who is in a call make up one membership after the other. The book stays small, and
// knows all the same when the participant is gone, and when it comes under one of those that it forgot.
func TestIdentitiesAreBounded(t *testing.T) {
	now := time.Unix(0, 0)
	b := NewBook(Rules{Local: map[string]bool{"x": true}, Service: service})
	under := func(session string, n int) Presence {
		id := fmt.Sprint("member", n)
		return Presence{Stay: stay1, Slot: member.SlotRoom, Member: id, Identity: member.MemberIdentity(alice, device, id), Session: session, Publishes: true}
	}
	here := under("first", 0)
	b.Joined(here, now)
	for n := range 1000 {
		b.Issued(under("", n), now)
	}
	st := b.stays[stay1]
	if n := len(st.identities); n > maxIdentities || len(b.watched) != n || len(st.coming) > n {
		t.Fatalf("%d identities, %d watched, %d coming, want at most %d", n, len(b.watched), len(st.coming), maxIdentities)
	}
	if !b.here(st) {
		t.Fatal("who is here is forgotten")
	}
	b.Left(Key{call, here.Identity}, here.Session, Parted, now)
	if b.here(st) || st.absent != now {
		t.Fatal("who left is here")
	}
	again := under("again", 1)
	b.Joined(again, now)
	b.Left(Key{call, again.Identity}, again.Session, Parted, now)
	now = now.Add(comingTime)
	if due := b.Due(now); len(due) != 1 || !due[0].Clear {
		t.Errorf("due after all left: %+v, want to clear the membership", due)
	}
}
