// Package link is a network link with faults: loss, delay, jitter, a rate and a queue, as a seeded script says. It owns the packets
// between two TUN devices from the moment it reads them at one until it writes them at the other. It never changes a packet, and it
// is for tests only: the kernels they run on have no netem.
//
// Lane holds all the logic and has no clock; Link adds the clock and two devices; the command in cmd/link adds the namespaces.
package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// maxPacket is the largest IP packet read: far above the devices' MTU.
const maxPacket = 1 << 16

// Link carries packets between two devices until its context ends.
type Link struct {
	client, server io.ReadWriteCloser
	up, down       *way
	scripts        chan Script
}

// way is a lane with its lock and the bell that wakes its writer.
type way struct {
	bell chan struct{} // holds one: a ring while the writer is busy is not lost, more are not needed

	mu   sync.Mutex
	lane *Lane
}

// Stats are the counters of both directions.
type Stats struct {
	Up   LaneStats `json:"up"`
	Down LaneStats `json:"down"`
}

// New returns a link between two devices, each of which reads and writes one IP packet a call. Run closes them.
func New(client, server io.ReadWriteCloser, seed uint64) *Link {
	newWay := func(seed uint64) *way { return &way{bell: make(chan struct{}, 1), lane: NewLane(seed)} }
	return &Link{client: client, server: server, up: newWay(seed), down: newWay(seed + 1), scripts: make(chan Script)}
}

// Play runs a script from now on, in place of what is left of the one before. It returns when the steps of second 0 are in force.
// Safe for concurrent use while Run runs.
func (l *Link) Play(ctx context.Context, s Script) error {
	steps := s.Steps
	for len(steps) > 0 && steps[0].At <= 0 {
		l.apply(steps[0])
		steps = steps[1:]
	}
	select {
	case l.scripts <- Script{Seed: s.Seed, Steps: steps}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stats returns the counters. Safe for concurrent use.
func (l *Link) Stats() Stats {
	return Stats{Up: l.up.stats(), Down: l.down.stats()}
}

// Peaks returns the peaks of both directions since the last call. Safe for concurrent use, but every call begins anew for all.
func (l *Link) Peaks() (up, down Peaks) {
	return l.up.peaks(), l.down.peaks()
}

// Run carries packets until ctx ends (then it returns nil) or a device fails.
func (l *Link) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var loops sync.WaitGroup
	failed := make(chan error, 4) // one for each loop that can fail
	start := func(loop func() error) {
		loops.Go(func() {
			if err := loop(); err != nil {
				failed <- err
			}
			cancel()
		})
	}
	start(func() error { return l.up.readLoop(ctx, l.client) })
	start(func() error { return l.up.writeLoop(ctx, l.server) })
	start(func() error { return l.down.readLoop(ctx, l.server) })
	start(func() error { return l.down.writeLoop(ctx, l.client) })
	loops.Go(func() { l.scriptLoop(ctx) })
	<-ctx.Done()
	err := errors.Join(l.client.Close(), l.server.Close()) // ends the reads
	loops.Wait()
	close(failed)
	for e := range failed {
		err = errors.Join(err, e)
	}
	return err
}

// scriptLoop applies the steps of the script that is being played.
func (l *Link) scriptLoop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var steps []Step
	var began time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-l.scripts:
			steps, began = s.Steps, time.Now()
		case <-timer.C:
		}
		for len(steps) > 0 && time.Since(began) >= steps[0].At {
			l.apply(steps[0])
			steps = steps[1:]
		}
		if len(steps) > 0 {
			timer.Reset(steps[0].At - time.Since(began))
		}
	}
}

func (l *Link) apply(s Step) {
	if s.Direction != Down {
		l.up.set(s.Conditions)
	}
	if s.Direction != Up {
		l.down.set(s.Conditions)
	}
}

func (w *way) set(c Conditions) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lane.Set(c)
}

func (w *way) stats() LaneStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lane.Stats()
}

func (w *way) peaks() Peaks {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lane.Peaks()
}

// readLoop pushes what a device receives into the lane.
func (w *way) readLoop(ctx context.Context, from io.Reader) error {
	buffer := make([]byte, maxPacket)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return ended(ctx, "read from the device", err)
		}
		w.mu.Lock()
		accepted := w.lane.Push(append([]byte(nil), buffer[:n]...), time.Now())
		w.mu.Unlock()
		if accepted {
			select {
			case w.bell <- struct{}{}:
			default:
			}
		}
	}
}

// writeLoop writes packets to the other device as they fall due.
func (w *way) writeLoop(ctx context.Context, to io.Writer) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		packet, wait := w.next()
		if packet != nil {
			if _, err := to.Write(packet); err != nil {
				return ended(ctx, "write to the device", err)
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-w.bell:
		case <-timer.C:
		}
	}
}

// next returns a packet that is due, or how long to wait for one.
func (w *way) next() ([]byte, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if packet := w.lane.Pop(now); packet != nil {
		return packet, 0
	}
	if due, ok := w.lane.Next(); ok {
		return nil, due.Sub(now)
	}
	return nil, time.Hour
}

// ended tells a fault of a device from the end of the link, which is none.
func ended(ctx context.Context, what string, err error) error {
	if ctx.Err() == nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
