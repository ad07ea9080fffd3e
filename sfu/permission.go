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
	p.publications.audience = newAudience(all, list)
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
	a := &p.publications.audience
	return a.all || who.member.Permission.Recorder || a.bySID[who.sid].has(sid) || a.byIdentity[who.identity].has(sid)
}

// audience is who may subscribe to a publisher's tracks.
type audience struct {
	all        bool
	bySID      map[SID]*choice
	byIdentity map[Identity]*choice
}

// choice is some of a publisher's tracks; nil is none.
type choice struct {
	all    bool
	tracks map[SID]struct{}
}

func newAudience(all bool, list []TrackPermission) audience {
	a := audience{all: all, bySID: make(map[SID]*choice), byIdentity: make(map[Identity]*choice)}
	for i := range list {
		if l := &list[i]; l.Participant != "" {
			a.bySID[l.Participant] = a.bySID[l.Participant].with(l)
		}
		if l := &list[i]; l.Identity != "" {
			a.byIdentity[l.Identity] = a.byIdentity[l.Identity].with(l)
		}
	}
	return a
}

// with adds what a permission names.
func (c *choice) with(l *TrackPermission) *choice {
	if c == nil {
		c = &choice{tracks: make(map[SID]struct{}, len(l.Tracks))}
	}
	c.all = c.all || l.All
	for _, sid := range l.Tracks {
		c.tracks[sid] = struct{}{}
	}
	return c
}

func (c *choice) has(sid SID) bool {
	if c == nil {
		return false
	}
	_, ok := c.tracks[sid]
	return ok || c.all
}
