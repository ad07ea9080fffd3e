// Command turnbench compares callserver's relay with coturn under the same load: each is pinned to one core and the load to the other, they take turns, and
// the medians of packets per CPU-second and their ratios are printed. A third server, bare, is a forwarder of datagrams without TURN: what it does not carry the
// machine does not. On a loopback the kernel's receiving half of a packet is charged to whoever sends it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	serverCore    = 0
	generatorCore = 1
)

// The servers.
const (
	coturn     = "coturn"
	callserver = "callserver"
	bare       = "bare"
)

var (
	segments      bool   // the generator sends bursts in one piece
	coturnThreads string // relay threads
)

func main() {
	if len(os.Args) == 2 && slices.Contains([]string{"relay", "media", bare}, os.Args[1]) {
		if err := serve(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "turnbench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "turnbench:", err)
		os.Exit(1)
	}
}

// figures are all runs of one load, by server.
type figures map[string][]result

// A bench is what is to be measured, and what was.
type bench struct {
	which   string
	rounds  int
	seconds time.Duration // of each measurement
	names   []string      // of servers
	loads   []load
	most    int // allocations
	figures []figures
	memory  map[string][]float64
}

func run(ctx context.Context) error {
	var (
		which       = flag.String("case", "all", "peer, sfu, memory or all; \"up\" or \"down\" after it leaves the other direction out")
		rounds      = flag.Int("rounds", 5, "runs of each server")
		sizes       = flag.String("sizes", "1200,160", "bytes of a packet")
		bursts      = flag.String("bursts", "4,1", "packets sent at once by one sender")
		allocations = flag.String("allocations", "50,200", "clients that send in turn")
		rate        = flag.Int("rate", 200_000, "packets/s, or as many as the generator is found to send of a load")
		seconds     = flag.Float64("seconds", 0.6, "of each measurement")
		only        = flag.String("only", "", "coturn, callserver or bare: the others are left out")
	)
	flag.BoolVar(&segments, "gso", false, "the generator sends bursts in one piece (UDP_SEGMENT)")
	flag.StringVar(&coturnThreads, "coturn-threads", "1", "coturn's relay threads")
	flag.Parse()
	if err := settleOn(generatorCore); err != nil {
		return err
	}
	defer func() { _ = os.WriteFile(autogroup, []byte("0"), 0) }()
	b := &bench{which: *which, rounds: *rounds, seconds: time.Duration(*seconds * float64(time.Second)), names: []string{coturn, callserver, bare}, memory: map[string][]float64{}}
	if *only != "" {
		b.names = []string{*only}
	}
	b.loads, b.most = cases(*which, numbers(*sizes), numbers(*bursts), numbers(*allocations))
	b.figures = make([]figures, len(b.loads))
	for i := range b.loads {
		b.loads[i].rate = *rate
		b.figures[i] = figures{}
	}
	if err := b.calibrate(ctx); err != nil {
		return fmt.Errorf("calibrate: %w", err)
	}
	for range b.rounds {
		for _, name := range b.names {
			if err := b.visit(ctx, name); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return b.report() // of what there is, if it was ended
}

// settleOn pins this process, and what it starts, to a core, ahead of whatever else runs there where that is allowed.
func settleOn(core int) error {
	var cores unix.CPUSet
	cores.Set(core)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &cores); err != nil {
			return fmt.Errorf("pin to core %d: %w", core, err)
		}
		_ = unix.Setpriority(unix.PRIO_PROCESS, id, priority)
	}
	runtime.GOMAXPROCS(1)
	_ = os.WriteFile(autogroup, []byte(strconv.Itoa(priority)), 0)
	return nil
}

// autogroup is the priority of all processes of this terminal against those of others; that of a process by itself holds among them.
const autogroup = "/proc/self/autogroup"

// priority (nice) of all that takes part: a process of somebody else's that runs for a few milliseconds would show in each p99.
const priority = -19

// visit measures one server.
func (b *bench) visit(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if name != bare && (strings.HasPrefix(b.which, "memory") || strings.HasPrefix(b.which, "all")) {
		each, err := measureMemory(ctx, name)
		if err != nil {
			return err
		}
		b.memory[name] = append(b.memory[name], each)
	}
	return b.round(ctx, name, func(g *ground, i int) error {
		r, err := g.measure(b.loads[i], b.seconds)
		if err != nil {
			return err
		}
		b.figures[i][name] = append(b.figures[i][name], r)
		return nil
	})
}

// calibrate lowers the rates of loads that the generator does not send at the one asked for, on whatever carries most of them.
func (b *bench) calibrate(ctx context.Context) error {
	slow := func(g *ground, i int) error {
		l := &b.loads[i]
		least := l.rate / 4
		for !(l.media && l.down) { // there the media server sends
			late := 1.0
			for range attempts {
				r, err := g.run(*l, calibration)
				if err != nil {
					return err
				}
				if late = min(late, r.late); late < lateness/3 {
					return nil
				}
			}
			if l.rate <= least {
				return errors.New("the generator has no core for itself")
			}
			fmt.Fprintf(os.Stderr, "%s: at %d packets/s the generator sends %.1f %% too late\n", l, l.rate, 100*late)
			l.rate = int(float64(l.rate)*(1-late)*0.98) / step * step
		}
		return nil
	}
	for _, at := range []struct {
		name  string
		media bool
	}{{bare, false}, {callserver, true}} {
		if err := b.roundOf(ctx, at.name, at.media, slow); err != nil {
			return err
		}
	}
	return nil
}

const (
	calibration = 250 * time.Millisecond // a rate is tried for so long
	step        = 5000                   // packets/s between rates
)

// cases are the loads of that name, and how many allocations they want.
func cases(which string, sizes, bursts, allocations []int) (loads []load, most int) {
	for _, media := range []bool{false, true} {
		if media && strings.HasPrefix(which, "peer") || !media && strings.HasPrefix(which, "sfu") || strings.HasPrefix(which, "memory") {
			continue
		}
		for _, down := range []bool{false, true} {
			if down && strings.HasSuffix(which, "up") || !down && strings.HasSuffix(which, "down") {
				continue
			}
			for _, n := range allocations {
				most = max(most, n)
				for _, size := range sizes {
					for _, burst := range bursts {
						loads = append(loads, load{media: media, down: down, size: size, burst: burst, allocations: n})
					}
				}
			}
		}
	}
	return loads, most
}

func numbers(list string) (out []int) {
	for s := range strings.SplitSeq(list, ",") {
		if n, err := strconv.Atoi(s); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// round has each load done once on one server. Bare has no media server.
func (b *bench) round(ctx context.Context, name string, do func(g *ground, i int) error) error {
	for _, media := range []bool{false, true} {
		if media && name == bare {
			continue
		}
		if err := b.roundOf(ctx, name, media, do); err != nil {
			return err
		}
	}
	return nil
}

// roundOf does that for the loads to peers, or those into the media server.
func (b *bench) roundOf(ctx context.Context, name string, media bool, do func(g *ground, i int) error) error {
	if !slices.ContainsFunc(b.loads, func(l load) bool { return l.media == media }) {
		return nil
	}
	s, err := start(ctx, name)
	if err != nil {
		return err
	}
	defer s.stop()
	g, err := prepare(s, media, b.most)
	if err != nil {
		return err
	}
	defer g.close()
	for i, l := range b.loads {
		if l.media != media {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := do(g, i); err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
	}
	return nil
}

// many is how many allocations memory is measured with.
const many = 1000

// measureMemory is what an allocation with a channel takes, in bytes.
func measureMemory(ctx context.Context, name string) (float64, error) {
	s, err := start(ctx, name)
	if err != nil {
		return 0, err
	}
	defer s.stop()
	first, err := prepare(s, false, 10)
	if err != nil {
		return 0, err
	}
	defer first.close()
	before, err := s.resident()
	if err != nil {
		return 0, err
	}
	g, err := prepare(s, false, many)
	if err != nil {
		return 0, err
	}
	defer g.close()
	after, err := s.resident()
	return float64(after-before) / many, err
}
