// Package egress is the way out to clients: workers, one for each core, that make, protect and send what the clients assigned to them receive.
// It owns the queues between those who receive packets and the workers, the legs (one encrypted connection to one client each), the pooled
// room in which packets are protected, and the batches that leave at the end of each run.
// It never chooses what a client gets, negotiates, or waits for a timer: a run ends when its queue is empty, and flushes.
package egress

// Hot path: see ARCHITECTURE.md#packet

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/forward"
	"callserver/sfu/udp"
)

const (
	// maxQueued bounds the deliveries that wait for one worker, of some 200 bytes each: a hundred milliseconds of what one core takes in at most. More
	// are dropped and counted.
	maxQueued = 8192

	slots    = 512  // packets protected between two flushes of a worker
	slotSize = 1664 // bytes: an MTU, protection and header extensions that grew
)

// A Pool is the workers of a node. Safe for concurrent use.
type Pool struct {
	workers []*Worker
	next    atomic.Uint32
	stop    context.CancelFunc
	loops   sync.WaitGroup
}

// NewPool starts so many workers, at least one. Panics in what they do are recovered and told. Close ends them.
func NewPool(n int, panicked func(value any)) *Pool {
	ctx, stop := context.WithCancel(context.Background())
	p := &Pool{stop: stop}
	for range max(n, 1) {
		w := &Worker{index: len(p.workers), panicked: panicked, wake: make(chan struct{}, 1), outboxes: map[*udp.Socket]*udp.Outbox{}, start: time.Now()}
		p.workers = append(p.workers, w)
		p.loops.Go(func() { w.workLoop(ctx) })
	}
	return p
}

// Close stops the workers and returns when their goroutines have ended. What is queued is dropped, and so is all that comes later.
func (p *Pool) Close() {
	p.stop()
	p.loops.Wait()
	for _, w := range p.workers {
		w.close()
	}
}

// Len is how many workers there are.
func (p *Pool) Len() int { return len(p.workers) }

// Assign picks the worker for a new client, one after the other.
func (p *Pool) Assign() *Worker { return p.workers[int(p.next.Add(1)-1)%len(p.workers)] }

// Run has the workers do what is queued. The caller does the home worker's part itself, unless that is busy already, and returns when it is
// done; a negative home has all of them do their own. Call it after a batch of packets received, when nothing more is there.
func (p *Pool) Run(home int) {
	for i, w := range p.workers {
		if i != home && w.pending.Load() {
			w.signal()
		}
	}
	if home >= 0 && home < len(p.workers) {
		p.workers[home].run()
	}
}

// Stats is what a Pool has done.
type Stats struct {
	Packets, Bytes uint64 // sealed and handed on
	FanOut         uint64 // for each of the packets how long its turn took, in microseconds: divided by Packets, how long it takes to send to all who are to get something
	Refused        uint64 // not sent: they would have been a second packet under one number
	Overflows      uint64 // deliveries dropped because a worker was too far behind
	Calls, Lost    uint64 // system calls; datagrams that the kernel refused
	Unsegmented    uint64 // destinations that do not take segmented runs
}

// Stats is a snapshot of the totals of all workers.
func (p *Pool) Stats() Stats {
	var s Stats
	seen := map[*udp.Socket]bool{}
	for _, w := range p.workers {
		s.Packets += w.counts.packets.Load()
		s.Bytes += w.counts.bytes.Load()
		s.FanOut += w.counts.fanOut.Load()
		s.Refused += w.counts.refused.Load()
		s.Overflows += w.counts.overflows.Load()
		w.turn.Lock()
		for socket := range w.outboxes {
			if !seen[socket] {
				seen[socket] = true
				u := socket.Stats()
				s.Calls, s.Lost, s.Unsegmented = s.Calls+u.Calls, s.Lost+u.Lost, s.Unsegmented+u.Unsegmented
			}
		}
		w.unlock()
	}
	return s
}

// A Worker does the sending for its share of the clients. It is a forward.Lane: whoever has its turn works through the queue, one goroutine at
// a time, its own or one that receives packets on the same core.
type Worker struct {
	index    int
	start    time.Time // where its time begins
	panicked func(value any)
	wake     chan struct{}
	pending  atomic.Bool // something is queued
	counts   counts

	mu         sync.Mutex
	closed     bool
	deliveries []forward.Delivery
	tasks      []func()

	turn     sync.Mutex    // taken before mu; guards what follows and every Leg of the worker
	now      time.Duration // when the turn began, since start
	taken    []forward.Delivery
	todo     []func()
	room     []byte // slots of slotSize, nil until first used
	chain    [slots]link
	used     int
	sent     int    // packets, in this turn
	touched  []*Leg // legs with packets in slots
	outboxes map[*udp.Socket]*udp.Outbox
}

// link is a used slot: its packet's size, and the next slot of the same leg, -1 if none.
type link struct {
	size int32
	next int32
}

type counts struct {
	packets, bytes, fanOut, refused, overflows atomic.Uint64
}

// Take implements forward.Lane. Run works on it.
func (w *Worker) Take(d forward.Delivery) {
	w.mu.Lock()
	fits := !w.closed && len(w.deliveries) < maxQueued
	if fits {
		w.deliveries = append(w.deliveries, d)
	}
	w.mu.Unlock()
	if !fits {
		w.counts.overflows.Add(1)
		d.Drop()
		return
	}
	w.pending.Store(true)
}

// Do queues f, to be called in the worker's turn. f must be short. A closed worker forgets it.
func (w *Worker) Do(f func()) {
	w.mu.Lock()
	if !w.closed && len(w.tasks) < maxQueued {
		w.tasks = append(w.tasks, f)
	}
	w.mu.Unlock()
	w.pending.Store(true)
	w.signal()
}

func (w *Worker) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Worker) workLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			w.run()
		}
	}
}

// run works until the queue is empty, or leaves it to the goroutine whose turn it is, which looks again when it is done.
func (w *Worker) run() {
	for w.pending.Load() && w.turn.TryLock() {
		w.work()
		w.turn.Unlock()
	}
}

// unlock ends a turn that was not taken by run.
func (w *Worker) unlock() {
	w.turn.Unlock()
	if w.pending.Load() {
		w.signal()
	}
}

// work does what is queued and sends what came of it.
func (w *Worker) work() {
	w.now, w.sent = time.Since(w.start), 0
	w.pending.Store(false)
	w.mu.Lock()
	w.deliveries, w.taken = w.taken[:0], w.deliveries
	w.tasks, w.todo = w.todo[:0], w.tasks
	w.mu.Unlock()
	for _, f := range w.todo {
		w.safely(f)
	}
	clear(w.todo)
	if len(w.taken) > 0 {
		w.safely(w.deliver)
		clear(w.taken)
	}
	w.flush()
	if w.sent > 0 {
		w.counts.fanOut.Add(uint64(w.sent) * uint64((time.Since(w.start) - w.now).Microseconds()))
	}
}

func (w *Worker) deliver() { forward.Deliver(w.taken) }

// safely calls f. A panic costs what f would have done, not the other clients.
func (w *Worker) safely(f func()) {
	defer func() {
		if r := recover(); r != nil {
			w.panicked(r)
		}
	}()
	f()
}

func (w *Worker) close() {
	w.mu.Lock()
	w.closed = true
	for i := range w.deliveries {
		w.deliveries[i].Drop()
	}
	w.deliveries, w.tasks = nil, nil
	w.mu.Unlock()
}

// slot returns the room for the next packet.
func (w *Worker) slot() []byte {
	if w.room == nil {
		w.room = make([]byte, slots*slotSize)
	}
	if w.used == slots {
		w.flush()
	}
	return w.room[w.used*slotSize : w.used*slotSize : (w.used+1)*slotSize]
}

// flush sends what is in the slots, client by client.
func (w *Worker) flush() {
	if w.used == 0 {
		return
	}
	for _, l := range w.touched {
		l.post()
	}
	for _, o := range w.outboxes {
		o.Flush()
	}
	var bytes int32
	for i := range w.chain[:w.used] {
		bytes += w.chain[i].size
	}
	w.sent += w.used
	w.counts.packets.Add(uint64(w.used))
	w.counts.bytes.Add(uint64(bytes))
	clear(w.touched)
	w.touched, w.used = w.touched[:0], 0
}
