package sfu

import (
	"sync/atomic"
	"time"

	"callserver/sfu/forward"
)

// unknownFor is how long a subscription waits for a track that nobody knows.
const unknownFor = 60 * time.Second

// maxSubscriptions bounds what one participant may ask for.
const maxSubscriptions = 5000

// subscription is what one participant wants of one track, and how far that has come. Guarded by the room's mutex.
//
//	waiting (track unknown, not wanted, or not allowed) <--> active (DownlinkWanted was told) --Bind--> linked
//
// reconcileLocked moves it to where the facts say it belongs; it is called whenever one of them changed. All of them change under the
// room's mutex, so there is no sweep for changes that were missed: in a room of 300 it would cost 30 times the rest of a tick. Only
// what waits for a track that nobody knows is looked at every three seconds.
type subscription struct {
	who     *Participant
	sid     SID
	track   *track // nil while unknown
	since   time.Time
	desired bool
	asked   bool // desired is the client's word, not auto-subscription
	active  bool
	told    permissionTold

	settings TrackSettings
	stated   bool // the client sent settings
	next     TrackSettings
	settleAt time.Time // zero, or when next takes the place of settings

	held   int  // steps down from bandwidth.All, for want of bandwidth to who receives it
	paused bool // as StreamChanged told

	wants    Quality   // as counted in track.wanted while active
	wantedAt time.Time // when DownlinkWanted was told, zero once bound
	link     *link     // nil until bound
	binds    int       // counts Bind calls, so that the last one wins
}

type permissionTold uint8

const (
	toldNothing permissionTold = iota
	toldAllowed
	toldDenied
)

// link ties a subscription to its sink. Its target is set under the room's mutex and applied after it.
type link struct {
	sink   *forward.Sink
	target atomic.Uint32
}

// cut marks a target above which nothing is to be sent from now on, whether or not what takes its place has begun.
const cut = 1 << 16

func pack(l forward.Layer) uint32 { return uint32(uint8(l.Spatial))<<8 | uint32(uint8(l.Temporal)) }

func unpack(v uint32) forward.Layer {
	return forward.Layer{Spatial: int8(uint8(v >> 8)), Temporal: int8(uint8(v))}
}

// apply hands the newest target to the sink. Concurrent calls end with the newest one applied last.
func (l *link) apply() {
	for {
		v := l.target.Load()
		if v&cut != 0 {
			l.sink.Cut(unpack(v))
		} else {
			l.sink.SetTarget(unpack(v))
		}
		if l.target.Load() == v {
			return
		}
	}
}

// Subscribe says whether this participant wants tracks. Tracks that are not there yet are waited for.
func (p *Participant) Subscribe(tracks []SID, on bool, now time.Time) {
	b := batch{now: now}
	p.room.mu.Lock()
	for _, sid := range tracks {
		if p.state == Disconnected {
			break
		}
		if !on && p.subscriptions[sid] == nil && p.room.tracks[sid] == nil {
			continue
		}
		s := p.subscriptionLocked(sid, &b)
		if s == nil {
			b.tell(p, kindFailed, sid, SubscriptionFailed{sid, SubscriptionUnknown})
			continue
		}
		s.desired, s.asked, s.since = on, true, now
		s.reconcileLocked(&b)
	}
	p.room.mu.Unlock()
	b.finish()
}

// Reject says that a track could not be negotiated towards this participant. It is told so, and no longer subscribed.
func (p *Participant) Reject(sid SID, why SubscriptionError, now time.Time) {
	b := batch{now: now}
	p.room.mu.Lock()
	if s := p.subscriptions[sid]; s != nil && s.desired {
		s.desired, s.asked = false, true
		s.reconcileLocked(&b)
		b.tell(p, kindFailed, sid, SubscriptionFailed{sid, why})
	}
	p.room.mu.Unlock()
	b.finish()
}

// subscriptionLocked returns the subscription to a track, a new one if need be; nil if it is the participant's own track or
// there are too many.
func (p *Participant) subscriptionLocked(sid SID, b *batch) *subscription {
	if s := p.subscriptions[sid]; s != nil {
		return s
	}
	t := p.room.tracks[sid]
	if t != nil && t.owner == p || t == nil && len(p.subscriptions) >= maxSubscriptions {
		return nil
	}
	s := &subscription{who: p, sid: sid, track: t, since: b.now, settings: p.initialSettings()}
	p.subscriptions[sid] = s
	if t == nil {
		p.room.agenda.unknown[s] = struct{}{}
	}
	return s
}

// initialSettings are those of a participant that has not said what it wants: never off, or it would see no frame and never
// ask for more.
func (p *Participant) initialSettings() TrackSettings {
	if p.member.AdaptiveStream {
		return TrackSettings{Quality: Low}
	}
	return TrackSettings{Quality: High}
}

// subscribeToLocked subscribes p to everything that q publishes.
func (p *Participant) subscribeToLocked(q *Participant, b *batch) {
	for _, t := range q.publications.tracks {
		if s := p.subscriptionLocked(t.info.SID, b); s != nil && !s.asked {
			s.desired = true
			s.reconcileLocked(b)
		}
	}
}

// offerLocked gives a newly announced track to those who asked for it before and those who subscribe to everything.
func (rm *room) offerLocked(t *track, b *batch) {
	for _, p := range rm.members {
		if p == t.owner {
			continue
		}
		s := p.subscriptions[t.info.SID]
		if s == nil && p.member.AutoSubscribe {
			s = p.subscriptionLocked(t.info.SID, b)
		}
		if s != nil {
			s.track, s.desired = t, s.desired || p.member.AutoSubscribe && !s.asked
			delete(rm.agenda.unknown, s)
			s.reconcileLocked(b)
		}
	}
}

// reconcileLocked starts or stops the subscription as permissions and wishes say.
func (s *subscription) reconcileLocked(b *batch) {
	if s.track == nil {
		return
	}
	allowed := s.track.owner.letsLocked(s.who, s.sid)
	if s.desired {
		s.tellPermissionLocked(allowed, b)
	}
	on := s.desired && allowed && s.who.member.Permission.CanSubscribe && s.who.state != Disconnected
	switch {
	case on && !s.active:
		s.startLocked(b)
	case !on && s.active:
		s.stopLocked(b)
	}
}

func (s *subscription) tellPermissionLocked(allowed bool, b *batch) {
	told := toldDenied
	if allowed {
		told = toldAllowed
	}
	if s.told == told {
		return
	}
	s.told = told
	b.tell(s.who, kindPermission, s.sid, SubscriptionPermission{s.track.owner.sid, s.sid, allowed})
}

func (s *subscription) startLocked(b *batch) {
	t := s.track
	s.active = true
	t.streams[s.who] = s
	s.wantedAt = b.now
	s.beginLocked()
	s.wants = s.qualityLocked()
	t.countLocked(s.wants, 1, b)
	b.tell(s.who, kindWanted, s.sid, DownlinkWanted{
		Track: t.info, Publisher: t.owner.sid, PublisherIdentity: t.owner.identity,
		StreamID: string(t.owner.sid) + "|" + string(s.sid), Codec: t.codec, CNAME: string(t.owner.sid),
	})
	t.greetLocked(s.who, b)
}

// stopLocked ends an active subscription: the sink goes, the section is freed.
func (s *subscription) stopLocked(b *batch) {
	t := s.track
	s.active = false
	s.binds++
	delete(t.streams, s.who)
	t.countLocked(s.wants, -1, b)
	if l := s.link; l != nil {
		s.link = nil
		b.do(l.sink.Detach)
	}
	if !s.who.queue.withdraw(queueKey{kindWanted, s.sid}) {
		b.tell(s.who, kindDropped, s.sid, DownlinkDropped{s.sid})
	}
	t.farewellLocked(s.who, b)
}

// endLocked ends the subscription of a participant that leaves.
func (s *subscription) endLocked(b *batch) {
	if s.active {
		s.stopLocked(b)
	}
	delete(s.who.room.agenda.unknown, s)
	delete(s.who.room.agenda.settling, s)
}

// targetLocked is the layer to forward: nothing of a muted track or a withheld publisher, whatever it goes on sending, nor what was switched off for the
// publisher's line: Firefox sends a tiny picture in its place.
func (s *subscription) targetLocked() forward.Layer {
	if s.track.info.Muted || s.track.owner.withheld {
		return forward.NoLayer
	}
	target := s.wantedLocked()
	if d := &s.track.dynacast; d.begun && d.most != Off {
		target.Spatial = min(target.Spatial, s.track.ladder.forQuality(d.most))
	}
	return target
}

// wantedLocked is the layer to forward while the track is not muted, as far as the limits allow.
func (s *subscription) wantedLocked() forward.Layer {
	return s.fitLocked(s.track.budget.limit(s.chosenLocked()))
}

// chosenLocked is the layer that the client asks for.
func (s *subscription) chosenLocked() forward.Layer {
	if s.track.info.Kind == Audio {
		if s.settings.Disabled {
			return forward.NoLayer
		}
		return forward.MaxTemporal(0)
	}
	return s.track.ladder.choose(s.settings, s.track.info.Source)
}

// qualityLocked is what the publisher must send for this subscription.
func (s *subscription) qualityLocked() Quality {
	target := s.wantedLocked()
	if target == forward.NoLayer {
		return Off
	}
	return s.track.ladder.quality(target.Spatial)
}

// retargetLocked follows changed settings, and muting.
func (s *subscription) retargetLocked(b *batch) { s.aimLocked(0, b) }

// aimLocked is retargetLocked, with cut where what is sent must become less at once.
func (s *subscription) aimLocked(how uint32, b *batch) {
	if !s.active {
		return
	}
	if wants := s.qualityLocked(); wants != s.wants {
		// Count up before down: between the two the wish must not seem to have gone.
		s.track.countLocked(wants, 1, b)
		s.track.countLocked(s.wants, -1, b)
		s.wants = wants
	}
	if l := s.link; l != nil {
		target := pack(s.targetLocked())
		if l.target.Load()&^cut != target {
			l.target.Store(target | how)
			b.do(l.apply)
		}
	}
}
