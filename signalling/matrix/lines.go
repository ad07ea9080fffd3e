package matrix

import "sync"

const (
	maxWorkers = 32   // jobs done at once
	maxLines   = 4096 // queues with something in them
	maxWaiting = 16   // jobs in one queue
)

// Lines are queues of jobs, one for each room or person. The jobs of one are done one after the other, and between two
// of them every other queue has its turn: whoever is slow or loud waits for himself. What there is no room for is
// refused. Safe for concurrent use; the zero value is empty.
type lines struct {
	workers sync.WaitGroup

	mu     sync.Mutex
	byName map[string]*line
	ready  []*line // with jobs, none of them being done; whoever waits longest first
	busy   int     // workers
}

type line struct {
	name string
	jobs []job
}

type job struct {
	name string // jobs of one name need be done once only; empty: no other is like it
	do   func()
}

// add queues a job, and reports whether there was room for it.
func (l *lines) add(queue, name string, do func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.byName[queue]
	if one == nil {
		if len(l.byName) >= maxLines {
			return false
		}
		if l.byName == nil {
			l.byName = make(map[string]*line)
		}
		one = &line{name: queue}
		l.byName[queue] = one
		l.ready = append(l.ready, one)
	}
	for _, waiting := range one.jobs {
		if name != "" && waiting.name == name {
			return true
		}
	}
	if len(one.jobs) >= maxWaiting {
		return false
	}
	one.jobs = append(one.jobs, job{name, do})
	if l.busy < maxWorkers && len(l.ready) > 0 {
		l.busy++
		l.workers.Go(l.workLoop)
	}
	return true
}

// workLoop does jobs until no queue is ready.
func (l *lines) workLoop() {
	for one, do := l.next(nil); do != nil; one, do = l.next(one) {
		do()
	}
}

// next gives the queue whose job was just done its place behind the others, and takes a job of the one that waits longest.
func (l *lines) next(done *line) (*line, func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case done == nil:
	case len(done.jobs) > 0:
		l.ready = append(l.ready, done)
	default:
		delete(l.byName, done.name)
	}
	if len(l.ready) == 0 {
		l.busy--
		return nil, nil
	}
	one := l.ready[0]
	l.ready = l.ready[1:]
	do := one.jobs[0].do
	one.jobs = one.jobs[1:]
	return one, do
}

// wait returns when everything is done. Nothing may be added meanwhile.
func (l *lines) wait() { l.workers.Wait() }
