package bandwidth

import "time"

const (
	lowest      = 30_000 // bits/s: less is not believed
	kept        = 0.85   // of what a line carries, so that its queue empties (draft-ietf-rmcat-gcc-02 §5.5)
	smoothing   = 1.5    // of the budget is how fast video leaves
	growth      = 0.08   // per second, while what is allowed is used (§5.5)
	usedShare   = 0.8    // of the estimate is sent while it is used
	reserve     = 0.1    // of the estimate must be free for the limit to end, as for layers that come back
	calmFor     = 3 * time.Second
	silence     = 1500 * time.Millisecond // without a report, though packets are sent, is a line that is down
	sampleEvery = 50 * time.Millisecond
	samples     = 12
	longestWait = time.Second // is believed, but for more that was reported: part of what was sent may be lost
)

// An Estimator finds out how much one receiver may be sent, in bits/s of datagrams that carry transport-wide sequence numbers: what else goes the
// same way, sound, is not in it. It is open, without a limit, until more is sent than the line carries, and again once all that is wanted fits. The
// zero value is ready; not safe for concurrent use. Times are since the origin of those that Sent was told.
//
//	open --too much sent--> limited --all that is wanted fits, for a while--> open
type Estimator struct {
	Sent Sent

	delays delays
	losses losses
	probe  probe
	rates  rates
	clock  clock

	limited  bool
	asked    bool          // Want was called
	estimate int64         // bits/s, while limited
	wanted   int64         // bits/s, for all that is withheld too
	changed  time.Duration // when the estimate was lowered: packets sent since then show what came of it
	before   int64         // estimate before it was lowered for losses
	grown    time.Duration
	heard    time.Duration // last report; 0 = none ever
	newest   uint16        // number in it
	reported uint64        // Sent.bytes then
	unknown  int           // bytes sent after that packet, until then
}

// Budget is how many bits/s may be sent; false means that there is no limit.
func (e *Estimator) Budget() (bitrate int64, limited bool) { return e.estimate, e.limited }

// Pace is how fast video may leave, in bits/s: somewhat faster than the budget, so that a key frame neither fills the queue of the line at once nor
// takes for ever. 0 is without a limit.
func (e *Estimator) Pace() int64 {
	if !e.limited {
		return 0
	}
	pace := int64(smoothing * float64(e.estimate))
	if e.probe.phase == sendingProbe {
		pace = max(pace, e.probe.rate)
	}
	return pace
}

// Lossy says whether the line loses packets by its nature, and not because there are too many: what is sent again is lost again as often, and more may be sent.
func (e *Estimator) Lossy(now time.Duration) bool {
	return !e.limited && e.losses.lately >= lossy && !e.delays.waiting(now)
}

// Waits is how long a packet that is sent now will wait in the queue before the line, while there is a limit: as long as the newest one that was reported did, and what was sent
// since then takes, less the time that has passed. It is 0 where that is not known, or no more than jitter.
func (e *Estimator) Waits(now time.Duration) time.Duration {
	d := &e.delays
	if !e.limited || !e.Reports() || now-d.noted >= stale+d.latest {
		return 0
	}
	behind := float64(e.unknown) + float64(e.Sent.bytes-e.reported)
	w := d.latest + time.Duration(behind*8*kept/float64(e.estimate)*float64(time.Second)) - (now - d.sent)
	if w <= tolerated {
		return 0
	}
	return min(w, max(longestWait, d.latest*5/4))
}

// Reports says whether the receiver sends transport-wide feedback at all.
func (e *Estimator) Reports() bool { return e.heard != 0 }

// Want says how many bits/s would be sent if nothing were withheld for the budget: how far it is worth to look for more.
func (e *Estimator) Want(bitrate int64) { e.wanted, e.asked = bitrate, true }

// Feedback takes an RTCP packet of transport-wide feedback, header and all. What is malformed is ignored.
func (e *Estimator) Feedback(b []byte, now time.Duration) {
	seen := false
	_ = readFeedback(b, func(r receipt) { // a malformed rest says nothing
		p := e.Sent.find(r.number)
		if p == nil || p.size&flagFound != 0 {
			return
		}
		seen = true
		at := p.when(now)
		e.losses.note(p, r.arrived, at)
		if !r.arrived {
			p.size |= flagLost
			return
		}
		p.size |= flagFound
		arrived := e.clock.extend(r.at, roundTime)
		e.probe.note(r.number, p.length(), arrived)
		e.delays.note(at, arrived, p.length(), e.changed, now)
		if r.number-e.newest < 1<<15 || e.heard == 0 {
			e.newest = r.number
		}
	})
	if !seen {
		return
	}
	e.heard, e.reported = now, e.Sent.bytes
	e.rates.sample(e.Sent.bytes, now)
	e.judge(now)
	if e.limited {
		e.unknown = e.Sent.after(e.newest)
	}
}

// judge draws the conclusions from a report.
func (e *Estimator) judge(now time.Duration) {
	sending := e.rates.rate()
	if sent, carried, done := e.probe.finish(e.newest, e.losses.usual, now); done {
		e.probed(sent, carried, now)
	}
	if rate, over := e.delays.overuse(sending, now); over {
		e.lower(int64(kept*float64(rate)), now)
	}
	switch v, w := e.losses.judge(sending); v {
	case tooMuch:
		e.before = w.sending
		if e.limited {
			e.before = max(e.estimate, w.sending)
		}
		e.lower(int64(kept*float64(w.rate)/(1-e.losses.usual)), now)
	case unrelated:
		if e.limited {
			e.estimate = max(e.estimate, e.before)
		}
	}
	e.raise(sending, now)
}

// lower limits what is sent, at once. What was lower already stays.
func (e *Estimator) lower(bitrate int64, now time.Duration) {
	bitrate = max(bitrate, lowest)
	if e.limited {
		bitrate = min(bitrate, e.estimate)
	}
	e.limited, e.estimate = true, bitrate
	e.changed, e.grown = now, now
	e.probe.refuted(now)
	e.losses.restart(now)
}

// raise lets the estimate grow while it is used, and ends the limit that nothing is withheld for any more.
func (e *Estimator) raise(sending int64, now time.Duration) {
	passed := now - e.grown
	e.grown = now
	if !e.limited || e.delays.waiting(now) {
		return
	}
	if float64(sending) > usedShare*float64(e.estimate) {
		e.estimate += int64(growth * float64(e.estimate) * passed.Seconds())
	}
	if e.asked && float64(e.estimate)*(1-reserve) >= float64(e.wanted) && now-e.changed > calmFor {
		e.limited = false
	}
}

// probed takes the result of a probe. Also one that was too much tells what the line carries: if that is much more than was known, the next is as near as
// after one that was not.
func (e *Estimator) probed(sent, carried int64, now time.Duration) {
	if !e.limited {
		return
	}
	before, passed := e.estimate, float64(carried) >= probeCarried*float64(sent)
	if passed {
		e.estimate = max(before, min(sent, carried))
	} else {
		e.estimate = max(before, int64(kept*float64(carried)))
	}
	if passed || float64(e.estimate) > probeGain*float64(before) {
		e.probe.passed(now)
	} else {
		e.probe.failed(now)
	}
}

// REMB takes the receiver's own estimate (draft-alvestrand-rmcat-remb): all there is for one that does not report on single packets.
func (e *Estimator) REMB(bitrate int64, now time.Duration) {
	if e.heard != 0 {
		return
	}
	e.rates.sample(e.Sent.bytes, now)
	switch {
	case e.limited && bitrate > e.estimate:
		e.estimate = bitrate
		e.raise(0, now)
	case e.limited || bitrate < e.rates.rate():
		e.lower(bitrate, now)
		e.estimate = max(bitrate, lowest)
	}
}

// Tick does what is due without a report, and returns how many bytes of padding to send now. It is to be called every 10 ms while there is a limit,
// and now and then otherwise.
func (e *Estimator) Tick(now time.Duration) (padding int) {
	if e.heard != 0 && now-e.heard > silence && e.Sent.bytes > e.reported {
		e.rates.sample(e.Sent.bytes, now)
		bitrate := e.rates.rate()
		if e.limited {
			bitrate = e.estimate
		}
		e.lower(bitrate/2, now)
		e.heard = now // once more after as long again
	}
	if !e.limited {
		return 0
	}
	if sent, carried, done := e.probe.finish(e.newest, e.losses.usual, now); done {
		e.probed(sent, carried, now)
	}
	if e.probe.phase == noProbe && now >= e.probe.next && float64(e.estimate)*(1-reserve) < float64(e.wanted) && !e.delays.waiting(now) && e.Reports() {
		e.probe.start(min(2*e.estimate, e.wanted*3/2), &e.Sent, now)
	}
	return e.probe.due(&e.Sent, now)
}

// rates is how much is sent, over the last half second or so.
type rates struct {
	at    [samples]time.Duration
	bytes [samples]uint64
	n     int // samples taken
}

func (r *rates) sample(bytes uint64, now time.Duration) {
	if r.n > 0 && now-r.at[(r.n-1)%samples] < sampleEvery {
		return
	}
	r.at[r.n%samples], r.bytes[r.n%samples] = now, bytes
	r.n++
}

// rate is in bits/s, 0 before two samples.
func (r *rates) rate() int64 {
	if r.n < 2 {
		return 0
	}
	first, last := max(r.n-samples, 0)%samples, (r.n-1)%samples
	return int64(r.bytes[last]-r.bytes[first]) * 8 * int64(time.Second) / int64(r.at[last]-r.at[first])
}

// clock turns the other side's times, which begin anew after a round, into ones that do not.
type clock struct {
	known bool
	last  time.Duration
}

const roundTime = (1 << 24) * referenceUnit

func (c *clock) extend(at, round time.Duration) time.Duration {
	if !c.known {
		c.known, c.last = true, at
		return at
	}
	d := (at - c.last) % round
	switch {
	case d > round/2:
		d -= round
	case d < -round/2:
		d += round
	}
	at = c.last + d
	c.last = max(c.last, at)
	return at
}
