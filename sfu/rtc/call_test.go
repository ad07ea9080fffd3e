package rtc_test

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"callserver/internal/testnet"
	"callserver/sfu/codec"
	"callserver/sfu/forward"
	"callserver/sfu/rtc"

	"github.com/pion/transport/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			println(err.Error())
			code = 1
		}
	}
	os.Exit(code)
}

// world is an engine and its network. Everything happens in virtual time.
type world struct {
	t      *testing.T
	net    *testnet.World // nil = the system's loopback, in real time
	engine *rtc.Engine
	hosts  int
	tcp    bool // clients have nothing but TCP
	hidden bool // clients hide their addresses
}

// bubble runs f in a world of its own, with nothing left over afterwards.
func bubble(t *testing.T, f func(w *world)) { bubbleWith(t, rtc.Options{}, f) }

// bubbleWith is bubble with more options for the engine.
func bubbleWith(t *testing.T, o rtc.Options, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: testnet.NewWorld(t)}
		o.Net, o.UDPPort = w.net.Host("10.0.0.1"), 7881
		var err error
		if w.engine, err = rtc.New(o); err != nil {
			t.Fatal(err)
		}
		defer w.net.Stop()
		defer func() {
			if err := w.engine.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(w)
	})
}

// member is a client with its peer and a loop that does what a session does.
type member struct {
	*testnet.Client
	w    *world
	peer *rtc.Peer
	stop chan struct{}
	loop sync.WaitGroup

	noRTX bool // the client offers no retransmission streams

	negotiation sync.Mutex // the client's: one offer at a time

	mu         sync.Mutex
	events     []rtc.Event
	candidates []string                   // local ones of the client, as "P..." or "S..."
	tracks     []*testnet.Received        // received by the client
	data       []string                   // received by the client
	sources    map[string]*forward.Source // by track id: what AddDownlink sends
	sinks      map[string]*forward.Sink
	wants      []rtc.Want
	sections   []rtc.Section
	answers    []rtc.Answer
	offers     uint32
}

func (w *world) join(single bool, protocol int32) *member {
	w.t.Helper()
	w.hosts++
	m := &member{w: w, stop: make(chan struct{}), sources: map[string]*forward.Source{}, sinks: map[string]*forward.Sink{}}
	peer, err := w.engine.NewPeer(rtc.PeerOptions{Single: single, Protocol: protocol, Subscribes: true, Label: "test"})
	if err != nil {
		w.t.Fatal(err)
	}
	m.peer = peer
	sections := 0
	if single {
		sections = 3
	}
	var host transport.Net
	if w.net != nil {
		host = w.net.Host(netip.AddrFrom4([4]byte{10, 0, 1, byte(w.hosts)}).String())
	}
	m.Client = testnet.NewClient(w.t, testnet.ClientOptions{
		Net: host, TCP: w.tcp, Single: single, Sections: sections,
		Negotiated: single && protocol >= 18,
		Candidate: func(subscriber bool, init string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if w.hidden {
				init = ownAddress.ReplaceAllString(init, "$1 5e1c8b0a-7d34-4d2f-9a51-0c7f6b2d8e93.local $2")
			}
			m.candidates = append(m.candidates, map[bool]string{false: "P", true: "S"}[subscriber]+init)
		},
		Track: func(r *testnet.Received) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.tracks = append(m.tracks, r)
		},
		Data: func(label string, b []byte) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.data = append(m.data, label+" "+string(b))
		},
	})
	m.loop.Go(m.pump)
	return m
}

// pump does what a session does with events, and trickles the client's candidates.
func (m *member) pump() {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-ticker.C:
			m.trickle()
		case <-m.peer.Ready():
			for _, e := range m.peer.Events() {
				m.handle(e)
			}
		}
	}
}

func (m *member) trickle() {
	m.mu.Lock()
	list := m.candidates
	m.candidates = nil
	m.mu.Unlock()
	for _, c := range list {
		target := rtc.Publisher
		if c[0] == 'S' {
			target = rtc.Subscriber
		}
		if err := m.peer.Candidate(target, c[1:]); err != nil {
			m.w.t.Error(err)
		}
	}
}

func (m *member) handle(e rtc.Event) {
	m.mu.Lock()
	m.events = append(m.events, e)
	m.mu.Unlock()
	switch e := e.(type) {
	case rtc.CandidateGathered:
		m.negotiation.Lock() // a session sends the answer first
		defer m.negotiation.Unlock()
		m.Client.Candidate(e.Target == rtc.Subscriber, e.Init)
	case rtc.OfferReady:
		if err := m.peer.Answer(e.ID, m.Client.Answer(e.SDP)); err != nil {
			m.w.t.Error(err)
		}
	case rtc.SectionsNeeded:
		m.negotiation.Lock()
		m.AddSections(e.Audio, e.Video)
		m.negotiation.Unlock()
		m.negotiate(false)
	case rtc.DownlinkBound:
		m.mu.Lock()
		defer m.mu.Unlock()
		k := m.sources[e.TrackID].Attach(e.Writer, forward.SinkOptions{Target: forward.MaxTemporal(2), RTX: e.RTX})
		m.sinks[e.TrackID] = k
		m.peer.SetSink(e.TrackID, k)
	case rtc.Failed:
		m.w.t.Errorf("peer failed: %v", e.Err)
	}
}

// ownAddress is the address in a candidate, between priority and port (RFC 8839 §5.1).
var ownAddress = regexp.MustCompile(`( \d+) \d+\.\d+\.\d+\.\d+ (\d+ typ)`)

var rtxFormat = regexp.MustCompile(`a=rtpmap:\d+ rtx/90000\r\n`)

// negotiate has the client offer and takes the answer.
func (m *member) negotiate(restart bool) rtc.Answer {
	m.w.t.Helper()
	m.negotiation.Lock()
	defer m.negotiation.Unlock()
	m.mu.Lock()
	m.offers++
	id, wants := m.offers, m.wants
	m.mu.Unlock()
	sdp := m.Offer(restart)
	if m.noRTX {
		sdp = rtxFormat.ReplaceAllString(sdp, "")
	}
	a, err := m.peer.Offer(id, sdp, wants)
	if err != nil {
		m.w.t.Errorf("offer: %v", err)
		return a
	}
	m.Accept(a.SDP)
	m.mu.Lock()
	m.sections = append(m.sections, a.Sections...)
	m.answers = append(m.answers, a)
	m.mu.Unlock()
	return a
}

// feed makes a source for the published track and connects its section to it.
func (m *member) feed(a rtc.Answer, cid string, o forward.SourceOptions) *forward.Source {
	m.w.t.Helper()
	for _, s := range a.Sections {
		if s.CID == cid {
			if o.Codec = codec.Parse(s.Mime); o.Codec == codec.Unknown {
				m.w.t.Fatalf("section of %s has codec %q", cid, s.Mime)
			}
			o.Spatials = max(len(s.RIDs), 1)
			source := forward.NewSource(o)
			if err := m.peer.Uplink(s.MID, source); err != nil {
				m.w.t.Fatal(err)
			}
			return source
		}
	}
	m.w.t.Fatalf("no section for %s in %+v", cid, a.Sections)
	return nil
}

// subscribe sends the source to m.
func (m *member) subscribe(track string, s *forward.Source, mime string) {
	m.w.t.Helper()
	m.mu.Lock()
	m.sources[track] = s
	m.mu.Unlock()
	err := m.peer.AddDownlink(rtc.DownlinkOptions{TrackID: track, StreamID: "PA_x|" + track, CNAME: "PA_x", Mime: mime})
	if err != nil {
		m.w.t.Fatal(err)
	}
}

// until looks every 5 ms, as a rule of virtual time, whether ok.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for range 3000 {
		if ok() {
			return
		}
		<-ticker.C
	}
	w.t.Fatalf("not within 15 s: %s", what)
}

func (m *member) connected() bool { return m.peer.Connected() }

// received returns the track that arrives under the id, nil if it does not yet.
func (m *member) received(track string) *testnet.Received {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.tracks {
		if r.Track.ID() == track && strings.HasSuffix(r.Track.StreamID(), "|"+track) {
			return r
		}
	}
	return nil
}

// count is how many events of one type there were.
func count[E rtc.Event](m *member) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, e := range m.events {
		if _, ok := e.(E); ok {
			n++
		}
	}
	return n
}

func (m *member) leave() {
	close(m.stop)
	m.loop.Wait()
	m.peer.Close()
	if m.w.net != nil {
		synctest.Wait() // Pion closing both ends at one instant waits for a timer under a lock: virtual time would stand still
	}
	m.Client.Close()
}
