package sfu

import (
	"errors"
	"testing"
)

// A locked room admits who was in it, under any identity, and nobody else; who is removed is out for good.
func TestLock(t *testing.T) {
	owned := func(owner string) func(*Member) { return func(m *Member) { m.Owner = owner } }
	st := newStage(t, Options{})
	if err := st.rooms.Lock("room", true); !errors.Is(err, ErrNotFound) {
		t.Errorf("lock a room that is not there: %v", err)
	}
	alice := st.join("alice:1", owned("alice"))
	st.join("bob")
	for range 2 { // twice is once
		if err := st.rooms.Lock("room", true); err != nil {
			t.Fatal(err)
		}
	}
	if info, _, _ := st.rooms.Room("room"); !info.Locked {
		t.Error("the room does not say that it is locked")
	}
	enters := func(id Identity, want error, change ...func(*Member)) {
		t.Helper()
		if err := st.rooms.Check("room", member(id, change...)); !errors.Is(err, want) {
			t.Errorf("check %s: %v, want %v", id, err, want)
		}
		p, err := st.rooms.Join("room", member(id, change...), st.now)
		if !errors.Is(err, want) {
			t.Errorf("join %s: %v, want %v", id, err, want)
		}
		if p != nil {
			p.Leave(ClientInitiated, st.now)
		}
	}
	enters("carol", ErrRoomLocked)
	enters("alice:2", nil, owned("alice"))
	enters("recorder", nil, func(m *Member) { m.Permission.Recorder = true })
	alice.Leave(ClientInitiated, st.now)
	enters("alice:1", nil, owned("alice")) // who goes may come back
	if err := st.rooms.Remove("room", "bob", ParticipantRemoved, st.now); err != nil {
		t.Fatal(err)
	}
	enters("bob", ErrRoomLocked)
	if err := st.rooms.Lock("room", false); err != nil {
		t.Fatal(err)
	}
	enters("bob", nil)
	enters("carol", nil)
	if err := st.rooms.Delete("room", st.now); err != nil {
		t.Fatal(err)
	}
	enters("carol", nil)
}
