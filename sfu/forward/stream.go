package forward

// Hot path: see ARCHITECTURE.md#packet

import (
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/packet"
)

const (
	videoHistory   = 512 // packets
	audioHistory   = 64
	historyAge     = time.Second            // who has not asked again by then has frozen, and wants a key frame
	unforwardedAge = 200 * time.Millisecond // of a stream that nobody gets: a receiver may be about to begin with it

	restartGap     = 3000 // RFC 3550 §A.1 MAX_DROPOUT: a longer jump is a sender that began anew
	restartPackets = 3    // so many packets in a row from before all memory are one, too

	liveAfter     = 3 // packets
	minPatience   = 500 * time.Millisecond
	longQueue     = 300 * time.Millisecond // on the way to us
	missedFrames  = 3                      // of the lowest stream, while there is none of a higher one
	missedFor     = 200 * time.Millisecond
	maxPatience   = 4 * time.Second
	longestPeriod = time.Second // between frames, for the estimate of the frame rate
	forgetting    = 1024        // frames

	endMargin    = 8 * time.Millisecond
	spreadFading = 64              // packets
	lossyFor     = 5 * time.Second // since a loss
)

// stream is one incoming RTP stream of a Source: the whole track or one simulcast layer.
type stream struct {
	rate   uint32  // Hz
	lowest *stream // of the track; nil for itself

	// Read without the lock by everyone. Times are since the Source's origin.
	arrived  atomic.Int64          // last packet, 0 if none
	patience atomic.Int64          // how long a silence still counts as live
	streak   atomic.Uint32         // packets since the last silence
	frames   atomic.Uint32         // begun so far
	beside   atomic.Uint32         // frames of the lowest stream when the last one began
	queue    atomic.Int64          // how long the last frame waited on its way
	taken    atomic.Int64          // when a receiver got a packet of it last, or a key frame came with which one begins; 0 if never
	clock    atomic.Pointer[clock] // from the last sender report

	mu         sync.Mutex
	ssrc       uint32
	epoch      uint32 // counts restarts; 0 before the first packet
	order      order
	reception  packet.Reception
	history    packet.History
	losses     packet.Losses
	keyFrame   uint64 // the first packet of the newest one, of a video
	end        end
	dependency *codec.Dependency // nil if the codec has none
	pace       pace
	keys       keyRequests
	waits      *waits // of the Source
	waiting    bool   // this stream is one of them
	unended    bool   // and one of these
	counts     LayerStats
	rates      meter
}

// order puts the packets of a stream in order.
type order struct {
	unwrapper packet.Unwrapper
	arrivals  packet.LossBitmap
	stray     uint16 // the number after the last ancient one
	strays    int    // how many of them came in a row
	picture   uint16 // highest VP8 picture id, 15 bits, if pictured
	pictured  bool
}

// pace is the time between the frames of a stream.
type pace struct {
	timestamp uint32
	at        time.Duration // when timestamp was first seen
	period    time.Duration // smoothed
	late      time.Duration // by how much later than lately frames come: what waits on the way
}

// waits is how many streams of a Source wait for something.
type waits struct {
	outstanding atomic.Int32 // lost packets or key frames
	unended     atomic.Int32 // the rest of a frame
}

// end is whether the newest frame of a video has come to its end. What is lost of that shows only with the next frame, too late to be asked for more
// than once or twice.
type end struct {
	seq    uint64        // of the newest packet
	at     time.Duration // when it came
	misses bool          // it does not end its frame
	closed bool          // the one after it is not to be asked for, or was
	spread time.Duration // the longest time from such a packet to the next one lately
	lost   time.Duration // when a gap showed that packets were lost last, 0 if never
}

// note takes the newest packet of a stream. On a line that loses nothing the rest of a frame will come: if it is late the line may just have become narrow.
func (e *end) note(p *packet.Packet, seq uint64, at time.Duration) {
	if e.misses && seq == e.seq+1 && !p.Retransmitted {
		e.spread = max(at-e.at, e.spread-e.spread/spreadFading)
	}
	e.seq, e.at, e.misses, e.closed = seq, at, !p.Marker && len(p.Payload) > 0, at-e.lost > lossyFor
}

// open reports whether more of the frame may come, or may have been lost.
func (e *end) open() bool { return e.misses && !e.closed }

// overdue reports, once, that the next packet of the frame should have come.
func (e *end) overdue(at time.Duration) bool {
	if !e.open() || at-e.at < 2*e.spread+endMargin {
		return false
	}
	e.closed = true
	return true
}

// clock is what a sender report says: ntp (RFC 3550 §4) was the RTP time rtp, and the report came at.
type clock struct {
	ntp uint64
	rtp uint32
	at  time.Duration
}

// inbound is one packet on its way through: what the Source found out, for all Sinks.
type inbound struct {
	packet  *packet.Packet
	frame   codec.Frame
	vp8     codec.VP8Descriptor
	seq     uint64 // extended
	picture uint16 // VP8 picture id in 15 bits, also where the publisher uses 7
	epoch   uint32
	stream  int8
	live    uint8 // bit per stream
	newest  bool  // follows all others of its stream
	padding bool  // nothing but padding
	fill    uint8 // by which the longest packet of the stream in its batch is longer, at most MaxFill
	at      time.Duration
}

func newStream(o *SourceOptions, waits *waits) *stream {
	st := &stream{rate: o.ClockRate, reception: *packet.NewReception(o.ClockRate), waits: waits}
	st.patience.Store(int64(minPatience))
	if o.Video {
		st.history = *packet.NewHistory(videoHistory, historyAge)
	} else {
		st.history = *packet.NewHistory(audioHistory, historyAge)
	}
	if o.Codec == codec.VP9 || o.Codec == codec.AV1 {
		st.dependency = new(codec.Dependency)
	}
	return st
}

// accept notes an arriving packet and fills in what it is; false means that it goes no further.
func (st *stream) accept(in *inbound, o *SourceOptions) bool {
	p := in.packet
	st.mu.Lock()
	defer st.mu.Unlock()
	defer st.waitLocked()
	if !st.place(in) {
		return false
	}
	if o.Video && in.newest {
		st.end.note(p, in.seq, in.at)
	}
	in.epoch = st.epoch
	in.padding = o.Video && len(p.Payload) == 0
	if !in.padding && !st.describe(in, o.Codec) {
		return false
	}
	st.observe(in, o.Video)
	st.counts.Packets++
	st.counts.Bytes += uint64(len(p.Payload))
	st.rates.add(len(p.Payload), in.at)
	if !in.padding {
		st.history.SetAge(st.age(in.at))
		st.history.Add(in.seq, p, in.at)
	}
	return true
}

// giveUpLocked asks for nothing that is missing by now.
func (st *stream) giveUpLocked() {
	st.losses.Clear()
	st.end.closed = true
}

// mendLocked has a key frame asked for if no other way is left: a packet after the last one was asked for in vain, and receivers would find out only after
// seconds. Where frames queue up before the publisher's line it would come too late, and make that longer.
func (st *stream) mendLocked(at time.Duration) {
	if st.losses.GivenUp() > st.keyFrame && !st.late() {
		st.keys.need(at, 0)
	}
}

// waitLocked follows every change of what is outstanding: lost packets, key frames.
func (st *stream) waitLocked() {
	count(&st.waits.outstanding, &st.waiting, st.losses.Outstanding() > 0 || st.keys.waiting)
	count(&st.waits.unended, &st.unended, st.end.open())
}

// count keeps n at how many streams are in a state, of which one that was in it or not now is or is not.
func count(n *atomic.Int32, was *bool, is bool) {
	if is == *was {
		return
	}
	if *was = is; is {
		n.Add(1)
	} else {
		n.Add(-1)
	}
}

// age is for how long packets are kept. Most of what a call takes up in memory is this: packets that are nobody's go soon.
func (st *stream) age(at time.Duration) time.Duration {
	if at-time.Duration(st.taken.Load()) > historyAge {
		return unforwardedAge
	}
	return historyAge
}

// expireLocked forgets what nobody will ask for again.
func (st *stream) expireLocked(at time.Duration) {
	st.history.SetAge(st.age(at))
	st.history.Expire(at)
}

// place finds the packet's position in the stream, and what is missing before it.
func (st *stream) place(in *inbound) bool {
	p := in.packet
	if st.epoch == 0 || p.SSRC != st.ssrc {
		if st.epoch > 0 {
			st.clock.Store(nil) // it was the other one's
		}
		st.restart(in)
		st.ssrc = p.SSRC
		return true
	}
	in.seq = st.order.unwrapper.Unwrap(p.SequenceNumber)
	arrival, gap := st.order.arrivals.Receive(in.seq)
	retransmitted := p.Retransmitted
	switch arrival {
	case packet.Duplicate:
		st.counts.Duplicates++
		return false
	case packet.Ancient:
		if st.order.strays > 0 && p.SequenceNumber != st.order.stray {
			st.order.strays = 0
		}
		st.order.strays++
		st.order.stray = p.SequenceNumber + 1
		if st.order.strays < restartPackets {
			return false
		}
		st.restart(in)
		return true
	case packet.Late:
		if tries := st.losses.Found(in.seq, p.Retransmitted, in.at); tries > 0 {
			retransmitted = true
		}
	case packet.Newest:
		st.losses.Arrived(in.seq)
		if gap > restartGap {
			st.restart(in)
			return true
		}
		in.newest = true
		if gap > 0 {
			st.losses.Add(in.seq, gap, in.at)
			st.end.lost = in.at
		}
	}
	st.order.strays = 0
	if retransmitted {
		st.counts.Recovered++
	}
	st.reception.Receive(in.seq, p.Timestamp, retransmitted, in.at)
	return true
}

// restart begins a new numbering with this packet: the first one, a new SSRC, or a jump that no loss explains.
func (st *stream) restart(in *inbound) {
	p := in.packet
	st.epoch++
	in.newest = true
	in.seq = st.order.unwrapper.Restart(p.SequenceNumber)
	st.order.arrivals = packet.LossBitmap{}
	st.order.arrivals.Receive(in.seq)
	st.order.strays = 0
	st.losses.Clear()
	st.keyFrame = 0
	st.reception.Restart()
	st.reception.Receive(in.seq, p.Timestamp, p.Retransmitted, in.at)
	if st.dependency != nil {
		*st.dependency = codec.Dependency{}
	}
}

// describe reads the payload; false if it is of no use to anybody.
func (st *stream) describe(in *inbound, c codec.Codec) bool {
	p := in.packet
	if c == codec.VP8 {
		var err error
		if in.vp8, err = codec.ParseVP8(p.Payload); err != nil { // it must be rewritten, so it must be readable
			return false
		}
		in.frame, in.picture = in.vp8.Frame(p.Marker), st.order.widen(&in.vp8)
	} else {
		// An error leaves the frame at layer 0, which is forwarded: the receiver may know better.
		_ = c.Describe(p.Payload, p.DependencyDescriptor, p.Marker, st.dependency, &in.frame)
	}
	if in.frame.Intra && p.Timestamp != st.pace.timestamp {
		in.frame.KeyFrame = true
	}
	if in.newest && in.frame.KeyFrame && c.Video() {
		if p.Timestamp != st.pace.timestamp {
			st.counts.KeyFrames++
			st.keyFrame = in.seq
		}
		if st.keys.waiting { // what is lost of it shows before it was sent to who begins with it
			st.taken.Store(int64(in.at))
		}
		st.keys.answer()
	}
	return true
}

// widen returns the picture id in 15 bits: a 7-bit one is the nearest to the highest so far.
func (r *order) widen(d *codec.VP8Descriptor) uint16 {
	if !d.HasPictureID {
		return 0
	}
	picture := d.PictureID
	if !d.Wide && r.pictured {
		picture = (r.picture + uint16(int16((d.PictureID-r.picture)<<9)>>9)) & 0x7fff
	}
	if ahead := (picture - r.picture) & 0x7fff; ahead < 1<<14 || !r.pictured {
		r.picture, r.pictured = picture, true
	}
	return picture
}

// observe follows whether the stream is live and how fast its frames come.
func (st *stream) observe(in *inbound, video bool) {
	st.keys.tries = 0
	if !in.newest || in.packet.Retransmitted { // sent again, it says nothing about what is sent now
		return
	}
	if in.at-time.Duration(st.arrived.Load()) > time.Duration(st.patience.Load()) {
		st.streak.Store(0)
	}
	if in.frame.KeyFrame && video {
		st.streak.Add(liveAfter)
	} else {
		st.streak.Add(1)
	}
	st.arrived.Store(int64(in.at))
	if timestamp := in.packet.Timestamp; timestamp != st.pace.timestamp {
		st.frames.Add(1)
		if st.lowest != nil {
			st.beside.Store(st.lowest.frames.Load())
		}
		if st.pace.at != 0 {
			st.pace.period += (min(in.at-st.pace.at, longestPeriod) - st.pace.period) / 4
			st.patience.Store(int64(min(max(4*st.pace.period, minPatience), maxPatience)))
			st.queue.Store(int64(st.pace.wait(timestamp, in.at, st.rate)))
		}
		st.pace.timestamp, st.pace.at = timestamp, in.at
	}
}

// wait notes when the next frame comes and returns how long it has waited on its way: frames that come further apart than they were taken queue up
// before something. The least wait is taken for none, and forgotten slowly, since clocks drift.
func (p *pace) wait(timestamp uint32, at time.Duration, rate uint32) time.Duration {
	taken := time.Duration(int32(timestamp-p.timestamp)) * time.Second / time.Duration(max(rate, 1))
	if taken < 0 || taken > longestPeriod {
		p.late = 0
		return 0
	}
	p.late = max(p.late+at-p.at-taken, 0)
	p.late -= p.late / forgetting
	return p.late
}

// live reports whether packets are arriving: several of them, and the last one not long ago for the stream's frame rate.
func (st *stream) live(at time.Duration) bool {
	return st.streak.Load() >= liveAfter && at-time.Duration(st.arrived.Load()) <= time.Duration(st.patience.Load())
}

// late reports whether its frames wait on their way.
func (st *stream) late() bool { return st.queue.Load() > int64(longQueue) }

// givenUp reports whether the publisher no longer sends the stream, because its line does not carry it: after frames of it queued up the lowest
// stream, which publishers give up last and which has every frame that the others have, goes on without it. Without a queue it may be an encoder that
// leaves out a few frames to keep its rate.
func (st *stream) givenUp(at time.Duration) bool {
	return st.lowest != nil && st.late() && st.lowest.frames.Load()-st.beside.Load() >= missedFrames && at-time.Duration(st.arrived.Load()) > missedFor
}

// stats returns a snapshot of the stream's counts.
func (st *stream) stats(at time.Duration) LayerStats {
	st.mu.Lock()
	defer st.mu.Unlock()
	s := st.counts
	s.SSRC, s.Bitrate, s.Live = st.ssrc, st.rates.bitrate(at), st.live(at)
	s.Lost, s.Jitter = st.reception.Lost(), st.reception.Jitter()
	return s
}

// meter measures a bit rate in windows of a second.
type meter struct {
	began time.Duration
	bytes int
	last  int64 // bits/s of the last full window
}

func (m *meter) add(bytes int, at time.Duration) {
	if m.began == 0 {
		m.began = at
	}
	if window := at - m.began; window >= time.Second {
		m.last = int64(m.bytes) * 8 * int64(time.Second) / int64(window)
		m.began, m.bytes = at, 0
	}
	m.bytes += bytes
}

func (m *meter) bitrate(at time.Duration) int64 {
	if at-m.began > 2*time.Second {
		return 0
	}
	return m.last
}
