package bandwidth

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

const (
	wide   = 2_000_000
	narrow = 300_000
)

var plain = line{rate: wide, queue: 50, delay: 20 * time.Millisecond}

func with(change func(l *line)) line {
	l := plain
	change(&l)
	return l
}

// TestSteps is the bar of a line that becomes narrow and wide again: the right layer within 2 s, less than 200 ms of waiting then, and full
// quality within 10 s.
func TestSteps(t *testing.T) {
	for _, tc := range []struct {
		name   string
		line   line
		narrow int64
		layer  int
	}{
		{"2 Mbit/s to 300 kbit/s", plain, narrow, 0},
		{"to 700 kbit/s", plain, 700_000, 1},
		{"with 200 ms round trip", with(func(l *line) { l.delay = 100 * time.Millisecond }), narrow, 0},
		{"with 30 ms jitter", with(func(l *line) { l.jitter = 30 * time.Millisecond }), narrow, 0},
		{"with 60 ms jitter", with(func(l *line) { l.jitter = 60 * time.Millisecond }), narrow, 0},
		{"with 5 % loss", with(func(l *line) { l.loss = 0.05 }), narrow, 0},
		{"with 10 % loss", with(func(l *line) { l.loss = 0.1 }), narrow, 0},
		{"with a long queue", with(func(l *line) { l.queue = 500 }), narrow, 0},
		{"with a short queue", with(func(l *line) { l.queue = 12 }), narrow, 0},
		{"after the way became longer", with(func(l *line) { l.longer = 80 * time.Millisecond }), narrow, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCall(t, tc.line)
			c.run(10 * time.Second)
			if s := share(c.since(2*time.Second), Layers-1); s < 0.999 {
				t.Fatalf("full quality %.1f %% of the time on the wide line", 100*s)
			}
			c.line.rate = tc.narrow
			down := c.now
			c.run(20 * time.Second)
			right, wait := c.settled(down, tc.layer), waits(c.since(down+2*time.Second))
			if right > 2*time.Second {
				t.Errorf("layer %d after %v: %s", tc.layer, right, c.history(down))
			}
			if wait > 200*time.Millisecond {
				t.Errorf("packets wait for %v: %s", wait, c.history(down))
			}
			c.line.rate = wide
			up := c.now
			c.run(20 * time.Second)
			quality := c.settled(up, Layers-1)
			if quality > 10*time.Second {
				t.Errorf("full quality after %v: %s", quality, c.history(up))
			}
			t.Logf("down after %v, packets then wait for %v, up after %v", right, wait, quality)
			if _, limited := c.e.Budget(); limited {
				t.Errorf("there is still a limit: %s", c.history(up))
			}
		})
	}
}

// TestWideAgain: full quality does not depend on the moment at which the line becomes wide again, but for the time until the next probe.
func TestWideAgain(t *testing.T) {
	var all []time.Duration
	for i := range 40 {
		c := newCall(t, plain)
		c.run(5 * time.Second)
		c.line.rate = narrow
		c.run(12*time.Second + time.Duration(i)*seldomProbe/40)
		c.line.rate = wide
		up := c.now
		c.run(12 * time.Second)
		all = append(all, c.settled(up, Layers-1))
	}
	slices.Sort(all)
	t.Logf("full quality after %v to %v, median %v", all[0], all[len(all)-1], all[len(all)/2])
	if worst := all[len(all)-1]; worst > seldomProbe+2*time.Second {
		t.Errorf("full quality after %v", worst)
	}
}

// TestLossy: where packets are lost by the nature of the line what is lost is sent twice, but where there are too many that makes nothing worse.
func TestLossy(t *testing.T) {
	for _, tc := range []struct {
		name        string
		line        line
		least, most float64 // of the time it is taken for a line that loses packets
		layer       int
		share       float64
		waits       time.Duration
	}{
		{"plain", plain, 0, 0, 2, 1, 50 * time.Millisecond},
		{"0.5 % loss", with(func(l *line) { l.loss = 0.005 }), 0, 0.05, 2, 1, 50 * time.Millisecond},
		{"5 % loss", with(func(l *line) { l.loss = 0.05 }), 0.9, 1, 2, 1, 50 * time.Millisecond},
		{"10 % loss", with(func(l *line) { l.loss = 0.1 }), 0.95, 1, 2, 1, 50 * time.Millisecond},
		{"10 % loss, 30 ms jitter", with(func(l *line) { l.loss, l.jitter = 0.1, 30*time.Millisecond }), 0.7, 1, 2, 1, 50 * time.Millisecond},
		{"narrow", with(func(l *line) { l.rate = narrow }), 0, 0.01, 0, 0.95, 200 * time.Millisecond},
		{"narrow, 20 % loss", with(func(l *line) { l.rate, l.loss = narrow, 0.2 }), 0, 0.1, 0, 0.9, 200 * time.Millisecond},
		{"hardly a queue", with(func(l *line) { l.rate, l.queue = narrow, 5 }), 0, 0.1, 0, 0.9, 200 * time.Millisecond},
		{"a policer without a queue", with(func(l *line) { l.rate, l.queue = 600_000, 4 }), 0, 0.1, 0, 0.9, 100 * time.Millisecond},
		{"a policer slightly below what is sent", with(func(l *line) { l.rate, l.queue = 900_000, 4 }), 0, 1, 0, 0.9, 100 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCall(t, tc.line)
			c.resends = true
			c.run(60 * time.Second)
			log := c.since(6 * time.Second)
			lossy := 0
			for _, m := range log {
				if m.lossy {
					lossy++
				}
			}
			part := float64(lossy) / float64(len(log))
			t.Logf("lossy %.1f %% of the time, layer %d or more %.1f %%, waiting %v, of %d packets %d lost, sent again %d, and once more %d",
				100*part, tc.layer, 100*share(log, tc.layer), waits(log), c.count, c.counts.lost, c.counts.again, c.counts.twice)
			if part < tc.least || part > tc.most {
				t.Errorf("lossy %.1f %% of the time, want %.1f to %.1f %%", 100*part, 100*tc.least, 100*tc.most)
			}
			if s := share(log, tc.layer); s < tc.share {
				t.Errorf("layer %d or more %.1f %% of the time, want %.1f %%: %s", tc.layer, 100*s, 100*tc.share, c.history(0))
			}
			if w := waits(log); w > tc.waits {
				t.Errorf("packets wait for %v: %s", w, c.history(0))
			}
		})
	}
}

// TestOutage: a line that was down for a moment carries as much as before.
func TestOutage(t *testing.T) {
	for _, l := range []line{plain, with(func(l *line) { l.loss = 0.05 }), with(func(l *line) { l.jitter = 30 * time.Millisecond })} {
		for _, down := range []time.Duration{500 * time.Millisecond, time.Second, 1400 * time.Millisecond} {
			c := newCall(t, l)
			c.run(5 * time.Second)
			c.line.loss = 1
			c.run(down)
			c.line.loss = l.loss
			back := c.now
			c.run(5 * time.Second)
			if s := share(c.since(back), Layers-1); s < 1 {
				t.Errorf("%+v down for %v: full quality %.1f %% of the time then: %s", l, down, 100*s, c.history(back))
			}
		}
	}
}

// TestPaused is a picture that is paused altogether: it comes back though nothing is sent meanwhile that could be reported.
func TestPaused(t *testing.T) {
	c := newCall(t, plain)
	c.firm = false
	c.run(5 * time.Second)
	c.line.rate = 120_000
	down := c.now
	c.run(30 * time.Second)
	if s := share(c.since(down+2*time.Second), 0); s > 0.1 {
		t.Errorf("a picture %.1f %% of the time: %s", 100*s, c.history(down))
	}
	c.line.rate = wide
	up := c.now
	c.run(20 * time.Second)
	if d := c.settled(up, Layers-1); d > 10*time.Second {
		t.Errorf("full quality after %v: %s", d, c.history(up))
	}
}

// TestSteady is a line that is bad without being narrow: the picture stays.
func TestSteady(t *testing.T) {
	for _, tc := range []struct {
		name   string
		line   line
		layer  int
		from   time.Duration // it has to hold from then on
		share  float64
		waits  time.Duration
		pauses bool
	}{
		{"plain", plain, 2, 0, 1, 50 * time.Millisecond, false},
		{"1 % loss", with(func(l *line) { l.loss = 0.01 }), 2, 0, 1, 50 * time.Millisecond, false},
		{"5 % loss", with(func(l *line) { l.loss = 0.05 }), 2, 0, 1, 50 * time.Millisecond, false},
		{"10 % loss", with(func(l *line) { l.loss = 0.1 }), 2, 0, 1, 50 * time.Millisecond, false},
		{"20 % loss", with(func(l *line) { l.loss = 0.2 }), 2, 20 * time.Second, 0.95, 50 * time.Millisecond, false},
		{"30 % loss", with(func(l *line) { l.loss = 0.3 }), 2, 20 * time.Second, 0.95, 50 * time.Millisecond, false},
		{"30 ms jitter", with(func(l *line) { l.jitter = 30 * time.Millisecond }), 2, 0, 1, 50 * time.Millisecond, false},
		{"60 ms jitter", with(func(l *line) { l.jitter = 60 * time.Millisecond }), 2, 0, 0.9, 50 * time.Millisecond, false},
		{"200 ms round trip", with(func(l *line) { l.delay = 100 * time.Millisecond }), 2, 0, 1, 50 * time.Millisecond, false},
		{"the way becomes longer by 80 ms", with(func(l *line) { l.longer = 80 * time.Millisecond }), 2, 0, 0.99, 50 * time.Millisecond, false},
		{"the way becomes longer by 300 ms", with(func(l *line) { l.longer = 300 * time.Millisecond }), 2, 0, 0.99, 50 * time.Millisecond, false},
		{"longer by 80 ms, with jitter", with(func(l *line) { l.longer, l.jitter = 80*time.Millisecond, 30*time.Millisecond }), 2, 0, 0.95, 50 * time.Millisecond, false},
		{"longer by 80 ms, with losses", with(func(l *line) { l.longer, l.loss = 80*time.Millisecond, 0.1 }), 2, 0, 0.95, 50 * time.Millisecond, false},
		{"longer and narrow", with(func(l *line) { l.longer, l.rate = 80*time.Millisecond, narrow }), 0, 2 * time.Second, 0.95, 200 * time.Millisecond, false},
		{"narrow from the start", with(func(l *line) { l.rate = narrow }), 0, 2 * time.Second, 0.95, 200 * time.Millisecond, false},
		{"narrow, 20 % loss", with(func(l *line) { l.rate, l.loss = narrow, 0.2 }), 0, 3 * time.Second, 0.9, 200 * time.Millisecond, false},
		{"too narrow for anything", with(func(l *line) { l.rate = 150_000 }), 0, 2 * time.Second, 0.95, 5 * time.Second, false},
		{"too narrow, may be paused", with(func(l *line) { l.rate = 150_000 }), -1, 0, 1, 300 * time.Millisecond, true},
		{"a policer without a queue", with(func(l *line) { l.rate, l.queue = 600_000, 4 }), 0, 5 * time.Second, 0.95, 100 * time.Millisecond, false},
		{"others take half of it", with(func(l *line) { l.other = wide / 2 }), 1, 3 * time.Second, 0.9, 200 * time.Millisecond, false},
		{"others keep the queue full", with(func(l *line) { l.other = wide }), 0, 3 * time.Second, 0.9, time.Second, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCall(t, tc.line)
			c.firm = !tc.pauses
			c.run(60 * time.Second)
			log := c.since(time.Second + tc.from)
			t.Logf("layer %d or more %.1f %% of the time, waiting %v", tc.layer, 100*share(log, tc.layer), waits(log))
			if s := share(log, tc.layer); s < tc.share {
				t.Errorf("layer %d or more %.1f %% of the time, want %.1f %%: %s", tc.layer, 100*s, 100*tc.share, c.history(0))
			}
			if w := waits(log); w > tc.waits {
				t.Errorf("packets wait for %v: %s", w, c.history(0))
			}
		})
	}
}

// history sums up what happened from a time on, for the text of a failure.
func (c *call) history(from time.Duration) (s string) {
	last := moment{layer: -2}
	for i, m := range c.since(from) {
		if m.layer != last.layer || m.budget != last.budget && i%100 == 0 || i%1000 == 0 {
			s += fmt.Sprintf("\n%6.2f s: layer %d, budget %d, waiting %v", (m.at - from).Seconds(), m.layer, m.budget, m.backlog.Round(time.Millisecond))
			last = m
		}
	}
	return s
}

// A receiver that says nothing for a while may be gone, and one that never reports is never limited.
func TestSilence(t *testing.T) {
	c := newCall(t, plain)
	c.deaf = 1
	c.run(10 * time.Second)
	if _, limited := c.e.Budget(); limited {
		t.Error("limited though it never reported anything")
	}
	c.deaf = 0
	c.run(5 * time.Second)
	c.deaf = 1
	c.run(5 * time.Second)
	if budget, limited := c.e.Budget(); !limited || budget > layers[2]/2 {
		t.Errorf("after 5 s of silence: %d, limited %t", budget, limited)
	}
	c.deaf = 0
	c.run(15 * time.Second)
	if _, limited := c.e.Budget(); limited {
		t.Errorf("limited still when all is well: %s", c.history(20*time.Second))
	}
}

func TestREMB(t *testing.T) {
	var e Estimator
	now := time.Second
	send := func(bitrate int64, d time.Duration) {
		for end := now + d; now < end; now += 10 * time.Millisecond {
			e.Sent.Add(int(bitrate/8/100), now)
			if now%(100*time.Millisecond) == 0 {
				e.rates.sample(e.Sent.bytes, now)
			}
		}
	}
	expect := func(when string, limited bool, budget int64) {
		t.Helper()
		if b, l := e.Budget(); l != limited || l && b != budget {
			t.Errorf("%s: %d, limited %t; want %d, %t", when, b, l, budget, limited)
		}
	}
	send(900_000, 2*time.Second)
	e.REMB(1_500_000, now)
	expect("more than is sent", false, 0)
	e.REMB(400_000, now)
	expect("less than is sent", true, 400_000)
	e.Want(900_000)
	send(160_000, time.Second)
	e.REMB(300_000, now)
	expect("even less", true, 300_000)
	send(160_000, 4*time.Second)
	e.REMB(700_000, now)
	expect("more", true, 700_000)
	e.REMB(2_000_000, now)
	expect("enough for everything", false, 0)
}
