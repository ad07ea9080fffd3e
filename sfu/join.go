package sfu

import (
	"maps"
	"slices"
	"time"
)

// supersedes is the protocol version from which clients key participants by identity and follow a changed sid by themselves.
const supersedes = 12

// maxIdentities is how many identities of one person may be in a room with a limit: a few devices, each for a moment twice.
const maxIdentities = 8

// join adds a member. It fails with errRoomClosed if the room ended meanwhile.
func (rm *room) join(m Member, now time.Time) (*Participant, error) {
	b := batch{now: now}
	rm.mu.Lock()
	p, err := rm.joinLocked(m, &b)
	rm.mu.Unlock()
	b.finish()
	return p, err
}

func (rm *room) joinLocked(m Member, b *batch) (*Participant, error) {
	if rm.closed {
		return nil, errRoomClosed
	}
	if m.Identity == "" {
		return nil, ErrUnsupported
	}
	if err := rm.refusesLocked(m); err != nil {
		return nil, err
	}
	sid := newSID("PA_")
	p := &Participant{
		room: rm, sid: sid, identity: m.Identity, joinedAt: b.now, queue: newQueue(sid, m.Ready),
		member: m, subscriptions: make(map[SID]*subscription),
		publications: publications{audience: audience{all: true}},
	}
	p.member.Attributes = maps.Clone(m.Attributes)
	if former := rm.byIdentity[m.Identity]; former != nil {
		former.leaveLocked(DuplicateIdentity, !m.Permission.Hidden, b)
	}
	rm.members = append(rm.members, p)
	rm.byIdentity[p.identity] = p
	rm.bySID[p.sid] = p
	if m.standard() {
		rm.everJoined, rm.emptySince = true, time.Time{}
	}
	rm.rooms.counters.joins.Add(1)
	p.refreshLocked()
	if !m.Permission.Hidden {
		for _, q := range rm.members {
			if q != p {
				p.tellLocked(q, b)
			}
		}
	}
	if m.AutoSubscribe {
		for _, q := range rm.members {
			p.subscribeToLocked(q, b)
		}
	}
	return p, nil
}

// refusesLocked says why there is no place for a member.
func (rm *room) refusesLocked(m Member) error {
	switch {
	case rm.shutLocked(m):
		return ErrRoomLocked
	case rm.fullLocked(m):
		return ErrRoomFull
	}
	return nil
}

// fullLocked reports whether the room has no place for a member. Who is in already takes over its own place, and further
// identities of somebody who is in need none, up to a few: what clients say of their devices proves nothing.
func (rm *room) fullLocked(m Member) bool {
	limit := rm.options.MaxParticipants
	if limit == 0 || !m.standard() || rm.byIdentity[m.Identity] != nil {
		return false
	}
	people := map[string]int{}
	for _, p := range rm.members {
		if p.member.standard() {
			people[p.member.person()]++
		}
	}
	own := people[m.person()]
	return own == 0 && len(people) >= limit || own >= maxIdentities
}

// Leave ends the session, its tracks and its subscriptions. Leaving twice is fine.
func (p *Participant) Leave(why Reason, now time.Time) { p.leave(why, now) }

// leave reports whether the participant was still in.
func (p *Participant) leave(why Reason, now time.Time) bool {
	b := batch{now: now}
	p.room.mu.Lock()
	was := p.leaveLocked(why, false, &b)
	p.room.mu.Unlock()
	b.finish()
	return was
}

// leaveLocked takes the participant out of the room. When its next session replaces it, only clients that do not follow a
// changed sid are told that this one is gone.
func (p *Participant) leaveLocked(why Reason, replaced bool, b *batch) bool {
	if p.state == Disconnected {
		return false
	}
	rm := p.room
	rm.expelLocked(p, why)
	for _, s := range p.subscriptions {
		s.endLocked(b)
	}
	clear(p.subscriptions)
	for len(p.publications.tracks) > 0 {
		p.endTrackLocked(p.publications.tracks[len(p.publications.tracks)-1], b)
	}
	p.publications = publications{}
	p.state = Disconnected
	p.refreshLocked()
	p.info.Reason = why
	rm.members = slices.DeleteFunc(rm.members, func(q *Participant) bool { return q == p })
	delete(rm.byIdentity, p.identity)
	delete(rm.bySID, p.sid)
	rm.agenda.forgetParticipant(p)
	if !p.member.Permission.Hidden {
		for _, q := range rm.members {
			if replaced && q.member.Client.Protocol >= supersedes {
				q.queue.withdraw(queueKey{kindParticipant, p.sid})
				continue
			}
			p.tellLocked(q, b)
		}
		if !replaced {
			rm.rememberLocked(p.info)
		}
	}
	if rm.emptySince.IsZero() && rm.standardLocked() == 0 {
		rm.emptySince = b.now
	}
	rm.rooms.counters.leaves.Add(1)
	b.tell(p, kindClosed, "", Closed{why})
	b.do(p.data.close)
	return true
}
