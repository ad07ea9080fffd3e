package link

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// Conditions is what one direction of a link does to the packets it carries. The zero value carries everything at once.
type Conditions struct {
	Loss     float64       // probability, 0 to 1, of losing a packet; 1 cuts the link
	Only     Protocol      // which packets Loss concerns; AnyProtocol for all
	Delay    time.Duration // from leaving the sender's queue to arriving
	Jitter   time.Duration // up to this much more delay for each packet, evenly spread
	Reorder  bool          // let jitter put packets out of order; otherwise a late packet holds up those behind it
	Rate     int64         // bits/s of the wire, 0 for unlimited
	QueueLen int           // packets waiting for the wire before new ones are dropped; 0 for DefaultQueue
}

// DefaultQueue is how many packets wait for the wire where a script does not say.
const DefaultQueue = 1000

// maxFlying bounds what a lane holds in all: with a long delay and no rate nothing else would. Packets beyond it are dropped.
const maxFlying = 20_000

// LaneStats counts the packets of one direction since its beginning.
type LaneStats struct {
	Sent      uint64 `json:"sent"`      // handed to the lane
	Delivered uint64 `json:"delivered"` // taken out by Pop
	Lost      uint64 `json:"lost"`      // by chance or because the link is cut
	Overflown uint64 `json:"overflown"` // dropped because the queue was full
	Bytes     uint64 `json:"bytes"`     // of the packets delivered
}

// Peaks are the worst that happened in one direction since Lane.Peaks was asked last.
type Peaks struct {
	Queue time.Duration // a packet waited for the wire and took on it, delay and jitter apart
	Late  time.Duration // a packet was taken out after its time: the link itself did not keep up, and what was measured over it is doubtful
}

// Lane is one direction of a link: packets pushed at one end come out at the other when their time has come. It has no clock: callers
// pass now, which must not go back. A Lane is for one goroutine at a time.
type Lane struct {
	conditions Conditions
	random     *rand.Rand
	flying     flight
	departures []time.Time // of the packets still waiting for the wire, oldest first
	wireFree   time.Time   // when the wire has sent all that was accepted so far
	lastDue    time.Time   // of the packet accepted last, to keep the order
	order      uint64
	stats      LaneStats
	peaks      Peaks
}

// NewLane returns a lane whose chance follows from seed alone: the same packets at the same times meet the same fate.
func NewLane(seed uint64) *Lane {
	return &Lane{random: rand.New(rand.NewPCG(seed, 0x6c616e65))}
}

// Set changes the conditions for packets that come from now on; those on their way keep their time.
func (l *Lane) Set(c Conditions) { l.conditions = c }

// Stats returns the counters.
func (l *Lane) Stats() LaneStats { return l.stats }

// Peaks returns the peaks since the last call, and begins anew.
func (l *Lane) Peaks() Peaks {
	p := l.peaks
	l.peaks = Peaks{}
	return p
}

// Push hands over an IP packet, which the lane then owns, and reports whether the lane carries it.
func (l *Lane) Push(packet []byte, now time.Time) bool {
	l.stats.Sent++
	c := &l.conditions
	if c.Loss > 0 && (c.Only == AnyProtocol || c.Only == ProtocolOf(packet)) && l.random.Float64() < c.Loss {
		l.stats.Lost++
		return false
	}
	departure, ok := l.depart(len(packet), now)
	if !ok || len(l.flying) >= maxFlying {
		l.stats.Overflown++
		return false
	}
	l.peaks.Queue = max(l.peaks.Queue, departure.Sub(now))
	due := departure.Add(c.Delay)
	if c.Jitter > 0 {
		due = due.Add(time.Duration(l.random.Int64N(int64(c.Jitter) + 1)))
	}
	if !c.Reorder && due.Before(l.lastDue) {
		due = l.lastDue
	}
	l.lastDue = due
	heap.Push(&l.flying, flyer{packet: packet, due: due, order: l.order})
	l.order++
	return true
}

// depart returns when a packet of that many bytes has left through the wire; not ok when the queue before it is full.
func (l *Lane) depart(size int, now time.Time) (time.Time, bool) {
	c := &l.conditions
	if c.Rate <= 0 {
		l.departures = l.departures[:0]
		return now, true
	}
	for len(l.departures) > 0 && !l.departures[0].After(now) {
		l.departures = l.departures[1:]
	}
	limit := c.QueueLen
	if limit == 0 {
		limit = DefaultQueue
	}
	if len(l.departures) >= limit {
		return time.Time{}, false
	}
	start := now
	if l.wireFree.After(start) {
		start = l.wireFree
	}
	l.wireFree = start.Add(time.Duration(int64(size) * 8 * int64(time.Second) / c.Rate))
	l.departures = append(l.departures, l.wireFree)
	return l.wireFree, true
}

// Pop returns the next packet that is due at now, or nil.
func (l *Lane) Pop(now time.Time) []byte {
	if len(l.flying) == 0 || l.flying[0].due.After(now) {
		return nil
	}
	f := heap.Pop(&l.flying).(flyer)
	l.stats.Delivered++
	l.stats.Bytes += uint64(len(f.packet))
	l.peaks.Late = max(l.peaks.Late, now.Sub(f.due))
	return f.packet
}

// Next returns when the next packet is due; false when none is on its way.
func (l *Lane) Next() (time.Time, bool) {
	if len(l.flying) == 0 {
		return time.Time{}, false
	}
	return l.flying[0].due, true
}

type flyer struct {
	packet []byte
	due    time.Time
	order  uint64
}

// flight is a heap by due time, then by order of arrival.
type flight []flyer

func (f flight) Len() int { return len(f) }
func (f flight) Less(i, j int) bool {
	if !f[i].due.Equal(f[j].due) {
		return f[i].due.Before(f[j].due)
	}
	return f[i].order < f[j].order
}
func (f flight) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flight) Push(x any)   { *f = append(*f, x.(flyer)) }
func (f *flight) Pop() any {
	last := len(*f) - 1
	x := (*f)[last]
	(*f)[last] = flyer{}
	*f = (*f)[:last]
	return x
}
