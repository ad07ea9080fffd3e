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
	"callserver/sfu/egress"
	"callserver/sfu/load"
	"callserver/signalling"
)

const (
	loadInterval = time.Second           // between judgements
	loadTimer    = 50 * time.Millisecond // a timer whose lateness is that of the loops that move media
)

// An overload measures once a second how loaded this process is, and has done what follows from it.
type overload struct {
	limits   load.Limits
	governor *load.Governor
	rooms    *sfu.Rooms
	sessions *signalling.Server
	sent     func() egress.Stats
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

func newOverload(c *config.Config, rooms *sfu.Rooms, sessions *signalling.Server, sent func() egress.Stats, log *slog.Logger) *overload {
	limits := load.Limits{CPU: float64(c.Limits.Overload.CPU) / 100, Packets: float64(c.Limits.Overload.Packets)}
	return &overload{limits: limits, governor: load.New(limits), rooms: rooms, sessions: sessions, sent: sent, log: log}
}

// usage is what was used up to a moment.
type usage struct {
	at   time.Time
	cpu  time.Duration
	sent egress.Stats
}

func (o *overload) usage(now time.Time) usage { return usage{now, processTime(), o.sent()} }

// since is what was used since an earlier moment.
func (u usage) since(v usage) load.Sample {
	passed, packets := u.at.Sub(v.at).Seconds(), u.sent.Packets-v.sent.Packets
	return load.Sample{
		CPU:     (u.cpu - v.cpu).Seconds() / passed / float64(runtime.GOMAXPROCS(0)),
		Packets: float64(packets) / passed,
		FanOut:  time.Duration((u.sent.FanOut-v.sent.FanOut)/max(packets, 1)) * time.Microsecond,
	}
}

// Run goes on until ctx ends, which is no error.
func (o *overload) Run(ctx context.Context) error {
	timer := time.NewTimer(loadTimer)
	defer timer.Stop()
	begin := o.usage(time.Now())
	armed, late, fired := begin.at, time.Duration(0), 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		now := time.Now()
		late += now.Sub(armed) - loadTimer
		fired++
		if now.Sub(begin.at) >= loadInterval {
			used := o.usage(now)
			sample := used.since(begin)
			sample.Late = late / time.Duration(fired)
			o.judge(sample, now)
			begin, late, fired = used, 0, 0
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
	setting, is, limit := "limits.load.cpu", percent(s.CPU), percent(o.limits.CPU)
	if v.Worst == load.Packets {
		setting, is, limit = "limits.load.packets", fmt.Sprintf("%.0f/s", s.Packets), fmt.Sprintf("%.0f/s", o.limits.Packets)
	}
	remedy := "raise the setting, give this server more processor, or add another server"
	if v.Worst == load.FanOut {
		remedy = "the last in a large call wait for all before them: give this server more cores, among which they are divided"
	}
	log := o.log.With("setting", setting, "limit", limit, "is", is, "late", s.Late.Round(time.Millisecond), "fan_out", s.FanOut.Round(time.Millisecond), "by", v.Worst.String())
	switch {
	case v.Level == load.Calm:
		log.Info("the load is well below the limit again")
	case v.Level < before:
		log.Info("the load falls: newcomers are admitted again", "withheld", v.Budget > 0)
	case v.Level == load.Near:
		log.Warn("near the limit of limits.load: beyond it upper video layers are withheld, then newcomers refused - " + remedy)
	case v.Level == load.Shedding:
		log.Warn("at the limit of limits.load: upper video layers are withheld")
	case v.Level == load.Full:
		log.Warn("at the limit of limits.load: newcomers are refused, running calls go on - " + remedy)
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
