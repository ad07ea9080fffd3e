package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
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
	moreHeap       = 8 << 20 // bytes: pools, maps that do not shrink
)

// rooms: a participant opens each of many rooms and leaves it, again and again, and nothing is left of them. The first time is
// not counted: pools fill.
func rooms(ctx context.Context, s *server, calls, cycles int) error {
	var first footprint
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
		if cycle == 0 {
			first = now
			continue
		}
		if now.goroutines > first.goroutines+moreGoroutines || now.heap > first.heap+moreHeap {
			return fmt.Errorf("cycle %d left something: %v, after the first %v", cycle, now, first)
		}
		runtime.GC() // the generator's own
	}
	return nil
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
	for range 2 { // what was pooled goes with the second
		if _, err := s.get(ctx, "/debug/pprof/heap?gc=1"); err != nil {
			return f, err
		}
	}
	if f.heap, err = s.metric(ctx, "go_memstats_heap_alloc_bytes"); err == nil {
		f.resident, err = s.metric(ctx, "process_resident_memory_bytes")
	}
	return f, err
}
