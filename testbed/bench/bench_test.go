package main

import (
	"testing"
	"time"

	"callserver/bench"
)

// TestVerdict: bars are about callserver's median or the ratio, and say whether they are met.
func TestVerdict(t *testing.T) {
	c := loadCase{floors: []floor{{figure: "speed", ratio: 3}, {figure: "memory", value: 1.3}, {figure: "loss"}}}
	for _, tc := range []struct {
		name, figure string
		value, ratio float64
		want         string
	}{
		{"no bar", "other", 1, 1, ""},
		{"ratio met", "speed", 0, 3.2, "3 times: met"},
		{"ratio missed", "speed", 9, 2.9, "3 times: missed"},
		{"value met", "memory", 1.3, 0, "1.3 at most: met"},
		{"value missed", "memory", 1.31, 9, "1.3 at most: missed"},
		{"nothing at all", "loss", 0, 0, "0 at most: met"},
		{"more than nothing", "loss", 0.01, 0, "0 at most: missed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := c.verdict(tc.figure, tc.value, tc.ratio); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestCarried: a load is carried if everybody is in and gets something of all, next to nothing is lost and nothing is late.
func TestCarried(t *testing.T) {
	report := func(joined int, loss float64, p99 time.Duration) *measurement {
		r := &bench.Report{}
		r.Joins.Asked, r.Joins.Joined, r.Packets.Loss, r.Latency.P99 = 10, joined, loss, bench.Millis(p99)
		return &measurement{Report: r}
	}
	silent := report(10, 0, 0)
	silent.Packets.Starved = 9
	for _, tc := range []struct {
		name string
		m    *measurement
		want string
	}{
		{"well", report(10, 0.0009, 19*time.Millisecond), ""},
		{"somebody is missing", report(9, 0, 0), "9 of 10 joined"},
		{"nobody publishes", silent, "nothing came of 9 tracks"},
		{"loss", report(10, 0.001, 0), "0.10 % lost"},
		{"late", report(10, 0, 20*time.Millisecond), "p99 20.0 ms"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := carried(tc.m); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestCasesOf(t *testing.T) {
	for names, want := range map[string]int{"all": 4, "b": 1, "d,d200": 2} {
		if got, err := casesOf(names); err != nil || len(got) != want {
			t.Errorf("%s: %d cases, %v", names, len(got), err)
		}
	}
	if _, err := casesOf("b,x"); err == nil {
		t.Error("an unknown case is taken")
	}
	if got, err := capacities("callserver=450,livekit=150"); err != nil || got["callserver"] != 450 || got["livekit"] != 150 {
		t.Errorf("capacities %v, %v", got, err)
	}
	if _, err := capacities("callserver"); err == nil {
		t.Error("a capacity without a number is taken")
	}
}
