package rtc

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/egress"
	"callserver/sfu/ingress"
	"callserver/sfu/rtc/description"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// maxHeldCandidates bounds the client's candidates that wait for the description they belong to; more are dropped.
const maxHeldCandidates = 256

// connection is one Pion connection of a Peer. Safe for concurrent use.
type connection struct {
	peer   *Peer
	target Target
	api    *webrtc.API
	pc     *webrtc.PeerConnection
	keys   exporter
	paths  paths
	leg    *egress.Leg    // the way out
	inlet  *ingress.Inlet // the way in
	ssrc   uint32         // ours, as the sender of feedback

	congestion congestion // of what we send

	state atomic.Uint32 // State
	gone  atomic.Bool   // the client closed it

	mu        sync.Mutex
	described bool                      // a remote description is set
	remote    []webrtc.ICECandidateInit // until then
	holding   bool                      // local candidates wait for their description to be told
	local     []CandidateGathered       // held ones
	last      *CandidateGathered        // kept back, to mark the last of a gathering
	told      map[string]bool           // candidate lines of this gathering
	ssrcs     map[uint32]bool           // used on the leg: the key is the same for all, so none is used twice
	gathering *gathering                // of a plain peer

	roundTrip atomic.Int64 // time.Duration, as measured last
	measuring atomic.Bool
}

func (p *Peer) newConnection(t Target) (*connection, error) {
	c := &connection{peer: p, target: t, holding: true, told: map[string]bool{}, ssrcs: map[uint32]bool{}}
	c.ssrc = c.newSSRC()
	if p.options.Plain {
		c.gathering = newGathering()
	}
	c.leg = p.worker.NewLeg()
	c.congestion.connection = c
	c.inlet = ingress.New(ingress.Options{SSRC: c.ssrc, Feedback: c.feedback, Transport: c.congestion.feedback, Line: p.wake, Panic: p.panicked, Counters: &p.engine.counts.ingress})
	c.api = p.engine.api(c)
	certificate, err := p.engine.identity.at(time.Now())
	if err != nil {
		return nil, err
	}
	pc, err := c.api.NewPeerConnection(webrtc.Configuration{
		Certificates: []webrtc.Certificate{certificate},
		BundlePolicy: webrtc.BundlePolicyMaxBundle,
		// The default would offer encrypted header extensions, which no receive path of ours knows.
		RTPHeaderEncryptionPolicy: webrtc.RTPHeaderEncryptionPolicyDisable,
	})
	if err != nil {
		return nil, err
	}
	c.pc = pc
	pc.OnICECandidate(c.gathered)
	pc.OnConnectionStateChange(func(webrtc.PeerConnectionState) { c.stateChanged() })
	pc.OnDataChannel(func(d *webrtc.DataChannel) { p.opened(c, d) })
	pc.SCTP().OnClose(func(error) {
		c.gone.Store(true)
		c.stateChanged()
	})
	transportOf(pc).OnStateChange(c.secured)
	transportOf(pc).ICETransport().OnSelectedCandidatePairChange(c.selected)
	return c, nil
}

// secured takes the keys from the finished handshake. Pion calls it under a lock of its own, after checking the client's certificate.
func (c *connection) secured(s webrtc.DTLSTransportState) {
	if s != webrtc.DTLSTransportStateConnected {
		return
	}
	sealer, opener, err := c.keys.keys()
	if err != nil {
		c.peer.fail(err)
		return
	}
	c.leg.SetSealer(sealer)
	c.inlet.SetOpener(opener)
}

// newSSRC returns one that was never used on the connection.
func (c *connection) newSSRC() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if v := rand.Uint32(); v != 0 && !c.ssrcs[v] {
			c.ssrcs[v] = true
			return v
		}
	}
}

func (c *connection) close() {
	c.leave()
	c.peer.engine.limited.remove(c)
	if err := c.pc.GracefulClose(); err != nil {
		c.peer.log.Debug("close connection", "error", err)
	}
}

func (c *connection) up() bool { return State(c.state.Load()) == Connected }

// stateChanged reads the state itself: Pion calls from goroutines of their own, in any order.
func (c *connection) stateChanged() {
	leave, ok := c.peer.enter()
	if !ok {
		return
	}
	defer leave()
	c.peer.mu.Lock()
	next, known := map[webrtc.PeerConnectionState]State{
		webrtc.PeerConnectionStateConnected:    Connected,
		webrtc.PeerConnectionStateDisconnected: Disconnected,
		webrtc.PeerConnectionStateFailed:       FailedState,
		webrtc.PeerConnectionStateConnecting:   Connecting,
	}[c.pc.ConnectionState()]
	if c.gone.Load() {
		next, known = FailedState, true // a close of ours does not come here
	}
	previous := State(c.state.Load())
	changed := known && next != previous
	if changed {
		c.state.Store(uint32(next))
		c.peer.emit(StateChanged{State: next, Target: c.target, Primary: c == c.peer.primary()})
	}
	c.peer.mu.Unlock()
	if changed && next == Connected && c == c.peer.sender() {
		c.peer.bindAll()
	}
}

// gathered takes a local candidate from Pion; nil ends the gathering. One is always kept back, because the client wants
// the last one marked.
func (c *connection) gathered(candidate *webrtc.ICECandidate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gathering != nil {
		c.gathering.take(candidate, c.peer.engine)
		return
	}
	if candidate == nil {
		if c.last != nil {
			c.last.Final = true
			c.tellLocked(*c.last)
		}
		c.last, c.told = nil, map[string]bool{}
		return
	}
	if candidate.Protocol == webrtc.ICEProtocolUDP && c.peer.tcpOnly.Load() {
		return
	}
	for _, told := range c.peer.engine.advertised(*candidate) {
		init := told.ToJSON()
		if c.told[init.Candidate] {
			continue
		}
		c.told[init.Candidate] = true
		text, err := json.Marshal(init)
		if err != nil {
			continue
		}
		if c.last != nil {
			c.tellLocked(*c.last)
		}
		c.last = &CandidateGathered{Target: c.target, Init: string(text)}
	}
}

func (c *connection) tellLocked(e CandidateGathered) {
	if c.holding {
		c.local = append(c.local, e)
		return
	}
	c.peer.emit(e)
}

// hold keeps local candidates back until release.
func (c *connection) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding = true
}

// release tells what was held: the description that it belongs to is queued or returned.
func (c *connection) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding = false
	for _, e := range c.local {
		c.peer.emit(e)
	}
	c.local = nil
}

// describe marks that a remote description is set and returns the candidates that waited for it.
func (c *connection) describe() []webrtc.ICECandidateInit {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.described = true
	waiting := c.remote
	c.remote = nil
	return waiting
}

// Candidate adds a client's candidate, the JSON of an RTCIceCandidateInit. Ones that come before the description that
// they belong to are kept for it; ones of no use to us are ignored.
func (p *Peer) Candidate(t Target, init string) error {
	defer p.recover("candidate")
	c := p.client
	if t == Subscriber && p.server != nil {
		c = p.server
	}
	var candidate webrtc.ICECandidateInit
	if len(init) > maxCandidate {
		return fmt.Errorf("%w: candidate of %d bytes", ErrBadDescription, len(init))
	}
	if err := json.Unmarshal([]byte(init), &candidate); err != nil {
		return fmt.Errorf("%w: candidate: %w", ErrBadDescription, err)
	}
	c.mu.Lock()
	if !c.described {
		if len(c.remote) < maxHeldCandidates {
			c.remote = append(c.remote, candidate)
		}
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	c.addRemote(candidate)
	return nil
}

// maxCandidate bounds the JSON of one candidate, in bytes.
const maxCandidate = 4096

// addRemote hands a candidate to Pion. Browsers hide addresses behind mDNS names that we do not resolve (their checks
// reach us anyway), and end with an empty one; what Pion does not understand costs that candidate only.
func (c *connection) addRemote(candidate webrtc.ICECandidateInit) {
	if candidate.Candidate == "" || strings.Contains(candidate.Candidate, ".local ") {
		return
	}
	if c.peer.tcpOnly.Load() && strings.Contains(strings.ToLower(candidate.Candidate), " udp ") {
		return
	}
	if err := c.pc.AddICECandidate(candidate); err != nil {
		c.peer.log.Debug("ignore candidate", "candidate", candidate.Candidate, "error", err)
	}
}

// addRemotes hands over the candidates of a description and those that waited for it.
func (c *connection) addRemotes(d *description.Description) {
	waiting := c.describe()
	for i, line := range d.Candidates() {
		if i >= maxHeldCandidates {
			break
		}
		c.addRemote(webrtc.ICECandidateInit{Candidate: "candidate:" + line})
	}
	for _, candidate := range waiting {
		c.addRemote(candidate)
	}
}

// send sends RTCP packets, as few datagrams as hold them. Failing to is no error: reports are repeated.
func (c *connection) send(packets []rtcp.Packet) {
	const limit = 1200 // bytes of a compound packet
	for len(packets) > 0 {
		n, size := 0, 0
		for n < len(packets) && (n == 0 || size+packets[n].MarshalSize() <= limit) {
			size += packets[n].MarshalSize()
			n++
		}
		if b, err := rtcp.Marshal(packets[:n]); err == nil {
			c.leg.RTCP(b)
		}
		packets = packets[n:]
	}
}

// rtt is the round trip time of the chosen candidate pair, 0 while unknown.
func (c *connection) rtt() time.Duration { return time.Duration(c.roundTrip.Load()) }

// measure asks Pion for the round trip time, in a goroutine of the peer's, because Pion keeps its locks for as long as a connection takes to
// close.
func (c *connection) measure() {
	if !c.measuring.CompareAndSwap(false, true) {
		return
	}
	c.peer.start(func() {
		defer c.measuring.Store(false)
		if stats, ok := transportOf(c.pc).ICETransport().GetSelectedCandidatePairStats(); ok {
			c.roundTrip.Store(int64(stats.CurrentRoundTripTime * float64(time.Second)))
		}
	})
}
