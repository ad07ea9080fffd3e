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

// all are wants of one rank for which nothing is withheld.
func all(loads ...Load) []Want {
	wants := []Want{}
	for _, l := range loads {
		wants = append(wants, Want{Load: l, Rank: Other, Present: All})
	}
	return wants
}

// firm is a load of which the lowest layer is never withheld.
func firm(l Load) Load {
	l[None] = l[1]
	return l
}

func TestAllocate(t *testing.T) {
	simulcast := Load{0, 160, 450, 900} // one layer at a time
	ranked := func(ranks ...Rank) []Want {
		var wants []Want
		for _, r := range ranks {
			wants = append(wants, Want{Load: simulcast, Rank: r, Present: All})
		}
		return wants
	}
	for _, tc := range []struct {
		name   string
		budget int64
		wants  []Want
		want   []int
	}{
		{"nothing", 0, nil, []int{}},
		{"it fits", 2350, all(camera), []int{3}},
		{"the top layer goes", 2349, all(camera), []int{2}},
		{"two layers go", 649, all(camera), []int{1}},
		{"everything goes", 149, all(camera), []int{0}},
		{"layers before whole tracks", 2200, all(camera, screen), []int{2, 3}},
		{"all layers before whole tracks", 1650, all(camera, screen), []int{1, 3}},
		{"what does not fit leaves its place to others", 1600, all(camera, screen), []int{2, 0}},
		{"of two the larger step", 2500, all(camera, Load{0, 100, 400, 1400}), []int{2, 3}},
		{"a layer that costs nothing stays", 500, all(Load{0, 100, 400, 400}), []int{3}},
		{"a step over layers that are not sent", 0, all(Load{0, 700, 700, 700}), []int{0}},
		{"less than nothing", -5, all(camera, screen), []int{0, 0}},
		{"never withheld", -5, all(firm(camera), screen), []int{1, 0}},
		{"never withheld, and more fits", 650, all(firm(camera)), []int{2}},
		{"equals come out equal", 1400, ranked(Other, Other, Other), []int{2, 2, 2}},
		{"or nearly", 1200, ranked(Other, Other, Other), []int{2, 2, 1}},
		{"who speaks before others", 1220, ranked(Other, Speaker, Other), []int{1, 3, 1}},
		{"a screen before who speaks", 1220, ranked(Other, Speaker, Screen), []int{1, 1, 3}},
		{"the next takes what is left", 1510, ranked(Other, Speaker, Screen), []int{1, 2, 3}},
		{"the lowest layer of all before a better one of any", 480, ranked(Other, Speaker, Screen), []int{1, 1, 1}},
		{"the last of them is paused", 479, ranked(Other, Speaker, Screen), []int{0, 1, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Allocate(tc.budget, tc.wants); !slices.Equal(got, tc.want) {
				t.Errorf("Allocate(%d, %v) = %v, want %v", tc.budget, tc.wants, got, tc.want)
			}
		})
	}
}

// Whatever the loads: the budget holds if it can, and no single step more would.
func TestAllocateProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		wants := make([]Want, r.IntN(6))
		var floor int64
		for i := range wants {
			l := &wants[i].Load
			for c := 1; c <= Layers; c++ {
				l[c] = l[c-1] + r.Int64N(3)*r.Int64N(1000)
			}
			if r.IntN(3) == 0 {
				*l = firm(*l)
			}
			floor += l[None]
			wants[i].Rank, wants[i].Present = Rank(r.IntN(3)), r.IntN(All+1)
		}
		total := func(ceilings []int) (sum int64) {
			for i, c := range ceilings {
				sum += wants[i].Load[c]
			}
			return sum
		}
		budget := r.Int64N(5000)
		got := Allocate(budget, wants)
		sum := total(got)
		if sum > max(budget, floor) {
			t.Fatalf("%v within %d: %v takes %d", wants, budget, got, sum)
		}
		for i, c := range got {
			limit := budget
			if c >= wants[i].Present {
				limit -= limit / 10
			}
			if c == All || wants[i].Load[c+1] == wants[i].Load[c] {
				if c < All {
					t.Fatalf("%v within %d: %v withholds of %d what costs nothing", wants, budget, got, i)
				}
				continue
			}
			if next := sum - wants[i].Load[c] + wants[i].Load[c+1]; next <= limit {
				t.Fatalf("%v within %d: %v leaves room for a layer more of %d", wants, budget, got, i)
			}
		}
	}
}

func TestAllocateSettles(t *testing.T) {
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
		if got := Allocate(tc.budget, []Want{{Load: camera, Present: tc.present}}); got[0] != tc.want {
			t.Errorf("%s: Allocate(%d, from %d) = %d, want %d", tc.name, tc.budget, tc.present, got[0], tc.want)
		}
	}
}

func BenchmarkAllocate(b *testing.B) {
	wants := make([]Want, 2000)
	for i := range wants {
		wants[i] = Want{Load: camera, Present: All}
	}
	b.ReportAllocs()
	for b.Loop() {
		Allocate(650*2000, wants)
	}
}
