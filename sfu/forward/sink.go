package forward

// Hot path: see ARCHITECTURE.md#packet

import (
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/packet"
)

// A queue before a receiver's line.
const (
	keptWait = 150 * time.Millisecond // what is still in it when the key frame after a Cut is asked for
	maxKept  = 900 * time.Millisecond // after the Cut it is, however long the queue
)

// A Sink is one receiver of a Source. Safe for concurrent use.
type Sink struct {
	// First what each packet needs, close together: when the next one comes a receiver's state is seldom in the processor's cache any more.
	mu     sync.Mutex
	source *Source
	writer Writer

	closed    bool
	inputTime uint32 // input timestamp of the newest packet of the run
	choice    selection
	splice    splice
	journal   journal
	rates     meter
	counts    SinkStats

	pictures    pictures
	frames      frames
	reports     reports
	keyFrame    time.Duration // when one was last forwarded; 0 never
	wait        time.Duration // as SetWait said
	lane        Lane          // nil = none
	rtx         bool
	writeErrors atomic.Uint64
}

// hotLines is how many cache lines of a Sink each packet needs.
const hotLines = 4

func newSink(s *Source, w Writer, o SinkOptions) *Sink {
	k := &Sink{source: s, writer: w, lane: laneOf(w), rtx: o.RTX}
	k.choice = selection{target: o.Target, paused: o.Paused, stream: -1}
	if !s.options.Video {
		k.choice.target = MaxTemporal(0)
	}
	if k.choice.target.Spatial < 0 {
		k.choice.target, k.choice.paused = MaxTemporal(maxStreams-1), true
	}
	k.journal.limit = audioSent
	if s.options.Video {
		k.journal.limit = videoSent
	}
	return k
}

// SetTarget says which layer to forward at best; NoLayer pauses. For audio any other layer means "play". The new layer begins at its next
// key frame, which is asked for at once; until then the old one goes on.
func (k *Sink) SetTarget(target Layer) { k.aim(target, 0) }

// aim is SetTarget with a key frame that may come so much later.
func (k *Sink) aim(target Layer, patience time.Duration) {
	k.mu.Lock()
	if target.Spatial < 0 {
		k.choice.paused, k.choice.stream = true, -1
		k.mu.Unlock()
		return
	}
	k.choice.paused = false
	if k.source.options.Video {
		k.choice.target = target
	}
	k.mu.Unlock()
	k.restart(patience)
}

// Cut is SetTarget for a receiver that cannot take what it gets: what lies above the target stops at once, if what is to take its place arrives. Until that begins,
// with a key frame, nothing is sent, and what was sent before is not sent again. Where there is a long queue before the receiver that key frame is asked for a little later: what
// came into the full queue would be lost in part. What stands in it is the picture meanwhile.
func (k *Sink) Cut(target Layer) {
	s := k.source
	live := s.live(s.now())
	var patience time.Duration
	k.mu.Lock()
	stream := k.choice.stream
	if target.Spatial >= 0 && !s.options.SVC && stream > target.Spatial && live&(1<<target.Spatial) != 0 {
		k.choice.stream = -1
		clear(k.journal.slots)
		patience = min(max(k.wait-keptWait, 0), maxKept)
	}
	k.mu.Unlock()
	k.aim(target, patience)
}

// SetWait says how long what is sent now waits in a queue on its way to the receiver, beyond the round trip: what it asks for again is sent once in that time, and Cut lets it
// become shorter first.
func (k *Sink) SetWait(wait time.Duration) {
	k.mu.Lock()
	k.wait = wait
	k.mu.Unlock()
}

// restart asks for the key frame with which the chosen layer can begin, unless that is what is being forwarded.
func (k *Sink) restart(patience time.Duration) {
	s := k.source
	if !s.options.Video {
		return
	}
	at := s.now()
	k.mu.Lock()
	want := k.want(s.live(at))
	needed := !k.closed && !k.choice.paused && (want != k.choice.stream || s.options.SVC && k.choice.limit.Spatial < k.choice.target.Spatial)
	k.mu.Unlock()
	if needed {
		s.needKeyFrame(want, at, patience)
	}
}

// want returns the simulcast stream that serves the receiver best now.
func (k *Sink) want(live uint8) int8 {
	if k.source.options.SVC {
		return 0
	}
	return best(k.choice.target.Spatial, live, int8(len(k.source.streams)))
}

// push offers a packet of any of the Source's streams. It reports whether the receiver gets it, and whether it waits for a key frame of that stream.
func (k *Sink) push(in *inbound, work *scratch) (taken, waiting bool) {
	k.mu.Lock()
	e, taken, waiting := k.route(in)
	if !taken {
		k.mu.Unlock()
		return false, waiting
	}
	o := work.build(&e, in.packet, k.source.options.Codec, &in.vp8)
	o.Fill = in.fill
	if k.source.options.Video {
		k.journal.add(&e)
	}
	k.counts.Packets++
	k.counts.Bytes += uint64(len(o.Head) + len(o.Payload))
	k.rates.add(len(o.Head)+len(o.Payload), in.at)
	k.mu.Unlock()
	if k.writer.WriteRTP(o) != nil {
		k.writeErrors.Add(1)
	}
	return true, waiting
}

// route decides about a packet: whether the receiver gets it, and as what.
func (k *Sink) route(in *inbound) (e sent, ok, waiting bool) {
	if k.closed || k.choice.paused {
		return e, false, false
	}
	if in.stream == k.choice.stream && in.epoch != k.choice.epoch {
		k.choice.stream = -1 // the sender began anew
	}
	if in.stream != k.choice.stream {
		if begun, waiting := k.join(in); !begun {
			return e, false, waiting
		}
	}
	o := &k.source.options
	if !in.newest {
		return k.routeLate(in)
	}
	if o.Video {
		k.choice.follow(in, in.packet.Timestamp != k.inputTime)
		waiting = o.SVC && k.choice.limit.Spatial < k.choice.target.Spatial
	}
	k.inputTime = in.packet.Timestamp
	if in.padding || !k.choice.within(in, o.SVC) {
		k.splice.hold(in.seq, k.pictures.hold(in))
		k.counts.Dropped++
		return e, false, waiting
	}
	e.seq, e.timestamp = k.splice.forward(in.seq, in.packet.Timestamp, in.at)
	k.describe(&e, in)
	if in.frame.KeyFrame {
		k.keyFrame = in.at
	}
	return e, true, waiting
}

// routeLate handles a packet from before the newest one: it fills the gap that was left for it.
func (k *Sink) routeLate(in *inbound) (e sent, ok, waiting bool) {
	if e.seq, e.timestamp, ok = k.splice.late(in.seq, in.packet.Timestamp, in.at); !ok {
		return e, false, false
	}
	k.describe(&e, in)
	if in.padding || !k.choice.within(in, k.source.options.SVC) {
		e.flags |= flagPadding // its number is promised: fill the gap with nothing
	}
	return e, true, false
}

// join begins a run with the packet of another stream than the present one, if the receiver can and should begin there.
func (k *Sink) join(in *inbound) (begun, waiting bool) {
	o := &k.source.options
	streams := int8(len(k.source.streams))
	if o.Video {
		if !in.frame.KeyFrame || !in.newest || in.padding || !o.SVC && !k.choice.takes(in.stream, in.live, streams) {
			return false, in.stream == k.want(in.live) && in.newest
		}
	} else if !in.newest {
		return false, false
	}
	mapped, known := k.align(in)
	mapped = k.splice.resume(in.packet.Timestamp, mapped, known, o.ClockRate, in.at)
	k.splice.begin(in.seq, in.packet.Timestamp, mapped, k.pictures.begin(in))
	k.frames.begin(in)
	if k.reports.stream != in.stream && k.reports.epoch != 0 {
		k.counts.Switches++
	}
	k.reports.stream, k.reports.epoch = in.stream, in.epoch
	k.choice.begin(in)
	return true, false
}

// align returns where the packet's timestamp lies on the receiver's time line, if that is known: the stream is the one forwarded last,
// or the publisher's reports tie the two together.
func (k *Sink) align(in *inbound) (mapped uint32, known bool) {
	r := &k.reports
	if r.epoch == 0 {
		return 0, false
	}
	timestamp := in.packet.Timestamp
	if r.stream == in.stream {
		return timestamp - k.splice.shift, r.epoch == in.epoch
	}
	from, to := k.source.streams[in.stream].clock.Load(), k.source.streams[r.stream].clock.Load()
	if from == nil || to == nil {
		return 0, false
	}
	rate := k.source.options.ClockRate
	return to.rtp + uint32(ntpTicks(from.ntp-to.ntp, rate)) + (timestamp - from.rtp) - k.splice.shift, true
}

// describe completes what the receiver's packet is.
func (k *Sink) describe(e *sent, in *inbound) {
	o := &k.source.options
	e.source, e.stream, e.first = in.seq, in.stream, milliseconds(in.at)
	e.flags |= flagUsed
	if o.SVC {
		e.spatial, e.temporal = k.choice.limit.Spatial, k.choice.limit.Temporal
		e.flags |= flagLimited
		if in.frame.End && in.frame.Spatial == e.spatial {
			e.flags |= flagEnd
		}
	}
	switch {
	case o.Codec == codec.VP8:
		if c := k.splice.cutAt(in.seq); c != nil {
			k.pictures.rewrite(e, in, c.picture)
		}
	case in.frame.HasNumber:
		k.frames.rewrite(e, in)
	}
}

// Nack takes the receiver's request for packets to be sent again (RFC 4585 §6.2.1), by the sequence numbers it was sent. Where the Writer has a Lane it
// must be called there. It returns those that were sent again, in the room of seqs.
func (k *Sink) Nack(seqs []uint16, now time.Time) (sent []uint16) {
	at := k.source.since(now)
	work := scratches.Get().(*scratch)
	sent = seqs[:0]
	for _, seq := range seqs {
		if k.resend(seq, at, false, work) {
			sent = append(sent, seq)
		}
	}
	work.put()
	return sent
}

// Repeat sends what Nack sent again once more, though nobody has asked again yet. It is to be called where Nack is.
func (k *Sink) Repeat(seqs []uint16, now time.Time) {
	at := k.source.since(now)
	work := scratches.Get().(*scratch)
	for _, seq := range seqs {
		k.resend(seq, at, true, work)
	}
	work.put()
}

func (k *Sink) resend(seq uint16, at time.Duration, unasked bool, work *scratch) bool {
	k.mu.Lock()
	if !unasked {
		k.counts.Nacked++
	}
	found := k.journal.find(seq)
	if found == nil && !k.source.options.Video {
		found = k.recall(seq, at)
	}
	var before sent
	if found != nil {
		before = *found
	}
	switch {
	case k.closed:
		k.mu.Unlock()
		return false
	case found == nil:
		k.mu.Unlock()
		k.lacks(seq, at)
		return false
	case !unasked && !found.resendable(milliseconds(at), k.reports.answerTime(k.wait)):
		k.mu.Unlock()
		return false
	}
	e := *found
	k.mu.Unlock()

	st := k.source.streams[e.stream]
	var p *packet.Packet
	if e.flags&flagPadding == 0 {
		st.mu.Lock()
		p = st.history.Get(e.source)
		st.mu.Unlock()
		if p == nil {
			k.lacks(seq, at)
			return false
		}
		defer p.Release()
	}
	var vp8 codec.VP8Descriptor
	if p != nil && k.source.options.Codec == codec.VP8 {
		vp8, _ = codec.ParseVP8(p.Payload)
	}
	o := work.build(&e, p, k.source.options.Codec, &vp8)
	o.Retransmission = true
	if k.writer.WriteRTP(o) != nil {
		k.writeErrors.Add(1)
		k.takeBack(&before)
		return false
	}
	k.mu.Lock()
	k.counts.Retransmitted++
	k.counts.Repeated += uint64(len(o.Head) + len(o.Payload))
	k.mu.Unlock()
	return true
}

// lacks notes that a packet was asked for that is not at hand. A picture that misses what was sent too long ago does not go on without a key frame, for which
// receivers would ask only when they have waited in vain for seconds.
func (k *Sink) lacks(seq uint16, at time.Duration) {
	k.mu.Lock()
	k.counts.Unavailable++
	stream := k.choice.stream
	needed := k.source.options.Video && stream >= 0 && k.journal.had(seq) && at-k.keyFrame > historyAge
	k.mu.Unlock()
	if needed {
		k.source.needKeyFrame(stream, at, 0)
	}
}

// takeBack notes that a packet was not sent again after all: the next request is answered.
func (k *Sink) takeBack(before *sent) {
	k.mu.Lock()
	if e := k.journal.find(before.seq); e != nil {
		e.resends, e.until = before.resends, before.until
	}
	k.mu.Unlock()
}

// recall notes what a packet of sound was when it is asked for again: the run that it is of tells, and to note each for everyone who hears it would cost
// more than all the rest. It is nil where neither the run nor the history has it.
func (k *Sink) recall(seq uint16, at time.Duration) *sent {
	source, ok := k.splice.source(seq)
	if !ok || k.choice.stream < 0 {
		return nil
	}
	st := k.source.streams[k.choice.stream]
	st.mu.Lock()
	p := st.history.Get(source)
	st.mu.Unlock()
	if p == nil {
		return nil
	}
	defer p.Release()
	k.journal.add(&sent{source: source, timestamp: p.Timestamp - k.splice.shift, first: milliseconds(at), seq: seq, stream: k.choice.stream, flags: flagUsed})
	return k.journal.find(seq)
}

// RequestKeyFrame takes the receiver's PLI or FIR (RFC 4585 §6.3.1, RFC 5104 §4.3.1).
func (k *Sink) RequestKeyFrame(now time.Time) {
	at := k.source.since(now)
	k.mu.Lock()
	k.counts.KeyFrameWanted++
	index := k.choice.stream
	if index < 0 {
		index = k.want(k.source.live(at))
	}
	rtt := k.reports.rtt
	if rtt == 0 {
		rtt = defaultRTT
	}
	// One that was sent while the request was on its way answers it.
	ignore := k.closed || k.choice.paused || k.keyFrame != 0 && at-k.keyFrame < rtt
	k.mu.Unlock()
	if !ignore && k.source.options.Video {
		k.source.needKeyFrame(index, at, 0)
	}
}

// Current returns the layer being forwarded, NoLayer while there is none.
func (k *Sink) Current() Layer {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.currentLocked()
}

func (k *Sink) currentLocked() Layer {
	switch {
	case k.choice.stream < 0:
		return NoLayer
	case k.source.options.SVC:
		return k.choice.limit
	default:
		return Layer{k.choice.stream, k.choice.limit.Temporal}
	}
}

// Stats returns a snapshot of the counts.
func (k *Sink) Stats() SinkStats {
	at := k.source.now()
	k.mu.Lock()
	defer k.mu.Unlock()
	stats := k.counts
	stats.Bitrate, stats.WriteErrors = k.rates.bitrate(at), k.writeErrors.Load()
	stats.Current, stats.Target, stats.RTT = k.currentLocked(), k.choice.target, k.reports.rtt
	if k.choice.paused {
		stats.Target = NoLayer
	}
	return stats
}

// Detach takes the receiver off the Source. Detaching twice is fine. A packet on its way to the Writer still arrives there.
func (k *Sink) Detach() {
	k.source.remove(k)
	k.close()
}

func (k *Sink) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed, k.choice.stream, k.journal.slots = true, -1, nil
}

func milliseconds(at time.Duration) uint32 { return uint32(at / time.Millisecond) }
