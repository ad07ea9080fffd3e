package leave

import (
	"slices"
	"time"
)

// A Book is the state machine of all delegated leaves. It is passive: who comes and goes is told to it, Due says what
// to ask of homeservers. For one goroutine at a time. Each job goes its way:
//
//	          joined
//	waiting ---------> connected
//	   |                 |   ^
//	   |            left v   | joined
//	   |                 away -- 3 s, 2 s if by itself -> sending ---> over: done, gone, or too late
//	   +---------------------- 90 s, 30 s ----------------^
//
//	any --a newer leave of the same participant--> cancelling ---> over
//
// While it is waiting, connected or away, the event is restarted when 80 % of its delay have passed. A job that cannot
// be sent yet goes back to connected when the participant returns.
type Book struct {
	jobs    map[ref]*job
	queue   queue                       // the jobs that are not in flight
	current map[Key]*job                // the newest job of each participant
	watched map[Key]map[*job]struct{}   // jobs by every identity of theirs
	present map[Key]map[string]struct{} // sessions of every participant that is here
	changes []Change
}

// A Change is to be stored: a job as it is now, or that it is over.
type Change struct {
	Job  Job
	Over bool
}

// A job is not in flight, or one request about it is.
type job struct {
	Job
	phase    phase
	until    time.Time // of waiting and away
	wait     time.Time // until when the participant may come for the first time
	seen     bool      // it has, under its first identity
	next     time.Time // the next request, if that is later than what phase and delay say
	failures int
	flying   bool

	wake  time.Time // at, when it was put in the queue
	place int       // in the queue
}

type phase uint8

const (
	waiting phase = iota
	connected
	away
	sending
	cancelling
)

// NewBook returns an empty Book.
func NewBook() *Book {
	return &Book{
		jobs: map[ref]*job{}, current: map[Key]*job{},
		watched: map[Key]map[*job]struct{}{}, present: map[Key]map[string]struct{}{},
	}
}

// Add takes a leave over. An older one of the same participant is cancelled, or else it would end a membership that
// lives. What is held already is only looked at again.
func (b *Book) Add(j Job, now time.Time) {
	j.Length = min(max(j.Length, minLength), maxLength)
	if known := b.jobs[j.ref()]; known != nil {
		if known.phase != cancelling && known.User == j.User && known.key() == j.key() {
			known.Restarted = j.Restarted
			b.changed(known)
			b.plan(known)
		}
		return
	}
	added := b.insert(j, now, waitTime)
	if former := b.current[j.key()]; former != nil {
		b.cancel(former, now)
	}
	b.current[j.key()] = added
	b.changed(added)
}

// Resume takes jobs of an earlier run over: clients get a moment to return before their leave is sent.
func (b *Book) Resume(jobs []Job, now time.Time) {
	slices.SortFunc(jobs, func(x, y Job) int { return x.Restarted.Compare(y.Restarted) })
	for _, j := range jobs {
		if len(j.Identities) == 0 || b.jobs[j.ref()] != nil {
			continue
		}
		resumed := b.insert(j, now, returnTime)
		if j.Fate != Cancel {
			b.current[j.key()] = resumed
		}
	}
}

func (b *Book) insert(j Job, now time.Time, wait time.Duration) *job {
	added := &job{Job: j, until: now.Add(wait), wait: now.Add(wait), place: aside}
	b.jobs[j.ref()] = added
	for _, identity := range j.Identities {
		k := Key{j.Room, identity}
		if b.watched[k] == nil {
			b.watched[k] = map[*job]struct{}{}
		}
		b.watched[k][added] = struct{}{}
	}
	switch {
	case j.Fate == Cancel:
		added.phase = cancelling
	case b.here(added):
		added.phase, added.Fate = connected, Hold
		added.seen = len(b.present[added.key()]) > 0
	case j.Fate == Send:
		added.phase = sending
	}
	b.plan(added)
	return added
}

// plan puts a job where it belongs after a change: every change that moves what is due ends with it.
func (b *Book) plan(j *job) {
	if j.flying {
		b.queue.drop(j)
		return
	}
	b.queue.put(j)
}

// cancel makes the homeserver forget the event, whatever was planned.
func (b *Book) cancel(j *job, now time.Time) {
	b.enter(j, cancelling, Cancel, now)
}

func (b *Book) enter(j *job, p phase, f Fate, now time.Time) {
	j.phase, j.failures, j.next = p, 0, now
	if j.Fate != f {
		j.Fate = f
		b.changed(j)
	}
	b.plan(j)
}

func (b *Book) changed(j *job) { b.changes = append(b.changes, Change{Job: j.Job}) }

// over forgets the job.
func (b *Book) over(j *job) {
	b.queue.drop(j)
	delete(b.jobs, j.ref())
	if b.current[j.key()] == j {
		delete(b.current, j.key())
	}
	for _, identity := range j.Identities {
		k := Key{j.Room, identity}
		delete(b.watched[k], j)
		if len(b.watched[k]) == 0 {
			delete(b.watched, k)
		}
	}
	b.changes = append(b.changes, Change{Job: j.Job, Over: true})
}

// here reports whether the participant is, under any of its identities.
func (b *Book) here(j *job) bool {
	return slices.ContainsFunc(j.Identities, func(identity string) bool { return len(b.present[Key{j.Room, identity}]) > 0 })
}

// Joined says that a participant has come, in one more session.
func (b *Book) Joined(k Key, session string, now time.Time) {
	if b.present[k] == nil {
		b.present[k] = map[string]struct{}{}
	}
	b.present[k][session] = struct{}{}
	for j := range b.watched[k] {
		j.seen = j.seen || k == j.key()
		switch {
		case j.phase == waiting || j.phase == away:
			j.phase = connected
			b.plan(j)
		case j.phase == sending && !j.flying: // the homeserver did not take it yet: it would hit a member that lives
			b.enter(j, connected, Hold, j.next)
		}
	}
}

// Left says that a session of a participant has ended.
func (b *Book) Left(k Key, session string, why Why, now time.Time) {
	delete(b.present[k], session)
	if len(b.present[k]) > 0 {
		return // another session has taken its place
	}
	delete(b.present, k)
	if why == Shutdown {
		return
	}
	for j := range b.watched[k] {
		if j.phase != connected || b.here(j) {
			continue
		}
		j.phase, j.until = away, now.Add(lossTime)
		switch {
		case why == ByItself && k == j.key():
			j.until = now.Add(farewellTime)
		case !j.seen && j.wait.After(j.until):
			j.until = j.wait // clients connect for a moment under another identity first
		}
		b.plan(j)
	}
}

// Due returns the requests to make now. Each is in flight until its Result is told.
func (b *Book) Due(now time.Time) []Task {
	var tasks []Task
	for j := b.queue.take(now); j != nil; j = b.queue.take(now) {
		if (j.phase == waiting || j.phase == away) && !now.Before(j.until) {
			b.enter(j, sending, Send, now)
		}
		if !now.Before(j.end()) {
			b.over(j)
			continue
		}
		if now.Before(j.due()) {
			b.plan(j)
			continue
		}
		j.flying = true
		b.plan(j)
		tasks = append(tasks, Task{Verb: j.verb(), Server: j.Server, User: j.User, Delay: j.Delay})
	}
	return tasks
}

func (j *job) verb() Verb {
	switch j.phase {
	case sending:
		return SendNow
	case cancelling:
		return Forget
	}
	return Restart
}

// due is when the next request is.
func (j *job) due() time.Time {
	if j.phase == sending || j.phase == cancelling {
		return j.next
	}
	restart := j.Restarted.Add(j.Length * 4 / 5)
	if j.next.After(restart) {
		return j.next
	}
	return restart
}

// at is when there is something to do about the job, unless something happens before.
func (j *job) at() time.Time {
	at := j.due()
	if (j.phase == waiting || j.phase == away) && j.until.Before(at) {
		at = j.until
	}
	if end := j.end(); end.Before(at) {
		at = end
	}
	return at
}

// end is when the homeserver has sent the event by itself, whatever we do.
func (j *job) end() time.Time {
	if j.phase == sending || j.phase == cancelling {
		return j.deadline().Add(lateTime)
	}
	return j.deadline()
}

// Next is when Due has something to return, unless something happens before; false means never.
func (b *Book) Next() (time.Time, bool) {
	if len(b.queue) == 0 {
		return time.Time{}, false
	}
	return b.queue[0].wake, true
}

// Returned says that a homeserver answers again: what it did not grant is asked for at once.
func (b *Book) Returned(server string, now time.Time) {
	for _, j := range b.jobs {
		if j.Server == server && j.failures > 0 && !j.flying {
			j.failures, j.next = 0, now
			b.plan(j)
		}
	}
}

// Result ends a request. began is when it was made: the homeserver's clock runs from then on at the earliest.
func (b *Book) Result(t Task, r Result, began, now time.Time) {
	j := b.jobs[ref{t.Server, t.Delay}]
	if j == nil {
		return
	}
	j.flying = false
	if r.Gone || r.OK && t.Verb != Restart {
		b.over(j)
		return
	}
	if r.OK {
		j.Restarted = began
		b.changed(j)
	}
	switch {
	case t.Verb != j.verb(): // it has another fate by now, which is due at once
	case r.OK:
		j.failures, j.next = 0, time.Time{}
	default:
		j.failures++
		j.next = now.Add(max(r.After, backoff(j.failures)))
		if t.Verb == SendNow && b.here(j) { // not sent, and the participant is back
			b.enter(j, connected, Hold, j.next)
		}
	}
	b.plan(j)
}

// Changes returns what is to be stored, in order, and forgets it.
func (b *Book) Changes() []Change {
	changes := b.changes
	b.changes = nil
	return changes
}

// Holds reports whether a leave of the participant, under any of its identities, is on its way or will be.
func (b *Book) Holds(k Key) bool {
	for j := range b.watched[k] {
		if j.phase != cancelling {
			return true
		}
	}
	return false
}

// Counts says how many jobs there are.
func (b *Book) Counts() (held, owed int) {
	for _, j := range b.jobs {
		if j.Fate == Hold {
			held++
		} else {
			owed++
		}
	}
	return held, owed
}
