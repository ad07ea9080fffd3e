package sfu

import "time"

// batch collects, under Room.mu, what must happen after it is released.
type batch struct {
	now   time.Time
	after []func()
	wakes []*queue
	full  []*Participant
}

// do runs fn once the room is unlocked.
func (b *batch) do(fn func()) { b.after = append(b.after, fn) }

// tell queues an event for p.
func (b *batch) tell(p *Participant, kind eventKind, id SID, e Event) {
	b.push(p, queueItem{key: queueKey{kind, id}, event: e})
}

func (b *batch) push(p *Participant, it queueItem) {
	switch p.queue.push(it, b.now, p.room.pauseLocked()) {
	case first:
		b.wakes = append(b.wakes, p.queue)
	case later:
		p.room.agenda.late[p] = struct{}{}
	case overflow:
		b.full = append(b.full, p)
	}
}

// finish performs what was collected. Call it without any lock held.
func (b *batch) finish() {
	for _, fn := range b.after {
		fn()
	}
	for _, q := range b.wakes {
		q.wake()
	}
	for _, p := range b.full {
		if p.leave(StateMismatch, b.now) {
			p.room.rooms.counters.overflows.Add(1)
		}
	}
}
