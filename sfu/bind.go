package sfu

import (
	"time"

	"callserver/sfu/forward"
)

// Bind starts forwarding a track into w, once its section is negotiated. Binding again replaces the former sink. It fails with
// ErrNotFound when the track is no longer wanted: DownlinkDropped is then on its way.
func (p *Participant) Bind(sid SID, w forward.Writer, rtx bool, now time.Time) (*forward.Sink, error) {
	p.room.mu.Lock()
	s := p.subscriptions[sid]
	if s == nil || !s.active {
		p.room.mu.Unlock()
		return nil, ErrNotFound
	}
	s.binds++
	turn := s.binds
	s.wantedAt = time.Time{}
	source, target, patience := s.track.source, s.targetLocked(), s.track.patienceLocked(now)
	p.room.mu.Unlock()

	// Attaching asks the publisher for a key frame, so the room must not be locked.
	l := &link{sink: source.Attach(w, forward.SinkOptions{Target: target, Paused: target == forward.NoLayer, RTX: rtx, Patience: patience})}
	l.target.Store(pack(target))

	b := batch{now: now}
	p.room.mu.Lock()
	current := s.active && s.binds == turn
	if current {
		if old := s.link; old != nil {
			b.do(old.sink.Detach)
		}
		s.link = l
		s.retargetLocked(&b)
		s.track.subscribedLocked(p, &b)
	} else {
		b.do(l.sink.Detach)
	}
	p.room.mu.Unlock()
	b.finish()
	if !current {
		return nil, ErrNotFound
	}
	return l.sink, nil
}

// gatherFor is how long those who bind a track wait for the others who were told of it at the same time: about as long as a renegotiation takes that had to wait
// for its turn. Without, the first one's key frame comes too early for all the others, who then wait for the next one.
const gatherFor = 200 * time.Millisecond

// patienceLocked is how long a receiver waits for others who are about to bind the track.
func (t *track) patienceLocked(now time.Time) (longest time.Duration) {
	if t.info.Kind != Video {
		return 0
	}
	for _, s := range t.streams {
		longest = max(longest, s.wantedAt.Add(gatherFor).Sub(now))
	}
	return longest
}

// Unbind stops forwarding a track whose section went away, without giving up the subscription. Unknown tracks are fine.
func (p *Participant) Unbind(sid SID, now time.Time) {
	b := batch{now: now}
	p.room.mu.Lock()
	if s := p.subscriptions[sid]; s != nil {
		s.binds++
		if l := s.link; l != nil {
			s.link = nil
			b.do(l.sink.Detach)
		}
	}
	p.room.mu.Unlock()
	b.finish()
}

// subscribedLocked tells the publisher, once, that somebody receives the track.
func (t *track) subscribedLocked(who *Participant, b *batch) {
	if t.told || who.member.Permission.Hidden {
		return
	}
	t.told = true
	b.tell(t.owner, kindFirst, t.info.SID, FirstSubscriber{t.info.SID})
}
