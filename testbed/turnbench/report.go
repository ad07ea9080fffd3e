package main

import (
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// median of what f makes of the results, of which there is at least one.
func median(results []result, f func(result) float64) float64 {
	var all []float64
	for _, r := range results {
		all = append(all, f(r))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func perCPU(r result) float64 { return r.perCPU }

func p99(r result) float64 { return float64(r.p99) / float64(time.Millisecond) }

// A summary is the loads of one kind together: the least and the most.
type summary struct {
	ratios, waits, bares []float64 // of callserver to coturn; p99 of callserver, of bare, in ms
}

// report prints medians and ratios.
func (b *bench) report() error {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	say := func(format string, a ...any) { _, _ = fmt.Fprintf(w, format, a...) }
	say("\tpackets/s\t")
	for _, n := range b.names {
		say("%s/CPU-s\tcores\tp99\tloss\t", n)
	}
	say("ratio\tof bare\t\n")
	kinds := map[string]*summary{}
	var order []string
	for i, l := range b.loads {
		if kinds[l.kind()] == nil {
			kinds[l.kind()] = &summary{}
			order = append(order, l.kind())
		}
		b.line(say, l, b.figures[i], kinds[l.kind()])
	}
	for _, n := range b.names {
		if m := b.memory[n]; len(m) > 0 {
			say("%s: memory of an allocation\t\t%.1f kB\t\n", n, medianOf(m)/1000)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, k := range order {
		s := kinds[k]
		fmt.Printf("%s: ratio %s, p99 %s ms (bare %s)\n", k, span(s.ratios), span(s.waits), span(s.bares))
	}
	b.reportVoid()
	return nil
}

// line prints one load.
func (b *bench) line(say func(string, ...any), l load, of figures, sum *summary) {
	say("%s\t%d\t", l, l.rate)
	per := map[string]float64{}
	for _, n := range b.names {
		good := slices.DeleteFunc(slices.Clone(of[n]), func(r result) bool { return r.void != "" })
		if len(good) == 0 {
			say("-\t\t\t\t")
			continue
		}
		per[n] = median(good, perCPU)
		wait := median(good, p99)
		say("%.0fk\t%.2f\t%.2f ms\t%.2f %%\t", per[n]/1000, median(good, func(r result) float64 { return r.cores }), wait, 100*median(good, func(r result) float64 { return r.loss }))
		switch n {
		case callserver:
			sum.waits = append(sum.waits, wait)
		case bare:
			sum.bares = append(sum.bares, wait)
		}
	}
	for _, other := range []string{coturn, bare} {
		if per[callserver] == 0 || per[other] == 0 {
			say("\t")
			continue
		}
		ratio := per[callserver] / per[other]
		say("%.2f\t", ratio)
		if other == coturn {
			sum.ratios = append(sum.ratios, ratio)
		}
	}
	say("\n")
}

// reportVoid says which runs do not count.
func (b *bench) reportVoid() {
	void := map[string]int{}
	for _, f := range b.figures {
		for _, all := range f {
			for _, r := range all {
				if r.void != "" {
					void[r.void]++
				}
			}
		}
	}
	for why, n := range void {
		fmt.Printf("%d runs were void: %s\n", n, why)
	}
}

// span is the least and the most.
func span(all []float64) string {
	if len(all) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f to %.2f", slices.Min(all), slices.Max(all))
}

func medianOf(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
