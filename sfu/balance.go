package sfu

import (
	"time"

	"callserver/sfu/bandwidth"
)

// Sending is what is sent to all participants together, in bits/s of RTP payload.
type Sending struct {
	Now    int64
	Spare  int64 // of it, what Shed could still withhold
	Wanted int64 // what would be sent if Shed withheld nothing
}

// Shed has upper layers of videos withheld until what is sent fits into a number of bits/s, and never the lowest layer of any:
// for a server that is overloaded. It comes on top of Options.Bitrate. Zero withholds nothing. The next Tick acts upon it.
func (r *Rooms) Shed(budget int64) { r.shed.Store(budget) }

// Sending is what was measured last, at most a second ago.
func (r *Rooms) Sending() Sending {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.sending
}

// claims are the tracks that share a budget.
type claims struct {
	tracks []*track
	wants  []bandwidth.Want // present ceilings are as this budget made them; all are of one rank
	shed   []int            // steps that Shed made; only where the server's budget is shared
	sound  int64            // bits/s that come before everything else
}

func (c *claims) add(t *track, l bandwidth.Load, steps int) {
	c.tracks, c.wants = append(c.tracks, t), append(c.wants, bandwidth.Want{Load: l, Present: bandwidth.All - steps})
}

// settle returns by how many steps each track is held down. Without a limit that is none.
func (c *claims) settle(limit int64) []int {
	if limit == 0 {
		return make([]int, len(c.wants))
	}
	steps := bandwidth.Allocate(limit-c.sound, c.wants)
	for i, ceiling := range steps {
		steps[i] = bandwidth.All - ceiling
	}
	return steps
}

// below are the same tracks as they are left by steps that another budget took, and as videos of which the lowest layer is
// never withheld.
func (c *claims) below(steps []int) claims {
	left := claims{tracks: c.tracks, sound: c.sound}
	for i := range c.tracks {
		l, ceiling := c.wants[i].Load, bandwidth.All-steps[i]
		for layers := range l {
			l[layers] = c.wants[i].Load[min(max(layers, 1), ceiling)]
		}
		left.wants = append(left.wants, bandwidth.Want{Load: l, Present: bandwidth.All - c.shed[i]})
	}
	return left
}

// sending sums up what is sent while tracks are held down by steps.
func (c *claims) sending(steps []int) Sending {
	sum := Sending{Now: c.sound, Wanted: c.sound}
	for i := range c.wants {
		l := &c.wants[i].Load
		present := l[bandwidth.All-steps[i]]
		sum.Now += present
		sum.Spare += present - l[bandwidth.None]
		sum.Wanted += l[bandwidth.All]
	}
	return sum
}

// balance keeps the limits and measures what is sent, once a second.
func (r *Rooms) balance(now time.Time) {
	if !r.balanceDue(now) {
		return
	}
	limits := r.options.Bitrate
	var all claims
	for _, rm := range r.all() {
		b := batch{now: now}
		rm.mu.Lock()
		rm.balanceLocked(limits.Participant, &all, &b)
		rm.mu.Unlock()
		b.finish()
	}
	shared := all.settle(limits.Server)
	left := all.below(shared)
	shed := left.settle(r.shed.Load())
	for i, t := range all.tracks {
		rm := t.owner.room
		b := batch{now: now}
		rm.mu.Lock()
		t.holdLocked(&t.budget.shared, shared[i], &b)
		t.holdLocked(&t.budget.shed, shed[i], &b)
		rm.mu.Unlock()
		b.finish()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sending = left.sending(shed)
}

func (r *Rooms) balanceDue(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return due(&r.balanceAt, budgetInterval, now)
}

// balanceLocked keeps every participant within its limit, and adds what the room's tracks take of the server's to all.
func (rm *room) balanceLocked(limit int64, all *claims, b *batch) {
	for _, p := range rm.members {
		var own claims
		for _, t := range p.publications.tracks {
			t.measure(b.now)
			if t.sound() {
				own.sound += t.budget.arriving[0]
				all.sound += t.downlinks()[bandwidth.All]
				continue
			}
			own.add(t, t.uplink(), t.budget.own)
		}
		for i, steps := range own.settle(limit) {
			own.tracks[i].holdLocked(&own.tracks[i].budget.own, steps, b)
		}
		for _, t := range own.tracks {
			all.add(t, t.downlinks(), t.budget.shared)
			all.shed = append(all.shed, t.budget.shed)
		}
	}
}

// holdLocked holds the track down by a number of steps, for the budget that the field belongs to.
func (t *track) holdLocked(field *int, steps int, b *batch) {
	before := t.budget.ceiling()
	if *field = steps; t.budget.ceiling() == before {
		return
	}
	for _, s := range t.streams {
		s.retargetLocked(b)
	}
}

// limitedLocked counts the tracks of which something is withheld for a limit.
func (rm *room) limitedLocked() (n int) {
	for _, t := range rm.tracks {
		if t.budget.ceiling() < bandwidth.All {
			n++
		}
	}
	return n
}
