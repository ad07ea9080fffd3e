package sfu

import "time"

// Resync queues everything anew for a client that was away: everyone it may see and itself, who left meanwhile, the room, the
// permissions of its subscriptions and which of them are paused, what its own tracks' subscribers want, active speakers, connection qualities.
func (p *Participant) Resync(now time.Time) {
	b := batch{now: now}
	p.room.mu.Lock()
	if p.state != Disconnected {
		p.resyncLocked(&b)
	}
	p.room.mu.Unlock()
	b.finish()
}

func (p *Participant) resyncLocked(b *batch) {
	rm := p.room
	for _, info := range rm.gone {
		if rm.byIdentity[info.Identity] == nil {
			b.push(p, queueItem{key: queueKey{kindParticipant, info.SID}, info: info})
		}
	}
	for _, q := range rm.members {
		if q == p || !q.member.Permission.Hidden {
			q.tellLocked(p, b)
		}
	}
	b.tell(p, kindRoom, "", RoomChanged{rm.infoLocked()})
	publishers := map[*Participant]struct{}{p: {}}
	for _, s := range p.subscriptions {
		if s.told != toldNothing {
			b.tell(p, kindPermission, s.sid, SubscriptionPermission{s.track.owner.sid, s.sid, s.told == toldAllowed})
		}
		if s.active {
			publishers[s.track.owner] = struct{}{}
		}
		if s.paused {
			b.tell(p, kindStream, s.sid, StreamChanged{s.track.owner.sid, s.sid, true})
		}
	}
	p.repeatQualitiesLocked(b)
	for q := range publishers {
		if q.connection.voice.active {
			b.push(p, q.speakerItem())
		}
		if q.connection.known {
			b.push(p, q.qualityItem())
		}
	}
	b.wakes = append(b.wakes, p.queue)
}
