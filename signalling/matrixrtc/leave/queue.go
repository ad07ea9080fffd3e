package leave

import (
	"cmp"
	"container/heap"
	"time"
)

// A queue holds the jobs that wait, the next one first. It implements heap.Interface; use put, take and drop.
type queue []*job

// aside is the place of a job that is not in the queue.
const aside = -1

func (q queue) Len() int { return len(q) }

// Less makes what is due independent of the order of maps: what has waited longest comes first.
func (q queue) Less(i, j int) bool {
	x, y := q[i], q[j]
	return cmp.Or(x.wake.Compare(y.wake), cmp.Compare(x.Server, y.Server), cmp.Compare(x.Delay, y.Delay)) < 0
}

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	j := x.(*job) // put pushes nothing else
	j.place = len(*q)
	*q = append(*q, j)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	j := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	j.place = aside
	return j
}

// put has a job wait, or wait for another time.
func (q *queue) put(j *job) {
	j.wake = j.at()
	if j.place == aside {
		heap.Push(q, j)
		return
	}
	heap.Fix(q, j.place)
}

// drop takes a job out, if it is in.
func (q *queue) drop(j *job) {
	if j.place != aside {
		heap.Remove(q, j.place)
	}
}

// take takes out the first job, if something is to be done about it by now.
func (q *queue) take(now time.Time) *job {
	if len(*q) == 0 || now.Before((*q)[0].wake) {
		return nil
	}
	return heap.Pop(q).(*job) // put pushes nothing else
}
