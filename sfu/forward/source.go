package forward

// Hot path: see ARCHITECTURE.md#packet

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/packet"

	"github.com/pion/rtcp"
)

// beginning is where the Source's time starts counting: far enough from 0, which means never, for a packet whose time was taken a
// little before the first one's.
const beginning = time.Hour

// A Source is one published track: it takes the packets of its streams and fans them out to its Sinks. Safe for concurrent use.
type Source struct {
	options  SourceOptions
	streams  []*stream               // by simulcast index
	sinks    atomic.Pointer[[]*Sink] // copy on write
	groups   atomic.Pointer[[]group] // the same by lane
	upstream atomic.Pointer[Upstream]
	origin   atomic.Pointer[time.Time] // the first time anyone told
	latest   atomic.Int64              // the latest, as a time.Duration since origin
	rtt      atomic.Int64              // to the publisher; 0 if unknown
	doubt    atomic.Pointer[doubt]     // nil = none
	waits    waits
	speech   speech

	mu     sync.Mutex // guards changes of sinks
	closed bool
}

// doubt is which streams count as ended, and until when, since the publisher's line does not carry them: what still comes of them was on its way.
type doubt struct {
	from  int
	until time.Duration
}

const doubted = 1500 * time.Millisecond // is as long as a queue may be

// NewSource returns a Source without receivers.
func NewSource(o SourceOptions) *Source {
	if o.ClockRate == 0 {
		o.ClockRate = o.Codec.ClockRate()
	}
	s := &Source{options: o}
	for range min(max(o.Spatials, 1), maxStreams) {
		s.streams = append(s.streams, newStream(&s.options, &s.waits))
	}
	for _, st := range s.streams[1:] {
		st.lowest = s.streams[0]
	}
	s.setSinksLocked(nil)
	s.latest.Store(int64(beginning))
	return s
}

// SetUpstream says where key frame requests go; until then they are kept.
func (s *Source) SetUpstream(u Upstream) {
	s.upstream.Store(&u)
	for i := range s.streams {
		s.requestDue(int8(i), s.now())
	}
}

// Push takes one packet of the stream layer.Spatial, and the caller's reference to it, which must be the only one. Streams may be pushed
// concurrently. layer.Temporal is not used: the packet says.
func (s *Source) Push(layer Layer, p *packet.Packet, now time.Time) {
	st := s.stream(layer.Spatial)
	if st == nil {
		p.Release()
		return
	}
	in := inbound{packet: p, stream: layer.Spatial, at: s.since(now)}
	if !st.accept(&in, &s.options) {
		p.Release()
		return
	}
	if p.HasAudioLevel {
		s.speech.observe(p.AudioLevel, p.Timestamp, s.options.ClockRate, in.at)
	}
	needed := s.fanOut(&in)
	p.Release()
	if needed {
		s.missKeyFrame(in.stream, in.at)
	}
}

// fanOut offers the packet to every Sink, here or on the Sinks' lanes, and reports whether one of them waits for a key frame of this stream.
func (s *Source) fanOut(in *inbound) (needed bool) {
	groups := *s.groups.Load()
	if len(groups) == 0 {
		return false
	}
	in.live = s.live(in.at)
	for i := range groups {
		g := &groups[i]
		if g.lane != nil {
			in.packet.Retain()
			g.lane.Take(Delivery{source: s, to: g, in: *in})
			continue
		}
		work := scratches.Get().(*scratch)
		for _, k := range g.sinks {
			sent, waiting := k.push(in, work)
			if sent {
				s.streams[in.stream].taken.Store(int64(in.at))
			}
			needed = needed || waiting
		}
		work.put()
	}
	return needed
}

// setSinksLocked replaces the list of receivers.
func (s *Source) setSinksLocked(sinks []*Sink) {
	groups := grouped(sinks)
	s.sinks.Store(&sinks)
	s.groups.Store(&groups)
}

// SenderReport takes the publisher's report (RFC 3550 §6.4.1) for one stream: which RTP time was which NTP time.
func (s *Source) SenderReport(layer Layer, ntp uint64, rtp uint32, now time.Time) {
	st := s.stream(layer.Spatial)
	if st == nil {
		return
	}
	at := s.since(now)
	st.clock.Store(&clock{ntp: ntp, rtp: rtp, at: at})
	st.mu.Lock()
	st.reception.SenderReport(ntp, at)
	st.mu.Unlock()
}

// Nacks returns the sequence numbers of one stream to ask the publisher for at this moment (RFC 4585 §6.2.1), in rising order: none of a stream
// that nobody gets, or that has ended. Call it after a batch of reads and at least every 20 ms while Waits says so; it also repeats key frame requests, and
// makes one where a packet was asked for in vain.
func (s *Source) Nacks(spatial int8, now time.Time) []uint16 {
	st := s.stream(spatial)
	if st == nil {
		return nil
	}
	at := s.since(now)
	st.mu.Lock()
	var seqs []uint16
	if st.lowest != nil && s.live(at)&(1<<spatial) == 0 || at-time.Duration(st.taken.Load()) > historyAge {
		st.giveUpLocked() // for nobody
	} else if st.end.overdue(at) {
		st.losses.Add(st.end.seq+2, 1, at)
	}
	if st.losses.Outstanding() > 0 {
		seqs = st.losses.Due(at, nil)
		st.counts.Nacks += uint64(len(seqs))
		if s.options.Video {
			st.mendLocked(at)
		}
	}
	waiting := st.keys.waiting
	st.waitLocked()
	st.mu.Unlock()
	if waiting {
		s.requestDue(spatial, at)
	}
	return seqs
}

// GiveUp is for when nobody is to be asked for lost packets: it has Nacks ask for none that are missing by now. Receivers conceal them, or want a key frame.
func (s *Source) GiveUp() {
	for _, st := range s.streams {
		st.mu.Lock()
		st.giveUpLocked()
		st.waitLocked()
		st.mu.Unlock()
	}
}

// Waits reports whether anything is outstanding that Nacks would ask for, now or later.
func (s *Source) Waits() bool { return s.Misses() || s.waits.unended.Load() > 0 }

// Misses reports whether anything is known to be missing that Nacks would ask for, now or later: no more than the end of a frame may be for the rest.
func (s *Source) Misses() bool { return s.waits.outstanding.Load() > 0 }

// Expire forgets packets of streams that stopped, which nobody will ask for again; those that go on forget by themselves. Call it every second or so.
func (s *Source) Expire(now time.Time) {
	at := s.since(now)
	for _, st := range s.streams {
		st.mu.Lock()
		st.expireLocked(at)
		st.mu.Unlock()
	}
}

// ReceptionReport returns the report block for one stream (RFC 3550 §6.4.1), false before its first packet. Each call starts a new interval
// for the fraction lost.
func (s *Source) ReceptionReport(spatial int8, now time.Time) (rtcp.ReceptionReport, bool) {
	st := s.stream(spatial)
	if st == nil {
		return rtcp.ReceptionReport{}, false
	}
	at := s.since(now)
	st.mu.Lock()
	defer st.mu.Unlock()
	r, ok := st.reception.Report(at)
	return rtcp.ReceptionReport{
		SSRC: st.ssrc, FractionLost: r.FractionLost, TotalLost: r.Lost, LastSequenceNumber: r.HighestSequenceNumber,
		Jitter: r.Jitter, LastSenderReport: r.LastSenderReport, Delay: r.Delay,
	}, ok
}

// SetRTT tells the round trip time to the publisher.
func (s *Source) SetRTT(d time.Duration) {
	s.rtt.Store(int64(d))
	for _, st := range s.streams {
		st.mu.Lock()
		st.losses.SetRTT(d)
		st.mu.Unlock()
	}
}

// Narrow says that the publisher was told that its line carries so many bits/s, and has had the time to give up what is more. Receivers of that get
// what is left with the next key frame, which has to be asked for before the queue is empty: it will stand at its end.
func (s *Source) Narrow(bitrate int64, now time.Time) {
	at := s.since(now)
	for i, st := range s.streams {
		st.mu.Lock()
		bitrate -= st.rates.bitrate(at)
		st.mu.Unlock()
		if i > 0 && bitrate < 0 {
			s.doubt.Store(&doubt{from: i, until: at + doubted})
			for _, k := range *s.sinks.Load() {
				k.restart(0)
			}
			return
		}
	}
}

// Level returns how loud the track is (0 to 1, smoothed) and whether somebody speaks on it. Call it once per 400 ms window or more often.
func (s *Source) Level(now time.Time) (loudness float64, active bool) {
	return s.speech.level(s.since(now))
}

// Live reports which streams are arriving, by simulcast index.
func (s *Source) Live(now time.Time) [3]bool {
	var live [3]bool
	mask := s.live(s.since(now))
	for i := range live {
		live[i] = mask&(1<<i) != 0
	}
	return live
}

// Stats returns a snapshot of the counts. It is as of the last time that any method was told.
func (s *Source) Stats() SourceStats {
	stats := SourceStats{Sinks: len(*s.sinks.Load()), RTT: time.Duration(s.rtt.Load())}
	for _, st := range s.streams {
		stats.Layers = append(stats.Layers, st.stats(s.now()))
	}
	return stats
}

// Codec returns what the Source was made for.
func (s *Source) Codec() codec.Codec { return s.options.Codec }

// Attach adds a receiver, which gets packets from now on. After Close it returns a Sink that never gets any.
func (s *Source) Attach(w Writer, o SinkOptions) *Sink {
	k := newSink(s, w, o)
	s.mu.Lock()
	if !s.closed {
		s.setSinksLocked(append(slices.Clip(*s.sinks.Load()), k))
	}
	s.mu.Unlock()
	k.restart(o.Patience)
	return k
}

// remove takes a Sink off the list; what waits for key frames only on its behalf stops waiting.
func (s *Source) remove(k *Sink) {
	s.mu.Lock()
	sinks := slices.DeleteFunc(slices.Clone(*s.sinks.Load()), func(other *Sink) bool { return other == k })
	s.setSinksLocked(sinks)
	s.mu.Unlock()
	if len(sinks) > 0 {
		return
	}
	for _, st := range s.streams {
		st.mu.Lock()
		st.keys.waiting = false
		st.waitLocked()
		st.mu.Unlock()
	}
}

// Close drops all receivers and the history. Closing twice is fine, and so is pushing afterwards.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	sinks := *s.sinks.Load()
	s.setSinksLocked(nil)
	s.mu.Unlock()
	for _, k := range sinks {
		k.close()
	}
	for _, st := range s.streams {
		st.mu.Lock()
		st.history.Clear()
		st.giveUpLocked()
		st.keys.waiting = false
		st.waitLocked()
		st.mu.Unlock()
	}
}

func (s *Source) stream(index int8) *stream {
	if index < 0 || int(index) >= len(s.streams) {
		return nil
	}
	return s.streams[index]
}

// live returns a bit for each stream that is arriving. Where the publisher's line became too narrow for one of them those in the same queue, but for
// the lowest, are about to end.
func (s *Source) live(at time.Duration) (mask uint8) {
	gone, top := false, len(s.streams)
	if d := s.doubt.Load(); d != nil && at < d.until && s.streams[0].live(at) {
		top = d.from
	}
	for i := top - 1; i >= 0; i-- {
		st := s.streams[i]
		gone = gone || st.givenUp(at)
		if st.live(at) && !(gone && i > 0 && st.late()) {
			mask |= 1 << i
		}
	}
	return mask
}

// since turns a caller's time into the Source's.
func (s *Source) since(now time.Time) time.Duration {
	origin := s.origin.Load()
	if origin == nil {
		first := now
		if s.origin.CompareAndSwap(nil, &first) {
			origin = &first
		} else {
			origin = s.origin.Load()
		}
	}
	at := now.Sub(*origin) + beginning
	if int64(at) > s.latest.Load() { // a lost race costs nothing: the other time is as good
		s.latest.Store(int64(at))
	}
	return at
}

// now returns the latest time that anyone told, for the methods that take none.
func (s *Source) now() time.Duration { return time.Duration(s.latest.Load()) }
