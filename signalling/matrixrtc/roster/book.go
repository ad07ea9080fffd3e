package roster

import (
	"cmp"
	"slices"
	"time"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

const (
	// maxTasks is how many tasks Due hands out at a time.
	maxTasks = 64
	// maxIdentities bounds those of a stay under which nobody is here. Clients make up the id of their membership, anew with
	// each, and each id makes two.
	maxIdentities = 32
)

// Rules are what an operator decides, and where this server is.
type Rules struct {
	Local   map[string]bool // the homeservers that may be asked
	Service string          // our service URL, without a slash at its end; empty clears no membership
	Grace   time.Duration   // 0 withholds nobody
}

// A Book is the state of all stays. It is passive: who comes and goes, and what homeservers tell, is told to it; Due says
// what to ask of homeservers. For one goroutine at a time. Each stay goes its way:
//
//	token ---------------> coming ---- 90 s ----+
//	                         |  ^               |
//	                  joined v  | token         v
//	membership event ----> here -- 3 s, 15 s ---> gone --> cleared, or nothing to clear: forgotten
//	                         ^                    |
//	                         +------ joined ------+
//
// While it is here and may publish, its membership is looked for when the grace period is over.
type Book struct {
	rules    Rules
	stays    map[Stay]*stay
	watched  map[Key]map[*stay]struct{} // stays by every identity of theirs
	sessions map[Key]map[string]*session
	loose    map[Stay]int // sessions of which no device is known, by stay without a device

	changes   []Change
	withholds []Withhold
	ending    bool // this server goes: nothing is cleared any more
}

// A stay is flying while one task of it is on its way.
type stay struct {
	Stay
	slot       string
	identities []string
	key        string // of its membership, once it was seen
	event      string // the id of that since it is not here
	sticky     bool   // its membership may be a sticky event

	coming map[string]time.Time // identities that got a token since they were here, and when
	absent time.Time            // since when it is not here
	due    time.Time            // when its membership may be cleared
	next   time.Time            // the next attempt, not before due
	look   time.Time            // when to look for its membership; zero means never
	seen   bool                 // its membership was, while it is here

	failures int
	flying   bool
	stored   bool
}

type session struct {
	Presence
	stay   *stay // nil if nothing is done about it
	joined time.Time
	since  time.Time // when the grace period began
	held   bool
}

// NewBook returns an empty Book.
func NewBook(r Rules) *Book {
	return &Book{
		rules: r, stays: map[Stay]*stay{}, watched: map[Key]map[*stay]struct{}{},
		sessions: map[Key]map[string]*session{}, loose: map[Stay]int{},
	}
}

func (b *Book) local(user string) bool {
	return b.rules.Local[homeserver.ServerOf(user)]
}

// clears reports whether memberships of a user may be cleared at all.
func (b *Book) clears(user string) bool { return b.rules.Service != "" && b.local(user) }

// open returns the stay, a new one if need be.
func (b *Book) open(s Stay, slot string, now time.Time) *stay {
	st := b.stays[s]
	if st == nil {
		st = &stay{Stay: s, coming: map[string]time.Time{}, absent: now, due: now, next: now}
		b.stays[s] = st
		b.watch(st, identities(s.User, s.Device)...)
	}
	if st.slot == "" {
		st.slot = slotOf(s, slot)
	}
	return st
}

// watch notes identities under which the stay may be here.
func (b *Book) watch(st *stay, ids ...string) {
	for _, identity := range ids {
		if slices.Contains(st.identities, identity) {
			continue
		}
		st.identities = append(st.identities, identity)
		k := Key{st.Call, identity}
		if b.watched[k] == nil {
			b.watched[k] = map[*stay]struct{}{}
		}
		b.watched[k][st] = struct{}{}
		st.stored = false
	}
	for len(st.identities) > maxIdentities {
		idle := slices.IndexFunc(st.identities, func(identity string) bool { return len(b.sessions[Key{st.Call, identity}]) == 0 })
		if idle < 0 {
			return
		}
		b.unwatch(st, st.identities[idle])
		delete(st.coming, st.identities[idle])
		st.identities = slices.Delete(st.identities, idle, idle+1)
	}
}

// unwatch ends what watch began. A participant who comes under the identity all the same is watched again.
func (b *Book) unwatch(st *stay, identity string) {
	k := Key{st.Call, identity}
	delete(b.watched[k], st)
	if len(b.watched[k]) == 0 {
		delete(b.watched, k)
	}
}

// keep has the stay stored if that is of use after a restart.
func (b *Book) keep(st *stay) {
	if !st.stored && b.clears(st.User) {
		st.stored = true
		b.changes = append(b.changes, Change{Record: st.record()})
	}
}

func (st *stay) record() Record {
	return Record{Stay: st.Stay, Slot: st.slot, Identities: slices.Clone(st.identities)}
}

// forget ends a stay. One that is here is never forgotten.
func (b *Book) forget(st *stay) {
	if b.stays[st.Stay] != st || b.here(st) {
		return
	}
	delete(b.stays, st.Stay)
	for _, identity := range st.identities {
		b.unwatch(st, identity)
	}
	if b.clears(st.User) {
		b.changes = append(b.changes, Change{Record: st.record(), Over: true})
	}
}

// here reports whether the participant is, under any identity, or may be under one that names no device.
func (b *Book) here(st *stay) bool {
	return b.loose[Stay{Room: st.Room, Call: st.Call, User: st.User}] > 0 ||
		slices.ContainsFunc(st.identities, func(identity string) bool { return len(b.sessions[Key{st.Call, identity}]) > 0 })
}

// Issued says that a client got a token, and is about to come.
func (b *Book) Issued(p Presence, now time.Time) {
	if p.Device == "" || !b.clears(p.User) {
		return
	}
	st := b.open(p.Stay, p.Slot, now)
	b.describe(st, p)
	if len(b.sessions[Key{p.Call, p.Identity}]) == 0 {
		st.coming[p.Identity] = now
		if !b.here(st) {
			b.postpone(st, now.Add(comingTime))
		}
	}
	b.keep(st)
}

func (b *Book) describe(st *stay, p Presence) {
	b.watch(st, identities(p.User, p.Device, p.Member)...)
	b.watch(st, p.Identity)
	st.sticky = st.sticky || p.Member != "" && p.Member != member.DeviceIdentity(p.User, p.Device)
}

// postpone leaves a membership alone until then, at least.
func (b *Book) postpone(st *stay, until time.Time) {
	if until.After(st.due) {
		st.due = until
	}
	if until.After(st.next) {
		st.next = until
	}
}

// Joined says that a participant has come, in one more session.
func (b *Book) Joined(p Presence, now time.Time) {
	k := Key{p.Call, p.Identity}
	if b.sessions[k] == nil {
		b.sessions[k] = map[string]*session{}
	}
	s := &session{Presence: p, joined: now, since: now}
	b.sessions[k][p.Session] = s
	if p.Device == "" {
		b.loose[Stay{Room: p.Room, Call: p.Call, User: p.User}]++
		return
	}
	looks := p.Publishes && b.rules.Grace > 0
	if !looks && !b.clears(p.User) {
		return
	}
	st := b.open(p.Stay, p.Slot, now)
	s.stay = st
	b.describe(st, p)
	delete(st.coming, p.Identity)
	if looks && !st.seen {
		st.lookAt(now.Add(b.rules.Grace))
	}
	b.keep(st)
}

// lookAt looks for the membership then, if not before.
func (st *stay) lookAt(at time.Time) {
	if st.look.IsZero() || at.Before(st.look) {
		st.look = at
	}
}

// Left says that a session has ended.
func (b *Book) Left(k Key, id string, why Why, now time.Time) {
	b.ending = b.ending || why == Shutdown
	s := b.sessions[k][id]
	if s == nil {
		return
	}
	delete(b.sessions[k], id)
	if len(b.sessions[k]) == 0 {
		delete(b.sessions, k)
	}
	affected := b.watched[k]
	if s.Device == "" {
		affected = b.release(s)
	}
	for st := range affected {
		if !b.here(st) {
			b.gone(st, s.joined, why, now)
		}
	}
}

// release ends a session without a device: it may have been that of any stay of the user.
func (b *Book) release(s *session) map[*stay]struct{} {
	whose := Stay{Room: s.Room, Call: s.Call, User: s.User}
	if b.loose[whose]--; b.loose[whose] <= 0 {
		delete(b.loose, whose)
	}
	affected := map[*stay]struct{}{}
	for of, st := range b.stays {
		if of.Device = ""; of == whose {
			affected[st] = struct{}{}
		}
	}
	return affected
}

// gone begins the resume window of a stay whose last session joined at a time. Clients get tokens for several identities
// when they come and use one of them in the end: what they got before a session that lived until it was lost was for that.
func (b *Book) gone(st *stay, joined time.Time, why Why, now time.Time) {
	st.absent, st.event, st.seen, st.look, st.failures = now, "", false, time.Time{}, 0
	if !b.clears(st.User) {
		b.forget(st)
		return
	}
	st.due = now.Add(lossTime)
	if why != Lost {
		st.due = now.Add(partTime)
	}
	for identity, since := range st.coming {
		if why == Lost && !since.After(joined) {
			delete(st.coming, identity)
			continue
		}
		if until := since.Add(comingTime); until.After(st.due) {
			st.due = until
		}
	}
	st.next = st.due
}

// Resume takes stays of an earlier run over: clients get a moment to return.
func (b *Book) Resume(records []Record, now time.Time) {
	for _, r := range records {
		if r.Device == "" || !b.clears(r.User) {
			b.changes = append(b.changes, Change{Record: r, Over: true}) // of a homeserver that is not configured any more
			continue
		}
		st := b.open(r.Stay, r.Slot, now)
		b.watch(st, r.Identities...)
		st.stored = true
		if !b.here(st) {
			b.postpone(st, now.Add(returnTime))
		}
	}
}

// Told says what a membership event in a room says, as a homeserver tells it. Whom it names and who is not here has time
// to come, and at least until then.
func (b *Book) Told(room string, e member.Event, earliest, now time.Time) {
	m, err := member.Parse(e)
	if err != nil {
		b.toldNone(room, e, now)
		return
	}
	s := Stay{Room: room, Call: member.RoomName(room, m.Slot), User: m.User, Device: m.Device}
	st, ours := b.stays[s], m.State && m.Device != "" && b.clears(m.User) && b.ours(m)
	if st == nil && !ours {
		return
	}
	unknown := st == nil
	st = b.open(s, m.Slot, now)
	b.saw(st, m)
	b.keep(st)
	switch {
	case b.here(st):
		b.welcome(st)
	case m.Expired(now):
		b.postpone(st, earliest)
	case unknown || e.Sent.After(st.absent):
		b.postpone(st, earliest)
		b.postpone(st, sooner(e.Sent, now).Add(comingTime))
	}
}

// sooner bounds a time that somebody else's clock says.
func sooner(said, now time.Time) time.Time {
	if said.After(now) {
		return now
	}
	return said
}

// ours reports whether a membership may be on this server: that of a follower of the oldest member may be anywhere.
func (b *Book) ours(m *member.Member) bool {
	return m.Oldest || len(m.Published) > 0 && m.Published[0].Service == b.rules.Service
}

func (b *Book) saw(st *stay, m *member.Member) {
	st.key, st.event = m.Key, m.Event
	b.watch(st, identities(m.User, m.Device, m.ID)...)
}

// toldNone ends the membership that an event no longer declares.
func (b *Book) toldNone(room string, e member.Event, now time.Time) {
	if e.StateKey == nil {
		return
	}
	for _, st := range b.stays {
		if st.Room != room || st.key != *e.StateKey {
			continue
		}
		st.key, st.event = "", ""
		switch {
		case !b.here(st):
			if len(st.coming) == 0 {
				b.forget(st)
			}
		case st.seen && b.rules.Grace > 0:
			st.seen = false
			for s := range b.of(st) {
				s.since = now
			}
			st.lookAt(now.Add(b.rules.Grace))
		}
	}
}

// of yields the sessions of a stay that may publish.
func (b *Book) of(st *stay) func(yield func(*session) bool) {
	return func(yield func(*session) bool) {
		for _, identity := range st.identities {
			for _, s := range b.sessions[Key{st.Call, identity}] {
				if s.stay == st && s.Publishes && !yield(s) {
					return
				}
			}
		}
	}
}

// welcome lets everything through: the membership was seen.
func (b *Book) welcome(st *stay) {
	st.seen, st.look, st.failures = true, time.Time{}, 0
	for s := range b.of(st) {
		b.hold(s, false)
	}
}

func (b *Book) hold(s *session, on bool) {
	if s.held != on {
		s.held = on
		b.withholds = append(b.withholds, Withhold{s.Call, s.Session, on})
	}
}

// Changes returns what is to be stored, in order, and forgets it.
func (b *Book) Changes() []Change {
	changes := b.changes
	b.changes = nil
	return changes
}

// Withholds returns what is to be told to the media server, in order, and forgets it.
func (b *Book) Withholds() []Withhold {
	withholds := b.withholds
	b.withholds = nil
	return withholds
}

// ordered makes what Due returns independent of the order of maps: what has waited longest comes first.
func (b *Book) ordered() []*stay {
	all := make([]*stay, 0, len(b.stays))
	for _, st := range b.stays {
		all = append(all, st)
	}
	slices.SortFunc(all, func(x, y *stay) int {
		return cmp.Or(x.next.Compare(y.next), cmp.Compare(x.Room, y.Room), cmp.Compare(x.User, y.User), cmp.Compare(x.Device, y.Device))
	})
	return all
}
