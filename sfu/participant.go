package sfu

import (
	"time"
)

// Participant is one session of a member in a room. Safe for concurrent use. After Leave every call does nothing or fails with
// ErrClosed.
type Participant struct {
	room     *room
	sid      SID
	identity Identity
	joinedAt time.Time
	queue    *queue
	data     dataSink

	// Guarded by room.mu.
	member        Member
	state         ParticipantState
	info          *ParticipantInfo // as told last; never written again
	version       uint32
	publications  publications
	subscriptions map[SID]*subscription // by track, whether the track is known or not
	connection    connection
	limited       bool // there is not bandwidth enough to send it all that it wants
	withheld      bool // nothing that it publishes is forwarded
	line          line
}

// SID returns the id of this session.
func (p *Participant) SID() SID { return p.sid }

// Identity returns who it is.
func (p *Participant) Identity() Identity { return p.identity }

// Ready is readable when there are events to read.
func (p *Participant) Ready() <-chan struct{} { return p.queue.ready }

// Events takes the events that wait, in order; the package comment says which order. One reader at a time.
func (p *Participant) Events() []Event { return p.queue.drain() }

// Info returns the participant's present state.
func (p *Participant) Info() ParticipantInfo {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	return *p.info
}

// Room returns the present state of the room.
func (p *Participant) Room() RoomInfo {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	return p.room.infoLocked()
}

// Others returns everyone else that this participant may see, in the order of joining.
func (p *Participant) Others() []*ParticipantInfo {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	return p.othersLocked()
}

func (p *Participant) othersLocked() []*ParticipantInfo {
	out := make([]*ParticipantInfo, 0, len(p.room.members))
	for _, q := range p.room.members {
		if q != p && !q.member.Permission.Hidden {
			out = append(out, q.info)
		}
	}
	return out
}

// Snapshot is what a join answer holds.
type Snapshot struct {
	Room   RoomInfo
	Self   *ParticipantInfo
	Others []*ParticipantInfo
}

// Snapshot returns room, self and others at one moment, and takes back the participant and room events not read yet, which
// the snapshot supersedes: what Events returns afterwards is newer. For the join answer.
func (p *Participant) Snapshot() Snapshot {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	p.queue.withdrawKind(kindParticipant)
	p.queue.withdrawKind(kindRoom)
	return Snapshot{Room: p.room.infoLocked(), Self: p.info, Others: p.othersLocked()}
}

// SetState moves the participant forward, to Joined when it was answered and to Active when its primary transport connects.
// Going back is ignored.
func (p *Participant) SetState(s ParticipantState, now time.Time) {
	b := batch{now: now}
	p.room.mu.Lock()
	if p.state < s && s < Disconnected {
		p.state = s
		p.changedLocked(&b)
	}
	p.room.mu.Unlock()
	b.finish()
}

// Closed tells whether the participant has left.
func (p *Participant) Closed() bool {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	return p.state == Disconnected
}

// changedLocked gives the participant a new version and tells everyone who may see it, itself included.
func (p *Participant) changedLocked(b *batch) {
	p.refreshLocked()
	p.tellLocked(p, b)
	if p.member.Permission.Hidden {
		return
	}
	for _, q := range p.room.members {
		if q != p {
			p.tellLocked(q, b)
		}
	}
}

// tellLocked queues p's info for q.
func (p *Participant) tellLocked(q *Participant, b *batch) {
	b.push(q, queueItem{key: queueKey{kindParticipant, p.sid}, info: p.info})
}

// refreshLocked builds the info anew, under the next version.
func (p *Participant) refreshLocked() {
	p.version++
	info := &ParticipantInfo{
		SID: p.sid, Identity: p.identity, Name: p.member.Name, Metadata: p.member.Metadata,
		Attributes: p.member.Attributes, Kind: p.member.Kind, State: p.state, JoinedAt: p.joinedAt,
		Version: p.version, Permission: p.member.Permission, Client: p.member.Client,
		Publisher: len(p.publications.tracks) > 0, encoding: &encoding{},
	}
	if n := len(p.publications.tracks); n > 0 {
		info.Tracks = make([]TrackInfo, 0, n)
		for _, t := range p.publications.tracks {
			info.Tracks = append(info.Tracks, t.info)
		}
	}
	p.info = info
}
