package sfu

import (
	"slices"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/forward"
)

// track is one publication. Guarded by its room's mutex.
//
//	pending --Negotiated--> announced --Unpublish, revoked, left--> ended
type track struct {
	owner   *Participant
	info    TrackInfo
	cids    []string // the client's ids for it, the main codec's first
	ladder  ladder
	codec   codec.Codec
	source  *forward.Source                // nil while pending
	streams map[*Participant]*subscription // active ones
	told    bool                           // FirstSubscriber
	budget  budget
	dynacast
	reception
}

// publications is what a participant publishes and to whom.
type publications struct {
	tracks  []*track // announced, in that order
	pending []*track // asked for, not negotiated
	queued  []TrackRequest

	audience audience
}

// match returns the track, announced or pending, that the client knows as cid.
func (pb *publications) match(tracks []*track, cid string) *track {
	for _, t := range tracks {
		if cid != "" && slices.Contains(t.cids, cid) {
			return t
		}
	}
	return nil
}

func (pb *publications) find(sid SID) *track {
	for _, t := range pb.tracks {
		if t.info.SID == sid {
			return t
		}
	}
	return pb.findPending(sid)
}

func (pb *publications) findPending(sid SID) *track {
	for _, t := range pb.pending {
		if t.info.SID == sid {
			return t
		}
	}
	return nil
}

// touch gives the track's info a newer version.
func (t *track) touch(now time.Time) {
	micro := now.UnixMicro()
	if micro > t.info.Version.UnixMicro {
		t.info.Version = TrackVersion{UnixMicro: micro}
		return
	}
	t.info.Version.Ticks++
}

// endTrackLocked takes an announced track away from everyone. The caller tells the participant's new state.
func (p *Participant) endTrackLocked(t *track, b *batch) {
	rm := p.room
	p.publications.tracks = slices.DeleteFunc(p.publications.tracks, func(o *track) bool { return o == t })
	delete(rm.tracks, t.info.SID)
	for _, s := range t.streams {
		s.stopLocked(b)
		delete(rm.agenda.settling, s)
	}
	for _, q := range rm.members {
		if q.subscriptions[t.info.SID] != nil {
			delete(q.subscriptions, t.info.SID)
			q.queue.withdraw(queueKey{kindPermission, t.info.SID})
			q.queue.withdraw(queueKey{kindStream, t.info.SID})
		}
	}
	for _, kind := range [...]eventKind{kindFirst, kindQualities, kindMute} {
		p.queue.withdraw(queueKey{kind, t.info.SID})
	}
	rm.agenda.forgetTrack(t)
	b.do(t.source.Close)
}
