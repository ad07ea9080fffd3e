package rtc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"callserver/internal/pionlog"
	"callserver/sfu/egress"
	"callserver/sfu/ingress"
	"callserver/sfu/rtc/port"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/stun/v4"
	"github.com/pion/webrtc/v4"
)

// tickInterval is how often an Engine looks at what its peers have to do: losses to ask for again, reports, debounces. More often would be dearer: each timer
// that expires also wakes the runtime's watchdog thread.
const tickInterval = 20 * time.Millisecond

// behindBy is how late a tick comes where there is more work than the processor does at once.
const behindBy = 5 * time.Millisecond

// pacedInterval is how often it looks at connections that cannot carry what is wanted, while there are such.
const pacedInterval = tickInterval / 2

// Engine holds what all peers of a node share: the media sockets, the Pion configuration and the one timer loop. Safe
// for concurrent use.
type Engine struct {
	options  Options
	log      *slog.Logger
	ports    *port.Ports
	media    *webrtc.MediaEngine
	settings webrtc.SettingEngine
	egress   *egress.Pool
	stop     context.CancelFunc
	loops    sync.WaitGroup
	counts   counters
	told     announcement
	identity certificates
	limited  limited       // connections that cannot carry what is wanted
	overflow overflow      // of our own sockets
	yielding chan struct{} // holds who answers an offer that can wait; as many as there are cores

	overflowing atomic.Bool // as the tick loop saw last

	wheel wheel // all peers
}

// counters are an Engine's totals.
type counters struct {
	peersOpened, panics, overflows atomic.Uint64
	badDescriptions, dropped       atomic.Uint64
	ingress                        ingress.Counters
}

// EngineStats is a snapshot of an Engine.
type EngineStats struct {
	Peers           int    // open now
	PeersOpened     uint64 // ever
	BadDescriptions uint64 // offers and answers refused
	Panics          uint64 // recovered where client bytes enter; each closed one client
	Overflows       uint64 // peers ended because their owner did not read events

	Dropped  uint64       // datagrams that our UDP sockets had no room for, or that came damaged
	Forged   uint64       // packets received that were not authentic
	Unrouted uint64       // packets received that belong to no section
	Egress   egress.Stats // packets sent
}

// New opens the media sockets and starts the timer loop. Close ends it.
func New(o Options) (*Engine, error) {
	if o.ICEKeepalive == 0 {
		o.ICEKeepalive = DefaultICEKeepalive
	}
	if o.ICEDisconnected == 0 {
		o.ICEDisconnected = DefaultICEDisconnected
	}
	if o.ICEFailed == 0 {
		o.ICEFailed = DefaultICEFailed
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Engine{options: o, log: o.Logger, yielding: make(chan struct{}, runtime.GOMAXPROCS(0))}
	e.egress = egress.NewPool(runtime.GOMAXPROCS(0), e.panicked)
	var err error
	e.ports, err = port.Open(port.Options{
		UDP: o.UDPPort, TCP: o.TCPPort, Listen: o.Listen, Named: named(o.Advertise), Loopback: o.Loopback,
		Interfaces: o.Interfaces, Net: o.Net, Log: pionlog.Factory{Log: o.Logger},
		Share: e.egress.Len(), After: e.egress.Run, Told: e.tells,
	})
	if err != nil {
		e.egress.Close()
		return nil, err
	}
	if err := e.configure(); err != nil {
		err = errors.Join(fmt.Errorf("configure webrtc: %w", err), e.ports.Close())
		e.egress.Close()
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.loops.Go(func() { e.tickLoop(ctx) })
	if o.Net == nil {
		e.loops.Go(func() { e.watchLoop(ctx) })
	}
	e.startDiscovery(ctx)
	return e, nil
}

// configure prepares what connections share: codecs and settings.
func (e *Engine) configure() error {
	var err error
	if e.media, err = newMediaEngine(); err != nil {
		return err
	}
	if e.settings, err = newSettings(e.options, e.ports); err != nil {
		return err
	}
	return nil
}

// api is the configuration of one connection, which learns its keys and addresses from Pion.
func (e *Engine) api(c *connection) *webrtc.API {
	settings := e.settings
	c.keys.install(&settings)
	settings.SetICEBindingRequestHandler(func(m *stun.Message, _, _ ice.Candidate, pair *ice.CandidatePair) bool {
		return c.heard(m.Contains(stun.AttrUseCandidate), pair, time.Now()) // otherwise Pion decides about pairs
	})
	return webrtc.NewAPI(webrtc.WithMediaEngine(e.media), webrtc.WithSettingEngine(settings),
		webrtc.WithInterceptorRegistry(&interceptor.Registry{}))
}

// panicked notes a panic where packets are sent: a packet of some client's that got through all the checks.
func (e *Engine) panicked(value any) {
	e.counts.panics.Add(1)
	e.log.Error("panic on the way out", "panic", value, "stack", string(debug.Stack()))
}

// Close closes every peer, the timer loop and the sockets, and returns when all of them have ended.
func (e *Engine) Close() error {
	var wg sync.WaitGroup
	for _, p := range e.wheel.close() {
		wg.Go(p.Close)
	}
	wg.Wait()
	e.stop()
	e.loops.Wait()
	err := e.ports.Close()
	e.egress.Close()
	return err
}

// UDPPort is the port that media arrives on, 0 without UDP.
func (e *Engine) UDPPort() int { return e.ports.UDPPort }

// TCPPort is the port of ICE-TCP, 0 without TCP.
func (e *Engine) TCPPort() int { return e.ports.TCPPort }

// Intake is where media for a local address is taken that does not come by the network; nil if that is no address of ours.
func (e *Engine) Intake(at netip.AddrPort) *port.Intake { return e.ports.Intake(at) }

// Stats is a snapshot of the totals.
func (e *Engine) Stats() EngineStats {
	return EngineStats{
		Peers:           e.wheel.len(),
		PeersOpened:     e.counts.peersOpened.Load(),
		BadDescriptions: e.counts.badDescriptions.Load(),
		Panics:          e.counts.panics.Load(),
		Overflows:       e.counts.overflows.Load(),
		Dropped:         e.counts.dropped.Load(),
		Forged:          e.counts.ingress.Forged.Load(),
		Unrouted:        e.counts.ingress.Unrouted.Load(),
		Egress:          e.egress.Stats(),
	}
}

// tickLoop is the only timer of all peers.
func (e *Engine) tickLoop(ctx context.Context) {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	paced, between := false, false
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			if some := e.limited.tick(); some != paced {
				paced, between = some, false
				ticker.Reset(map[bool]time.Duration{false: tickInterval, true: pacedInterval}[paced])
			}
			if between = paced && !between; between {
				continue
			}
			at := time.Now()
			e.watchOverflow(e.ports.Dropped(), at)
			behind := at.Sub(now) > behindBy
			awake, share := e.wheel.turn()
			for _, p := range awake {
				p.attend(now, behind)
			}
			for _, p := range share {
				p.routine(now)
			}
		}
	}
}

// yield waits for a turn at what can wait until nobody else does such. A core then has one of these before it at most, where those who join would otherwise
// find one of each who is in, at every step of their handshake.
func (e *Engine) yield() (done func()) {
	e.yielding <- struct{}{}
	return func() { <-e.yielding }
}

func (e *Engine) add(p *Peer) error {
	if !e.wheel.add(p) {
		return ErrClosed
	}
	e.counts.peersOpened.Add(1)
	return nil
}
