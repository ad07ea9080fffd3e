package rtc

import (
	"slices"
	"testing"
	"time"
)

// TestRelief: a limit is told at once and again and again, that there is none any more a few times, and otherwise nothing.
func TestRelief(t *testing.T) {
	var r relief
	start := time.Unix(1000, 0)
	var told []int64
	run := func(from, to time.Duration, bitrate int64) []int64 {
		told = nil
		for at := from; at < to; at += 20 * time.Millisecond {
			if say, ok := r.due(bitrate, bitrate != 0, start.Add(at)); ok {
				told = append(told, say)
			}
		}
		return told
	}
	for _, tc := range []struct {
		name     string
		from, to time.Duration
		bitrate  int64
		want     []int64
	}{
		{"no limit", 0, time.Second, 0, nil},
		{"a limit", time.Second, 1240 * time.Millisecond, 300_000, []int64{300_000, 300_000, 300_000}},
		{"a lower one", 1240 * time.Millisecond, 1300 * time.Millisecond, 200_000, []int64{200_000}},
		{"no more", 1300 * time.Millisecond, 3 * time.Second, 0, []int64{unlimited, unlimited, unlimited}},
		{"another one", 3 * time.Second, 3100 * time.Millisecond, 200_000, []int64{200_000}},
	} {
		if got := run(tc.from, tc.to, tc.bitrate); !slices.Equal(got, tc.want) {
			t.Errorf("%s: told %v, want %v", tc.name, got, tc.want)
		}
	}
}
