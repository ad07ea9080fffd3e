package sfu

import (
	"time"
)

// Connection quality is a score of 0 to 100: 100 less what delay, jitter and loss take from it, after the simplified E-model
// (ITU-T G.107). Scores fall quickly and recover slowly.
const (
	excellentFrom = 80
	goodFrom      = 40
	worst         = 21 // Lost is not a score: it means that nothing arrives

	fallRate, riseRate = 0.8, 0.4

	audioLossWeight = 2.5 // points for each percent; Opus conceals well
	videoLossWeight = 4

	layerPenalty = 15 // for each layer that is withheld for want of bandwidth
	pausePenalty = 60

	sampledSinks = 32
	lostAfter    = 2 * qualityInterval
)

// connection is how well a participant is connected and how loud it is, as told last.
type connection struct {
	at      time.Time // when to look again
	known   bool
	quality ConnectionQuality
	score   float64
	voice   voice
}

// reception is what arrived of a track when it was looked at last.
type reception struct {
	packets uint64
	lost    int64
	seen    time.Time // when packets were found, or silence became excusable
	began   bool      // a packet arrived at some time
}

func (r *reception) start(now time.Time) { *r = reception{seen: now} }

// excuse starts the wait for packets anew, after a change that may stop them for a while.
func (r *reception) excuse(now time.Time) { r.seen = now }

// Quality returns how well the participant is connected, and false while that is not known yet.
func (p *Participant) Quality() (ConnectionQuality, bool) {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	return p.connection.quality, p.connection.known
}

func (rm *room) qualityDueLocked(b *batch) {
	for _, p := range rm.members {
		if p.connection.at.IsZero() {
			p.connection.at = p.joinedAt.Add(qualityInterval)
		}
		if p.state == Active && due(&p.connection.at, qualityInterval, b.now) {
			p.judgeLocked(b)
		}
	}
}

// judgeLocked scores the connection and tells it, if it changed, to the participant and those who receive from it.
func (p *Participant) judgeLocked(b *batch) {
	up := p.upstreamLocked(b.now)
	down := p.downstreamLocked()
	rtt := max(up.rtt, down.rtt)
	score := max(100-delayPenalty(rtt, max(up.jitter, down.jitter))-max(up.penalty, down.penalty), worst)
	c := &p.connection
	if c.known {
		rate := riseRate
		if score < c.score {
			rate = fallRate
		}
		score = c.score + rate*(score-c.score)
	}
	was, known := c.quality, c.known
	c.known, c.score, c.quality = true, score, grade(score)
	if up.dead {
		c.quality = Lost
	}
	if known && was == c.quality {
		return
	}
	it := p.qualityItem()
	b.push(p, it)
	for _, t := range p.publications.tracks {
		for who := range t.streams {
			b.push(who, it)
		}
	}
}

func (p *Participant) qualityItem() queueItem {
	c := &p.connection
	return queueItem{
		key:     queueKey{kindQuality, p.sid},
		quality: ParticipantQuality{SID: p.sid, Quality: c.quality, Score: float32(opinion(c.score))},
	}
}

func grade(score float64) ConnectionQuality {
	switch {
	case score >= excellentFrom:
		return Excellent
	case score >= goodFrom:
		return Good
	default:
		return Poor
	}
}

// opinion turns a score into a mean opinion score (ITU-T G.107 annex B).
func opinion(r float64) float64 {
	return 1 + 0.035*r + 7e-6*r*(r-60)*(100-r)
}

// delayPenalty is what one-way delay takes away: little up to 160 ms, much above.
func delayPenalty(rtt, jitter time.Duration) float64 {
	ms := float64((rtt/2+2*jitter)/time.Millisecond) + 20
	if ms < 160 {
		return ms / 40
	}
	return (ms - 120) / 10
}

// path is what was found in one direction.
type path struct {
	penalty     float64 // for loss
	jitter, rtt time.Duration
	dead        bool // nothing arrives although it should
}

// upstreamLocked judges what arrived from the participant since the last time. Its worst track counts.
func (p *Participant) upstreamLocked(now time.Time) path {
	var up path
	expected, silent := 0, true
	for _, t := range p.publications.tracks {
		packets, lost, jitter := t.countersLocked(&up)
		r := &t.reception
		got, missed := packets-r.packets, max(lost-r.lost, 0)
		r.packets, r.lost = packets, lost
		if got > 0 {
			r.began, r.seen = true, now
			weight := float64(audioLossWeight)
			if t.info.Kind == Video {
				weight = videoLossWeight
			}
			up.penalty = max(up.penalty, weight*100*float64(missed)/float64(got+uint64(missed)))
			up.jitter = max(up.jitter, jitter)
		}
		if t.expectedLocked() {
			expected++
			silent = silent && now.Sub(r.seen) >= lostAfter
			if now.Sub(r.seen) >= qualityInterval {
				up.penalty = 100
			}
		}
		silent = silent && got == 0
	}
	up.dead = expected > 0 && silent
	return up
}

func (t *track) countersLocked(up *path) (packets uint64, lost int64, jitter time.Duration) {
	stats := t.source.Stats()
	up.rtt = max(up.rtt, stats.RTT)
	for _, l := range stats.Layers {
		packets += l.Packets
		lost += l.Lost
		jitter = max(jitter, l.Jitter)
	}
	return packets, lost, jitter
}

// expectedLocked reports whether packets of the track must keep coming. They may stop when it is muted, when nobody wants it,
// during silence (DTX), on a still screen, and before they ever started.
func (t *track) expectedLocked() bool {
	switch {
	case !t.reception.began || t.info.Muted:
		return false
	case t.info.Kind == Audio:
		return t.info.DisableDTX
	default:
		return t.info.Source != ScreenShare && t.dynacast.committed != Off
	}
}

// downstreamLocked judges what the participant reports of what it receives, averaged over some of its sinks.
func (p *Participant) downstreamLocked() path {
	var down path
	n := 0
	for _, s := range p.subscriptions {
		if s.link == nil || s.settings.Disabled {
			continue
		}
		stats := s.link.sink.Stats()
		weight := float64(audioLossWeight)
		if s.track.info.Kind == Video {
			weight = videoLossWeight
		}
		down.penalty += weight*100*stats.FractionLost + s.withheldLocked()
		down.jitter, down.rtt = max(down.jitter, stats.Jitter), max(down.rtt, stats.RTT)
		if n++; n == sampledSinks {
			break
		}
	}
	down.penalty /= float64(max(n, 1))
	return down
}
