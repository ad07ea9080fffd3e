package sfu

import "time"

// How often the periodic work of a room is due.
const (
	speakerInterval   = 400 * time.Millisecond
	qualityInterval   = 5 * time.Second
	reconcileInterval = 3 * time.Second
	countInterval     = 5 * time.Second
)

// agenda is what a room has to do later, so that a tick visits only what is due. Guarded by the room's mutex.
type agenda struct {
	settling map[*subscription]struct{} // changed settings
	unknown  map[*subscription]struct{} // waiting for a track
	falling  map[*track]struct{}        // less demand, not told yet
	resends  map[*Participant]resend
	lines    map[*Participant]struct{} // that are not wide
	late     map[*Participant]struct{} // news waits for them

	speakersAt, reconcileAt, countAt time.Time
	told                             RoomInfo // as announced last
}

type resend struct{ at, limit time.Time }

func newAgenda() agenda {
	return agenda{
		settling: make(map[*subscription]struct{}),
		unknown:  make(map[*subscription]struct{}),
		falling:  make(map[*track]struct{}),
		resends:  make(map[*Participant]resend),
		lines:    make(map[*Participant]struct{}),
		late:     make(map[*Participant]struct{}),
	}
}

func (a *agenda) forgetParticipant(p *Participant) {
	delete(a.resends, p)
	delete(a.lines, p)
	delete(a.late, p)
}

func (a *agenda) forgetTrack(t *track) { delete(a.falling, t) }

// due reports whether the time at has come, and sets the next one.
func due(at *time.Time, every time.Duration, now time.Time) bool {
	if now.Before(*at) {
		return false
	}
	*at = now.Add(every)
	return true
}

// tick does what is due and reports whether the room has ended.
func (rm *room) tick(now time.Time) bool {
	b := batch{now: now}
	rm.mu.Lock()
	switch {
	case rm.closed:
	case rm.expiredLocked(now):
		rm.endLocked(RoomClosed, &b)
	default:
		rm.tickLocked(&b)
	}
	closed := rm.closed
	rm.mu.Unlock()
	b.finish()
	return closed
}

func (rm *room) tickLocked(b *batch) {
	rm.settleDueLocked(b)
	rm.fallDueLocked(b)
	rm.lineDueLocked(b)
	rm.resendDueLocked(b)
	if due(&rm.agenda.speakersAt, speakerInterval, b.now) {
		rm.speakersDueLocked(b)
	}
	rm.qualityDueLocked(b)
	if due(&rm.agenda.reconcileAt, reconcileInterval, b.now) {
		rm.unknownDueLocked(b)
		rm.joinDueLocked(b)
	}
	if due(&rm.agenda.countAt, countInterval, b.now) && rm.infoLocked() != rm.agenda.told {
		rm.announceLocked(b)
	}
}

// Each change in a room is news to everybody in it. In a crowd those who come one after the other are told of together: so news takes up a bounded share of a core,
// and who joins need not wait behind it. Fewer people hear of everything at once.
const (
	crowd      = 25 // people
	pauseEach  = 2 * time.Millisecond
	maxPause   = 200 * time.Millisecond
	newsAtOnce = 13 // people who are told in one go, 10 ms after others: a handshake then does not find all the others before it
)

// pauseLocked is how long further news waits once a participant has been told some.
func (rm *room) pauseLocked() time.Duration {
	if n := len(rm.members); n >= crowd {
		return min(time.Duration(n)*pauseEach, maxPause)
	}
	return 0
}

// tellNews has news read that has waited for long enough, and reports whether some still waits.
func (rm *room) tellNews(now time.Time) (more bool) {
	b := batch{now: now}
	rm.mu.Lock()
	rm.newsDueLocked(&b)
	more = len(rm.agenda.late) > 0
	rm.mu.Unlock()
	b.finish()
	return more
}

// newsDueLocked has the news read that has waited for long enough, by so many people as are told at once.
func (rm *room) newsDueLocked(b *batch) {
	told := 0
	for p := range rm.agenda.late {
		if told == newsAtOnce {
			return
		}
		wake, waits := p.queue.release(b.now, rm.pauseLocked())
		if wake {
			b.wakes = append(b.wakes, p.queue)
			told++
		}
		if !waits {
			delete(rm.agenda.late, p)
		}
	}
}

// unknownDueLocked gives up on tracks that nobody published for a minute.
func (rm *room) unknownDueLocked(b *batch) {
	for s := range rm.agenda.unknown {
		if b.now.Sub(s.since) < unknownFor {
			continue
		}
		delete(rm.agenda.unknown, s)
		delete(s.who.subscriptions, s.sid)
		if s.desired {
			b.tell(s.who, kindFailed, s.sid, SubscriptionFailed{s.sid, SubscriptionTrackNotFound})
		}
	}
}

// joinDueLocked closes participants whose transport never connected.
func (rm *room) joinDueLocked(b *batch) {
	limit := rm.rooms.options.JoinTimeout
	for i := len(rm.members) - 1; i >= 0; i-- {
		if p := rm.members[i]; p.state < Active && b.now.Sub(p.joinedAt) >= limit {
			p.leaveLocked(JoinFailure, false, b)
		}
	}
}

// expiredLocked reports whether the room has been without standard participants for long enough.
func (rm *room) expiredLocked(now time.Time) bool {
	if rm.emptySince.IsZero() {
		return false
	}
	limit := rm.options.EmptyTimeout
	if rm.everJoined {
		limit = rm.options.DepartureTimeout
	}
	return now.Sub(rm.emptySince) >= limit
}
