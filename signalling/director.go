package signalling

import (
	"cmp"
	"slices"
	"time"

	"callserver/sfu"
)

const (
	pictureDwell = 2 * time.Second // how long a picture stays before that of another speaker takes its place
	soundDwell   = 2 * time.Second // how long somebody who speaks is heard before somebody louder is
	louder       = 0.25            // by how much that is
)

// A director chooses what the remote of a leg hears and sees, which has room for one voice, one picture and perhaps one screen. With one
// other participant it is that one. Caller's goroutine only; the zero value has seen nobody.
type director struct {
	screens bool // there is room for a screen beside the picture
	voices  map[sfu.SID]voice
	turns   uint64 // counts who began to speak
	last    [places]casting
}

// The places that a leg's remote has room for.
const (
	hearing = iota
	seeing
	watching
	places
)

// voice is how somebody was heard last.
type voice struct {
	level  float32
	active bool
	turn   uint64 // the higher, the later the voice was heard
}

// casting is who has a place since when.
type casting struct {
	pick
	since time.Time
}

// A pick is a track for a place; the zero value is none.
type pick struct {
	participant sfu.SID
	identity    sfu.Identity
	track       sfu.TrackInfo
}

func (p pick) is(other pick) bool { return p.track.SID == other.track.SID }

// heard takes how loud people are.
func (d *director) heard(speakers []sfu.Speaker) {
	if d.voices == nil {
		d.voices = map[sfu.SID]voice{}
	}
	for _, s := range speakers {
		v := voice{level: s.Level, active: s.Active, turn: d.voices[s.SID].turn}
		if s.Active {
			d.turns++
			v.turn = d.turns
		}
		d.voices[s.SID] = v
	}
}

// left forgets somebody.
func (d *director) left(who sfu.SID) { delete(d.voices, who) }

// choose casts every place anew, out of those others who are there, in the order of joining. Fits says which tracks the remote could get at a place.
func (d *director) choose(others []*sfu.ParticipantInfo, fits func(place int, t *sfu.TrackInfo) bool, now time.Time) [places]pick {
	var picks [places]pick
	candidates := func(place int, source sfu.TrackSource) (list []pick) {
		for _, o := range others {
			for i := range o.Tracks {
				if t := &o.Tracks[i]; t.Source == source && fits(place, t) {
					list = append(list, pick{o.SID, o.Identity, *t})
				}
			}
		}
		return list
	}
	picks[hearing] = d.hear(candidates(hearing, sfu.Microphone), now)
	screens := seeing
	if d.screens {
		screens = watching
	}
	screen := d.watch(candidates(screens, sfu.ScreenShare), screens)
	picks[seeing] = d.see(candidates(seeing, sfu.Camera), picks[hearing].participant, now)
	if screen.track.SID != "" {
		picks[screens] = screen
	}
	for place, p := range picks {
		if last := &d.last[place]; !last.is(p) {
			*last = casting{p, now}
		} else {
			last.pick = p
		}
	}
	return picks
}

// hear picks a voice: who speaks, for as long as he does.
func (d *director) hear(list []pick, now time.Time) pick {
	present, on := d.present(list, hearing)
	voice := d.voices[present.participant]
	best, speaks := present, on && voice.active
	for _, p := range audible(list) {
		v := d.voices[p.participant]
		switch {
		case !v.active || p.is(present):
		case !speaks && (!d.voices[best.participant].active || v.level > d.voices[best.participant].level):
			best = p
		case speaks && v.level >= voice.level+louder && now.Sub(d.last[hearing].since) >= soundDwell:
			best, voice = p, v
		}
	}
	if best.track.SID != "" && !best.track.Muted {
		return best
	}
	return d.latest(list, present)
}

// see picks a picture: that of who is heard, if there is one.
func (d *director) see(list []pick, heard sfu.SID, now time.Time) pick {
	present, on := d.present(list, seeing)
	for _, p := range audible(list) {
		if p.participant == heard && !p.is(present) && (!on || now.Sub(d.last[seeing].since) >= pictureDwell) {
			return p
		}
	}
	if on {
		return present
	}
	return d.latest(list, present)
}

// watch picks a screen: the one that is shown, or else the one that was shared last.
func (d *director) watch(list []pick, place int) pick {
	list = audible(list)
	if present, on := d.present(list, place); on {
		return present
	}
	if len(list) == 0 {
		return pick{}
	}
	return slices.MaxFunc(list, func(a, b pick) int {
		return cmp.Compare(a.track.Version.UnixMicro, b.track.Version.UnixMicro)
	})
}

// present returns what has a place, as it is by now, and whether it can stay.
func (d *director) present(list []pick, place int) (pick, bool) {
	for _, p := range list {
		if p.is(d.last[place].pick) {
			return p, !p.track.Muted
		}
	}
	return pick{}, false
}

// latest returns who spoke last of those who are not muted; if all are, whoever is present, or else who spoke last of all. Of those who never did
// it is the first there.
func (d *director) latest(list []pick, present pick) pick {
	switch some := audible(list); {
	case len(some) > 0:
		list = some
	case present.track.SID != "":
		return present
	}
	var best pick
	for _, p := range list {
		if best.track.SID == "" || d.voices[p.participant].turn > d.voices[best.participant].turn {
			best = p
		}
	}
	return best
}

// audible returns what is not muted.
func audible(list []pick) []pick {
	return slices.DeleteFunc(slices.Clone(list), func(p pick) bool { return p.track.Muted })
}
