package load

import (
	"math"
	"testing"
	"time"
)

// A machine is a server in a model: its load is what it sends, and what else it has to do.
type machine struct {
	t        *testing.T
	governor *Governor
	now      time.Time

	wanted, lowest int64   // bits/s of all layers, and of the lowest alone
	capacity       float64 // bits/s that take the whole processor
	other          float64 // share of the processor for everything but media
	late, fanOut   time.Duration

	verdict Verdict
}

func newMachine(t *testing.T, l Limits) *machine {
	return &machine{t: t, governor: New(l), now: time.Unix(1_000, 0), capacity: 100e6}
}

// sample is what a second of work shows, under the last verdict.
func (m *machine) sample() Sample {
	sent := m.wanted
	if b := m.verdict.Budget; b > 0 {
		sent = max(m.lowest, min(sent, b))
	}
	cpu := min(1, float64(sent)/m.capacity+m.other)
	return Sample{CPU: cpu, Packets: float64(sent) / 8 / 1000, Late: m.late, FanOut: m.fanOut, Sent: sent, Spare: sent - m.lowest, Wanted: m.wanted}
}

// run lets seconds pass and returns the levels that came, repetitions left out.
func (m *machine) run(seconds int) (levels []Level) {
	for range seconds {
		m.now = m.now.Add(time.Second)
		m.verdict = m.governor.Observe(m.sample(), m.now)
		if len(levels) == 0 || levels[len(levels)-1] != m.verdict.Level {
			levels = append(levels, m.verdict.Level)
		}
	}
	return levels
}

func TestLevels(t *testing.T) {
	cpu := Limits{CPU: 0.8}
	for _, tc := range []struct {
		name   string
		limits Limits
		set    func(*machine)
		want   Level // after half a minute
		sent   int64 // at most, in bits/s; 0 means everything
		worst  Measure
	}{
		{"idle", cpu, func(*machine) {}, Calm, 0, CPU},
		{"well below", cpu, func(m *machine) { m.wanted = 60e6 }, Calm, 0, CPU},
		{"near", cpu, func(m *machine) { m.wanted = 75e6 }, Near, 0, CPU},
		{"over, with layers to withhold", cpu, func(m *machine) { m.wanted, m.lowest = 90e6, 10e6 }, Shedding, 80e6, CPU},
		{"over, with a few layers to withhold", cpu, func(m *machine) { m.wanted, m.lowest = 90e6, 85e6 }, Full, 85e6, CPU},
		{"over, with nothing to withhold", cpu, func(m *machine) { m.wanted, m.lowest = 85e6, 85e6 }, Full, 0, CPU},
		{"far over, not for media", cpu, func(m *machine) { m.wanted, m.lowest, m.other = 10e6, 5e6, 0.9 }, Full, 10e6, CPU},
		{"late by others", cpu, func(m *machine) { m.wanted, m.late = 10e6, time.Second }, Calm, 0, CPU},
		{"late", cpu, func(m *machine) { m.wanted, m.lowest, m.late = 50e6, 50e6, 30*time.Millisecond }, Full, 0, Lateness},
		{"a room so large that the last wait", cpu, func(m *machine) { m.wanted, m.lowest, m.fanOut = 30e6, 30e6, 11*time.Millisecond }, Full, 0, FanOut},
		{"a large room", cpu, func(m *machine) { m.wanted, m.lowest, m.fanOut = 30e6, 30e6, 8*time.Millisecond }, Calm, 0, FanOut},
		{"no limit", Limits{}, func(m *machine) { m.wanted, m.late, m.fanOut = 200e6, time.Second, time.Second }, Calm, 0, CPU},
		{"packets", Limits{Packets: 5_000}, func(m *machine) { m.wanted, m.lowest = 80e6, 10e6 }, Shedding, 40e6, Packets},
		{"packets, all of sound", Limits{CPU: 0.8, Packets: 5_000}, func(m *machine) { m.wanted, m.lowest = 44e6, 44e6 }, Full, 0, Packets},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t, tc.limits)
			tc.set(m)
			levels := m.run(30)
			if m.verdict.Level != tc.want || m.verdict.Worst != tc.worst {
				t.Errorf("%v by %v after %v, want %v by %v", m.verdict.Level, m.verdict.Worst, levels, tc.want, tc.worst)
			}
			if sent := m.sample().Sent; tc.sent > 0 && sent > tc.sent || tc.sent == 0 && sent != m.wanted {
				t.Errorf("sends %d bit/s of %d, want at most %d", sent, m.wanted, tc.sent)
			}
		})
	}
}

// As the load rises the operator hears of it first, then layers go, and only then newcomers are refused. As it falls they
// are admitted before the layers come back, and at last nothing is left of it.
func TestOrder(t *testing.T) {
	m := newMachine(t, Limits{CPU: 0.8})
	var levels []Level
	note := func(more []Level) {
		for _, l := range more {
			if len(levels) == 0 || levels[len(levels)-1] != l {
				levels = append(levels, l)
			}
		}
	}
	at := func(viewers int64) { m.wanted, m.lowest = viewers*2e5, viewers*1e5 }
	for viewers := range int64(900) {
		at(viewers)
		note(m.run(1))
	}
	if m.verdict.Level != Full || m.sample().Spare != 0 {
		t.Fatalf("at the top: %+v, %d bit/s left to withhold", m.verdict, m.sample().Spare)
	}
	for viewers := int64(900); viewers >= 0; viewers-- {
		at(viewers)
		note(m.run(1))
	}
	want := []Level{Calm, Near, Shedding, Full, Shedding, Calm}
	if len(levels) != len(want) {
		t.Fatalf("levels %v, want %v", levels, want)
	}
	for i := range want {
		if levels[i] != want[i] {
			t.Fatalf("levels %v, want %v", levels, want)
		}
	}
}

// A load that stays where it is does not make layers or newcomers come and go.
func TestSteady(t *testing.T) {
	for load := 0.50; load < 2; load += 0.01 {
		m := newMachine(t, Limits{CPU: 0.8})
		m.wanted = int64(load * m.capacity)
		m.lowest = m.wanted / 5
		m.run(60)
		level, budget, changes := m.verdict.Level, m.verdict.Budget, 0
		for range 600 {
			m.run(1)
			if m.verdict.Level != level || math.Abs(float64(m.verdict.Budget-budget)) > 1 {
				level, budget = m.verdict.Level, m.verdict.Budget
				changes++
			}
		}
		if changes > 2 {
			t.Errorf("load %.2f: %d changes in ten minutes, at the end %+v", load, changes, m.verdict)
		}
	}
}

// A short burst, as of many people who join at once or come back after a restart, refuses nobody.
func TestBurst(t *testing.T) {
	m := newMachine(t, Limits{CPU: 0.8})
	m.wanted, m.lowest = 40e6, 10e6
	m.run(30)
	m.other = 0.6
	m.run(2)
	m.other = 0
	if levels := m.run(10); m.verdict.Level != Calm || len(levels) > 2 || levels[0] > Near {
		t.Errorf("levels %v after two seconds of a full processor", levels)
	}
}

// A second in which garbage is collected, and what is sent to a large room takes much longer, withholds nothing.
func TestBlip(t *testing.T) {
	m := newMachine(t, Limits{CPU: 0.8})
	m.wanted, m.lowest, m.fanOut = 50e6, 10e6, 7*time.Millisecond
	m.run(30)
	m.fanOut = 30 * time.Millisecond
	m.run(1)
	m.fanOut = 7 * time.Millisecond
	if levels := m.run(10); m.verdict.Level != Calm || levels[0] > Near {
		t.Errorf("levels %v after a second of long fan-out", levels)
	}
}

func TestWords(t *testing.T) {
	for l := Calm; l <= Full; l++ {
		if l.String() == "" {
			t.Errorf("level %d has no name", l)
		}
	}
	for m := CPU; m <= Lateness; m++ {
		if m.String() == "" {
			t.Errorf("measure %d has no name", m)
		}
	}
}
