// A budget is how many bits per second may be used. Package bandwidth owns the choice of what is withheld so that a budget
// holds: the upper layers of videos first. It never measures anything, and never withholds sound.
package bandwidth

import "container/heap"

// Layers is how many layers a track may have.
const Layers = 3

// A Load is what one track costs, in bits/s, by its ceiling: Load[0] if nothing of it is let through, Load[1] for its lowest
// layer, Load[Layers] for all. It never falls from one to the next.
type Load [Layers + 1]int64

// All is the ceiling that withholds nothing, None the one that withholds everything.
const (
	All  = Layers
	None = 0
)

// Allot returns a ceiling for each track so that all together fit into the budget. It takes away one step at a time, the
// one that saves most: layers above which something remains, and only when there are none left whole tracks. So a lower
// budget withholds the same and more.
func Allot(budget int64, loads []Load) []int {
	ceilings := make([]int, len(loads))
	var total int64
	for i, l := range loads {
		ceilings[i] = All
		total += l[All]
	}
	for _, whole := range []bool{false, true} {
		steps := make(steps, 0, len(loads))
		for i := range loads {
			if s, ok := lower(i, loads[i], ceilings[i], whole); ok {
				steps = append(steps, s)
			}
		}
		heap.Init(&steps)
		for total > budget && len(steps) > 0 {
			s := steps[0]
			total -= s.saved
			ceilings[s.track] = s.ceiling
			if next, ok := lower(s.track, loads[s.track], s.ceiling, whole); ok {
				steps[0] = next
				heap.Fix(&steps, 0)
			} else {
				heap.Pop(&steps)
			}
		}
	}
	return ceilings
}

// A step lowers a track to a ceiling.
type step struct {
	track, ceiling int
	saved          int64
}

// lower returns the next step of a track that saves something. To nothing it goes only if whole tracks may.
func lower(track int, l Load, ceiling int, whole bool) (step, bool) {
	for c := ceiling - 1; c > None || c == None && whole; c-- {
		if saved := l[ceiling] - l[c]; saved > 0 {
			return step{track, c, saved}, true
		}
	}
	return step{}, false
}

// steps are a heap, the one that saves most on top; of equals that of the first track.
type steps []step

func (s steps) Len() int      { return len(s) }
func (s steps) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s steps) Less(i, j int) bool {
	return s[i].saved > s[j].saved || s[i].saved == s[j].saved && s[i].track < s[j].track
}
func (s *steps) Push(x any) { *s = append(*s, x.(step)) }
func (s *steps) Pop() any {
	old := *s
	last := old[len(old)-1]
	*s = old[:len(old)-1]
	return last
}

// Settle returns the ceilings that follow upon the present ones: what exceeds the budget is withheld at once, and what is
// withheld comes back only when it leaves a tenth of the budget free, or tracks at the edge would come and go.
func Settle(budget int64, loads []Load, present []int) []int {
	highest, safe := Allot(budget, loads), Allot(budget-budget/10, loads)
	next := make([]int, len(loads))
	for i := range loads {
		next[i] = min(max(present[i], safe[i]), highest[i])
	}
	return next
}
