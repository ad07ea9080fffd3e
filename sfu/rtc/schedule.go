package rtc

import (
	"time"

	"callserver/sfu/rtc/description"
)

// Debounce of negotiations, so that several changes share one. What one costs both sides grows with the sections that are described, so they are the rarer the
// more there are.
const (
	quietDelay   = 10 * time.Millisecond
	busyDelay    = 150 * time.Millisecond // from one to the next
	sectionDelay = 8 * time.Millisecond   // the same for each section, if that is more
	maxBusyDelay = 600 * time.Millisecond
	maxYield     = 500 * time.Millisecond // more, while the server is behind with its work
	askAgain     = 5 * time.Second        // a single-mode client that ignored SectionsNeeded is asked again
)

// schedule says when the next negotiation of what we send is due. Guarded by Peer.mu. Whoever makes one due wakes the peer.
type schedule struct {
	due   time.Time // zero = nothing to do
	rest  time.Time // not before, because of the last negotiation
	asked time.Time // single mode: SectionsNeeded is outstanding since then
}

// want asks for a negotiation: at once, if the last one is long enough ago.
func (s *schedule) want(now time.Time) {
	if !s.due.IsZero() {
		return
	}
	s.due = now.Add(quietDelay)
	if s.rest.After(s.due) {
		s.due = s.rest
	}
}

// now asks for a negotiation at the next tick.
func (s *schedule) now() { s.due = time.Unix(0, 1) }

// take reports whether a negotiation is due, and if so notes that it is being done. While the server is behind those who join come first.
func (s *schedule) take(now time.Time, behind bool) bool {
	if s.due.IsZero() || now.Before(s.due) || !s.asked.IsZero() && now.Sub(s.asked) < askAgain {
		return false
	}
	if behind && now.Sub(s.due) < maxYield {
		return false
	}
	s.due = time.Time{}
	return true
}

// settled follows a negotiation of so many sections.
func (s *schedule) settled(now time.Time, sections int) {
	s.asked, s.due = time.Time{}, time.Time{}
	s.rest = now.Add(min(max(busyDelay, time.Duration(sections)*sectionDelay), maxBusyDelay))
}

// wantLocked asks for a negotiation of what we send.
func (p *Peer) wantLocked(now time.Time) {
	p.schedule.want(now)
	p.wake()
}

// settled follows every finished exchange about what we send: what is still missing is asked for.
func (p *Peer) settled() {
	now := time.Now()
	waiting := false
	for _, d := range *p.downlinks.Load() {
		waiting = waiting || !d.placed()
	}
	for _, s := range p.round.slots {
		waiting = waiting || s.resting
	}
	p.mu.Lock()
	p.schedule.settled(now, len(p.round.slots))
	if waiting || p.round.restart {
		p.wantLocked(now)
	}
	p.mu.Unlock()
	if c := p.sender(); c != nil && c.up() {
		p.bindAll()
	}
}

// negotiate starts what the schedule says is due: an offer of ours, or asking the client for one. It reports whether something will be.
func (p *Peer) negotiate(now time.Time, behind bool) (later bool) {
	p.mu.Lock()
	due := p.schedule.take(now, behind)
	later = !p.schedule.due.IsZero() && !p.closed
	p.mu.Unlock()
	switch {
	case !due, p.options.Plain: // its owner knows when to offer
	case p.server != nil:
		p.start(p.offer)
	case p.options.Single:
		p.start(func() { p.ask(now) })
	}
	return later
}

// ask tells a single-mode client how many more sections we need. Before its first offer there is nothing to add to.
func (p *Peer) ask(now time.Time) {
	p.negotiation.Lock()
	defer p.negotiation.Unlock()
	if p.round.answered == 0 {
		return // settled looks again
	}
	missing, changed := map[description.Kind]int{}, false
	for _, d := range *p.downlinks.Load() {
		if !d.placed() {
			missing[d.kind]++
			changed = true
		}
	}
	for _, s := range p.round.slots {
		changed = changed || s.resting
		if s.downlink == nil {
			missing[s.kind]--
		}
	}
	if !changed {
		return
	}
	p.mu.Lock()
	p.schedule.asked = now
	p.schedule.due = now.Add(askAgain) // unless it answers
	p.mu.Unlock()
	p.wake()
	p.emit(SectionsNeeded{Audio: max(missing[description.Audio], 0), Video: max(missing[description.Video], 0)})
}

// overdue fails a peer that left our offer unanswered. Called about once a second.
func (p *Peer) overdue(now time.Time) {
	if p.server == nil || !p.negotiation.TryLock() {
		return
	}
	defer p.negotiation.Unlock()
	if o := p.round.offer; o != nil && p.server.up() && now.Sub(o.since) > answerDeadline {
		o.since = now
		p.fail(ErrNoAnswer)
	}
}
