package bandwidth

import "time"

const (
	tolerated = 40 * time.Millisecond // of waiting above the least: jitter of ordinary lines
	baseFor   = 30 * time.Second      // the least delay is that of the last one or two of these: clocks drift, routes change

	quickPeriod  = 80 * time.Millisecond // of waiting packets shows the rate of the line, if there are
	quickPackets = 4
	standing     = 300 * time.Millisecond // of waiting that does not become less is too much in any case
	draining     = 10 * time.Millisecond  // less waiting than a period ago is a queue that empties
	foreign      = 4 * time.Second        // after so long without effect the queue is not ours

	// short is the share of what was sent lately that a line must carry, while packets wait, not to be too slow. A key frame waits too, but at
	// the line's full rate.
	short = 0.8
)

// delays follows how long packets wait on their way: their delay above the least one. While all wait there is a queue, and they arrive as fast as
// the line is: that is its rate. Times of the receiver's clock differ from ours by an unknown amount, which the least delay takes out.
type delays struct {
	known  bool
	least  [2]time.Duration // of this period and the one before
	turned time.Duration    // when this period began

	calm   time.Duration // when a packet came that had not waited
	latest time.Duration // how long the packet before waited
	busy   period
}

// period is a time during which all packets waited. By the receiver's clock.
type period struct {
	packets, bytes int
	from, to       time.Duration
	first, last    time.Duration // how long they waited
	lowest         time.Duration // delay
}

// note takes a packet that arrived. Of those sent before fresh it is known that they wait.
func (d *delays) note(sentAt, arrived time.Duration, size int, fresh, now time.Duration) {
	delay := arrived - sentAt
	switch {
	case !d.known:
		d.known, d.least, d.turned, d.calm = true, [2]time.Duration{delay, delay}, now, now
	case now-d.turned > baseFor:
		d.least, d.turned = [2]time.Duration{delay, d.least[0]}, now
	}
	d.least[0] = min(d.least[0], delay)
	d.latest = delay - d.base()
	if d.latest <= tolerated {
		d.calm, d.busy = now, period{}
		return
	}
	if sentAt < fresh {
		return
	}
	p := &d.busy
	if p.packets == 0 {
		*p = period{packets: 1, from: arrived, to: arrived, first: d.latest, last: d.latest, lowest: delay}
		return
	}
	p.packets++
	p.bytes += size // without the first: it takes its time before from
	p.to, p.last, p.lowest = max(p.to, arrived), d.latest, min(p.lowest, delay)
}

func (d *delays) base() time.Duration { return min(d.least[0], d.least[1]) }

// waiting reports whether the packet before had to wait.
func (d *delays) waiting() bool { return d.latest > tolerated }

// overuse reports whether more is sent than the line carries, and what it carries, in bits/s. sending is what was sent lately.
func (d *delays) overuse(sending int64) (rate int64, over bool) {
	p := &d.busy
	span := p.to - p.from
	if p.packets < quickPackets || span < quickPeriod {
		return 0, false
	}
	rate = int64(p.bytes) * 8 * int64(time.Second) / int64(span)
	switch {
	case float64(rate) < short*float64(sending) && p.last >= p.first:
		over = true
	case span >= standing:
		over = p.last > p.first-draining
	default:
		return 0, false
	}
	if !over { // it empties: go on watching from here
		d.busy = period{packets: 1, from: p.to, to: p.to, first: p.last, last: p.last, lowest: p.lowest}
	}
	return rate, over
}

// accept takes what packets wait now for the least: others keep the queue full, or the way has become longer.
func (d *delays) accept(now time.Duration) {
	if lowest := d.busy.lowest; d.busy.packets > 0 {
		d.least = [2]time.Duration{lowest, lowest}
	}
	d.calm, d.busy, d.turned = now, period{}, now
}
