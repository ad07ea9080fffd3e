package rtc

import (
	"errors"
	"sync"
	"time"

	"callserver/sfu/forward"
)

// Peer is the WebRTC end of one client. Safe for concurrent use, but descriptions are handled one after the other.
type Peer struct {
	engine  *Engine
	options PeerOptions
	events  *events

	mu sync.Mutex
}

// NewPeer creates the connection or connections of a client. The caller closes it.
func (e *Engine) NewPeer(o PeerOptions) (*Peer, error) {
	return &Peer{engine: e, options: o, events: newEvents()}, nil
}

var errSkeleton = errors.New("not built yet")

// Offer applies a client's offer for the connection that the client offers and returns the answer to send. Wants order
// codecs by what add_track asked. It refuses with ErrBadDescription.
func (p *Peer) Offer(id uint32, sdp string, wants []Want) (Answer, error) {
	return Answer{}, errSkeleton
}

// Answer applies a dual-mode client's answer to our offer id; 0 stands for the outstanding one.
func (p *Peer) Answer(id uint32, sdp string) error { return errSkeleton }

// Candidate adds a client's candidate, the JSON of an RTCIceCandidateInit. Ones that come before the description that
// they belong to are kept for it.
func (p *Peer) Candidate(t Target, init string) error { return errSkeleton }

// Uplink lets the packets of the section flow into s; before that they are dropped. Nil stops them again.
func (p *Peer) Uplink(mid string, s *forward.Source) error { return errSkeleton }

// AddDownlink wants a track sent to the client. DownlinkBound follows when it is negotiated. Adding a track that is
// there already does nothing.
func (p *Peer) AddDownlink(o DownlinkOptions) error { return errSkeleton }

// RemoveDownlink stops sending the track and frees its section.
func (p *Peer) RemoveDownlink(trackID string) {}

// SetSink directs the client's feedback on the track to k; nil drops it.
func (p *Peer) SetSink(trackID string, k *forward.Sink) {}

// Negotiate has a dual-mode client's subscriber connection offered anew as soon as no offer is outstanding, with new
// ICE credentials if asked. A single-mode client is asked for sections if downlinks wait for some.
func (p *Peer) Negotiate(iceRestart bool) {}

// WriteData sends a message on the data channel towards the client. It never blocks: lossy messages are dropped when the
// client reads too slowly, and a reliable channel that falls too far behind fails the peer.
func (p *Peer) WriteData(reliable bool, b []byte) error { return errSkeleton }

// Connected reports whether the primary connection is up.
func (p *Peer) Connected() bool { return false }

// Ready is signalled when Events has something to return.
func (p *Peer) Ready() <-chan struct{} { return p.events.ready }

// Events returns what happened since the last call, oldest first.
func (p *Peer) Events() []Event { return p.events.drain() }

// Close closes the connections and returns when their goroutines have ended. It must not be called from a forward.Writer
// or forward.Upstream call.
func (p *Peer) Close() {}

func (p *Peer) tick(time.Time) {}
