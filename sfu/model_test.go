package sfu

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// viewer is a client that believes what it is told, as the JS client does: participants by identity, tracks by their list.
type viewer struct {
	*client
	t         *rapid.T
	self      *ParticipantInfo
	people    map[Identity]*ParticipantInfo
	versions  map[SID]uint32
	former    map[SID]bool // sessions that another one of the same identity took the place of
	downlinks map[SID]bool
	denied    map[SID]bool
}

func newViewer(t *rapid.T, c *client) *viewer {
	v := &viewer{
		client: c, t: t, people: map[Identity]*ParticipantInfo{}, versions: map[SID]uint32{}, former: map[SID]bool{},
		downlinks: map[SID]bool{}, denied: map[SID]bool{},
	}
	snap := c.Snapshot()
	v.self = snap.Self
	for _, p := range snap.Others {
		v.meet(p)
	}
	return v
}

func (v *viewer) meet(p *ParticipantInfo) {
	if p.Version < v.versions[p.SID] {
		v.t.Fatalf("%s: version of %s went from %d to %d", v.identity, p.Identity, v.versions[p.SID], p.Version)
	}
	v.versions[p.SID] = p.Version
	if p.SID == v.sid {
		v.self = p
		return
	}
	if v.former[p.SID] {
		v.t.Fatalf("%s: told of %s of %s after the next session", v.identity, p.SID, p.Identity)
	}
	known, was := v.people[p.Identity]
	if was && known.SID != p.SID {
		v.former[known.SID] = true
	}
	if p.State == Disconnected {
		if len(p.Tracks) > 0 {
			v.t.Fatalf("%s: %s left with tracks", v.identity, p.Identity)
		}
		delete(v.people, p.Identity)
		return
	}
	v.people[p.Identity] = p
}

// read takes in everything that waits.
func (v *viewer) read() {
	for _, e := range v.Events() {
		switch e := e.(type) {
		case ParticipantsChanged:
			for _, p := range e.Participants {
				v.meet(p)
			}
		case DownlinkWanted:
			owner, ok := v.people[e.PublisherIdentity]
			if !ok || owner.SID != e.Publisher {
				v.t.Fatalf("%s: offered a track of %s, whom it does not know", v.identity, e.PublisherIdentity)
			}
			if e.Track.Mime == "" || !hasTrack(owner, e.Track.SID) {
				v.t.Fatalf("%s: offered %s, which is not (or without a codec) in %+v", v.identity, e.Track.SID, owner.Tracks)
			}
			if v.downlinks[e.Track.SID] {
				v.t.Fatalf("%s: offered %s twice", v.identity, e.Track.SID)
			}
			v.downlinks[e.Track.SID] = true
		case DownlinkDropped:
			if !v.downlinks[e.Track] {
				v.t.Fatalf("%s: %s was dropped, but never offered", v.identity, e.Track)
			}
			delete(v.downlinks, e.Track)
		case SubscriptionPermission:
			v.denied[e.Track] = !e.Allowed
		}
	}
}

func hasTrack(p *ParticipantInfo, sid SID) bool {
	for _, t := range p.Tracks {
		if t.SID == sid {
			return true
		}
	}
	return false
}

// world drives a room at random.
type world struct {
	*stage
	t       *rapid.T
	viewers []*viewer // in the room
	pending map[*viewer][]SID
	cids    int
}

func (w *world) pick() *viewer {
	if len(w.viewers) == 0 {
		w.t.Skip("nobody there")
	}
	return rapid.SampledFrom(w.viewers).Draw(w.t, "who")
}

func (w *world) track(v *viewer) SID {
	tracks := v.Info().Tracks
	if len(tracks) == 0 {
		w.t.Skip("no tracks")
	}
	return rapid.SampledFrom(tracks).Draw(w.t, "track").SID
}

func (w *world) anyTrack() SID { return w.track(w.pick()) }

func (w *world) sweep() {
	kept := w.viewers[:0]
	for _, v := range w.viewers {
		if !v.Closed() {
			kept = append(kept, v)
		}
	}
	w.viewers = kept
}

func (w *world) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"join": func(t *rapid.T) {
			m := member(Identity(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "identity")))
			m.AutoSubscribe = rapid.Bool().Draw(t, "auto")
			m.AdaptiveStream = rapid.Bool().Draw(t, "adaptive")
			m.Permission.Hidden = rapid.IntRange(0, 5).Draw(t, "hidden") == 0
			m.Permission.CanSubscribe = rapid.IntRange(0, 5).Draw(t, "deaf") != 0
			p, err := w.rooms.Join("room", m, w.now)
			if err != nil {
				t.Fatal(err)
			}
			w.sweep()
			w.viewers = append(w.viewers, newViewer(w.t, &client{Participant: p, st: w.stage}))
		},
		"leave":  func(t *rapid.T) { w.pick().Leave(ClientInitiated, w.now); w.sweep() },
		"active": func(t *rapid.T) { w.pick().SetState(Active, w.now) },
		"publish": func(t *rapid.T) {
			v := w.pick()
			w.cids++
			info, err := v.Publish(TrackRequest{CID: fmt.Sprint(w.cids), Kind: Kind(w.cids % 2), Source: Camera}, w.now)
			if err == nil {
				w.pending[v] = append(w.pending[v], info.SID)
			}
		},
		"negotiate": func(t *rapid.T) {
			v := w.pick()
			if len(w.pending[v]) == 0 {
				t.Skip("nothing pending")
			}
			sid := w.pending[v][0]
			w.pending[v] = w.pending[v][1:]
			mime := "audio/opus"
			if sid[3] == 'V' {
				mime = "video/VP8"
			}
			_, _ = v.Negotiated(sid, Media{MID: string(sid), Mime: mime}, w.now)
		},
		"unpublish": func(t *rapid.T) { v := w.pick(); v.Unpublish(w.track(v), w.now) },
		"mute":      func(t *rapid.T) { v := w.pick(); _ = v.Mute(w.track(v), rapid.Bool().Draw(t, "muted"), w.now) },
		"subscribe": func(t *rapid.T) { w.pick().Subscribe([]SID{w.anyTrack()}, rapid.Bool().Draw(t, "on"), w.now) },
		"settings": func(t *rapid.T) {
			w.pick().Settings([]SID{w.anyTrack()}, TrackSettings{Disabled: rapid.Bool().Draw(t, "off")}, w.now)
		},
		"permissions": func(t *rapid.T) {
			w.pick().Permissions(rapid.Bool().Draw(t, "all"), []TrackPermission{{Identity: "a", All: true}}, w.now)
		},
		"permit": func(t *rapid.T) {
			perm := everything
			perm.CanPublish = rapid.Bool().Draw(t, "publish")
			perm.CanSubscribe = rapid.Bool().Draw(t, "subscribe")
			_ = w.pick().SetPermission(perm, w.now)
		},
		"update": func(t *rapid.T) { name := "n"; _ = w.pick().Update(&name, nil, nil, w.now) },
		"bind":   func(t *rapid.T) { _, _ = w.pick().Bind(w.anyTrack(), silentWriter{}, true, w.now) },
		"unbind": func(t *rapid.T) { w.pick().Unbind(w.anyTrack(), w.now) },
		"resync": func(t *rapid.T) { w.pick().Resync(w.now) },
		"read":   func(t *rapid.T) { w.pick().read() },
		"tick": func(t *rapid.T) {
			w.pass(time.Duration(rapid.IntRange(1, 8).Draw(t, "seconds")) * time.Second)
			w.sweep()
		},
		"": func(t *rapid.T) { w.check() },
	}
}

// check reads everybody's events and compares what they believe with the room.
func (w *world) check() {
	if rapid.IntRange(0, 3).Draw(w.t, "look") != 0 {
		return // let events pile up
	}
	_, truth, _ := w.rooms.Room("room")
	if len(truth) != len(w.viewers) {
		w.t.Fatalf("%d participants in the room, want %d", len(truth), len(w.viewers))
	}
	for _, v := range w.viewers {
		v.read()
		people := map[Identity]*ParticipantInfo{}
		for _, p := range truth {
			if p.SID != v.sid && !p.Permission.Hidden {
				people[p.Identity] = p
			}
		}
		if diff := cmp.Diff(people, v.people, cmpopts.IgnoreUnexported(ParticipantInfo{})); diff != "" {
			w.t.Fatalf("%s sees others (-truth +seen):\n%s", v.identity, diff)
		}
		if diff := cmp.Diff(v.Info(), *v.self, cmpopts.IgnoreUnexported(ParticipantInfo{})); diff != "" {
			w.t.Fatalf("%s sees itself (-truth +seen):\n%s", v.identity, diff)
		}
		w.checkStreams(v)
	}
}

// checkStreams compares the tracks that v receives with the wishes and permissions, and counts every sink.
func (w *world) checkStreams(v *viewer) {
	rm := v.room
	rm.mu.Lock()
	defer rm.mu.Unlock()
	want := map[SID]bool{}
	for sid, t := range rm.tracks {
		s := v.subscriptions[sid]
		if s == nil {
			if v.member.AutoSubscribe && t.owner != v.Participant {
				w.t.Fatalf("%s subscribes to everything, but not to %s", v.identity, sid)
			}
			continue
		}
		allowed := t.owner.letsLocked(v.Participant, sid)
		if s.desired && v.denied[sid] == allowed {
			w.t.Fatalf("%s was told that %s is allowed: %t, truth is %t", v.identity, sid, !v.denied[sid], allowed)
		}
		if s.desired && allowed && v.member.Permission.CanSubscribe {
			want[sid] = true
		}
		if (t.streams[v.Participant] == s) != s.active || s.link != nil && !s.active {
			w.t.Fatalf("%s: subscription %+v is not what the track knows", v.identity, s)
		}
	}
	if diff := cmp.Diff(want, v.downlinks); diff != "" {
		w.t.Fatalf("%s receives (-truth +told):\n%s", v.identity, diff)
	}
	for sid := range v.subscriptions {
		if rm.tracks[sid] == nil && v.subscriptions[sid].track != nil {
			w.t.Fatalf("%s keeps a subscription to %s, which ended", v.identity, sid)
		}
	}
	for _, t := range v.publications.tracks {
		w.checkTrack(t)
	}
	for t := range rm.agenda.falling {
		if rm.tracks[t.info.SID] != t {
			w.t.Fatalf("%s ended, but its demand is still to be told", t.info.SID)
		}
	}
	for s := range rm.agenda.settling {
		if s.who.subscriptions[s.sid] != s {
			w.t.Fatalf("the subscription of %s to %s ended, but its settings are still to be applied", s.who.identity, s.sid)
		}
	}
}

func (w *world) checkTrack(t *track) {
	links, wanted := 0, [Off + 1]int{}
	for _, s := range t.streams {
		if s.link != nil {
			links++
			if got := unpack(s.link.target.Load()); got != s.targetLocked() {
				w.t.Fatalf("target of %s for %s is %v, want %v", s.sid, s.who.identity, got, s.targetLocked())
			}
		}
		wanted[s.wants]++
	}
	if n := t.source.Stats().Sinks; n != links {
		w.t.Fatalf("%s has %d sinks, want %d", t.info.SID, n, links)
	}
	if wanted != t.dynacast.wanted {
		w.t.Fatalf("%s is wanted %v, counted %v", t.info.SID, wanted, t.dynacast.wanted)
	}
	if t.info.Kind == Video && t.dynacast.downAt.IsZero() && t.dynacast.want() != t.dynacast.committed {
		w.t.Fatalf("%s: wanted %v, told %v, and nothing is due", t.info.SID, t.dynacast.want(), t.dynacast.committed)
	}
}

func TestEverybodySeesTheRoomAsItIs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{stage: newStage(t, Options{}), t: rt, pending: map[*viewer][]SID{}}
		w.rooms.Create("room", RoomOptions{EmptyTimeout: time.Hour, DepartureTimeout: time.Hour}, w.now)
		for _, id := range []Identity{"a", "b", "c"} {
			c := w.join(id)
			c.camera()
			c.microphone()
			w.viewers = append(w.viewers, newViewer(rt, c))
		}
		rt.Repeat(w.actions())
		s := w.rooms.Stats()
		if err := w.rooms.Delete("room", w.now); err != nil {
			rt.Fatal(err)
		}
		after := w.rooms.Stats()
		if after.Participants+after.Tracks+after.Subscriptions != 0 || after.Joins != after.Leaves {
			rt.Fatalf("stats %+v, after closing everything %+v", s, after)
		}
	})
}
