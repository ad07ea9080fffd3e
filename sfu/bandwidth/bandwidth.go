// A budget is how many bits per second may be used. Package bandwidth owns finding it out for one line, from what a receiver reports about the
// packets that it was sent or from when those of a publisher come, and the choice of what is withheld so that a budget holds: the upper layers of videos first.
// It never sends, reads a clock, or withholds sound. docs/bandwidth.md explains it in words, with an example.
package bandwidth

import "container/heap"

// Layers is how many layers a track may have.
const Layers = 3

// A Load is what one track costs, in bits/s, by its ceiling: Load[0] if nothing of it is let through, Load[1] for its lowest layer, Load[Layers]
// for all. It never falls from one to the next. What costs nothing is never withheld: of a track that must not be paused Load[0] is Load[1].
type Load [Layers + 1]int64

// All is the ceiling that withholds nothing, None the one that withholds everything.
const (
	All  = Layers
	None = 0
)

// A Rank says which track comes before others; the lowest is first.
type Rank uint8

// The ranks that are told apart.
const (
	Screen  Rank = iota // a screen that is shared
	Speaker             // a camera of who speaks
	Other
)

// A Want is a track that a budget is wanted for.
type Want struct {
	Load    Load
	Rank    Rank
	Present int // the ceiling that holds now
}

// Allocate returns a ceiling for each track so that all together fit into the budget, as far as they can. First everybody gets the lowest layer,
// then more is let through, in steps of one layer: by rank, and of one rank the cheapest step first, so that equals come out equal. A step above
// the present ceiling must leave a tenth of the budget free, or tracks at the edge would come and go.
func Allocate(budget int64, wants []Want) []int {
	a := allocation{budget: budget, wants: wants, ceilings: make([]int, len(wants))}
	for i := range wants {
		a.total += wants[i].Load[None]
	}
	for _, first := range []bool{true, false} {
		for rank := Screen; rank <= Other; rank++ {
			a.raise(rank, first)
		}
	}
	return a.ceilings
}

type allocation struct {
	budget, total int64
	wants         []Want
	ceilings      []int
}

// raise lets through what fits of the tracks of a rank: the lowest layers, or those above.
func (a *allocation) raise(rank Rank, first bool) {
	var due steps
	for i := range a.wants {
		if a.wants[i].Rank == rank {
			if s, ok := a.next(i, first); ok {
				due = append(due, s)
			}
		}
	}
	heap.Init(&due)
	for len(due) > 0 {
		s := due[0]
		if a.fits(s) {
			a.total += s.cost
			a.ceilings[s.track] = s.ceiling
			if next, ok := a.next(s.track, first); ok {
				due[0] = next
				heap.Fix(&due, 0)
				continue
			}
		}
		heap.Pop(&due)
	}
}

func (a *allocation) fits(s step) bool {
	limit := a.budget
	if s.ceiling > a.wants[s.track].Present {
		limit -= limit / 10
	}
	return a.total+s.cost <= limit
}

// A step raises a track to a ceiling.
type step struct {
	track, ceiling int
	cost           int64
}

// next returns the track's next step that costs something, after taking those that do not. The first one leads to the lowest layer.
func (a *allocation) next(track int, first bool) (step, bool) {
	l, at := &a.wants[track].Load, a.ceilings[track]
	for at < All && l[at+1] == l[at] {
		at++
	}
	a.ceilings[track] = at
	if at == All || first != (at == None) {
		return step{}, false
	}
	return step{track, at + 1, l[at+1] - l[at]}, true
}

// steps are a heap, the cheapest on top; of equals that of the first track.
type steps []step

func (s steps) Len() int      { return len(s) }
func (s steps) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s steps) Less(i, j int) bool {
	return s[i].cost < s[j].cost || s[i].cost == s[j].cost && s[i].track < s[j].track
}
func (s *steps) Push(x any) { *s = append(*s, x.(step)) }
func (s *steps) Pop() any {
	old := *s
	last := old[len(old)-1]
	*s = old[:len(old)-1]
	return last
}
