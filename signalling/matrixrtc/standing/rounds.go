package standing

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

// Intervals are how often what is done. They are those of [New], but in tests.
type intervals struct {
	tick      time.Duration // between looks at who is in a call
	patience  time.Duration // how old an answer gets about somebody of whom no event tells
	assurance time.Duration // the same in rooms that are followed by events, in case these do not reach us
	retry     time.Duration // after a question without an answer
}

var usual = intervals{tick: 500 * time.Millisecond, patience: 28 * time.Second, assurance: 2 * time.Minute, retry: 5 * time.Second}

const (
	// questionRate is the most requests a second of the rounds; where more would be due, everybody waits longer.
	questionRate  = 20
	questionBurst = 20
	questionTime  = 5 * time.Second
	// rulesCost is how many requests the rules of a room are.
	rulesCost = 4
	// manyInRoom is from how many due users on a room's members are listed, rather than each of them looked up.
	manyInRoom = 3
)

// Rounds ask about those who are in a call and whose standing is not confirmed: because their room was not followed when it
// was, or is not followed at all. Its methods are for the goroutine of the loop unless they say otherwise.
type rounds struct {
	m       *Members
	every   intervals
	work    sync.WaitGroup // questions and polls
	follows map[id.RoomID]*follow
	blind   map[Place]time.Time // who is not to look into a room until then
	listed  time.Time           // when the senders' rooms were asked for
	filled  time.Time           // when budget was counted
	budget  float64             // requests

	mu    sync.Mutex
	stays map[Place]*stay
	doubt map[id.RoomID]time.Time // answers about the room from before are not believed
}

// A stay is what the rounds know about somebody in a call.
type stay struct {
	confirmed time.Time // joined, when it was asked
	next      time.Time // not to be asked before
	asking    bool
}

func (m *Members) roundLoop(ctx context.Context) {
	r := &rounds{
		m: m, every: m.every, follows: map[id.RoomID]*follow{}, blind: map[Place]time.Time{},
		budget: questionBurst, filled: time.Now(), stays: map[Place]*stay{}, doubt: map[id.RoomID]time.Time{},
	}
	ticker := time.NewTicker(r.every.tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			r.work.Wait()
			return
		case <-ticker.C:
			r.tick(ctx)
		}
	}
}

func (r *rounds) tick(ctx context.Context) {
	now := r.m.options.Now()
	present := r.m.present()
	r.prune(present, now)
	if len(present) > 0 && now.Sub(r.listed) > seatsLife {
		r.listed = now
		for _, h := range r.m.options.Connections {
			r.work.Go(func() { r.m.list(ctx, h) })
		}
	}
	started := 0
	for room, users := range present {
		if r.tend(ctx, room, users) {
			if started++; started == startsAtOnce {
				break
			}
		}
	}
	for _, q := range r.due(present, now) {
		if !r.spend(q.cost()) {
			break
		}
		r.asking(q, true)
		r.m.counters.questions.Add(1)
		r.work.Go(func() { r.ask(ctx, q) })
	}
}

// prune forgets those who are in no call any more.
func (r *rounds) prune(present map[id.RoomID]map[id.UserID]time.Time, now time.Time) {
	for room := range r.follows {
		if present[room] == nil {
			r.unfollow(room)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, until := range r.blind {
		if now.After(until) {
			delete(r.blind, p)
		}
	}
	for p, s := range r.stays {
		if _, here := present[p.Room][p.User]; !here && !s.asking {
			delete(r.stays, p)
		}
	}
	for room := range r.doubt {
		if present[room] == nil {
			delete(r.doubt, room)
		}
	}
}

// spend takes requests out of the budget, if they are there.
func (r *rounds) spend(requests float64) bool {
	now := time.Now()
	r.budget = min(questionBurst, r.budget+questionRate*now.Sub(r.filled).Seconds())
	r.filled = now
	if r.budget < requests {
		return false
	}
	r.budget -= requests
	return true
}

// A question is about some of those in a room.
type question struct {
	room      id.RoomID
	users     []id.UserID
	witnesses []id.UserID
	rules     bool           // the room can be seen, so that its server ACL is read too
	eyes      homeserverUser // who lists the members of the room; the zero value if each is asked about
	oldest    time.Time      // the oldest answer
}

type homeserverUser struct {
	hs   *homeserver.Homeserver
	user id.UserID
}

func (q *question) cost() float64 {
	if q.rules {
		return 1 + rulesCost
	}
	return 1
}

// due are the questions to ask now, those with the oldest answers first.
func (r *rounds) due(present map[id.RoomID]map[id.UserID]time.Time, now time.Time) (all []question) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for room, users := range present {
		floor := r.floorLocked(room, now)
		answers := map[id.UserID]time.Time{} // how old they are, of those who are due
		for user, verified := range users {
			s := r.stays[Place{user, room}]
			if s == nil {
				s = &stay{}
				r.stays[Place{user, room}] = s
			}
			if s.confirmed.After(verified) {
				verified = s.confirmed
			}
			if s.asking || now.Before(s.next) || verified.After(floor) {
				continue
			}
			answers[user] = verified
		}
		if len(answers) > 0 {
			all = append(all, r.questions(room, users, answers)...)
		}
	}
	slices.SortFunc(all, func(a, b question) int { return cmp.Compare(a.oldest.UnixNano(), b.oldest.UnixNano()) })
	return all
}

// floorLocked is the moment after which an answer about somebody in a room is believed.
func (r *rounds) floorLocked(room id.RoomID, now time.Time) time.Time {
	floor := r.doubt[room]
	since, followed := r.followedSince(room)
	wait := r.every.patience
	if followed {
		wait = r.every.assurance
	}
	for _, t := range []time.Time{since, now.Add(-wait), r.m.missed()} {
		if t.After(floor) {
			floor = t
		}
	}
	return floor
}

// followedSince tells since when a room is followed by events.
func (r *rounds) followedSince(room id.RoomID) (since time.Time, followed bool) {
	if since, seated := r.m.seatedSince(room); seated {
		return since, true
	}
	if f := r.follows[room]; f != nil {
		return f.live()
	}
	return time.Time{}, false
}

// questions are one about all who are due where somebody can list the members of the room, and one of each elsewhere.
func (r *rounds) questions(room id.RoomID, users, due map[id.UserID]time.Time) (all []question) {
	eyes := r.eyes(room, users)
	q := question{room: room, rules: eyes.user != "", witnesses: witnessesOf(users, "")}
	if q.rules && len(due) >= manyInRoom {
		q.eyes, q.oldest = eyes, time.Now()
		for user, answer := range due {
			q.users = append(q.users, user)
			if answer.Before(q.oldest) {
				q.oldest = answer
			}
		}
		return []question{q}
	}
	for user, answer := range due {
		q.users, q.oldest = []id.UserID{user}, answer
		all = append(all, q)
		q.rules = false // once is enough
	}
	return all
}

// eyes are somebody who can see a room: its sender, or one who is in the call.
func (r *rounds) eyes(room id.RoomID, users map[id.UserID]time.Time) homeserverUser {
	for _, h := range r.m.options.Connections {
		if r.m.seatedAt(h, room) {
			return homeserverUser{h, h.Sender()}
		}
	}
	if f := r.follows[room]; f != nil {
		return f.eyes
	}
	return r.chosen(room, users)
}

func (r *rounds) asking(q question, yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, user := range q.users {
		if s := r.stays[Place{user, q.room}]; s != nil {
			s.asking = yes
		}
	}
}

// ask puts out those who are surely not joined. An unanswered question ends no stay. Safe for concurrent use.
func (r *rounds) ask(ctx context.Context, q question) {
	defer r.asking(q, false)
	ctx, cancel := context.WithTimeout(ctx, questionTime)
	defer cancel()
	start := r.m.options.Now()
	var law rules
	if q.rules {
		law, _ = r.m.rulesOf(ctx, q.room, q.witnesses) // without an answer, everybody is permitted
	}
	listed := r.list(ctx, &q)
	for _, user := range q.users {
		p := Place{user, q.room}
		s, err := listed[user], error(nil)
		if listed == nil {
			var f Finding
			f, err = r.m.ask(ctx, p, q.witnesses)
			s = f.Standing
		}
		if s == Joined && !law.permits(user) {
			s = Barred
		}
		r.settle(p, s, err, start)
	}
}

// list looks up everybody in the list of the room's members; nil if there is none.
func (r *rounds) list(ctx context.Context, q *question) map[id.UserID]Standing {
	if q.eyes.user == "" {
		return nil
	}
	agent, err := q.eyes.hs.As(q.eyes.user)
	if err != nil {
		return nil
	}
	members, err := agent.JoinedMembers(ctx, q.room)
	if err != nil {
		return nil
	}
	found := make(map[id.UserID]Standing, len(q.users))
	for _, user := range q.users {
		found[user] = Outside
		if _, in := slices.BinarySearch(members, user); in {
			found[user] = Joined
		}
	}
	return found
}

// settle notes an answer that was asked for at a moment, and acts upon it.
func (r *rounds) settle(p Place, s Standing, err error, asked time.Time) {
	if s == Outside || s == Barred {
		r.m.remove(p, s.String())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.stays[p]
	if known == nil {
		return
	}
	switch {
	case s == Joined:
		known.confirmed = asked
	case s == Outside, s == Barred:
		r.doubt[p.Room] = asked // whoever put out one may have put out several
	case err != nil:
		known.next = asked.Add(r.every.retry)
	default:
		known.next = asked.Add(r.every.patience)
	}
}
