package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"callserver/internal/config"
	"callserver/sfu"
	"callserver/sfu/load"
	"callserver/signalling"
)

const (
	loadInterval = time.Second           // between judgements
	loadTimer    = 20 * time.Millisecond // a timer whose lateness is that of the loops that move media
)

// An overload measures once a second how loaded this process is, and has done what follows from it.
type overload struct {
	limits   load.Limits
	governor *load.Governor
	rooms    *sfu.Rooms
	sessions *signalling.Server
	log      *slog.Logger

	mu   sync.Mutex
	last loadStats
}

// loadStats are what the operator sees.
type loadStats struct {
	load.Sample
	load.Verdict
	Refused uint64 // newcomers
}

func newOverload(c *config.Config, rooms *sfu.Rooms, sessions *signalling.Server, log *slog.Logger) *overload {
	limits := load.Limits{CPU: float64(c.Limits.Overload.CPU) / 100}
	return &overload{limits: limits, governor: load.New(limits), rooms: rooms, sessions: sessions, log: log}
}

// Run goes on until ctx ends, which is no error.
func (o *overload) Run(ctx context.Context) error {
	timer := time.NewTimer(loadTimer)
	defer timer.Stop()
	begin, cpu := time.Now(), processTime()
	armed, late, fired := begin, time.Duration(0), 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		now := time.Now()
		late += now.Sub(armed) - loadTimer
		fired++
		if passed := now.Sub(begin); passed >= loadInterval {
			used := processTime()
			o.judge(load.Sample{
				CPU:  (used - cpu).Seconds() / passed.Seconds() / float64(runtime.GOMAXPROCS(0)),
				Late: late / time.Duration(fired),
			}, now)
			begin, cpu, late, fired = now, used, 0, 0
		}
		armed = now
		timer.Reset(loadTimer)
	}
}

// judge completes a sample and does what it calls for.
func (o *overload) judge(s load.Sample, now time.Time) {
	sending := o.rooms.Sending()
	s.Sent, s.Spare, s.Wanted = sending.Now, sending.Spare, sending.Wanted
	v := o.governor.Observe(s, now)
	o.rooms.Shed(v.Budget)
	o.sessions.Overload(v.Level == load.Full)
	o.mu.Lock()
	before := o.last.Level
	o.last = loadStats{Sample: s, Verdict: v}
	o.mu.Unlock()
	if v.Level != before {
		o.tell(s, v, before)
	}
}

// tell says what changed, and by which setting.
func (o *overload) tell(s load.Sample, v load.Verdict, before load.Level) {
	log := o.log.With("cpu", percent(s.CPU), "limits.load.cpu", percent(o.limits.CPU), "by", v.Worst.String(), "sent", fmt.Sprintf("%.1fM", float64(s.Sent)/1e6))
	switch {
	case v.Level == load.Calm:
		log.Info("the load is well below the limit again")
	case v.Level < before:
		log.Info("the load falls: newcomers are admitted again", "withheld", v.Budget > 0)
	case v.Level == load.Near:
		log.Warn("near the limit of limits.load.cpu: beyond it upper video layers are withheld, then newcomers refused - raise it or give this server more processor")
	case v.Level == load.Shedding:
		log.Warn("at the limit of limits.load.cpu: upper video layers are withheld")
	case v.Level == load.Full:
		log.Warn("at the limit of limits.load.cpu: newcomers are refused, running calls go on - raise it, give this server more processor, or add another server")
	}
}

func percent(share float64) string { return fmt.Sprintf("%.0f%%", 100*share) }

func (o *overload) stats() loadStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.last
	s.Refused = o.sessions.TurnedAway()
	return s
}
