package sfu

import (
	"slices"
	"time"
)

// SetPermission changes what the participant may do: tracks it may no longer publish end, subscriptions follow. It fails with
// ErrClosed.
func (p *Participant) SetPermission(perm Permission, now time.Time) error {
	b := batch{now: now}
	p.room.mu.Lock()
	open := p.state != Disconnected
	if open {
		p.permitLocked(perm, &b)
	}
	p.room.mu.Unlock()
	b.finish()
	if !open {
		return ErrClosed
	}
	return nil
}

func (p *Participant) permitLocked(perm Permission, b *batch) {
	// Being seen and being a recorder are for the whole session: others were told, or not, when it joined.
	perm.Hidden, perm.Recorder = p.member.Permission.Hidden, p.member.Permission.Recorder
	p.member.Permission = perm
	pb := &p.publications
	for _, t := range slices.Concat(pb.tracks, pb.pending) {
		if perm.Publishes(t.info.Source) {
			continue
		}
		if t.source != nil {
			p.endTrackLocked(t, b)
		} else {
			pb.pending = slices.DeleteFunc(pb.pending, func(o *track) bool { return o == t })
		}
		b.tell(p, kindRemoved, t.info.SID, TrackRemoved{t.info.SID})
	}
	pb.queued = slices.DeleteFunc(pb.queued, func(req TrackRequest) bool { return !perm.Publishes(req.Source) })
	p.changedLocked(b)
	for _, s := range p.subscriptions {
		s.reconcileLocked(b)
	}
}

// Permissions says who may subscribe to this participant's tracks: everyone, or those in the list. Subscriptions follow.
func (p *Participant) Permissions(all bool, list []TrackPermission, now time.Time) {
	b := batch{now: now}
	p.room.mu.Lock()
	p.publications.allowAll, p.publications.allowed = all, slices.Clone(list)
	for _, t := range p.publications.tracks {
		for _, q := range p.room.members {
			if s := q.subscriptions[t.info.SID]; s != nil {
				s.reconcileLocked(&b)
			}
		}
	}
	p.room.mu.Unlock()
	b.finish()
}

// letsLocked reports whether p lets who have its track. Recorders are exempt.
func (p *Participant) letsLocked(who *Participant, sid SID) bool {
	if p.publications.allowAll || who.member.Permission.Recorder {
		return true
	}
	for _, a := range p.publications.allowed {
		if (a.Participant != "" && a.Participant == who.sid || a.Identity != "" && a.Identity == who.identity) &&
			(a.All || slices.Contains(a.Tracks, sid)) {
			return true
		}
	}
	return false
}
