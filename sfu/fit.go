package sfu

import (
	"cmp"
	"slices"
	"time"

	"callserver/sfu/bandwidth"
	"callserver/sfu/forward"
)

// What a layer that was never measured is taken for, in bits/s, unless its publisher said what it sends. The last is that of the highest.
var guesses = [bandwidth.Layers]int64{160_000, 500_000, 1_700_000}

// A twelfth more than RTP payload is what datagrams of video take.
const headerShare = 12

// Fit says how many bits/s of video, with all headers, can be sent to the participant; limited is false while there is no limit. Layers are
// withheld so that all fits, and given back when they do: sound never, screens last, who speaks before others. It returns what would be sent if nothing
// were withheld for that. Call it when the limit changes and, while there is one, several times a second: so does what is sent.
func (p *Participant) Fit(bitrate int64, limited bool, now time.Time) (wanted int64) {
	b := batch{now: now}
	p.room.mu.Lock()
	if p.state != Disconnected {
		p.limited = limited
		wanted = p.fitAllLocked(bitrate, &b)
	}
	p.room.mu.Unlock()
	b.finish()
	return wanted
}

func (p *Participant) fitAllLocked(bitrate int64, b *batch) (wanted int64) {
	var videos []*subscription
	for _, s := range p.subscriptions {
		if s.active && s.track.info.Kind == Video {
			videos = append(videos, s)
		}
	}
	slices.SortFunc(videos, func(a, b *subscription) int { return cmp.Compare(a.sid, b.sid) })
	wants := make([]bandwidth.Want, len(videos))
	for i, s := range videos {
		wants[i] = bandwidth.Want{Load: s.loadLocked(), Rank: s.rankLocked(), Present: bandwidth.All - s.held}
		wanted += wants[i].Load[bandwidth.All]
	}
	ceilings := make([]int, len(videos))
	if p.limited {
		ceilings = bandwidth.Allocate(bitrate, wants)
	}
	for i, s := range videos {
		held := bandwidth.All - ceilings[i]
		if !p.limited {
			held = 0
		}
		s.holdLocked(held, b)
	}
	return wanted
}

// holdLocked holds the subscription down by a number of steps.
func (s *subscription) holdLocked(steps int, b *batch) {
	how := uint32(0)
	if steps > s.held {
		how = cut
	}
	s.held = steps
	s.aimLocked(how, b)
	if paused := steps == bandwidth.All; paused != s.paused {
		s.paused = paused
		b.tell(s.who, kindStream, s.sid, StreamChanged{s.track.owner.sid, s.sid, paused})
	}
}

// beginLocked has a new subscription start low where there is little bandwidth.
func (s *subscription) beginLocked() {
	s.held, s.paused = 0, false
	if s.who.limited && s.track.info.Kind == Video {
		s.held = bandwidth.All - 1
	}
}

// fitLocked lowers a layer to what there is bandwidth for.
func (s *subscription) fitLocked(target forward.Layer) forward.Layer {
	ceiling := bandwidth.All - s.held
	if ceiling == bandwidth.None {
		return forward.NoLayer
	}
	target.Spatial = min(target.Spatial, int8(ceiling-1))
	return target
}

// withheldLocked is what withheld layers take from the quality of the connection.
func (s *subscription) withheldLocked() float64 {
	best := s.track.budget.limit(s.chosenLocked())
	got := s.fitLocked(best)
	switch {
	case best == got:
		return 0
	case got == forward.NoLayer:
		return pausePenalty
	default:
		return layerPenalty * float64(min(best.Spatial, s.track.ladder.top())-min(got.Spatial, s.track.ladder.top()))
	}
}

func (s *subscription) rankLocked() bandwidth.Rank {
	switch {
	case s.track.info.Source == ScreenShare:
		return bandwidth.Screen
	case s.track.owner.connection.voice.active:
		return bandwidth.Speaker
	default:
		return bandwidth.Other
	}
}

// loadLocked is what the subscription takes of its receiver's bandwidth, by its ceiling.
func (s *subscription) loadLocked() (l bandwidth.Load) {
	t := s.track
	target := t.budget.limit(s.chosenLocked())
	if t.info.Muted || t.owner.withheld || target == forward.NoLayer {
		return l
	}
	r := t.expectedRates()
	for c := 1; c <= bandwidth.All; c++ {
		rate := t.sum(r, min(target.Spatial, int8(c-1), int8(len(r)-1)))
		l[c] = max(l[c-1], rate+rate/headerShare)
	}
	if !s.who.member.AllowPause {
		l[bandwidth.None] = l[1]
	}
	return l
}

// expectedRates are what the layers of the track would take if they were wanted: what they take, or did, where the publisher was told that nobody wants
// them, or before they were measured what it says that it sends.
func (t *track) expectedRates() [bandwidth.Layers]int64 {
	r := t.rates()
	if t.scalable() {
		return r
	}
	measured := r != [bandwidth.Layers]int64{}
	for i := range min(len(t.ladder), len(r)) {
		asked := !measured || t.dynacast.begun && above(t.ladder.quality(int8(i)), t.dynacast.committed)
		if r[i] > 0 || !asked {
			continue
		}
		if r[i] = t.budget.usual[i]; r[i] == 0 {
			r[i] = int64(t.info.Layers[i].Bitrate)
		}
		if r[i] == 0 {
			r[i] = guesses[max(len(guesses)-len(t.ladder), 0)+i]
		}
	}
	return r
}

// narrowLocked counts the participants that are sent less than they want.
func (rm *room) narrowLocked() (n int) {
	for _, p := range rm.members {
		for _, s := range p.subscriptions {
			if s.held > 0 && s.withheldLocked() > 0 {
				n++
				break
			}
		}
	}
	return n
}
