package rtc

import (
	"sync"

	"callserver/sfu/forward"
)

// Event is something that a Peer tells its owner. The types are CandidateGathered, OfferReady, SectionsNeeded,
// StateChanged, DownlinkBound, DownlinkRefused, BitrateChanged, LineChanged, DataReceived, DataOpen and Failed.
type Event interface{ event() }

// CandidateGathered is a local candidate to trickle. It is queued after the description that it belongs to.
type CandidateGathered struct {
	Target Target
	Init   string // JSON of RTCIceCandidateInit
	Final  bool   // the last one of this gathering
}

// OfferReady is our offer for a dual-mode client's subscriber connection.
type OfferReady struct {
	ID     uint32
	SDP    string
	Tracks map[string]string // mid -> track id
}

// SectionsNeeded asks a single-mode client for a new offer with so many additional receive-only sections. Zero of both
// is meaningful: the sections that it has are enough, but must be negotiated again.
type SectionsNeeded struct{ Audio, Video int }

// State is the state of the primary connection: the only one, or the subscriber's where there is one.
type State uint8

// The states of a connection.
const (
	Connecting   State = iota
	Connected          // ICE and DTLS are up
	Disconnected       // nothing heard for Options.ICEDisconnected; may recover
	FailedState        // given up; only an ICE restart or a new peer helps
)

// String names the state in lower case.
func (s State) String() string {
	return [...]string{"connecting", "connected", "disconnected", "failed"}[s]
}

// StateChanged reports a new state of one connection. Primary marks the one that decides whether the client is there.
type StateChanged struct {
	State   State
	Target  Target
	Primary bool
}

// DownlinkBound says that a downlink is negotiated: a sink may be attached to Writer.
type DownlinkBound struct {
	TrackID string
	Writer  forward.Writer
	RTX     bool // lost packets are sent again on a stream of their own (RFC 4588)
}

// DownlinkRefused says that the client cannot receive the track's codec. The downlink is gone.
type DownlinkRefused struct{ TrackID string }

// BitrateChanged says how many bits/s of video, with all headers, the client can be sent. While there is a limit it comes several times a second,
// and Want is the answer.
type BitrateChanged struct {
	Bitrate int64
	Limited bool // false: as much as there is
}

// LineChanged says that the line over which the client sends has become narrow, or that it seems to be wide again.
type LineChanged struct{ Narrow bool }

// DataReceived is one message of a data channel. The payload belongs to the receiver of the event.
type DataReceived struct {
	Reliable bool
	Label    string
	Payload  []byte
}

// DataOpen says that both data channels towards the client are open.
type DataOpen struct{}

// Failed says that the peer is beyond use; its owner should close it and have the client start anew.
type Failed struct{ Err error }

func (CandidateGathered) event() {}
func (OfferReady) event()        {}
func (SectionsNeeded) event()    {}
func (StateChanged) event()      {}
func (DownlinkBound) event()     {}
func (DownlinkRefused) event()   {}
func (BitrateChanged) event()    {}
func (LineChanged) event()       {}
func (DataReceived) event()      {}
func (DataOpen) event()          {}
func (Failed) event()            {}

// Limits of the event queue. Lossy data beyond maxDataEvents is dropped; any other overflow fails the peer, because
// its owner has stopped listening.
const (
	maxEvents     = 4096
	maxDataEvents = 1024
)

// events is a bounded queue with a wake-up channel. Safe for concurrent use.
type events struct {
	ready chan struct{}

	mu      sync.Mutex
	queue   []Event
	data    int // DataReceived among them
	dropped uint64
	closed  bool
}

func newEvents(ready chan struct{}) *events {
	if ready == nil {
		ready = make(chan struct{}, 1)
	}
	return &events{ready: ready}
}

// push appends e and reports whether it fitted.
func (q *events) push(e Event) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return true
	}
	if d, ok := e.(DataReceived); ok {
		if q.data >= maxDataEvents && !d.Reliable {
			q.dropped++
			return true
		}
		q.data++
	}
	if _, ok := e.(BitrateChanged); ok {
		for i := len(q.queue) - 1; i >= 0; i-- {
			if _, ok := q.queue[i].(BitrateChanged); ok { // only the newest counts
				q.queue[i] = e
				return true
			}
		}
	}
	if len(q.queue) >= maxEvents {
		return false
	}
	q.queue = append(q.queue, e)
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return true
}

// overflow replaces everything queued by one Failed and takes nothing more.
func (q *events) overflow(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed = true
	q.queue = []Event{Failed{Err: err}}
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// drain returns what was queued, oldest first.
func (q *events) drain() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.queue
	q.queue, q.data = nil, 0
	return out
}
