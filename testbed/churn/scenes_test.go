package main

import "testing"

func TestGrowth(t *testing.T) {
	const times = 20
	for name, tc := range map[string]struct {
		step func(cycle int) float64 // bytes, beside what is noise
		over bool
	}{
		"nothing is left":              {func(int) float64 { return 0 }, false},
		"more now and then":            {func(cycle int) float64 { return []float64{0, 0, 1_400_000, -1_400_000}[cycle%4] }, false},
		"the names of a thousand":      {func(int) float64 { return 32_000 }, true},
		"names, in a map that doubles": {func(cycle int) float64 { return 32_000 + map[int]float64{4: 150_000, 8: 300_000}[cycle] }, true},
	} {
		heaps := []float64{19 << 20}
		for cycle := range times {
			noise := []float64{25_392, 11_616, -1_200, 15_008, -7_584, -20_000}[cycle%6] // the first five as measured
			heaps = append(heaps, heaps[cycle]+noise+tc.step(cycle))
		}
		if grew := growth(heaps); grew > growingHeap != tc.over {
			t.Errorf("%s: grew by %.0f bytes; over the bar of %d: want %t", name, grew, growingHeap, tc.over)
		}
	}
	if grew := growth([]float64{1, 2}); grew != 0 {
		t.Errorf("one step is %v", grew)
	}
}
