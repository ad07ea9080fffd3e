package path

import (
	"testing"
	"time"

	"callserver/sfu/udp"
)

// TestPace rests where many datagrams come, and not where few do, or so many that the next turn has some for sure.
func TestPace(t *testing.T) {
	now := time.Unix(1, 0)
	var p pace
	turn := func(every time.Duration, came int) time.Duration {
		p.came = came
		rest := p.rest(now)
		now = now.Add(every)
		return rest
	}
	for _, c := range []struct {
		name  string
		every time.Duration
		came  int
		want  time.Duration
	}{
		{"one call", time.Millisecond, 1, 0},
		{"many", 100 * time.Microsecond, 10, restTime},
		{"more than a batch", 200 * time.Microsecond, udp.BatchSize, 0},
		{"many again", 20 * time.Microsecond, 2, restTime},
		{"quiet again", 10 * time.Millisecond, 5, 0},
	} {
		var got time.Duration
		for range 200 {
			got = turn(c.every, c.came)
		}
		if got != c.want {
			t.Errorf("%s: it rests for %s, want %s", c.name, got, c.want)
		}
	}
}
