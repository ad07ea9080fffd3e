// An Exchange is one device's part in the media keys of one call: which key it seals its own frames with and from when, who
// must be sent that key, and which keys of others belong to which participant. Package mediakeys owns the rules of rotation,
// as Element Call follows them, and the form of the messages. It never sends anything, makes no frames, and reads no clock.
//
// # When a key changes
//
// The first key is used at once, before anybody has it: who comes first must not wait for the others. When a member leaves,
// there is a new key under the next index, for everybody who stays, in use [useDelay] after it was sent. When one joins,
// it gets the key in use if that is younger than [fresh], so that people who come together cost one key; an older one
// is replaced, so that the newcomer cannot read what was said before. A member whose membership began anew left and joined.
//
// While keys are on their way, what happens is noted and dealt with when they have arrived.
package mediakeys

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"maps"
	"slices"
	"time"
)

const (
	useDelay = time.Second      // from when a new key was sent until it is used
	fresh    = 10 * time.Second // so long newcomers get the key in use
	keySize  = 16               // bytes of a key of ours

	firstRetry = time.Second // doubled with each failure, up to maxRetry
	maxRetry   = 30 * time.Second

	maxParked  = 256              // members unknown so far, whose keys are kept
	parkedKeys = 4                // of one of them, the newest; so many of a member are remembered, too
	parkedLife = 10 * time.Minute // nobody's membership takes longer
)

// A Peer is a device of a user.
type Peer struct{ User, Device string }

// A Member is a device that a membership event names, and that holds now.
type Member struct {
	Peer
	Identity string    // of its participant at the media server
	Created  time.Time // of the membership; another one is another stay
}

// A Key seals frames.
type Key struct {
	Index  uint8
	Secret []byte // read-only
}

func (k Key) equal(other Key) bool {
	return k.Index == other.Index && bytes.Equal(k.Secret, other.Secret)
}

// An Own key seals the frames of this device from a moment on.
type Own struct {
	Key
	From time.Time
}

// A Theirs key opens the frames of a participant from now on, beside those that it had under other indices.
type Theirs struct {
	Identity string
	Key
}

// A Parcel is a key of ours and who must get it.
type Parcel struct {
	Key
	To []Peer

	version int
	stays   map[Peer]*member // of To, as they were
}

// Effects are what an Exchange wants done, in this order: keys of others, then own, then a parcel if there is one.
type Effects struct {
	Theirs []Theirs
	Own    []Own
	Parcel *Parcel // its fate is told to Sent, within a bounded time
}

// Options of an Exchange. Self is required.
type Options struct {
	Self     Peer
	Crowd    int                  // beyond so many members nobody's leaving makes a new key; 0 means always
	Generate func() [keySize]byte // a new secret; nil means from crypto/rand
}

// An Exchange is made by [New]; caller's goroutine only.
type Exchange struct {
	options Options
	key     Key
	version int       // of key; the first is 1
	made    time.Time // when key was made
	used    int       // the version that is in use or soon will be
	members map[Peer]*member
	parked  map[Peer]*parcels

	underway bool // a parcel is
	left     bool // somebody did since the key was made
	joined   bool
	effects  Effects
}

type member struct {
	Member
	has      int // the version that was sent to it
	failures int
	retry    time.Time // not before
	keys     parcels
}

// Parcels are the keys that arrived from one peer, the newest last, one an index.
type parcels struct {
	letters []Letter
	touched time.Time
}

// New returns the Exchange of a device that joins a call, with its first key.
func New(o Options, now time.Time) *Exchange {
	if o.Generate == nil {
		o.Generate = generate
	}
	x := &Exchange{options: o, members: make(map[Peer]*member), parked: make(map[Peer]*parcels)}
	secret := o.Generate()
	x.key, x.version, x.made, x.used = Key{Secret: secret[:]}, 1, now, 1
	x.effects.Own = []Own{{x.key, now}}
	return x
}

func generate() (secret [keySize]byte) {
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand)
	return secret
}

// Members says who is in the call now, all of them; the device itself may be among them.
func (x *Exchange) Members(now time.Time, all []Member) {
	here := make(map[Peer]bool, len(all))
	for _, m := range all {
		if m.Peer == x.options.Self {
			continue
		}
		here[m.Peer] = true
		x.present(m)
	}
	for peer := range x.members {
		if !here[peer] {
			delete(x.members, peer)
			x.left = true
		}
	}
	x.settle(now)
}

// present notes a member that is in the call.
func (x *Exchange) present(m Member) {
	known := x.members[m.Peer]
	if known == nil {
		known = &member{Member: m}
		x.members[m.Peer] = known
		x.joined = true
		if waiting := x.parked[m.Peer]; waiting != nil {
			known.keys = *waiting
			delete(x.parked, m.Peer)
			x.tell(known)
		}
		return
	}
	if !known.Created.Equal(m.Created) {
		known = &member{Member: known.Member, keys: known.keys}
		x.members[m.Peer] = known
		x.left, x.joined = true, true
	}
	moved := known.Identity != m.Identity
	known.Member = m
	if moved {
		x.tell(known)
	}
}

// tell hands over every key of a member.
func (x *Exchange) tell(m *member) {
	for _, l := range m.keys.letters {
		x.effects.Theirs = append(x.effects.Theirs, Theirs{m.Identity, l.Key})
	}
}

// Receive takes a key that somebody sent. Of who is no member it is kept, as long as there is room, until it is one.
func (x *Exchange) Receive(now time.Time, l Letter) {
	if l.From == x.options.Self {
		return
	}
	if m := x.members[l.From]; m != nil {
		if m.keys.add(l, now) {
			x.effects.Theirs = append(x.effects.Theirs, Theirs{m.Identity, l.Key})
		}
		return
	}
	waiting := x.parked[l.From]
	if waiting == nil {
		x.makeRoom(now)
		waiting = &parcels{}
		x.parked[l.From] = waiting
	}
	waiting.add(l, now)
}

// makeRoom drops parked keys that waited too long, and the oldest if that was not enough.
func (x *Exchange) makeRoom(now time.Time) {
	maps.DeleteFunc(x.parked, func(_ Peer, p *parcels) bool { return now.Sub(p.touched) > parkedLife })
	if len(x.parked) < maxParked {
		return
	}
	peers := slices.Collect(maps.Keys(x.parked))
	delete(x.parked, slices.MinFunc(peers, func(a, b Peer) int {
		return cmp.Or(x.parked[a].touched.Compare(x.parked[b].touched), cmp.Compare(a.User, b.User), cmp.Compare(a.Device, b.Device))
	}))
}

// add reports whether the key is new: neither the one under its index, nor older than that.
func (p *parcels) add(l Letter, now time.Time) bool {
	p.touched = now
	if i := slices.IndexFunc(p.letters, func(have Letter) bool { return have.Index == l.Index }); i >= 0 {
		if have := p.letters[i]; have.Key.equal(l.Key) || l.Sent.Before(have.Sent) {
			return false
		}
		p.letters = slices.Delete(p.letters, i, i+1)
	} else if len(p.letters) >= parkedKeys {
		p.letters = slices.Delete(p.letters, 0, 1)
	}
	p.letters = append(p.letters, l)
	return true
}

// settle makes a new key if what happened asks for one.
func (x *Exchange) settle(now time.Time) {
	if x.underway || !x.left && !x.joined {
		return
	}
	crowded := x.options.Crowd > 0 && len(x.members)+1 > x.options.Crowd
	if !crowded && (x.left || now.Sub(x.made) >= fresh) {
		secret := x.options.Generate()
		x.key = Key{Index: x.key.Index + 1, Secret: secret[:]} // 255 is followed by 0
		x.version++
		x.made = now
		for _, m := range x.members {
			m.failures, m.retry = 0, time.Time{}
		}
		if len(x.members) == 0 { // nobody needs to be told first
			x.use(now)
		}
	}
	x.left, x.joined = false, false
}

// Take returns what is to be done now, once.
func (x *Exchange) Take(now time.Time) Effects {
	x.settle(now)
	effects := x.effects
	x.effects = Effects{}
	if x.underway {
		return effects
	}
	var to []Peer
	for peer, m := range x.members {
		if m.has < x.version && !now.Before(m.retry) {
			to = append(to, peer)
		}
	}
	if len(to) == 0 {
		return effects
	}
	slices.SortFunc(to, func(a, b Peer) int { return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Device, b.Device)) })
	x.underway = true
	effects.Parcel = &Parcel{Key: x.key, To: to, version: x.version, stays: maps.Clone(x.members)}
	return effects
}

// Due returns when Take has something to return that it had not before, of what is only a matter of time.
func (x *Exchange) Due() (time.Time, bool) {
	var due time.Time
	if x.underway {
		return due, false
	}
	for _, m := range x.members {
		if m.has < x.version && (due.IsZero() || m.retry.Before(due)) {
			due = m.retry
		}
	}
	return due, !due.IsZero()
}

// Sent says what became of a parcel: who was not reached is tried again. Its key is used soon, by then those who were
// reached have it.
func (x *Exchange) Sent(now time.Time, p *Parcel, missed []Peer) {
	x.underway = false
	for _, peer := range p.To {
		m := x.members[peer]
		switch {
		case m == nil || m != p.stays[peer]: // left meanwhile
		case !slices.Contains(missed, peer):
			m.has, m.failures, m.retry = p.version, 0, time.Time{}
		default:
			m.failures++
			m.retry = now.Add(min(firstRetry<<min(m.failures-1, 8), maxRetry))
		}
	}
	if p.version > x.used {
		x.use(now)
	}
	x.settle(now)
}

// use has the newest key used.
func (x *Exchange) use(now time.Time) {
	x.used = x.version
	x.effects.Own = append(x.effects.Own, Own{x.key, now.Add(useDelay)})
}
