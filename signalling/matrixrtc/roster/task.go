package roster

import (
	"slices"
	"time"

	"callserver/signalling/matrixrtc/member"
)

// A Task is a question to homeservers, and what follows from the answer. Its result is told to Book.Result, whatever it is.
type Task struct {
	Record
	Clear  bool      // clear the membership; otherwise look for it
	Since  time.Time // when it fell due
	Key    string    // the state key of the membership, if it was seen
	Sticky bool      // the membership may be a sticky event
	Fresh  bool      // nothing of the participant is withheld yet
	Eyes   []string  // local users in the call, through whose eyes a user of another homeserver is looked for
}

// An Outcome is how a task ended.
type Outcome uint8

// The outcomes.
const (
	Failed  Outcome = iota // a homeserver does not answer, or refused for the moment
	Later                  // a condition does not hold yet
	Seen                   // the membership is there
	Absent                 // it is surely not
	Blind                  // nobody can tell, or may clear it
	Moot                   // there is nothing of ours to clear
	Cleared                // it is
)

// maxEyes is how many local users are tried.
const maxEyes = 3

// Due returns the tasks to begin now. Each is in flight until its Result is told.
func (b *Book) Due(now time.Time) []Task {
	var tasks []Task
	for _, st := range b.ordered() {
		if len(tasks) == maxTasks {
			break
		}
		at, any := b.at(st)
		if st.flying || !any || now.Before(at) {
			continue
		}
		st.flying = true
		t := Task{Record: st.record(), Clear: !b.here(st), Since: st.due, Key: st.key, Sticky: st.sticky}
		if !t.Clear {
			t.Eyes, t.Fresh = b.eyes(st), !b.held(st)
		}
		tasks = append(tasks, t)
	}
	return tasks
}

// held reports whether a session of the stay is withheld.
func (b *Book) held(st *stay) bool {
	for s := range b.of(st) {
		if s.held {
			return true
		}
	}
	return false
}

// at is when the next task of a stay is due, if ever.
func (b *Book) at(st *stay) (time.Time, bool) {
	if b.here(st) {
		return st.look, !st.look.IsZero()
	}
	return st.next, b.clears(st.User) && !b.ending
}

// eyes are some other users of our homeservers who are in the call of a stay.
func (b *Book) eyes(st *stay) (users []string) {
	if b.local(st.User) {
		return nil // its own are enough
	}
	for k, in := range b.sessions {
		if k.Call != st.Call {
			continue
		}
		for _, s := range in {
			if b.local(s.User) && !slices.Contains(users, s.User) {
				users = append(users, s.User)
			}
		}
	}
	slices.Sort(users)
	return users[:min(len(users), maxEyes)]
}

// Next is when Due has something to return, unless something happens before; false means never.
func (b *Book) Next() (first time.Time, any bool) {
	for _, st := range b.stays {
		at, ok := b.at(st)
		if !st.flying && ok && (!any || at.Before(first)) {
			first, any = at, true
		}
	}
	return first, any
}

// Confirm reports whether the membership may be cleared now, as far as this server knows. It is asked once it was read,
// and again just before the write. sent is when its event was: who sends one after its participant went is on its way.
func (b *Book) Confirm(s Stay, m *member.Member, sent, now time.Time) bool {
	st := b.stays[s]
	if st == nil {
		return false
	}
	former := st.event
	b.saw(st, m)
	b.keep(st)
	switch {
	case b.here(st):
		return false
	case former != "" && former != m.Event:
		b.postpone(st, now.Add(comingTime))
	case sent.After(st.absent):
		b.postpone(st, sooner(sent, now).Add(comingTime))
	}
	return !b.ending && !now.Before(st.due)
}

// Result ends a task.
func (b *Book) Result(t Task, o Outcome, m *member.Member, after time.Duration, now time.Time) {
	st := b.stays[t.Stay]
	if st == nil {
		return
	}
	st.flying = false
	if o == Failed {
		st.failures++
		after = max(after, backoff(st.failures, maxRetry))
	}
	here := b.here(st)
	if t.Clear == here {
		return // it came or went meanwhile: what is due says the book
	}
	if t.Clear {
		b.cleared(st, t, o, now.Add(after))
		return
	}
	b.looked(st, o, m, now, after)
}

func (b *Book) cleared(st *stay, t Task, o Outcome, again time.Time) {
	// Another due time means that it came and went meanwhile, or is about to come.
	if (o == Cleared || o == Moot || o == Blind) && t.Since.Equal(st.due) {
		b.forget(st)
		return
	}
	if again.After(st.next) {
		st.next = again
	}
	if st.due.After(st.next) {
		st.next = st.due
	}
}

func (b *Book) looked(st *stay, o Outcome, m *member.Member, now time.Time, after time.Duration) {
	switch o {
	case Seen:
		b.saw(st, m)
		b.keep(st)
		b.welcome(st)
	case Absent:
		st.failures++
		st.look = now.Add(backoff(st.failures, maxRecheck))
		for s := range b.of(st) {
			if end := s.since.Add(b.rules.Grace); now.Before(end) {
				st.lookAt(end)
			} else {
				b.hold(s, true)
			}
		}
	case Failed:
		st.look = now.Add(after)
	default:
		b.welcome(st)
	}
}

// Counts says how many stays there are, and how many sessions are withheld.
func (b *Book) Counts() (stays, withheld int) {
	for _, in := range b.sessions {
		for _, s := range in {
			if s.held {
				withheld++
			}
		}
	}
	return len(b.stays), withheld
}
