package rtc

import (
	"log/slog"
	"time"
)

const (
	overflowDrops = 16                     // between two looks; fewer are damaged datagrams, or asked for at no cost
	overflowHold  = 300 * time.Millisecond // a gap shows when all that stood before it in the buffer was read
	overflowLog   = time.Minute            // between two log lines
)

// overflow follows whether our own sockets lose packets, because the process does not get to read them in time. What is sent again then takes the place of what
// is new, and is lost in its turn: requests would keep the buffers full for good. The tick loop's only.
type overflow struct {
	seen   uint32 // Ports.Dropped, at the last look
	until  time.Time
	told   time.Time // long ago = never
	untold uint64    // drops since then
}

// look takes what Ports.Dropped says now. It returns how much that is more than at the last look, and whether lost packets may be ours.
func (o *overflow) look(dropped uint32, now time.Time) (fresh uint64, active bool) {
	if more := int32(dropped - o.seen); more > 0 {
		fresh = uint64(more)
	}
	o.seen = dropped
	if fresh >= overflowDrops {
		o.until = now.Add(overflowHold)
	}
	return fresh, now.Before(o.until)
}

// report tells the operator, at most once in a while.
func (o *overflow) report(fresh uint64, active bool, now time.Time, log *slog.Logger) {
	o.untold += fresh
	if !active || o.untold == 0 || now.Sub(o.told) < overflowLog {
		return
	}
	log.Warn("media packets are lost before they are read - give this server more processor cores or fewer calls, and set net.core.rmem_max to 4194304 if it is less", "packets", o.untold)
	o.told, o.untold = now, 0
}

// watchOverflow takes what the sockets dropped so far.
func (e *Engine) watchOverflow(dropped uint32, now time.Time) {
	fresh, active := e.overflow.look(dropped, now)
	e.counts.dropped.Add(fresh)
	e.overflowing.Store(active)
	e.overflow.report(fresh, active, now, e.log)
}
