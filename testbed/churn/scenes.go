package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"callserver/bench"
)

// burst: five people join each room, forty a second, and everybody gets in and hears the others.
func burst(ctx context.Context, s *server, calls int) error {
	report, err := bench.Run(ctx, s.options(bench.Load{Rooms: calls, Publishers: 5, Audio: true}, 40))
	if err != nil {
		return err
	}
	if err := report.WriteTable(os.Stdout); err != nil {
		return err
	}
	if report.Joins.Joined != report.Joins.Asked || report.Packets.Starved > 0 {
		return fmt.Errorf("%d of %d joined, %d tracks not heard", report.Joins.Joined, report.Joins.Asked, report.Packets.Starved)
	}
	return nil
}

// Bars of kill.
const (
	backWithin = 10 * time.Second // after the start
	backShare  = 0.99
)

// kill: the server dies under rooms of five, is started again, and those who were there hear each other again.
func kill(ctx context.Context, s *server, calls int) error {
	o := s.options(bench.Load{Rooms: calls, Publishers: 5, Audio: true}, 40)
	o.Return, o.Duration = true, 30*time.Second
	result := make(chan error, 1) // one result
	var report *bench.Report
	go func() {
		var err error
		report, err = bench.Run(ctx, o)
		result <- err
	}()
	people := float64(5 * calls)
	err := eventually(ctx, 2*time.Minute, "everybody has joined", func() bool {
		n, err := s.metric(ctx, "callserver_subscriptions")
		return err == nil && n >= people*4
	})
	var down time.Duration
	if err == nil {
		killed := time.Now()
		_ = s.end(syscall.SIGKILL)
		err = s.start(ctx)
		down = time.Since(killed)
	}
	if ended := <-result; ended != nil || err != nil {
		return errors.Join(err, ended)
	}
	c := report.Comebacks
	fmt.Printf("down for %s; %d of %d are back, of these after the kill p50 %s p99 %s max %s\n", down.Round(time.Millisecond), c.Count, c.Lost,
		time.Duration(c.P50).Round(time.Millisecond), time.Duration(c.P99).Round(time.Millisecond), time.Duration(c.Max).Round(time.Millisecond))
	if c.Lost != report.Joins.Asked || float64(c.Count) < backShare*float64(c.Lost) || time.Duration(c.P99) > down+backWithin {
		return fmt.Errorf("want 99 %% of all %d back within %s of the start", report.Joins.Asked, backWithin)
	}
	return nil
}

// Bars of rooms: what may be left of a thousand rooms.
const (
	moreGoroutines = 20
	moreHeap       = 8 << 20 // bytes: pools, and what the runtime keeps of each goroutine that there was at once
	// growingHeap is in bytes, see growth. A thousand rooms leave some ten thousand more or less; what remembers each room by
	// its name alone, 32 bytes, is more than this after twenty times.
	growingHeap = 384 << 10
)

// rooms: a participant opens each of many rooms and leaves it, again and again, and nothing is left of them. The first time is
// not counted: pools fill.
func rooms(ctx context.Context, s *server, calls, cycles int) error {
	var first footprint
	var heaps []float64
	for cycle := range cycles + 1 {
		o := s.options(bench.Load{Rooms: calls, Publishers: 1, Audio: true}, 100)
		o.Warmup, o.Duration, o.Progress = time.Second, time.Second, nil
		report, err := bench.Run(ctx, o)
		if err != nil {
			return err
		}
		if report.Joins.Joined != report.Joins.Asked {
			return fmt.Errorf("cycle %d: %d of %d joined: %v", cycle, report.Joins.Joined, report.Joins.Asked, report.Joins.Errors)
		}
		now, err := s.footprint(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("cycle %2d: %v, join p99 %.0f ms\n", cycle, now, float64(report.Joins.P99)/1e6)
		heaps = append(heaps, now.heap)
		if cycle == 0 {
			first = now
			continue
		}
		if now.goroutines > first.goroutines+moreGoroutines || now.heap > first.heap+moreHeap {
			return fmt.Errorf("cycle %d left something: %v, after the first %v", cycle, now, first)
		}
		if grew := growth(heaps); grew > growingHeap {
			return fmt.Errorf("cycle %d: something is left each time, %.0f KiB so far", cycle, grew/1024)
		}
		runtime.GC() // the generator's own
	}
	return nil
}

// growth is by how much the lowest of five times at the end is above the lowest of five at the beginning: after some times the
// heap holds a megabyte more, and after the next it does not.
func growth(heaps []float64) float64 {
	const some = 5
	if len(heaps) < 2*some {
		return 0
	}
	return slices.Min(heaps[len(heaps)-some:]) - slices.Min(heaps[:some])
}

// A footprint is what an empty server takes.
type footprint struct {
	goroutines, heap, resident float64
}

func (f footprint) String() string {
	return fmt.Sprintf("%.0f goroutines, %.1f MiB of heap, %.1f MiB resident", f.goroutines, f.heap/(1<<20), f.resident/(1<<20))
}

// footprint waits until all rooms are closed, and has garbage collected.
func (s *server) footprint(ctx context.Context) (f footprint, err error) {
	if err := eventually(ctx, time.Minute, "all rooms are closed", func() bool {
		n, err := s.metric(ctx, "callserver_rooms")
		return err == nil && n == 0
	}); err != nil {
		return f, err
	}
	err = eventually(ctx, 20*time.Second, "goroutines end", func() bool {
		before := f.goroutines
		f.goroutines, err = s.metric(ctx, "go_goroutines")
		return err == nil && f.goroutines == before
	})
	if err != nil {
		return f, err
	}
	// What was pooled goes with the second collection. The profile says what the heap held just after it: a metric would
	// count what it takes to write profile and metrics, too, which is megabytes, and the more the more the server has done.
	for range 2 {
		profile, err := s.get(ctx, "/debug/pprof/heap?gc=1&debug=1")
		if err != nil {
			return f, err
		}
		if f.heap, err = number(profile, "# HeapAlloc ="); err != nil {
			return f, err
		}
	}
	f.resident, err = s.metric(ctx, "process_resident_memory_bytes")
	return f, err
}
