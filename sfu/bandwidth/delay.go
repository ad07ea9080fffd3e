package bandwidth

import "time"

const (
	tolerated = 40 * time.Millisecond // of waiting above the least: jitter of ordinary lines
	baseFor   = 30 * time.Second      // the least delay is that of the last one or two of these: clocks drift, routes change
	stale     = time.Second           // what packets of longer ago waited says nothing about the next

	quickPeriod  = 80 * time.Millisecond // of waiting packets shows the rate of the line, if there are
	quickPackets = 4
	short        = 0.8 // of what was sent lately a line must carry while packets wait. A key frame waits too, but at the line's full rate
	steep        = 3   // and they wait longer by a third of the time that passes, or more

	longPeriod = 300 * time.Millisecond // two of them show whether a queue grows
	change     = 12 * time.Millisecond  // from one to the next; less is none
	unchanged  = 3                      // so often in a row: it is no queue, or not ours
)

// delays follows how long packets wait on their way: their delay above the least one. While all wait there is a queue, and they arrive as fast as
// the line is: that is its rate. Times of the receiver's clock differ from ours by an unknown amount, which the least delay takes out.
type delays struct {
	known  bool
	least  [2]time.Duration // of this period and the one before
	turned time.Duration    // when this period began

	noted  time.Duration // when the packet before was reported
	latest time.Duration // how long it waited
	sent   time.Duration // when it was sent
	busy   queue
}

// queue is a time during which all packets waited. By the receiver's clock.
type queue struct {
	span
	before   time.Duration // the shortest wait of the span before, 0 = there is none
	constant int           // spans in a row with about the same
}

// span is a part of it.
type span struct {
	packets, bytes int
	from, to       time.Duration
	first, last    time.Duration // how long they waited
	least          time.Duration // the shortest wait
}

// note takes a packet that arrived. What was sent before fresh waits for reasons that are known.
func (d *delays) note(sentAt, arrived time.Duration, size int, fresh, now time.Duration) {
	delay := arrived - sentAt
	switch {
	case !d.known:
		d.known, d.least, d.turned = true, [2]time.Duration{delay, delay}, now
	case now-d.turned > baseFor:
		d.least, d.turned = [2]time.Duration{delay, d.least[0]}, now
	}
	d.least[0] = min(d.least[0], delay)
	d.noted, d.latest, d.sent = now, delay-d.base(), sentAt
	if d.latest <= tolerated {
		d.busy = queue{}
		return
	}
	if sentAt < fresh {
		return
	}
	p := &d.busy.span
	if p.packets == 0 {
		*p = span{packets: 1, from: arrived, to: arrived, first: d.latest, last: d.latest, least: d.latest}
		return
	}
	p.packets++
	p.bytes += size // without the first: it takes its time before from
	p.to, p.last, p.least = max(p.to, arrived), d.latest, min(p.least, d.latest)
}

func (d *delays) base() time.Duration { return min(d.least[0], d.least[1]) }

// waiting reports whether the packet before had to wait.
func (d *delays) waiting(now time.Duration) bool { return d.latest > tolerated && now-d.noted < stale }

// overuse reports whether more is sent than the line carries, and what it carries, in bits/s. sending is what was sent lately.
func (d *delays) overuse(sending int64, now time.Duration) (rate int64, over bool) {
	q := &d.busy
	length := q.to - q.from
	if q.packets < quickPackets || length < quickPeriod {
		return 0, false
	}
	rate = int64(q.bytes) * 8 * int64(time.Second) / int64(length)
	if float64(rate) < short*float64(sending) && q.last-q.first >= length/steep {
		d.busy = queue{}
		return rate, true
	}
	if length < longPeriod {
		return 0, false
	}
	grows := q.least - q.before
	switch {
	case q.before == 0:
	case grows > change:
		d.busy = queue{}
		return rate, true
	case grows < -change: // it empties
		q.constant = 0
	default:
		q.constant++
	}
	if q.constant == unchanged {
		d.accept(now)
		return 0, false
	}
	d.busy = queue{before: q.least, constant: q.constant, span: span{packets: 1, from: q.to, to: q.to, first: q.last, last: q.last, least: q.last}}
	return 0, false
}

// accept takes what packets wait now for the least. A queue that is ours grows while too much is sent, and empties when less is: one that does neither is a way
// that has become longer, or is kept full by others.
func (d *delays) accept(now time.Duration) {
	lowest := d.base() + d.busy.least
	d.least, d.turned = [2]time.Duration{lowest, lowest}, now
	d.busy = queue{}
}
