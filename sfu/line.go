package sfu

import "time"

const (
	settleLine = time.Second     // until a browser has given up what its line does not carry
	tryLine    = 3 * time.Second // for layers that were switched on again to come: they take one
	firstPause = 8 * time.Second // before they are, if nobody says that the line is wide; doubled each time that they do not come
	mostPauses = 3               // doublings
	soonPause  = time.Second     // in place of that, once somebody said so: browsers do not always try what the line carries
	soonTries  = 2               // after such pauses
	tryAgain   = 2 * time.Second // in place of tryLine, where another try follows soon
)

// lineState is how things are with the line over which a participant publishes.
//
//	wide --narrow--> settling --layers are missing--> narrow --wide, or some time--> trying
//	  ^--all came-------'  ^                             ^--layers are missing----------'|
//	  ^------------------------------------all came---------------------------------------'
type lineState uint8

const (
	lineWide lineState = iota
	lineSettling
	lineNarrow
	lineTrying
)

// line is over what a participant publishes. A browser whose line becomes narrow gives up the upper streams of its videos by itself. They are switched off
// then, too: it would otherwise fill the line with padding, as much as it dares, in order to find out whether they fit again, and dares 8 % more
// each second. When they are switched on it tries at once whether all fits (an allocation probe).
type line struct {
	state lineState
	at    time.Time // when it is looked at next, unless it is wide
	tries int       // that failed
	soon  int       // tries that are still to follow soon, if they are in vain
}

// Line says that the line over which the participant publishes has become narrow, or seems to be wide again.
func (p *Participant) Line(narrow bool, now time.Time) {
	b := batch{now: now}
	p.room.mu.Lock()
	switch {
	case p.state == Disconnected:
	case narrow && p.line.state == lineWide:
		p.enterLocked(lineSettling, settleLine, &b)
	case !narrow && p.line.state == lineNarrow:
		p.line.tries, p.line.soon = 0, soonTries
		p.tryLocked(&b)
	case !narrow && p.line.state == lineTrying:
		p.line.tries, p.line.soon = 0, soonTries
	case narrow:
		p.line.soon = 0
	}
	p.room.mu.Unlock()
	b.finish()
}

func (p *Participant) enterLocked(s lineState, d time.Duration, b *batch) {
	p.line.state, p.line.at = s, b.now.Add(d)
	p.room.agenda.lines[p] = struct{}{}
}

// lineDueLocked looks at the lines for which it is time.
func (rm *room) lineDueLocked(b *batch) {
	for p := range rm.agenda.lines {
		switch {
		case b.now.Before(p.line.at):
		case p.line.state == lineNarrow:
			p.tryLocked(b)
		default:
			p.judgeLineLocked(b)
		}
	}
}

// tryLocked switches everything on that is wanted.
func (p *Participant) tryLocked(b *batch) {
	patience := tryLine
	if p.line.soon > 0 {
		patience = tryAgain
	}
	p.enterLocked(lineTrying, patience, b)
	for _, t := range p.publications.tracks {
		t.shedLocked(Off, b)
	}
}

// judgeLineLocked switches off what does not come.
func (p *Participant) judgeLineLocked(b *batch) {
	missing := false
	for _, t := range p.publications.tracks {
		if top, ok := t.comesLocked(b.now); ok && above(t.dynacast.max(), top) {
			t.shedLocked(top, b)
			missing = true
		}
	}
	if !missing {
		delete(p.room.agenda.lines, p)
		p.line = line{}
		return
	}
	if p.line.soon > 0 {
		p.line.soon--
		p.enterLocked(lineNarrow, soonPause, b)
		return
	}
	p.enterLocked(lineNarrow, firstPause<<min(p.line.tries, mostPauses), b)
	p.line.tries++
}

// comesLocked returns the best quality that arrives of a video in several streams, false of others and while nothing does.
func (t *track) comesLocked(now time.Time) (top Quality, ok bool) {
	if !t.info.Simulcast || !t.dynacast.begun {
		return Off, false
	}
	for i, live := range t.source.Live(now) {
		if live {
			top, ok = t.ladder.quality(int8(i)), true
		}
	}
	return top, ok
}

// shedLocked has no more than a quality sent whatever is wanted; Off ends that.
func (t *track) shedLocked(most Quality, b *batch) {
	if d := &t.dynacast; d.most != most && d.begun {
		d.most = most
		for _, s := range t.streams {
			s.retargetLocked(b)
		}
		if want := d.want(); above(d.committed, want) { // it is not sent anyway: no need to wait
			t.commitLocked(want, b)
			return
		}
		t.weighLocked(b)
	}
}
