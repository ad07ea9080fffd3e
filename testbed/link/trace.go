package link

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// TraceInterval is the time between two lines of a trace.
const TraceInterval = 100 * time.Millisecond

// traceLine is a line of a trace: the counters since the beginning, and the peaks since the line before.
type traceLine struct {
	At   int64     `json:"at"` // milliseconds since 1970
	Up   traceLane `json:"up"`
	Down traceLane `json:"down"`
}

type traceLane struct {
	LaneStats
	Queue float64 `json:"queue_ms"`
	Late  float64 `json:"late_ms"`
}

// Trace writes a line of JSON every TraceInterval until ctx ends (then it returns nil) or writing fails. It takes the link's Peaks.
func (l *Link) Trace(ctx context.Context, to io.Writer) error {
	ticker := time.NewTicker(TraceInterval)
	defer ticker.Stop()
	encoder := json.NewEncoder(to)
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			stats := l.Stats()
			up, down := l.Peaks()
			if err := encoder.Encode(traceLine{now.UnixMilli(), newTraceLane(stats.Up, up), newTraceLane(stats.Down, down)}); err != nil {
				return fmt.Errorf("trace: %w", err)
			}
		}
	}
}

func newTraceLane(s LaneStats, p Peaks) traceLane {
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return traceLane{s, milliseconds(p.Queue), milliseconds(p.Late)}
}
