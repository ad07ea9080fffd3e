// A load is how near this server is to what it can do. Package load owns the judgement of it: what is measured once a second
// against what the operator allows, and what follows from that: withhold upper video layers, refuse newcomers, or neither.
// It never measures anything, and nothing that it decides takes a running call away.
package load

import "time"

// A Measure is one of the things that can run out.
type Measure uint8

const (
	CPU      Measure = iota // processor time
	Packets                 // packets sent
	Lateness                // timers that run late: others use the processor, too, or the machine stalls
	FanOut                  // the time until what came in has been sent to all: the last wait for those before them
)

func (m Measure) String() string { return [...]string{"cpu", "packets", "lateness", "fan-out"}[m] }

// Limits are where overload begins. Zero means no limit.
type Limits struct {
	CPU     float64 // share of the cores that this process may use, 0 to 1; without it, lateness and fan-out are not looked at either
	Packets float64 // sent to participants, a second
}

// A Sample is what was measured since the one before.
type Sample struct {
	CPU     float64       // share of the cores that this process may use
	Packets float64       // sent to participants, a second
	Late    time.Duration // by how much a timer ran late, on average
	FanOut  time.Duration // how long it took to send to all what came in at once, on average of the packets sent

	Sent   int64 // media sent to all participants together, in bits/s
	Spare  int64 // what of it could still be withheld
	Wanted int64 // what would be sent if nothing were withheld
}

// A Level says what is done about the load.
type Level uint8

const (
	Calm     Level = iota
	Near           // nothing yet, but the operator should know
	Shedding       // upper video layers are withheld
	Full           // newcomers are refused, too
)

func (l Level) String() string { return [...]string{"calm", "near", "shedding", "full"}[l] }

// A Verdict is what is to be done now.
type Verdict struct {
	Level  Level
	Budget int64   // bits/s that may be sent to all participants together, by withholding upper video layers; 0 means no limit
	Ratio  float64 // the load, smoothed: 1 is the limit
	Worst  Measure // of which that is
}

const (
	near     = 0.90 // of the limit: the operator is told
	calm     = 0.85 // of the limit: what is withheld comes back
	admit    = 0.95 // of the limit: newcomers are admitted again
	refuse   = 1.12 // of the limit: newcomers are refused, whatever is left to withhold
	aim      = 0.93 // of the limit: what withholding is to bring it down to
	memory   = 3 * time.Second
	settling = 3 * time.Second // until what was withheld shows in the load
	patience = 5 * time.Second // of less load, before anything is taken back
	growth   = 1.10            // of the budget, each time that something comes back

	tolerable  = 20 * time.Millisecond // of lateness: more than that is heard
	complicity = 0.5                   // of the CPU limit: with less, others are to blame for lateness, and refusing would not help
	prompt     = 10 * time.Millisecond // of fan-out: Go's scheduler lets others go first in the midst of one that takes longer, and then the last get theirs late
	blip       = 1.25                  // of the limit: more than this no second of delay counts, as none of the processor does, so one alone, as of collected garbage, is no overload
)

// A Governor judges one server. Its owner's goroutine only.
//
//	Calm --(ratio over near)--> Near --(over 1)--> Shedding --(nothing left to withhold, or over refuse)--> Full
//	Full --(under admit for a while)--> Shedding --(all layers are back)--> Calm
//
// What is withheld changes by the budget, in steps that are waited for; newcomers come before layers on the way back.
type Governor struct {
	limits Limits

	at       time.Time // of the last sample
	ratio    float64   // smoothed
	worst    Measure
	budget   int64
	changed  time.Time // when the budget was
	hot      time.Time // when the load was last too high for layers to come back
	pressing time.Time // when it was last too high for newcomers
	full     bool
	near     bool
}

// New returns a Governor of a server that has just started.
func New(l Limits) *Governor { return &Governor{limits: l} }

// Observe judges a sample, about once a second.
func (g *Governor) Observe(s Sample, now time.Time) Verdict {
	raw := g.measure(s)
	g.smooth(raw, now)
	g.near = g.ratio >= near || g.near && g.ratio >= calm
	if raw >= calm || g.ratio >= calm {
		g.hot = now
	}
	if raw >= admit || g.ratio >= admit {
		g.pressing = now
	}
	g.shed(s, raw, now)
	g.admission(s, raw, now)
	return Verdict{Level: g.level(), Budget: g.budget, Ratio: g.ratio, Worst: g.worst}
}

// measure returns the load of this moment.
func (g *Governor) measure(s Sample) (raw float64) {
	consider := func(m Measure, ratio float64) {
		if ratio > raw {
			raw, g.worst = ratio, m
		}
	}
	if g.limits.CPU > 0 {
		cpu := s.CPU / g.limits.CPU
		consider(CPU, cpu)
		if cpu >= complicity {
			consider(Lateness, min(blip, float64(s.Late)/float64(tolerable)))
		}
		consider(FanOut, min(blip, float64(s.FanOut)/float64(prompt)))
	}
	if g.limits.Packets > 0 {
		consider(Packets, s.Packets/g.limits.Packets)
	}
	return raw
}

// smooth keeps one bad second, as of many who join at once, from counting.
func (g *Governor) smooth(raw float64, now time.Time) {
	passed := now.Sub(g.at)
	if g.at.IsZero() {
		passed = time.Second
	}
	g.at = now
	weight := min(1, float64(passed)/float64(memory))
	g.ratio += weight * (raw - g.ratio)
}

// shed sets the budget.
func (g *Governor) shed(s Sample, raw float64, now time.Time) {
	switch {
	case g.ratio > 1 && raw > 1 && s.Spare > 0 && now.Sub(g.changed) >= settling:
		over := float64(s.Sent) * (1 - aim/raw)
		g.budget, g.changed = max(1, s.Sent-min(s.Spare, int64(over)+1)), now
	case g.budget > 0 && now.Sub(g.hot) >= patience && now.Sub(g.changed) >= settling:
		g.budget, g.changed = int64(float64(max(g.budget, s.Sent))*growth), now
		if g.budget >= int64(float64(s.Wanted)*growth) {
			g.budget = 0
		}
	}
}

// admission decides whether newcomers are refused.
func (g *Governor) admission(s Sample, raw float64, now time.Time) {
	exhausted := g.ratio > 1 && raw > 1 && s.Spare == 0
	switch {
	case exhausted, g.ratio >= refuse && raw > 1:
		g.full = true
	case now.Sub(g.pressing) >= patience:
		g.full = false
	}
}

func (g *Governor) level() Level {
	switch {
	case g.full:
		return Full
	case g.budget > 0:
		return Shedding
	case g.near:
		return Near
	}
	return Calm
}
