package signalling

import (
	"slices"
	"time"

	"callserver/sfu"
	"callserver/sfu/rtc"
)

// followLocked does what the room and the peer have told.
func (l *Leg) followLocked() {
	now := time.Now()
	for _, e := range l.sess.part.Events() {
		l.roomLocked(e)
	}
	for _, e := range l.sess.peer.Events() {
		l.transportLocked(e, now)
	}
	l.castLocked(now)
}

// roomLocked deals with an event of the participant.
func (l *Leg) roomLocked(e sfu.Event) {
	switch e := e.(type) {
	case sfu.ParticipantsChanged:
		l.meetLocked(e.Participants)
		l.tellLocked(e)
	case sfu.Speakers:
		l.director.heard(e.Speakers)
	case sfu.DownlinkWanted:
		l.wanted[e.Track.SID] = e
	case sfu.DownlinkDropped:
		l.lostLocked(e.Track)
	case sfu.SubscriptionFailed:
		l.lostLocked(e.Track)
	case sfu.MuteRequested:
		for _, in := range l.incoming {
			if in.track == e.Track {
				in.muted = e.Muted
				l.tellLocked(RemoteMute{Source: in.source, Muted: e.Muted})
			}
		}
	case sfu.TrackRemoved:
		for mid, in := range l.incoming {
			if in.track == e.Track {
				delete(l.incoming, mid)
				in.close()
			}
		}
	case sfu.Closed:
		l.tellLocked(e)
	}
}

// meetLocked takes the newest state of others.
func (l *Leg) meetLocked(changed []*sfu.ParticipantInfo) {
	for _, p := range changed {
		at := slices.IndexFunc(l.others, func(o *sfu.ParticipantInfo) bool { return o.SID == p.SID })
		switch {
		case p.SID == l.sess.sid:
		case p.State == sfu.Disconnected:
			l.director.left(p.SID)
			if at >= 0 {
				l.others = slices.Delete(l.others, at, at+1)
			}
		case at < 0:
			l.others = append(l.others, p)
		case p.Version >= l.others[at].Version:
			l.others[at] = p
		}
	}
}

// transportLocked deals with an event of the peer.
func (l *Leg) transportLocked(e rtc.Event, now time.Time) {
	switch e := e.(type) {
	case rtc.StateChanged:
		switch e.State {
		case rtc.Connected:
			l.sess.part.SetState(sfu.Active, now)
			l.tellLocked(Connected{})
		case rtc.Disconnected:
			l.tellLocked(Interrupted{})
		case rtc.FailedState:
			l.tellLocked(TransportFailed{})
		}
	case rtc.BitrateChanged:
		l.sess.peer.Want(l.sess.part.Fit(e.Bitrate, e.Limited, now))
	case rtc.DownlinkBound:
		l.boundLocked(e)
	case rtc.DownlinkRefused:
		for place, o := range l.outgoing {
			if o != nil && o.id == e.TrackID {
				l.shutLocked(place)
				if place == watching { // then a screen takes the place of the camera
					l.options.Screens, l.director.screens = false, false
				}
			}
		}
	case rtc.Failed:
		l.tellLocked(Broken{e.Err})
	}
}

// tickLocked does what time asks for.
func (l *Leg) tickLocked(now time.Time) {
	l.ticks++
	report := l.ticks%reportTicks == 0
	for _, in := range l.incoming {
		in.tick(now, report)
	}
	for _, o := range l.outgoing {
		if o != nil {
			o.tick(now, report)
		}
	}
	l.sess.peer.Nudge() // what was waited for until now goes out now
	l.castLocked(now)
}
