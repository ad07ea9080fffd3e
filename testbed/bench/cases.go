package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A loadCase is a load of which docs/bench.md speaks, of any size.
type loadCase struct {
	name   string
	size   int                     // for comparing at equal load
	unit   string                  // of the size
	load   func(size int) []string // arguments of callserver bench
	floors []floor                 // what is expected of callserver at this size
}

// A floor is a bar, for the ratio of a figure's medians ("times better") or for callserver's median itself.
type floor struct {
	figure string
	ratio  float64 // at least; 0 = the value counts
	value  float64 // at most
}

// Bars that hold in every case.
func floorsOf(perCPU float64, more ...floor) []floor {
	return append([]floor{{figure: perCPUSecond, ratio: perCPU}, {figure: latencyP99, ratio: 2}, {figure: idleMemory, value: 40},
		{figure: joinP99, value: 100}}, more...)
}

var (
	memoryEach = floor{figure: residentEach, value: 1.3}
	firstVideo = floor{figure: firstKeyFrame, value: 300}
	keyFrames  = floor{figure: keyFramesEach, value: 2}
)

var cases = []loadCase{
	{"a", 50, "publishers", func(n int) []string { return []string{count("publishers", n), "--no-video"} }, floorsOf(3)},
	{"b", 300, "subscribers", func(n int) []string {
		return []string{"--publishers=1", count("subscribers", n), "--no-audio"}
	}, floorsOf(3, firstVideo, keyFrames)},
	{"c", 17, "rooms of 5", func(n int) []string { return []string{count("rooms", n), "--publishers=5"} }, floorsOf(3, firstVideo, keyFrames)},
	{"d", 80, "rooms of 2", func(n int) []string { return []string{count("rooms", n), "--publishers=2"} },
		floorsOf(3.5, memoryEach, firstVideo, keyFrames)},
	{"d200", 200, "rooms of 2", func(n int) []string { return []string{count("rooms", n), "--publishers=2"} },
		[]floor{{figure: lossPercent}, memoryEach}},
}

func count(flag string, n int) string { return fmt.Sprintf("--%s=%d", flag, n) }

// casesOf finds cases by their names.
func casesOf(names string) ([]loadCase, error) {
	if names == "all" {
		names = "a,b,c,d"
	}
	var out []loadCase
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(cases, func(c loadCase) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("case %q: want a, b, c, d, d200 or all", name)
		}
		out = append(out, cases[i])
	}
	return out, nil
}

// capacities reads NAME=N,NAME=N.
func capacities(text string) (map[string]int, error) {
	out := map[string]int{}
	for _, part := range strings.Split(text, ",") {
		name, number, _ := strings.Cut(part, "=")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("overload: %q is not NAME=N", part)
		}
		out[name] = n
	}
	return out, nil
}
