package sfu

import (
	"time"

	"callserver/sfu/bandwidth"
	"callserver/sfu/forward"
)

const (
	budgetInterval = time.Second // over which a Source measures its layers
	rememberFor    = time.Minute // how long a layer that is withheld, and so perhaps not sent any more, counts as it did
	soundAtMost    = 1_000_000   // bits/s: no audio codec comes near it, so what does is no sound
)

// Bitrate limits media, in bits/s of RTP payload. Zero means no limit. What exceeds it is not forwarded: the upper layers
// of videos first, then whole videos, never sound. Publishers hear of it as of any layer that nobody wants.
type Bitrate struct {
	Participant int64 // that one participant publishes
	Server      int64 // that is sent to all participants together
}

// budget is what the limits leave of a track, as steps down from bandwidth.All: the zero value withholds nothing. Guarded by
// the room's mutex.
type budget struct {
	own, shared int                         // for the limit of its participant, and for that of the server
	shed        int                         // because the server is overloaded; never the last layer
	arriving    [bandwidth.Layers]int64     // bits/s, by stream
	seen        [bandwidth.Layers]time.Time // when a stream was arriving
	usual       [bandwidth.Layers]int64     // bits/s, by stream, whenever it was arriving last
}

// ceiling is how many layers are let through.
func (u *budget) ceiling() int { return bandwidth.All - max(u.own, u.shared, u.shed) }

// limit lowers a target to what is let through.
func (u *budget) limit(target forward.Layer) forward.Layer {
	c := u.ceiling()
	if c == bandwidth.None {
		return forward.NoLayer
	}
	target.Spatial = min(target.Spatial, int8(c-1))
	return target
}

// measure notes what arrives of the track, layer by layer. A layer that is withheld is remembered for a while: its
// publisher may have stopped sending it, and must not get it back for that alone. While the server is overloaded it is
// remembered throughout, or all layers would come back at the same moment.
func (t *track) measure(now time.Time) {
	u := &t.budget
	for i, l := range t.source.Stats().Layers {
		switch {
		case l.Live && l.Bitrate > 0:
			u.arriving[i], u.usual[i], u.seen[i] = l.Bitrate, l.Bitrate, now
		case i < u.ceiling() || now.Sub(u.seen[i]) > rememberFor && u.shed == 0 || t.info.Muted:
			u.arriving[i] = 0
		}
	}
}

// rates are what the layers of the track take. A scalable stream is measured as a whole: each layer is taken to need three
// times the one below.
func (t *track) rates() (r [bandwidth.Layers]int64) {
	if !t.scalable() {
		return t.budget.arriving
	}
	whole, sum, part := t.budget.arriving[0], int64(0), int64(1)
	for range min(len(t.ladder), len(r)) {
		sum, part = sum+part, part*3
	}
	part = 1
	for i := range min(len(t.ladder), len(r)) {
		r[i], part = whole*part/sum, part*3
	}
	return r
}

func (t *track) scalable() bool { return !t.info.Simulcast && len(t.ladder) > 1 }

// sound reports whether the track is let through whatever the budget.
func (t *track) sound() bool { return t.info.Kind == Audio && t.budget.arriving[0] < soundAtMost }

// uplink is what the track takes of its participant's budget, by its ceiling: what arrives of the layers up to it, or of
// the lowest one above, which receivers get where nothing else is sent.
func (t *track) uplink() (l bandwidth.Load) {
	r := t.rates()
	for c := 1; c <= bandwidth.All; c++ {
		for _, rate := range r[:c] {
			l[c] += rate
		}
		l[c] = max(l[c], t.forwarded(int8(c-1)))
	}
	return l
}

// downlinks is what the track takes of the server's budget, by its ceiling.
func (t *track) downlinks() (l bandwidth.Load) {
	own := int8(bandwidth.All - t.budget.own - 1)
	for _, s := range t.streams {
		target := s.fitLocked(s.chosenLocked())
		if s.link == nil || t.info.Muted || t.owner.withheld || own < 0 || target == forward.NoLayer {
			continue
		}
		for c := 1; c <= bandwidth.All; c++ {
			l[c] += t.forwarded(min(target.Spatial, own, int8(c-1)))
		}
	}
	return l
}

// forwarded is what one receiver gets that is to get the track up to a layer: of a scalable stream all layers up to it, of
// several streams one; that of a lower layer, or a higher one, where it is not sent.
func (t *track) forwarded(spatial int8) (rate int64) { return t.sum(t.rates(), spatial) }

// sum is what one receiver gets of layers that take so many bits/s each.
func (t *track) sum(r [bandwidth.Layers]int64, spatial int8) (rate int64) {
	if t.scalable() {
		for _, layer := range r[:spatial+1] {
			rate += layer
		}
		return rate
	}
	for i := spatial; i >= 0; i-- {
		if r[i] > 0 {
			return r[i]
		}
	}
	for i := int(spatial) + 1; i < len(r); i++ {
		if r[i] > 0 {
			return r[i]
		}
	}
	return 0
}
