package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// Names of the figures that floors are about.
const (
	perCPUSecond  = "forwarded packets per CPU-second"
	latencyP99    = "latency p99 ms"
	lossPercent   = "loss %"
	residentEach  = "resident MiB a participant"
	idleMemory    = "idle MiB"
	joinP99       = "join p99 ms"
	firstKeyFrame = "first video p50 ms"
	keyFramesEach = "key frames a second and layer"
)

// figures are what is compared: the name, the value, and whether more is better.
var figures = []struct {
	name string
	more bool
	of   func(*measurement) float64
}{
	{perCPUSecond, true, func(m *measurement) float64 { return m.Server.PerCPUSecond }},
	{"forwarded packets/s", true, func(m *measurement) float64 { return m.Packets.PerSecond }},
	{"server cores", false, func(m *measurement) float64 { return m.Server.Cores }},
	{"latency p50 ms", false, func(m *measurement) float64 { return float64(m.Latency.P50) / 1e6 }},
	{latencyP99, false, func(m *measurement) float64 { return float64(m.Latency.P99) / 1e6 }},
	{"latency max ms", false, func(m *measurement) float64 { return float64(m.Latency.Max) / 1e6 }},
	{lossPercent, false, func(m *measurement) float64 { return 100 * m.Packets.Loss }},
	{"resident MiB", false, func(m *measurement) float64 { return float64(m.Server.RSS) / (1 << 20) }},
	{residentEach, false, func(m *measurement) float64 { return float64(m.Server.RSSEach) / (1 << 20) }},
	{idleMemory, false, func(m *measurement) float64 { return float64(m.idle) / (1 << 20) }},
	{"context switches", false, func(m *measurement) float64 { return float64(m.Server.Switches) }},
	{"joined", true, func(m *measurement) float64 { return float64(m.Joins.Joined) }},
	{"join p50 ms", false, func(m *measurement) float64 { return float64(m.Joins.P50) / 1e6 }},
	{joinP99, false, func(m *measurement) float64 { return float64(m.Joins.P99) / 1e6 }},
	{firstKeyFrame, false, func(m *measurement) float64 { return float64(m.FirstKeyFrame.P50) / 1e6 }},
	{keyFramesEach, false, func(m *measurement) float64 { return m.Packets.KeyFrames }},
	{"generator % of its core", false, func(m *measurement) float64 { return 100 * m.Generator.Share }},
}

// compare has the servers take turns at equal load, and prints medians and ratios.
func (p *plan) compare(ctx context.Context, c loadCase) error {
	args := append(c.load(c.size), "--join-rate=40")
	fmt.Printf("\ncase %s: %s\n", c.name, strings.Join(slices.Concat(args, p.extra), " "))
	found := make([][]*measurement, len(p.servers))
	for round := range p.rounds {
		for i := range p.servers {
			m, err := p.measure(ctx, &p.servers[i], args, false)
			if err != nil {
				return fmt.Errorf("round %d: %w", round+1, err)
			}
			fmt.Printf("\nround %d, %s\n", round+1, p.servers[i].name)
			if err := m.WriteTable(os.Stdout); err != nil {
				return err
			}
			found[i] = append(found[i], m)
		}
	}
	return p.table(os.Stdout, c, found)
}

// table prints the medians of the runs that count.
func (p *plan) table(to io.Writer, c loadCase, found [][]*measurement) error {
	w := tabwriter.NewWriter(to, 0, 4, 2, ' ', tabwriter.AlignRight)
	head := fmt.Sprintf("\ncase %s, median of the runs", c.name)
	for _, s := range p.servers {
		head += "\t" + s.name
	}
	if len(p.servers) == 2 {
		head += "\ttimes better"
	}
	_, _ = fmt.Fprintln(w, head+"\tbar\t")
	void := 0
	for i := range found {
		runs := len(found[i])
		found[i] = slices.DeleteFunc(found[i], func(m *measurement) bool { return m.Void != "" })
		void = max(void, runs-len(found[i]))
		if len(found[i]) == 0 {
			return fmt.Errorf("all runs of %s are void", p.servers[i].name)
		}
	}
	for _, f := range figures {
		line := f.name
		var medians []float64
		for _, runs := range found {
			medians = append(medians, median(runs, f.of))
			line += fmt.Sprintf("\t%.2f", medians[len(medians)-1])
		}
		ratio := 0.0
		if len(medians) == 2 {
			better, worse := medians[1], medians[0]
			if f.more {
				better, worse = worse, better
			}
			line += "\t"
			if worse > 0 {
				ratio = better / worse
				line += fmt.Sprintf("%.2f", ratio)
			}
		}
		_, _ = fmt.Fprintln(w, line+"\t"+c.verdict(f.name, medians[0], ratio)+"\t")
	}
	if void > 0 {
		_, _ = fmt.Fprintf(w, "up to %d runs of a server were void and are left out\n", void)
	}
	return w.Flush()
}

// verdict says what is expected of a figure, and whether it is so.
func (c loadCase) verdict(name string, value, ratio float64) string {
	i := slices.IndexFunc(c.floors, func(f floor) bool { return f.figure == name })
	if i < 0 {
		return ""
	}
	f := c.floors[i]
	text, met := fmt.Sprintf("%.3g at most", f.value), value <= f.value
	if f.ratio > 0 {
		text, met = fmt.Sprintf("%.3g times", f.ratio), ratio >= f.ratio
	}
	if met {
		return text + ": met"
	}
	return text + ": missed"
}

// median is the middle value, the lower one of two.
func median(runs []*measurement, of func(*measurement) float64) float64 {
	values := make([]float64, 0, len(runs))
	for _, m := range runs {
		values = append(values, of(m))
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}
