// Command turnbench compares callserver's relay with coturn under the same load: each is pinned to one core and the load to the other, they take turns, and
// the medians of packets per CPU-second and their ratios are printed. On a loopback the kernel's receiving half of a packet is charged to whoever sends it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

const (
	serverCore    = "0"
	generatorCore = 1
)

var (
	segments      bool   // the generator sends bursts in one piece
	coturnThreads string // relay threads
)

func main() {
	if len(os.Args) == 2 && (os.Args[1] == "relay" || os.Args[1] == "media") {
		if err := serve(os.Args[1] == "relay"); err != nil {
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

func run(ctx context.Context) error {
	var (
		which       = flag.String("case", "all", "peer, sfu, memory or all; \"up\" or \"down\" after it leaves the other direction out")
		rounds      = flag.Int("rounds", 5, "runs of each server")
		sizes       = flag.String("sizes", "1200,160", "bytes of a packet")
		bursts      = flag.String("bursts", "4,1", "packets sent at once by one sender")
		allocations = flag.String("allocations", "50,200", "clients that send in turn")
		rate        = flag.Int("rate", 200_000, "packets/s")
		seconds     = flag.Float64("seconds", 1.5, "of each measurement")
		only        = flag.String("only", "", "callserver or coturn: the other is left out")
	)
	flag.BoolVar(&segments, "gso", false, "the generator sends bursts in one piece (UDP_SEGMENT)")
	flag.StringVar(&coturnThreads, "coturn-threads", "1", "coturn's relay threads")
	flag.Parse()
	var self unix.CPUSet
	self.Set(generatorCore)
	if err := unix.SchedSetaffinity(0, &self); err != nil {
		return fmt.Errorf("pin the generator to core %d: %w", generatorCore, err)
	}
	names := []string{"coturn", "callserver"}
	if *only != "" {
		names = []string{*only}
	}
	loads, most := cases(*which, numbers(*sizes), numbers(*bursts), numbers(*allocations))
	all := make([]figures, len(loads))
	for i := range all {
		all[i] = figures{}
	}
	memory := map[string][]float64{}
	for range *rounds {
		for _, name := range names {
			if ctx.Err() != nil {
				break // what there is is told
			}
			if strings.HasPrefix(*which, "memory") || strings.HasPrefix(*which, "all") {
				each, err := measureMemory(ctx, name)
				if err != nil && ctx.Err() == nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				memory[name] = append(memory[name], each)
			}
			if err := round(ctx, name, loads, most, all, *rate, time.Duration(*seconds*float64(time.Second))); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return report(loads, all, memory, names, *rate)
}

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
						loads = append(loads, load{media, down, size, burst, n})
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

// round runs every load once on one server.
func round(ctx context.Context, name string, loads []load, most int, into []figures, rate int, for_ time.Duration) error {
	if len(loads) == 0 {
		return nil
	}
	s, err := start(ctx, name)
	if err != nil {
		return err
	}
	defer s.stop()
	for _, media := range []bool{false, true} {
		if !slices.ContainsFunc(loads, func(l load) bool { return l.media == media }) {
			continue
		}
		g, err := prepare(s, media, most)
		if err != nil {
			return err
		}
		defer g.close()
		for i, l := range loads {
			if l.media != media {
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r, err := g.run(l, rate, for_)
			if err != nil {
				return fmt.Errorf("%s: %w", l, err)
			}
			into[i][name] = append(into[i][name], r)
			fmt.Fprintf(os.Stderr, "%s, %s: %.0fk packets/CPU-s, p99 %s, loss %.2f %% %s\n", name, l, r.perCPU/1000, r.p99, 100*r.loss, r.void)
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

// report prints medians and ratios.
func report(loads []load, all []figures, memory map[string][]float64, names []string, rate int) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	say := func(format string, a ...any) { _, _ = fmt.Fprintf(w, format, a...) }
	say("at %d packets/s\t", rate)
	for _, n := range names {
		say("%s/CPU-s\tcores\tp99\tloss\t", n)
	}
	say("ratio\t\n")
	void := map[string]int{}
	for i, l := range loads {
		say("%s\t", l)
		var per []float64
		for _, n := range names {
			var good []result
			for _, r := range all[i][n] {
				if r.void != "" {
					void[r.void]++
				} else {
					good = append(good, r)
				}
			}
			if len(good) == 0 {
				say("-\t\t\t\t")
				continue
			}
			p := median(good, func(r result) float64 { return r.perCPU })
			per = append(per, p)
			say("%.0fk\t%.2f\t%.2f ms\t%.2f %%\t", p/1000, median(good, func(r result) float64 { return r.cores }),
				median(good, func(r result) float64 { return float64(r.p99) / 1e6 }), 100*median(good, func(r result) float64 { return r.loss }))
		}
		if len(per) == 2 {
			say("%.2f\t", per[1]/per[0])
		}
		say("\n")
	}
	for _, n := range names {
		if m := memory[n]; len(m) > 0 {
			var r []result
			for _, v := range m {
				r = append(r, result{perCPU: v})
			}
			say("%s: memory of an allocation\t%.1f kB\t\n", n, median(r, func(r result) float64 { return r.perCPU })/1000)
		}
	}
	for why, n := range void {
		say("%d runs were void: %s\t\n", n, why)
	}
	return w.Flush()
}
