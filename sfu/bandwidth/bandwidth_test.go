package bandwidth

import (
	"math/rand/v2"
	"slices"
	"testing"
)

var (
	camera = Load{0, 150, 650, 2350} // 150 + 500 + 1700 kbit/s
	screen = Load{0, 1500, 1500, 1500}
)

func TestAllot(t *testing.T) {
	for _, tc := range []struct {
		name   string
		budget int64
		loads  []Load
		want   []int
	}{
		{"nothing", 0, nil, []int{}},
		{"it fits", 2350, []Load{camera}, []int{3}},
		{"the top layer goes", 2349, []Load{camera}, []int{2}},
		{"two layers go", 649, []Load{camera}, []int{1}},
		{"everything goes", 149, []Load{camera}, []int{0}},
		{"layers before whole tracks", 2200, []Load{camera, screen}, []int{2, 3}},
		{"all layers before whole tracks", 1650, []Load{camera, screen}, []int{1, 3}},
		{"the largest track first", 1600, []Load{camera, screen}, []int{1, 0}},
		{"of two the larger step", 2500, []Load{camera, {0, 100, 400, 1400}}, []int{2, 3}},
		{"a layer that costs nothing stays", 500, []Load{{0, 100, 400, 400}}, []int{3}},
		{"a step over layers that are not sent", 0, []Load{{0, 700, 700, 700}}, []int{0}},
		{"less than nothing", -5, []Load{camera, screen}, []int{0, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Allot(tc.budget, tc.loads); !slices.Equal(got, tc.want) {
				t.Errorf("Allot(%d, %v) = %v, want %v", tc.budget, tc.loads, got, tc.want)
			}
		})
	}
}

// Whatever the loads: the budget holds if anything is let through, a lower budget lets through no more, and nothing is
// withheld that fits.
func TestAllotProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		loads := make([]Load, r.IntN(6))
		for i := range loads {
			for c := 1; c <= Layers; c++ {
				loads[i][c] = loads[i][c-1] + r.Int64N(3)*r.Int64N(1000)
			}
		}
		total := func(ceilings []int) (sum int64) {
			for i, c := range ceilings {
				sum += loads[i][c]
			}
			return sum
		}
		budget := r.Int64N(5000)
		some, less := Allot(budget, loads), Allot(budget-r.Int64N(500), loads)
		if sum := total(some); sum > budget {
			t.Fatalf("%v within %d: %v takes %d", loads, budget, some, sum)
		}
		full := make([]int, len(loads))
		for i := range full {
			full[i] = All
			if less[i] > some[i] {
				t.Fatalf("%v: a lower budget than %d lets more through: %v, then %v", loads, budget, some, less)
			}
		}
		if total(full) <= budget && !slices.Equal(some, full) {
			t.Fatalf("%v fits into %d, and is %v", loads, budget, some)
		}
	}
}

func TestSettle(t *testing.T) {
	loads := []Load{camera}
	for _, tc := range []struct {
		name    string
		budget  int64
		present int
		want    int
	}{
		{"over: down at once", 2349, 3, 2},
		{"at the edge: stays", 2400, 3, 3},
		{"at the edge: does not come back", 2400, 2, 2},
		{"with room to spare: comes back", 2700, 2, 3},
		{"comes back in part", 1000, 0, 2},
	} {
		if got := Settle(tc.budget, loads, []int{tc.present}); got[0] != tc.want {
			t.Errorf("%s: Settle(%d, from %d) = %d, want %d", tc.name, tc.budget, tc.present, got[0], tc.want)
		}
	}
}

func BenchmarkAllot(b *testing.B) {
	loads := make([]Load, 2000)
	for i := range loads {
		loads[i] = camera
	}
	b.ReportAllocs()
	for b.Loop() {
		Allot(650*2000, loads)
	}
}
