package sfu

import "time"

// Withhold stops everything that the participant publishes from reaching anybody, or lets it through again. Nobody is told,
// the participant included: it stays in the room, receives as before, and goes on publishing at full quality, so that
// nothing is lost but time. What it sends meanwhile, media and data, is not kept.
func (p *Participant) Withhold(on bool, now time.Time) {
	b := batch{now: now}
	p.room.mu.Lock()
	if p.withheld != on && p.state != Disconnected {
		p.withheld = on
		for _, t := range p.publications.tracks {
			for _, s := range t.streams {
				s.retargetLocked(&b)
			}
		}
	}
	p.room.mu.Unlock()
	b.finish()
}

// withheldLocked counts the participants of whom nothing is forwarded.
func (rm *room) withheldLocked() (n int) {
	for _, p := range rm.members {
		if p.withheld {
			n++
		}
	}
	return n
}
