package sfu

import (
	"errors"
	"sync"
	"time"
)

// errRoomClosed says that the room ended between finding and locking it.
var errRoomClosed = errors.New("room is closed")

// departed bounds how many participants a room remembers after they left, for clients that resume.
const departed = 256

// room is one room. Its mutex guards everything in it: its participants, their tracks and subscriptions.
type room struct {
	rooms     *Rooms
	id        RoomID
	sid       SID
	createdAt time.Time

	mu         sync.Mutex
	closed     bool
	options    RoomOptions
	members    []*Participant // in the order of joining
	byIdentity map[Identity]*Participant
	bySID      map[SID]*Participant
	tracks     map[SID]*track      // announced
	gone       []*ParticipantInfo  // who left lately, oldest first, at most departed
	insiders   map[string]struct{} // who may come back into a locked room, as Member.person; nil while it is open
	everJoined bool
	emptySince time.Time // zero while a standard participant is in
	agenda     agenda
}

func newRoom(r *Rooms, id RoomID, now time.Time) *room {
	return &room{
		rooms: r, id: id, sid: newSID("RM_"), createdAt: now, emptySince: now,
		options: RoomOptions{
			EmptyTimeout:     r.options.EmptyTimeout,
			DepartureTimeout: r.options.DepartureTimeout,
			MaxParticipants:  r.options.MaxParticipants,
		},
		byIdentity: make(map[Identity]*Participant),
		bySID:      make(map[SID]*Participant),
		tracks:     make(map[SID]*track),
		agenda:     newAgenda(),
	}
}

func (rm *room) infoLocked() RoomInfo {
	info := RoomInfo{
		SID: rm.sid, Name: rm.id, Metadata: rm.options.Metadata, CreatedAt: rm.createdAt,
		EmptyTimeout: rm.options.EmptyTimeout, DepartureTimeout: rm.options.DepartureTimeout,
		MaxParticipants: rm.options.MaxParticipants, Locked: rm.insiders != nil,
	}
	for _, p := range rm.members {
		if p.member.Permission.Hidden {
			continue
		}
		info.Participants++
		if len(p.publications.tracks) > 0 {
			info.Publishers++
		}
	}
	return info
}

func (rm *room) configureLocked(o RoomOptions, b *batch) {
	if o.EmptyTimeout > 0 {
		rm.options.EmptyTimeout = o.EmptyTimeout
	}
	if o.DepartureTimeout > 0 {
		rm.options.DepartureTimeout = o.DepartureTimeout
	}
	if o.MaxParticipants > 0 {
		rm.options.MaxParticipants = o.MaxParticipants
	}
	if o.Metadata != "" && o.Metadata != rm.options.Metadata {
		rm.options.Metadata = o.Metadata
		rm.announceLocked(b)
	}
}

// announceLocked tells everyone the state of the room.
func (rm *room) announceLocked(b *batch) {
	info := rm.infoLocked()
	rm.agenda.told = info
	for _, p := range rm.members {
		b.tell(p, kindRoom, "", RoomChanged{info})
	}
}

// standardLocked counts the participants that keep the room open and fill it up.
func (rm *room) standardLocked() int {
	n := 0
	for _, p := range rm.members {
		if p.member.standard() {
			n++
		}
	}
	return n
}

// close ends the room and reports whether it was open.
func (rm *room) close(why Reason, now time.Time) bool {
	b := batch{now: now}
	rm.mu.Lock()
	open := !rm.closed
	rm.endLocked(why, &b)
	rm.mu.Unlock()
	b.finish()
	return open
}

func (rm *room) endLocked(why Reason, b *batch) {
	rm.closed = true
	for len(rm.members) > 0 {
		rm.members[len(rm.members)-1].leaveLocked(why, false, b)
	}
}

// rememberLocked keeps who left for clients that were away meanwhile.
func (rm *room) rememberLocked(info *ParticipantInfo) {
	if len(rm.gone) == departed {
		rm.gone = append(rm.gone[:0:0], rm.gone[1:]...)
	}
	rm.gone = append(rm.gone, info)
}
