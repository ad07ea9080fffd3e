// Command bench compares callserver with livekit-server under the same load: both are built here, each is pinned to one
// core and the load generator to another, they take turns, and the medians and their ratios are printed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-compare:", err)
		os.Exit(1)
	}
}

// A plan is what is to be measured, and where.
type plan struct {
	cases     []loadCase
	rounds    int
	extra     []string // arguments of the generator, which win over those of the case
	servers   []server
	binary    string // the generator
	ground    *ground
	capacity  map[string]int // knees that are known, by name of the server
	wantsKnee bool
	overload  bool
}

func run(ctx context.Context) (err error) {
	var (
		names    = flag.String("case", "b", "a, b, c, d or d200, several with commas, or all of a to d")
		rounds   = flag.Int("rounds", 3, "runs of each server")
		cache    = flag.String("cache", ".cache/bench", "where binaries are kept")
		extra    = flag.String("args", "", "more arguments of callserver bench, which win over those of the case")
		only     = flag.String("only", "", "callserver or livekit: the other is left out")
		build    = flag.Bool("reference", false, "only build livekit-server, and print where it is")
		knee     = flag.Bool("knee", false, "find the largest load of the case that each server carries")
		overload = flag.String("overload", "", "twice the largest load: `callserver=N,livekit=N` that each server carries")
		offload  = flag.String("offload", "on", "off: over a pair of virtual cards that cannot split runs of datagrams, in namespaces of their own; needs root")
	)
	flag.Parse()
	p := plan{rounds: *rounds, extra: strings.Fields(*extra), wantsKnee: *knee, overload: *overload != ""}
	if p.cases, err = casesOf(*names); err != nil {
		return err
	}
	if p.overload {
		if p.capacity, err = capacities(*overload); err != nil {
			return err
		}
	}
	dir, err := filepath.Abs(*cache)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if *build {
		path, err := reference(ctx, dir)
		if err == nil {
			fmt.Println(path)
		}
		return err
	}
	if err := p.build(ctx, dir, *only); err != nil {
		return err
	}
	p.ground = loopback()
	if *offload == "off" {
		if p.ground, err = unsegmented(ctx); err != nil {
			return err
		}
	}
	return errors.Join(p.run(ctx), p.ground.close())
}

// build makes the programs.
func (p *plan) build(ctx context.Context, dir, only string) error {
	p.binary = filepath.Join(dir, "callserver")
	if err := command(ctx, ".", "go", "build", "-tags", "goolm", "-trimpath", "-o", p.binary, "./cmd/callserver"); err != nil {
		return err
	}
	p.servers = []server{ours(p.binary)}
	if only == "callserver" {
		return nil
	}
	binary, err := reference(ctx, dir)
	if err != nil {
		return err
	}
	p.servers = append(p.servers, theirs(binary, dir))
	if only == "livekit" {
		p.servers = p.servers[1:]
	}
	return nil
}

func (p *plan) run(ctx context.Context) error {
	for _, c := range p.cases {
		var err error
		switch {
		case p.overload:
			err = p.twice(ctx, c)
		case p.wantsKnee:
			err = p.knees(ctx, c)
		default:
			err = p.compare(ctx, c)
		}
		if err != nil {
			return fmt.Errorf("case %s: %w", c.name, err)
		}
	}
	return nil
}

// measure is one run of one server.
func (p *plan) measure(ctx context.Context, s *server, args []string, limited bool) (*measurement, error) {
	return s.measure(ctx, p.ground, p.binary, load{args: slices.Concat(args, p.extra), limited: limited})
}
