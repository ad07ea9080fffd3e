package signalling

import (
	"slices"

	"callserver/sfu"
	"callserver/sfu/rtc"
)

// asked is one thing that a client announced it would send: a track, or one more codec of a track.
type asked struct {
	track sfu.SID
	cids  []string // client's ids for it, any of which the section may carry
	want  rtc.Want
	mid   string // section that carries it; "" while there is none
}

// uplinks match what a client announced (by signalling) to the media sections it sends on (by SDP). Either may come
// first. Caller's goroutine only.
type uplinks struct {
	asked    []*asked
	sections []rtc.Section // of the latest offer
}

// A pairing is a section found for something asked.
type pairing struct {
	asked   *asked
	section rtc.Section
}

// ask remembers an announcement. One that is repeated before it was sent takes the place of the former.
func (u *uplinks) ask(a *asked) {
	u.asked = slices.DeleteFunc(u.asked, func(old *asked) bool { return old.track == a.track && old.mid == "" })
	u.asked = append(u.asked, a)
}

// forget drops everything of a track, sent or not.
func (u *uplinks) forget(track sfu.SID) {
	u.asked = slices.DeleteFunc(u.asked, func(a *asked) bool { return a.track == track })
}

// wants is what the next offer should be answered with.
func (u *uplinks) wants() []rtc.Want {
	wants := make([]rtc.Want, 0, len(u.asked))
	for _, a := range u.asked {
		for _, cid := range a.cids {
			w := a.want
			w.CID = cid
			wants = append(wants, w)
		}
	}
	return wants
}

// offered takes over the sections of a new offer and returns the tracks that are no longer sent at all.
func (u *uplinks) offered(sections []rtc.Section) (gone []sfu.SID) {
	u.sections = sections
	for _, s := range sections {
		if a := u.on(s.MID); a != nil && (!s.Active || u.reused(a, s)) {
			a.mid = ""
			u.asked = slices.DeleteFunc(u.asked, func(x *asked) bool { return x == a })
			if !slices.ContainsFunc(u.asked, func(x *asked) bool { return x.track == a.track && x.mid != "" }) {
				u.forget(a.track)
				gone = append(gone, a.track)
			}
		}
	}
	return gone
}

// reused reports whether a section that carried a carries something else by now. A changed id alone does not say so:
// some browsers change it with the source of a track.
func (u *uplinks) reused(a *asked, s rtc.Section) bool {
	if slices.Contains(a.cids, s.CID) {
		return false
	}
	other := u.byCID(s)
	return other != nil && other != a
}

// match pairs what can be paired. The ids decide; where a browser made up an id of its own, the first track of the
// kind that nothing else fits is meant, unless more sections than tracks are left over: then an announcement is
// still on its way and guessing would mix tracks up.
func (u *uplinks) match() (found []pairing) {
	pair := func(a *asked, s rtc.Section) {
		a.mid = s.MID
		found = append(found, pairing{a, s})
	}
	for _, s := range u.sections {
		if a := u.byCID(s); s.Active && u.on(s.MID) == nil && a != nil {
			pair(a, s)
		}
	}
	for _, video := range []bool{false, true} {
		sections, tracks := u.unmatched(video)
		if len(sections) > len(tracks) {
			continue
		}
		for i, s := range sections {
			pair(tracks[i], s)
		}
	}
	return found
}

// unmatched returns the sections that carry something unknown and the announced tracks that nothing carries.
func (u *uplinks) unmatched(video bool) (sections []rtc.Section, tracks []*asked) {
	for _, s := range u.sections {
		if s.Active && s.Video == video && u.on(s.MID) == nil {
			sections = append(sections, s)
		}
	}
	for _, a := range u.asked {
		if a.mid == "" && a.want.Video == video {
			tracks = append(tracks, a)
		}
	}
	return sections, tracks
}

func (u *uplinks) on(mid string) *asked {
	for _, a := range u.asked {
		if a.mid == mid {
			return a
		}
	}
	return nil
}

// byCID finds the announced and not yet sent track that a section names.
func (u *uplinks) byCID(s rtc.Section) *asked {
	for _, a := range u.asked {
		if a.mid == "" && a.want.Video == s.Video && slices.Contains(a.cids, s.CID) {
			return a
		}
	}
	return nil
}
