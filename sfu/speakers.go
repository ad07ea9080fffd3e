package sfu

import (
	"math"
	"time"
)

// levelSteps is how finely loudness is told.
const levelSteps = 8

// voice is what was told of how loud a participant is.
type voice struct {
	level  float32
	active bool
}

// speakersDueLocked looks at every audio track and tells what changed to those who hear it and to the speaker.
func (rm *room) speakersDueLocked(b *batch) {
	for _, p := range rm.members {
		now := p.listenLocked(b.now)
		if now == p.connection.voice {
			continue
		}
		p.connection.voice = now
		it := p.speakerItem()
		b.push(p, it)
		for _, t := range p.publications.tracks {
			if t.info.Kind != Audio {
				continue
			}
			for who := range t.streams {
				b.push(who, it)
			}
		}
	}
}

// listenLocked returns how loud the loudest of p's audio tracks is.
func (p *Participant) listenLocked(now time.Time) voice {
	var v voice
	if p.withheld {
		return v
	}
	for _, t := range p.publications.tracks {
		if t.info.Kind != Audio {
			continue
		}
		level, active := t.source.Level(now)
		if !active || t.info.Muted {
			continue
		}
		v.active = true
		v.level = max(v.level, quantise(level))
	}
	return v
}

// quantise rounds up to the next step.
func quantise(level float64) float32 {
	return float32(math.Ceil(min(max(level, 0), 1)*levelSteps) / levelSteps)
}

func (p *Participant) speakerItem() queueItem {
	v := p.connection.voice
	return queueItem{key: queueKey{kindSpeaker, p.sid}, speaker: Speaker{SID: p.sid, Level: v.level, Active: v.active}}
}

// greetLocked tells a new subscriber what it missed about the publisher.
func (t *track) greetLocked(who *Participant, b *batch) {
	p := t.owner
	if t.info.Kind == Audio && p.connection.voice.active {
		b.push(who, p.speakerItem())
	}
	if p.connection.known {
		b.push(who, p.qualityItem())
	}
}

// farewellLocked tells who stopped hearing an active speaker that it is silent.
func (t *track) farewellLocked(who *Participant, b *batch) {
	p := t.owner
	if t.info.Kind != Audio || !p.connection.voice.active || p.heardLocked(who) {
		return
	}
	b.push(who, queueItem{key: queueKey{kindSpeaker, p.sid}, speaker: Speaker{SID: p.sid}})
}

// heardLocked reports whether who is subscribed to any of p's audio tracks.
func (p *Participant) heardLocked(who *Participant) bool {
	for _, t := range p.publications.tracks {
		if t.info.Kind == Audio && t.streams[who] != nil {
			return true
		}
	}
	return false
}
