package sfu

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestJoinNeedsARoom(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	rooms := New(Options{})
	if _, err := rooms.Join("room", member("alice"), now); !errors.Is(err, ErrRoomNotFound) {
		t.Errorf("join without a room: %v", err)
	}
	if err := rooms.Check("room", member("alice")); !errors.Is(err, ErrRoomNotFound) {
		t.Errorf("check without a room: %v", err)
	}
	if err := rooms.Check("room", member("alice", func(m *Member) { m.CreateRoom = true })); err != nil || len(rooms.List()) != 0 {
		t.Errorf("check with the right to create: %v", err)
	}
	if _, err := rooms.Join("room", member("alice", func(m *Member) { m.CreateRoom = true }), now); err != nil {
		t.Errorf("join with the right to create: %v", err)
	}
	if _, err := rooms.Join("room", member("bob"), now); err != nil {
		t.Errorf("join of an existing room: %v", err)
	}
	info := rooms.Create("other", RoomOptions{MaxParticipants: 1, Metadata: "m"}, now)
	again := rooms.Create("other", RoomOptions{}, now)
	if info != again || info.Metadata != "m" || info.MaxParticipants != 1 {
		t.Errorf("created %+v, then %+v", info, again)
	}
	if got := rooms.List(); len(got) != 2 || got[0].Name != "other" || got[1].Participants != 2 {
		t.Errorf("list %+v", got)
	}
}

func TestRoomLimitCountsPeopleOnly(t *testing.T) {
	st := newStage(t, Options{MaxParticipants: 1})
	st.join("alice")
	if _, err := st.rooms.Join("room", member("bob"), st.now); !errors.Is(err, ErrRoomFull) {
		t.Errorf("second person: %v", err)
	}
	if err := st.rooms.Check("room", member("bob")); !errors.Is(err, ErrRoomFull) {
		t.Errorf("check of a second person: %v", err)
	}
	if _, err := st.rooms.Join("room", member("agent", func(m *Member) { m.Kind = KindAgent }), st.now); err != nil {
		t.Errorf("agent: %v", err)
	}
	if _, err := st.rooms.Join("room", member("alice"), st.now); err != nil {
		t.Errorf("the same person again: %v", err)
	}
}

func TestDuplicateIdentity(t *testing.T) {
	st := newStage(t, Options{})
	modern := st.join("modern")
	old := st.join("old", func(m *Member) { m.Client.Protocol = 9 })
	first := st.join("alice")
	mic := first.microphone()
	modern.bind(mic)
	modern.Events()
	old.Events()
	second := st.join("alice")

	if got := only[Closed](first.Events()); len(got) != 1 || got[0].Reason != DuplicateIdentity {
		t.Errorf("the former session was told %+v", got)
	}
	events := modern.Events()
	if got := only[DownlinkDropped](events); len(got) != 1 || got[0].Track != mic {
		t.Errorf("dropped %+v", got)
	}
	for _, e := range only[ParticipantsChanged](events) {
		for _, p := range e.Participants {
			if p.SID != second.SID() {
				t.Errorf("modern client was told of %+v", p)
			}
		}
	}
	var seen []SID
	for _, e := range only[ParticipantsChanged](old.Events()) {
		for _, p := range e.Participants {
			seen = append(seen, p.SID)
		}
	}
	if len(seen) != 2 || seen[0] != first.SID() || seen[1] != second.SID() {
		t.Errorf("old client was told of %v, want the former session to go before the new one comes", seen)
	}
	first.Leave(SignalClose, st.now)
	if st.rooms.Participant("room", "alice") != second.Participant || st.rooms.BySID("room", first.SID()) != nil {
		t.Error("a late Leave of the former session touched the new one")
	}
	if len(modern.Events()) != 0 {
		t.Error("a late Leave of the former session was told")
	}
}

func TestDuplicateIdentityBeforeAnybodyRead(t *testing.T) {
	st := newStage(t, Options{})
	bob := st.join("bob")
	for range 5 {
		st.join("alice").microphone()
	}
	last := st.rooms.Participant("room", "alice")
	events := bob.Events()
	people := only[ParticipantsChanged](events)
	if len(people) != 1 || len(people[0].Participants) != 2 { // bob himself and the last alice
		t.Fatalf("told %+v", people)
	}
	wanted := only[DownlinkWanted](events)
	if len(wanted) != 1 || wanted[0].Publisher != last.SID() || len(only[DownlinkDropped](events)) != 0 {
		t.Errorf("wanted %+v, dropped %+v", wanted, only[DownlinkDropped](events))
	}
}

func TestHiddenParticipants(t *testing.T) {
	st := newStage(t, Options{})
	alice := st.join("alice")
	mic := alice.microphone()
	alice.Events()
	ghost := st.join("ghost", func(m *Member) { m.Permission.Hidden = true })
	ghost.bind(mic)
	if got := alice.Events(); len(got) != 0 {
		t.Errorf("alice was told %+v of a hidden participant", got)
	}
	if len(alice.Others()) != 0 || len(ghost.Others()) != 1 || alice.Room().Participants != 1 {
		t.Error("the hidden participant is not hidden, or does not see")
	}
	if _, err := ghost.Publish(TrackRequest{CID: "c", Kind: Audio}, st.now); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("a hidden participant publishes: %v", err)
	}
	ghost.Leave(ClientInitiated, st.now)
	if got := only[ParticipantsChanged](alice.Events()); len(got) != 0 {
		t.Errorf("alice was told %+v", got)
	}
}

func TestSnapshotSupersedesWhatWaits(t *testing.T) {
	st := newStage(t, Options{})
	bob := st.join("bob")
	alice := st.join("alice")
	alice.microphone()
	snap := bob.Snapshot()
	if len(snap.Others) != 1 || len(snap.Others[0].Tracks) != 1 || snap.Self.Identity != "bob" || snap.Room.Participants != 2 {
		t.Errorf("snapshot %+v", snap)
	}
	events := bob.Events()
	if got := only[ParticipantsChanged](events); len(got) != 0 {
		t.Errorf("told again %+v", got)
	}
	if got := only[DownlinkWanted](events); len(got) != 1 {
		t.Errorf("wanted %+v", got)
	}
}

func TestRoomLifeCycle(t *testing.T) {
	tests := []struct {
		name  string
		drive func(st *stage)
		lives time.Duration
	}{
		{"nobody ever came", func(st *stage) { st.rooms.Create("room", RoomOptions{}, st.now) }, 5 * time.Minute},
		{"own timeout", func(st *stage) { st.rooms.Create("room", RoomOptions{EmptyTimeout: time.Minute}, st.now) }, time.Minute},
		{"everyone left", func(st *stage) { st.join("alice").Leave(ClientInitiated, st.now) }, 20 * time.Second},
		{"an agent stays", func(st *stage) {
			st.join("agent", func(m *Member) { m.Kind = KindAgent })
			st.join("alice").Leave(ClientInitiated, st.now)
		}, 20 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := newStage(t, Options{})
			tt.drive(st)
			agent := st.rooms.Participant("room", "agent")
			st.pass(tt.lives - 100*time.Millisecond)
			if _, _, ok := st.rooms.Room("room"); !ok {
				t.Fatal("the room ended too early")
			}
			st.pass(200 * time.Millisecond)
			if _, _, ok := st.rooms.Room("room"); ok {
				t.Fatal("the room lives on")
			}
			if agent != nil {
				if got := only[Closed](agent.Events()); len(got) != 1 || got[0].Reason != RoomClosed {
					t.Errorf("the agent was told %+v", got)
				}
			}
			if s := st.rooms.Stats(); s.Rooms != 0 || s.RoomsClosed != s.RoomsCreated || s.Joins != s.Leaves {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestJoinTimeout(t *testing.T) {
	st := newStage(t, Options{})
	st.join("alice")
	bob, err := st.rooms.Join("room", member("bob"), st.now)
	if err != nil {
		t.Fatal(err)
	}
	st.pass(59 * time.Second)
	if bob.Closed() {
		t.Fatal("closed too early")
	}
	st.pass(5 * time.Second)
	if got := only[Closed](bob.Events()); len(got) != 1 || got[0].Reason != JoinFailure {
		t.Errorf("told %+v", got)
	}
	if st.rooms.Participant("room", "alice") == nil {
		t.Error("alice, who is active, is gone too")
	}
}

func TestRemoveAndDelete(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob := st.join("alice"), st.join("bob")
	if err := st.rooms.Remove("room", "alice", ParticipantRemoved, st.now); err != nil {
		t.Error(err)
	}
	if err := st.rooms.Remove("room", "alice", ParticipantRemoved, st.now); !errors.Is(err, ErrNotFound) {
		t.Errorf("removing twice: %v", err)
	}
	if err := st.rooms.Delete("room", st.now); err != nil {
		t.Error(err)
	}
	if err := st.rooms.Delete("room", st.now); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleting twice: %v", err)
	}
	for c, want := range map[*client]Reason{alice: ParticipantRemoved, bob: RoomDeleted} {
		if got := only[Closed](c.Events()); len(got) != 1 || got[0].Reason != want {
			t.Errorf("%s was told %+v, want %v", c.Identity(), got, want)
		}
	}
	if p, err := st.rooms.Join("room", member("carol"), st.now); err != nil || p.Room().SID == alice.Room().SID {
		t.Errorf("the room's name is not free again: %v", err)
	}
}

func TestResync(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob, carol := st.join("alice"), st.join("bob"), st.join("carol")
	mic := bob.microphone()
	alice.Events()
	carol.Leave(ClientInitiated, st.now)
	dave := st.join("dave")
	alice.Events() // lost on the way
	alice.Resync(st.now)
	select {
	case <-alice.Ready():
	default:
		t.Error("the reader is not woken")
	}
	events := alice.Events()
	state := make(map[SID]ParticipantState)
	for _, e := range only[ParticipantsChanged](events) {
		for _, p := range e.Participants {
			state[p.SID] = p.State
		}
	}
	want := map[SID]ParticipantState{alice.SID(): Active, bob.SID(): Active, carol.SID(): Disconnected, dave.SID(): Active}
	for sid, s := range want {
		if got, ok := state[sid]; !ok || got != s {
			t.Errorf("%s is told as %v (%t), want %v", sid, got, ok, s)
		}
	}
	if got := only[SubscriptionPermission](events); len(got) != 1 || got[0].Track != mic || !got[0].Allowed {
		t.Errorf("permissions %+v", got)
	}
	if got := only[RoomChanged](events); len(got) != 1 || got[0].Room.Participants != 3 {
		t.Errorf("room %+v", got)
	}
	st.join("carol")
	alice.Events()
	alice.Resync(st.now)
	for _, e := range only[ParticipantsChanged](alice.Events()) {
		for _, p := range e.Participants {
			if p.SID == carol.SID() {
				t.Errorf("the former session of carol is told after her new one: %+v", p)
			}
		}
	}
}

// Devices of one user, and the two names of one device, are one person towards the limit of a room; a few of them.
func TestPeopleFillRooms(t *testing.T) {
	r := New(Options{AutoCreate: true, MaxParticipants: 2})
	join := func(identity, owner string) error {
		m := Member{Identity: Identity(identity), Owner: owner}
		checked := r.Check("room", m)
		_, err := r.Join("room", m, time.Unix(1_700_000_000, 0))
		if !errors.Is(checked, err) {
			t.Errorf("%s: check says %v, joining %v", identity, checked, err)
		}
		return err
	}
	for _, step := range []struct {
		identity, owner string
		want            error
	}{
		{"alice:1", "alice", nil},
		{"hash", "alice", nil},
		{"bob", "", nil},
		{"carol:1", "carol", ErrRoomFull},
		{"alice:2", "alice", nil},
		{"bob", "", nil}, // takes its own place over
		{"bob", "carol", nil},
		{"dave", "", ErrRoomFull},
	} {
		if err := join(step.identity, step.owner); !errors.Is(err, step.want) || (err == nil) != (step.want == nil) {
			t.Errorf("%s of %q: %v, want %v", step.identity, step.owner, err, step.want)
		}
	}
	for i := 3; ; i++ {
		if err := join(fmt.Sprint("alice:", i), "alice"); err != nil {
			if i != maxIdentities {
				t.Errorf("identity %d of one person is refused, want %d", i, maxIdentities)
			}
			break
		}
	}
}
