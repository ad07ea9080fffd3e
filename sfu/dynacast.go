package sfu

import "time"

// When the publisher hears of lower demand, and of all demand again after an answer.
const (
	downgradeDelay = 5 * time.Second
	resendDelay    = 2 * time.Second
	resendLimit    = 8 * time.Second
)

// dynacast is what a video track's subscribers want at most, and what its publisher was told. More is told at once, less after
// five seconds. Publishers begin with everything on.
type dynacast struct {
	wanted    [Off + 1]int // active subscriptions by the quality they need
	committed Quality      // valid once begun
	most      Quality      // that the publisher's line carries; Off is no limit. Valid once begun
	begun     bool
	said      bool // QualitiesWanted was told at least once
	downAt    time.Time
}

// max is the highest quality that anybody wants.
func (d *dynacast) max() Quality {
	for q := int(High); q >= int(Low); q-- {
		if d.wanted[q] > 0 {
			return Quality(q)
		}
	}
	return Off
}

// want is the highest quality that anybody wants and the publisher's line carries.
func (d *dynacast) want() Quality {
	q := d.max()
	if d.most != Off && above(q, d.most) {
		return d.most
	}
	return q
}

// above reports whether a is more than b; Off is less than anything.
func above(a, b Quality) bool { return (a+1)%(Off+1) > (b+1)%(Off+1) }

// countLocked adds n subscriptions that want q.
func (t *track) countLocked(q Quality, n int, b *batch) {
	t.dynacast.wanted[q] += n
	t.weighLocked(b)
}

// weighLocked compares demand with what the publisher knows.
func (t *track) weighLocked(b *batch) {
	if t.info.Kind != Video {
		return
	}
	d := &t.dynacast
	if !d.begun {
		d.begun, d.committed, d.most = true, High, Off
	}
	want := d.want()
	switch {
	case want == d.committed:
		d.downAt = time.Time{}
		delete(t.owner.room.agenda.falling, t)
	case above(want, d.committed):
		t.commitLocked(want, b)
	case d.downAt.IsZero():
		d.downAt = b.now.Add(downgradeDelay)
		t.owner.room.agenda.falling[t] = struct{}{}
	}
}

func (t *track) commitLocked(q Quality, b *batch) {
	d := &t.dynacast
	if d.committed == Off {
		t.reception.excuse(b.now)
	}
	d.committed, d.downAt, d.said = q, time.Time{}, true
	delete(t.owner.room.agenda.falling, t)
	t.tellQualitiesLocked(b)
}

func (t *track) tellQualitiesLocked(b *batch) {
	b.tell(t.owner, kindQualities, t.info.SID, QualitiesWanted{
		Track:  t.info.SID,
		Codecs: []CodecQuality{{Mime: t.info.Mime, Max: t.dynacast.committed}},
	})
}

// fallDueLocked tells the publishers whose tracks are wanted less than five seconds ago.
func (rm *room) fallDueLocked(b *batch) {
	for t := range rm.agenda.falling {
		if !t.dynacast.downAt.After(b.now) {
			t.commitLocked(t.dynacast.want(), b)
		}
	}
}

// ResendQualities repeats what subscribers want about two seconds from now: applying an answer may turn encodings on again that
// were off. Call it after each answer to the publisher; repeated calls put it off, eight seconds at most.
func (p *Participant) ResendQualities(now time.Time) {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	if p.state == Disconnected {
		return
	}
	r, waiting := p.room.agenda.resends[p]
	if !waiting {
		r.limit = now.Add(resendLimit)
	}
	r.at = now.Add(resendDelay)
	if r.at.After(r.limit) {
		r.at = r.limit
	}
	p.room.agenda.resends[p] = r
}

func (rm *room) resendDueLocked(b *batch) {
	for p, r := range rm.agenda.resends {
		if r.at.After(b.now) {
			continue
		}
		delete(rm.agenda.resends, p)
		p.repeatQualitiesLocked(b)
	}
}

// repeatQualitiesLocked tells all that was told before once more.
func (p *Participant) repeatQualitiesLocked(b *batch) {
	for _, t := range p.publications.tracks {
		if t.dynacast.said {
			t.tellQualitiesLocked(b)
		}
	}
}

// String names the quality as the client protocol does.
func (q Quality) String() string {
	return [...]string{"LOW", "MEDIUM", "HIGH", "OFF"}[min(q, Off)]
}
