package forward

import (
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/packet"

	"github.com/pion/rtcp"
)

// A Source is one published track: it takes the packets of its streams and fans them out to its Sinks. Safe for concurrent use.
type Source struct {
	options  SourceOptions
	sinks    atomic.Pointer[[]*Sink] // copy on write
	upstream atomic.Pointer[Upstream]

	mu     sync.Mutex // guards changes of sinks
	closed bool
}

// NewSource returns a Source without receivers.
func NewSource(o SourceOptions) *Source {
	s := &Source{options: o}
	s.sinks.Store(new([]*Sink))
	return s
}

// SetUpstream says where key frame requests go; until then they are kept.
func (s *Source) SetUpstream(u Upstream) { s.upstream.Store(&u) }

// Push takes one packet of the stream layer.Spatial, and the caller's reference to it. Streams may be pushed concurrently.
func (s *Source) Push(layer Layer, p *packet.Packet, now time.Time) {
	for _, k := range *s.sinks.Load() {
		k.forward(p)
	}
	p.Release()
}

// SenderReport takes the publisher's report (RFC 3550 §6.4.1) for one stream: which RTP time was which NTP time.
func (s *Source) SenderReport(layer Layer, ntp uint64, rtp uint32, now time.Time) {}

// Nacks returns the sequence numbers of one stream to ask the publisher for at this moment (RFC 4585 §6.2.1), in rising order. Call it
// after a batch of reads and at least every 20 ms while packets arrive; it also repeats key frame requests and forgets old packets.
func (s *Source) Nacks(spatial int8, now time.Time) []uint16 { return nil }

// ReceptionReport returns the report block for one stream (RFC 3550 §6.4.1), false before its first packet. Each call starts a new interval
// for the fraction lost.
func (s *Source) ReceptionReport(spatial int8, now time.Time) (rtcp.ReceptionReport, bool) {
	return rtcp.ReceptionReport{}, false
}

// SetRTT tells the round trip time to the publisher.
func (s *Source) SetRTT(d time.Duration) {}

// Level returns how loud the track is (0 to 1, smoothed) and whether somebody speaks on it. Call it once per 400 ms window or more often.
func (s *Source) Level(now time.Time) (loudness float64, active bool) { return 0, false }

// Live reports which streams are arriving.
func (s *Source) Live(now time.Time) [3]bool { return [3]bool{} }

// Stats returns a snapshot of the counts.
func (s *Source) Stats() SourceStats { return SourceStats{} }

// Attach adds a receiver, which gets packets from now on. After Close it returns a Sink that never gets any.
func (s *Source) Attach(w Writer, o SinkOptions) *Sink {
	k := &Sink{source: s, writer: w}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		sinks := append(append([]*Sink(nil), *s.sinks.Load()...), k)
		s.sinks.Store(&sinks)
	}
	return k
}

// Close drops all receivers and the history. Closing twice is fine, and so is pushing afterwards.
func (s *Source) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.sinks.Store(new([]*Sink))
}
