package sfu

import (
	"errors"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// Options configure Rooms. Zero fields mean the default in brackets.
type Options struct {
	AutoCreate       bool          // joining creates the room
	EmptyTimeout     time.Duration // of a room that nobody joined [5 min]
	DepartureTimeout time.Duration // of a room that everybody left [20 s]
	JoinTimeout      time.Duration // until Active [60 s]
	MaxParticipants  int           // people per room; 0 = no limit
	EnabledCodecs    []string      // mime types that may be published, preferred first [DefaultCodecs]
	RemoteUnmute     bool          // the server API may unmute a participant's track
	Bitrate          Bitrate       // limits of media
}

// DefaultCodecs are the codecs that may be published unless Options say otherwise.
var DefaultCodecs = []string{"video/VP8", "video/H264", "video/VP9", "video/AV1", "audio/opus", "audio/red"}

// RoomOptions are what the server API may set of one room. Zero fields mean what Options say.
type RoomOptions struct {
	EmptyTimeout, DepartureTimeout time.Duration
	MaxParticipants                int
	Metadata                       string
}

// Rooms holds every room of this node. Safe for concurrent use.
type Rooms struct {
	options  Options
	counters counters
	shed     atomic.Int64 // bits/s, see Shed

	mu        sync.RWMutex
	byID      map[RoomID]*room
	balanceAt time.Time // when the limits of media are looked at again
	sending   Sending
}

type counters struct {
	joins, leaves, overflows, created, closed atomic.Uint64
}

// New returns an empty set of rooms.
func New(o Options) *Rooms {
	if o.EmptyTimeout == 0 {
		o.EmptyTimeout = 5 * time.Minute
	}
	if o.DepartureTimeout == 0 {
		o.DepartureTimeout = 20 * time.Second
	}
	if o.JoinTimeout == 0 {
		o.JoinTimeout = time.Minute
	}
	if len(o.EnabledCodecs) == 0 {
		o.EnabledCodecs = DefaultCodecs
	}
	return &Rooms{options: o, byID: make(map[RoomID]*room)}
}

// EnabledCodecs returns the mime types that may be published, preferred first. The slice must not be written.
func (r *Rooms) EnabledCodecs() []string { return r.options.EnabledCodecs }

// Create makes the room, or applies the options to the room that exists.
func (r *Rooms) Create(id RoomID, o RoomOptions, now time.Time) RoomInfo {
	for {
		rm := r.findOrCreate(id, now)
		b := batch{now: now}
		rm.mu.Lock()
		open := !rm.closed
		var info RoomInfo
		if open {
			rm.configureLocked(o, &b)
			info = rm.infoLocked()
		}
		rm.mu.Unlock()
		b.finish()
		if open {
			return info
		}
		r.forget(rm)
	}
}

// Join adds a participant to the room, creating the room if the options or the member's grant allow it. A former session of
// the same identity is closed with DuplicateIdentity. It fails with ErrRoomNotFound, ErrRoomFull, ErrRoomLocked
// and, without an identity, ErrUnsupported.
func (r *Rooms) Join(id RoomID, m Member, now time.Time) (*Participant, error) {
	for {
		rm := r.find(id)
		if rm == nil {
			if !r.options.AutoCreate && !m.CreateRoom {
				return nil, ErrRoomNotFound
			}
			rm = r.findOrCreate(id, now)
		}
		p, err := rm.join(m, now)
		if !errors.Is(err, errRoomClosed) {
			return p, err
		}
		r.forget(rm)
	}
}

// Check fails as Join would, without joining.
func (r *Rooms) Check(id RoomID, m Member) error {
	rm := r.find(id)
	if rm == nil {
		if !r.options.AutoCreate && !m.CreateRoom {
			return ErrRoomNotFound
		}
		return nil
	}
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.closed {
		return nil
	}
	return rm.refusesLocked(m)
}

// Present reports whether the person is in the room already, by whatever identity.
func (r *Rooms) Present(id RoomID, m Member) bool {
	rm := r.find(id)
	if rm == nil {
		return false
	}
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return slices.ContainsFunc(rm.members, func(p *Participant) bool { return p.member.person() == m.person() })
}

// Room returns the room and who is in it, in the order of joining, hidden participants included.
func (r *Rooms) Room(id RoomID) (RoomInfo, []*ParticipantInfo, bool) {
	rm := r.find(id)
	if rm == nil {
		return RoomInfo{}, nil, false
	}
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.closed {
		return RoomInfo{}, nil, false
	}
	people := make([]*ParticipantInfo, 0, len(rm.members))
	for _, p := range rm.members {
		people = append(people, p.info)
	}
	return rm.infoLocked(), people, true
}

// Participant returns who has that identity in the room now, or nil.
func (r *Rooms) Participant(id RoomID, who Identity) *Participant {
	rm := r.find(id)
	if rm == nil {
		return nil
	}
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return rm.byIdentity[who]
}

// BySID returns the participant with that session id, or nil.
func (r *Rooms) BySID(id RoomID, sid SID) *Participant {
	rm := r.find(id)
	if rm == nil {
		return nil
	}
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return rm.bySID[sid]
}

// Remove closes a participant. It fails with ErrNotFound.
func (r *Rooms) Remove(id RoomID, who Identity, why Reason, now time.Time) error {
	p := r.Participant(id, who)
	if p == nil || !p.leave(why, now) {
		return ErrNotFound
	}
	return nil
}

// Delete closes the room and everyone in it. It fails with ErrNotFound.
func (r *Rooms) Delete(id RoomID, now time.Time) error {
	rm := r.find(id)
	if rm == nil || !rm.close(RoomDeleted, now) {
		return ErrNotFound
	}
	r.forget(rm)
	return nil
}

// List returns every room, ordered by name.
func (r *Rooms) List() []RoomInfo {
	rooms := r.all()
	out := make([]RoomInfo, 0, len(rooms))
	for _, rm := range rooms {
		rm.mu.Lock()
		if !rm.closed {
			out = append(out, rm.infoLocked())
		}
		rm.mu.Unlock()
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Tick does what is due in every room: settled settings, dynacast, speakers, quality, timeouts, limits of media. Call it every 50 to 100 ms.
func (r *Rooms) Tick(now time.Time) {
	for _, rm := range r.all() {
		if rm.tick(now) {
			r.forget(rm)
		}
	}
	r.balance(now)
}

// TellNews has news of others read that waited because there is much of it, by some of those for whom it waits, and reports whether there is more. Call it
// after each Tick, and every 10 ms for as long as there is.
func (r *Rooms) TellNews(now time.Time) (more bool) {
	for _, rm := range r.all() {
		if rm.tellNews(now) {
			more = true
		}
	}
	return more
}

func (r *Rooms) find(id RoomID) *room {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byID[id]
}

func (r *Rooms) findOrCreate(id RoomID, now time.Time) *room {
	r.mu.Lock()
	defer r.mu.Unlock()
	rm := r.byID[id]
	if rm == nil {
		rm = newRoom(r, id, now)
		r.byID[id] = rm
		r.counters.created.Add(1)
	}
	return rm
}

// forget drops a closed room, unless another one has taken its name.
func (r *Rooms) forget(rm *room) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID[rm.id] == rm {
		delete(r.byID, rm.id)
		r.counters.closed.Add(1)
	}
}

func (r *Rooms) all() []*room {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]*room, 0, len(r.byID))
	for _, rm := range r.byID {
		out = append(out, rm)
	}
	return out
}
