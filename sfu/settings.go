package sfu

import "time"

// settleTime is how long changed settings wait for further changes.
const settleTime = 100 * time.Millisecond

// Settings says what the participant wants of tracks: which size, or nothing for now. The first settings of a track and turning it
// on again apply at once, other changes after 100 ms. Settings for tracks that are not there yet are remembered for a minute.
func (p *Participant) Settings(tracks []SID, set TrackSettings, now time.Time) {
	b := batch{now: now}
	p.room.mu.Lock()
	if p.state != Disconnected {
		for _, sid := range tracks {
			if s := p.subscriptionLocked(sid, &b); s != nil {
				s.settleLocked(set, &b)
			}
		}
	}
	p.room.mu.Unlock()
	b.finish()
}

func (s *subscription) settleLocked(set TrackSettings, b *batch) {
	settling := s.who.room.agenda.settling
	if !s.stated || s.link == nil || s.settings.Disabled && !set.Disabled || s.settings == set {
		s.stated, s.settings, s.settleAt = true, set, time.Time{}
		delete(settling, s)
		s.retargetLocked(b)
		return
	}
	s.next = set
	if s.settleAt.IsZero() {
		s.settleAt = b.now.Add(settleTime)
		settling[s] = struct{}{}
	}
}

// settleDueLocked applies the settings that have waited long enough.
func (rm *room) settleDueLocked(b *batch) {
	for s := range rm.agenda.settling {
		if s.settleAt.After(b.now) {
			continue
		}
		s.settings, s.settleAt = s.next, time.Time{}
		delete(rm.agenda.settling, s)
		s.retargetLocked(b)
	}
}
