// A stage is a Source that shows one of several tracks at a time: what a receiver gets that has room for one. Package relay owns the way of
// packets from the tracks' Sinks onto a stage: the cut from one to another, and opening and sealing frames that are encrypted end to end, for legs
// that end at this server.
// It never chooses what is shown, distributes keys, starts a goroutine or reads the clock.
//
// # Cuts
//
// Each track has a Feed, which is its Sink's Writer and lives as long as that Sink. A Sink begins a video with a key frame; with it the feed that was
// cut to takes over, and until then the former goes on. Sound is cut at once. To the stage's Source each feed is a sender of its own that begins
// anew, so it is the Source's own Sinks that join one to the other, with continuous numbers, timestamps and picture ids.
package relay

import (
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/forward"
	"callserver/sfu/framecrypto"
	"callserver/sfu/packet"
)

// A Stage feeds a Source from one Feed at a time. Safe for concurrent use.
//
// Lock order: Feed.mu, then Stage.mu, then those of the Source. Key frame requests take neither.
type Stage struct {
	source *forward.Source
	video  bool
	clock  func() time.Time
	current,
	next atomic.Pointer[Feed] // nil: none
	feeds  atomic.Uint32
	counts counts

	mu sync.Mutex // held while packets are pushed: the Source takes those of one feed after those of the other
}

type counts struct{ cuts, dropped, keyless, forged atomic.Uint64 }

// Stats is what a Stage has seen.
type Stats struct {
	Cuts    uint64 // feeds that took over
	Dropped uint64 // frames given up for missing or broken packets
	Keyless uint64 // frames for which there is no key
	Forged  uint64 // frames that their key does not open
}

// New returns a Stage that feeds source, and takes its requests for key frames.
func New(source *forward.Source, clock func() time.Time) *Stage {
	s := &Stage{source: source, video: source.Codec().Video(), clock: clock}
	source.SetUpstream(s)
	return s
}

// Source is what the stage feeds.
func (s *Stage) Source() *forward.Source { return s.source }

// Stats is a snapshot of the totals.
func (s *Stage) Stats() Stats {
	return Stats{Cuts: s.counts.cuts.Load(), Dropped: s.counts.dropped.Load(), Keyless: s.counts.keyless.Load(), Forged: s.counts.forged.Load()}
}

// Cut has a feed take over: sound at once, a video with its first frame. Nil takes the stage from all of them.
func (s *Stage) Cut(f *Feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case f == nil:
		s.current.Store(nil)
		s.next.Store(nil)
	case f == s.current.Load():
		s.next.Store(nil)
	case s.video && s.current.Load() != nil:
		s.next.Store(f)
	default:
		s.takeOverLocked(f)
	}
}

func (s *Stage) takeOverLocked(f *Feed) {
	s.current.Store(f)
	s.next.Store(nil)
	s.counts.cuts.Add(1)
}

// Shows reports whether the feed has the stage, and not only been cut to.
func (s *Stage) Shows(f *Feed) bool { return f != nil && s.current.Load() == f }

// push takes a packet from a feed, and the reference to it.
func (s *Stage) push(f *Feed, p *packet.Packet, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.Load() == f {
		s.takeOverLocked(f)
	}
	if s.current.Load() != f {
		p.Release()
		return
	}
	p.SSRC = f.id
	s.source.Push(forward.Layer{}, p, now)
}

// RequestKeyFrame implements forward.Upstream.
func (s *Stage) RequestKeyFrame(int8) {
	if f := s.current.Load(); f != nil {
		f.requestKeyFrame(s.clock())
	}
}

// Await implements forward.Upstream. Requests are repeated by Tick, and where the feeds' packets come from.
func (s *Stage) Await() {}

// Tick does what is due: frames that are waited for no longer, requests for key frames, memory. Call it every 20 to 100 ms.
func (s *Stage) Tick(now time.Time) {
	for _, f := range [...]*Feed{s.current.Load(), s.next.Load()} {
		if f != nil {
			f.flush(now)
		}
	}
	s.source.Nacks(0, now) // what was lost on the way to us is asked for where it was lost
}

// Report passes the clock of what is shown on, for receivers to play sound and picture together. Call it about once a second.
func (s *Stage) Report(now time.Time) {
	f := s.current.Load()
	if f == nil {
		return
	}
	k := f.sink.Load()
	if k == nil {
		return
	}
	if sr, ok := k.SenderReport(now); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.current.Load() == f {
			s.source.SenderReport(forward.Layer{}, sr.NTPTime, sr.RTPTime, now)
		}
	}
}

// Pass returns a feed of what is not encrypted.
func (s *Stage) Pass() *Feed { return s.feed() }

// Open returns a feed that opens frames with the keys of their sender.
func (s *Stage) Open(keys *framecrypto.Keys) *Feed {
	f := s.feed()
	f.opener = framecrypto.NewOpener(keys, sealed[s.source.Codec()])
	f.assemble(s.source.Codec())
	return f
}

// Seal returns a feed that seals frames with our own keys. The SSRC makes their IVs: no two feeds that share keys share one.
func (s *Stage) Seal(keys *framecrypto.Keys, ssrc uint32) *Feed {
	f := s.feed()
	f.sealer = framecrypto.NewSealer(keys, sealed[s.source.Codec()], ssrc)
	f.assemble(s.source.Codec())
	return f
}

func (s *Stage) feed() *Feed { return &Feed{stage: s, id: s.feeds.Add(1)} }
