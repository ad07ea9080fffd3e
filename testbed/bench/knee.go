package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// What a server carries: under a tenth of a percent of loss, and this late at most.
const (
	carriedLoss = 0.001
	carriedP99  = 20 * time.Millisecond
)

const (
	kneeTolerance = 0.08 // between the largest size that is carried and the smallest that is not
	kneeTries     = 2    // a size that is not carried is tried again: machines have bad moments
)

// kneeArgs make the runs of a search short.
var kneeArgs = []string{"--join-rate=60", "--duration=5s", "--warmup=2s", "--quiet"}

// carried says why a server does not carry a load, "" if it does.
func carried(m *measurement) string {
	if m.Joins.Joined < m.Joins.Asked {
		return fmt.Sprintf("%d of %d joined", m.Joins.Joined, m.Joins.Asked)
	}
	return kept(m)
}

// kept returns why those who are in do not have good calls, "" if they do.
func kept(m *measurement) string {
	switch {
	case m.Packets.Starved > 0:
		return fmt.Sprintf("nothing came of %d tracks", m.Packets.Starved)
	case m.Packets.Loss >= carriedLoss:
		return fmt.Sprintf("%.2f %% lost", 100*m.Packets.Loss)
	case time.Duration(m.Latency.P99) >= carriedP99:
		return fmt.Sprintf("p99 %.1f ms", float64(m.Latency.P99)/1e6)
	}
	return ""
}

// knees finds the knee of each server.
func (p *plan) knees(ctx context.Context, c loadCase) error {
	sizes := make([]int, len(p.servers))
	bounded := make([]bool, len(p.servers))
	for i := range p.servers {
		var err error
		if sizes[i], bounded[i], err = p.knee(ctx, &p.servers[i], c); err != nil {
			return err
		}
	}
	fmt.Printf("\ncase %s, knee (under %.1f %% lost, p99 under %s)\n", c.name, 100*carriedLoss, carriedP99)
	for i, s := range p.servers {
		at := ""
		if bounded[i] {
			at = ", or more: the generator carries no more"
		}
		fmt.Printf("%-12s %d %s%s\n", s.name, sizes[i], c.unit, at)
	}
	if len(sizes) == 2 && sizes[1] > 0 {
		fmt.Printf("times better %.2f\n", float64(sizes[0])/float64(sizes[1]))
	}
	return nil
}

// knee is the largest size that a server carries, by growing steps and then halving. bounded means that the generator is at its
// own limit there.
func (p *plan) knee(ctx context.Context, s *server, c loadCase) (size int, bounded bool, err error) {
	good, bad := 0, 0
	for next := max(c.size/2, 1); ; {
		why, void, err := p.carries(ctx, s, c, next)
		switch {
		case err != nil:
			return 0, false, err
		case why == "":
			good, bounded = next, false
		default:
			bad, bounded = next, void
		}
		switch {
		case bad == 0:
			next = good + max(good/2, 1)
		case good == 0 && bad > 1:
			next = bad / 2
		case float64(bad-good) <= max(1, kneeTolerance*float64(good)):
			return good, bounded, nil
		default:
			next = (good + bad) / 2
		}
	}
}

// carries says why a server does not carry a size, "" if it does. void means that the generator does not.
func (p *plan) carries(ctx context.Context, s *server, c loadCase, size int) (why string, void bool, err error) {
	for range kneeTries {
		m, err := p.measure(ctx, s, append(c.load(size), kneeArgs...), false)
		if err != nil {
			return "", false, err
		}
		why, void = carried(m), m.Void != ""
		said := "carried"
		if why != "" {
			said = why
		} else if void {
			why = m.Void
			said = why
		}
		fmt.Fprintf(os.Stderr, "%s, %d %s: %s (p99 %.1f ms, %.3f %% lost, server %.2f cores, generator %.0f %%)\n", s.name, size, c.unit, said,
			float64(m.Latency.P99)/1e6, 100*m.Packets.Loss, m.Server.Cores, 100*m.Generator.Share)
		if why == "" {
			break
		}
	}
	return why, void, nil
}

// twice puts twice its knee on each server, which may refuse newcomers: those who are in must have good calls.
func (p *plan) twice(ctx context.Context, c loadCase) error {
	for i := range p.servers {
		s := &p.servers[i]
		n := p.capacity[s.name]
		if n == 0 {
			return fmt.Errorf("the largest load of %s is not told (-overload)", s.name)
		}
		m, err := p.measure(ctx, s, append(c.load(2*n), overloadArgs...), true)
		if err != nil {
			return err
		}
		fmt.Printf("\ncase %s, %s at twice its knee: %d %s\n", c.name, s.name, 2*n, c.unit)
		if err := m.WriteTable(os.Stdout); err != nil {
			return err
		}
		said := "kept"
		if why := kept(m); why != "" {
			said = "not kept, " + why
		}
		fmt.Printf("%d of %d joined, %d refused with 503; quality of those who are in: %s\n", m.Joins.Joined, m.Joins.Asked, m.Joins.Refused, said)
	}
	return nil
}

// overloadArgs: people come one after the other, as fast as at any time in this document.
var overloadArgs = []string{"--join-rate=40", "--duration=10s", "--warmup=5s"}
