package rtc

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/egress"
	"callserver/sfu/forward"
	"callserver/sfu/rtc/description"

	"github.com/pion/webrtc/v4"
)

// A Peer is the WebRTC end of one client. Safe for concurrent use, but descriptions are handled one after the other.
//
// Lock order: negotiation, then mu. Pion's callbacks take only mu, so Pion may be called under negotiation but not under
// mu.
type Peer struct {
	engine  *Engine
	options PeerOptions
	log     *slog.Logger
	events  *events
	client  *connection // offered by the client
	server  *connection // offered by us; nil in single mode and for clients that receive nothing
	data    channels
	worker  *egress.Worker // makes and sends what the client receives
	loops   sync.WaitGroup // negotiations in the background

	tcpOnly atomic.Bool // no addresses of UDP are told or taken

	uplinks   atomic.Pointer[[]*uplink]   // in order of their sections, copy on write
	downlinks atomic.Pointer[[]*downlink] // in order of AddDownlink, copy on write

	negotiation sync.Mutex // serialises descriptions; held while Pion works on one
	round       round      // guarded by negotiation

	share    int         // of the engine's wheel, which guards it
	awake    atomic.Bool // the tick loop will attend to it
	routines uint64      // tick loop's only
	relief   relief

	mu       sync.Mutex
	closed   bool
	schedule schedule
}

// NewPeer creates the connection or connections of a client. The caller closes it. A dual-mode client that subscribes is
// sent an offer at once, as an event.
func (e *Engine) NewPeer(o PeerOptions) (*Peer, error) {
	if o.Plain {
		o.Single, o.Protocol = true, 0
	}
	p := &Peer{engine: e, options: o, log: e.log.With("peer", o.Label), events: newEvents(o.Ready), worker: e.egress.Assign()}
	p.uplinks.Store(new([]*uplink))
	p.downlinks.Store(new([]*downlink))
	p.AvoidUDP(o.AvoidUDP)
	err := p.connect()
	if err == nil {
		err = e.add(p)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("create peer for %s: %w", o.Label, err)
	}
	if p.server != nil {
		p.Negotiate(false)
	}
	return p, nil
}

func (p *Peer) connect() error {
	var err error
	if p.client, err = p.newConnection(Publisher); err != nil {
		return err
	}
	if !p.options.Single && p.options.Subscribes {
		if p.server, err = p.newConnection(Subscriber); err != nil {
			return err
		}
	}
	return p.createChannels()
}

// primary is the connection whose state is the client's.
func (p *Peer) primary() *connection {
	if p.server != nil {
		return p.server
	}
	return p.client
}

// sender is the connection that carries what the client receives, nil if it receives nothing.
func (p *Peer) sender() *connection {
	if p.options.Single {
		return p.client
	}
	return p.server
}

// Connected reports whether the primary connection is up.
func (p *Peer) Connected() bool { return p.primary().up() }

// Way is how the primary connection's media goes, or went last.
func (p *Peer) Way() Way { return p.primary().way() }

// AvoidUDP has the negotiations from now on be about TCP alone, or about all ways again. Without a TCP port it does nothing.
func (p *Peer) AvoidUDP(on bool) { p.tcpOnly.Store(on && p.engine.ports.TCP != nil) }

// Ready is signalled when Events has something to return.
func (p *Peer) Ready() <-chan struct{} { return p.events.ready }

// Events returns what happened since the last call, oldest first.
func (p *Peer) Events() []Event { return p.events.drain() }

// Nudge has what was queued for the client outside of the receive path sent.
func (p *Peer) Nudge() { p.worker.Do(func() {}) }

// Close closes the connections and returns when their goroutines have ended. It must not be called from a forward.Writer
// or forward.Upstream call. Closing twice is fine.
func (p *Peer) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.engine.wheel.remove(p)
	for _, c := range []*connection{p.client, p.server} {
		if c != nil {
			c.close()
		}
	}
	p.loops.Wait()
	for _, u := range *p.uplinks.Load() {
		u.feed(nil)
	}
}

// start runs f as one of the peer's goroutines, unless the peer is closed.
func (p *Peer) start(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.loops.Go(func() {
		defer p.recover("loop")
		f()
	})
	return true
}

// enter counts the calling goroutine as one of the peer's until leave is called. False means that the peer is closed.
func (p *Peer) enter() (leave func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false
	}
	p.loops.Add(1)
	return p.loops.Done, true
}

// emit queues an event. An owner that does not read them loses the peer.
func (p *Peer) emit(e Event) {
	if !p.events.push(e) {
		p.engine.counts.overflows.Add(1)
		p.events.overflow(fmt.Errorf("event queue full at %d: owner does not keep up", maxEvents))
	}
}

// fail tells the owner that the peer is beyond use.
func (p *Peer) fail(err error) { p.emit(Failed{Err: err}) }

// recover, deferred where client bytes enter, turns a panic into the end of this one client.
func (p *Peer) recover(what string) {
	if r := recover(); r != nil {
		p.ended(what, r)
	}
}

// panicked takes a panic on a packet of the client's.
func (p *Peer) panicked(value any) { p.ended("media", value) }

func (p *Peer) ended(what string, value any) {
	p.engine.counts.panics.Add(1)
	p.log.Error("panic on client input", "what", what, "panic", value, "stack", string(debug.Stack()))
	p.fail(fmt.Errorf("%s: internal error", what))
}

// PeerStats is a snapshot of a Peer.
type PeerStats struct {
	State     State         // of the primary connection
	RTT       time.Duration // to the client, 0 while unknown
	Protocol  string        // "udp" or "tcp", empty while not connected
	Uplinks   int           // sections that the client sends on
	Downlinks int           // tracks that are being sent, or wait to be
	Dropped   uint64        // lossy messages of the client that its owner did not read in time
}

// Stats is a snapshot.
func (p *Peer) Stats() PeerStats {
	c := p.primary()
	p.events.mu.Lock()
	dropped := p.events.dropped
	p.events.mu.Unlock()
	s := PeerStats{State: State(c.state.Load()), RTT: c.rtt(), Uplinks: len(*p.uplinks.Load()),
		Downlinks: len(*p.downlinks.Load()), Dropped: dropped}
	if pair, err := transportOf(c.pc).ICETransport().GetSelectedCandidatePair(); err == nil && pair != nil {
		s.Protocol = pair.Local.Protocol.String()
	}
	return s
}

// Uplink lets the packets of the section flow into s; before that they are dropped. Nil stops them again.
func (p *Peer) Uplink(mid string, s *forward.Source) error {
	u := uplinkOf(*p.uplinks.Load(), mid)
	if u == nil {
		return fmt.Errorf("%w: mid %q", ErrUnknownSection, mid)
	}
	u.feed(s)
	return nil
}

// AddDownlink wants a track sent to the client. DownlinkBound follows when it is negotiated, DownlinkRefused if the
// client has no such codec. Adding a track that is there already does nothing.
func (p *Peer) AddDownlink(o DownlinkOptions) error {
	if p.sender() == nil {
		return fmt.Errorf("send %s: the client has no connection to receive on", o.TrackID)
	}
	if description.FindFormat(o.Mime) == nil {
		return fmt.Errorf("send %s: codec %q is not known", o.TrackID, o.Mime)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if p.downlink(o.TrackID) != nil {
		return nil
	}
	d := newDownlink(p, p.sender().leg, o)
	list := append(append([]*downlink(nil), *p.downlinks.Load()...), d)
	p.downlinks.Store(&list)
	p.wantLocked(time.Now())
	return nil
}

// RemoveDownlink stops sending the track and frees its section. Removing one that is not there is fine.
func (p *Peer) RemoveDownlink(trackID string) {
	p.negotiation.Lock()
	defer p.negotiation.Unlock()
	if d := p.dropDownlink(trackID); d != nil && p.round.release(d) {
		p.mu.Lock()
		p.wantLocked(time.Now())
		p.mu.Unlock()
	}
}

// dropDownlink takes the track off the list and returns it, nil if it is not there.
func (p *Peer) dropDownlink(trackID string) *downlink {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.downlink(trackID)
	if d == nil {
		return nil
	}
	var list []*downlink
	for _, other := range *p.downlinks.Load() {
		if other != d {
			list = append(list, other)
		}
	}
	p.downlinks.Store(&list)
	return d
}

// SetSink directs the client's feedback on the track to k; nil drops it.
func (p *Peer) SetSink(trackID string, k *forward.Sink) {
	if d := p.downlink(trackID); d != nil {
		d.sink.Store(k)
	}
}

func (p *Peer) downlink(trackID string) *downlink {
	for _, d := range *p.downlinks.Load() {
		if d.options.TrackID == trackID {
			return d
		}
	}
	return nil
}

// transportOf is the transport of a Pion connection that new senders are tied to.
func transportOf(pc *webrtc.PeerConnection) *webrtc.DTLSTransport { return pc.SCTP().Transport() }
