package signalling

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"callserver/sfu"
	"callserver/sfu/framecrypto"
	"callserver/sfu/rtc"
	"callserver/signalling/token"
)

const (
	legInterval  = 50 * time.Millisecond // between looks at what waits
	reportTicks  = 20                    // between reports of the clocks: a second
	maxLegEvents = 1024                  // that nobody read, after which the leg is broken
	maxKeyrings  = 1024                  // identities that keys may be set for
)

// A Leg is a participant whose media ends here, in a plain WebRTC peer without the client protocol: the other end of a call that
// is bridged into a room. What the remote sends is published as its microphone, camera and screen; what it gets is one stream, of
// who speaks, and a second one of a screen that is shared. Where frames are encrypted end to end the leg opens and seals them, with
// the keys that it is given. Safe for concurrent use.
//
//	remote calls:    JoinLeg, Answer(offer), then events; Answer again for each further offer of the remote
//	we call:         JoinLeg, Offer, Accept(answer), then events
//	OfferWanted:     Offer, Accept(answer); Answer meanwhile takes our offer back
//	end:             Leave, or sfu.Closed, TransportFailed, Broken and then Leave
type Leg struct {
	sess    *Session // nobody's but the leg's: its place in the room, and its peer
	options LegOptions
	own     framecrypto.Keys // what we seal with

	ready chan struct{} // capacity 1
	stop  chan struct{}
	loops sync.WaitGroup
	left  sync.Once

	exchange sync.Mutex // one description at a time; taken before mu

	mu        sync.Mutex
	events    []Event
	described bool // descriptions have been exchanged
	held      bool
	streams   map[string]LegStream // the remote's, as it says
	incoming  map[string]*incoming // by mid
	outgoing  [places]*outgoing    // nil: the remote has no room for it
	director  director
	others    []*sfu.ParticipantInfo             // in the order of joining
	wanted    map[sfu.SID]sfu.DownlinkWanted     // tracks that we may have
	asked     map[sfu.SID]bool                   // tracks that we subscribed to
	keys      map[sfu.Identity]*framecrypto.Keys // what we open with
	ticks     uint64
}

// LegOptions are what is known of a remote before it is described.
type LegOptions struct {
	Client     sfu.ClientInfo
	Metadata   string            // replaces the grant's, if any
	Attributes map[string]string // on top of the grant's

	Encrypted bool // frames are encrypted end to end: nothing of the remote's is published in the clear
	Video     bool // Offer proposes video
	Screens   bool // the remote can show a second stream; else a screen takes the place of the camera
}

// A LegStream is a media stream of a call with a remote, by its id in the descriptions (sdp_stream_metadata of MSC3077).
type LegStream struct {
	Screen                 bool // a shared screen; else the user's camera and microphone
	AudioMuted, VideoMuted bool
}

// A LegDescription is a description of ours, complete with candidates.
type LegDescription struct {
	SDP     string
	Streams map[string]LegStream // what we send
}

// Interrupted says that nothing is heard from the remote of a leg at present. Connected follows, or TransportFailed.
type Interrupted struct{}

// OfferWanted says that what a leg sends has changed and is to be offered: call Offer.
type OfferWanted struct{}

// Shown says what a leg's remote gets now in one of its streams. The queue holds the latest for each.
type Shown struct {
	Source   sfu.TrackSource // Microphone, Camera, or ScreenShare for the second stream
	Identity sfu.Identity    // whose it is; empty: nobody's
	Screen   bool            // a screen, which is shown in the place of a camera too
	Muted    bool            // there is nothing to hear or see at present
}

// Held says whether a leg's remote has stopped receiving, as one does that puts a call on hold.
type Held struct{ On bool }

// RemoteMute says that somebody muted the leg's track in the room.
type RemoteMute struct {
	Source sfu.TrackSource
	Muted  bool
}

// JoinLeg makes a participant with the grant whose media ends here. A refusal is an *Error. The caller ends it with Leave.
func (s *Server) JoinLeg(ctx context.Context, g token.Grant, o LegOptions) (*Leg, error) {
	if err := ctx.Err(); err != nil {
		return nil, Wrong(err)
	}
	if err := s.Check(g); err != nil {
		s.count(err)
		return nil, err
	}
	m := member(g, PeerOptions{Client: o.Client, Metadata: o.Metadata, Attributes: o.Attributes})
	sess, err := s.join(g, m, rtc.PeerOptions{Plain: true})
	if err != nil {
		return nil, err
	}
	l := &Leg{
		sess: sess, options: o, director: director{screens: o.Screens},
		ready: make(chan struct{}, 1), stop: make(chan struct{}),
		streams: map[string]LegStream{}, incoming: map[string]*incoming{}, wanted: map[sfu.SID]sfu.DownlinkWanted{},
		asked: map[sfu.SID]bool{}, keys: map[sfu.Identity]*framecrypto.Keys{},
	}
	l.mu.Lock()
	l.others = sess.Others()
	l.castLocked(time.Now())
	l.mu.Unlock()
	l.loops.Go(l.runLoop)
	return l, nil
}

// runLoop does what the room, the peer and time ask for, until the leg leaves.
func (l *Leg) runLoop() {
	ticker := time.NewTicker(legInterval)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-l.sess.Ready():
			l.mu.Lock()
			l.followLocked()
			l.mu.Unlock()
		case now := <-ticker.C:
			l.mu.Lock()
			l.tickLocked(now)
			l.mu.Unlock()
		}
	}
}

// SID is the participant's id.
func (l *Leg) SID() sfu.SID { return l.sess.sid }

// Ready is signalled when Events may have something to return.
func (l *Leg) Ready() <-chan struct{} { return l.ready }

// Events returns what happened since the last call, oldest first: Connected, Interrupted, TransportFailed, Broken, OfferWanted, Shown, Held,
// RemoteMute, sfu.ParticipantsChanged and, last of all, sfu.Closed.
func (l *Leg) Events() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.events
	l.events = nil
	return out
}

// tellLocked queues an event. Of what an edge shows only the latest counts.
func (l *Leg) tellLocked(e Event) {
	for i, old := range l.events {
		switch e := e.(type) {
		case Shown:
			if o, ok := old.(Shown); ok && o.Source == e.Source {
				l.events[i] = e
				return
			}
		case RemoteMute:
			if o, ok := old.(RemoteMute); ok && o.Source == e.Source {
				l.events[i] = e
				return
			}
		case Held, OfferWanted:
			if fmt.Sprintf("%T", old) == fmt.Sprintf("%T", e) {
				l.events[i] = e
				return
			}
		case sfu.ParticipantsChanged:
			if o, ok := old.(sfu.ParticipantsChanged); ok {
				l.events[i] = merged(o, e)
				return
			}
		}
	}
	if len(l.events) < maxLegEvents {
		l.events = append(l.events, e)
	} else if _, ok := l.events[0].(Broken); !ok {
		l.events = append([]Event{Broken{errors.New("nobody reads the events of the leg")}}, l.events...)
	}
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// merged returns both, with the newer state of who is in both.
func merged(older, newer sfu.ParticipantsChanged) sfu.ParticipantsChanged {
	out := append([]*sfu.ParticipantInfo(nil), older.Participants...)
next:
	for _, p := range newer.Participants {
		for i := range out {
			if out[i].SID == p.SID {
				out[i] = p
				continue next
			}
		}
		out = append(out, p)
	}
	return sfu.ParticipantsChanged{Participants: out}
}

// Others describes everybody else whom the participant may see.
func (l *Leg) Others() []*sfu.ParticipantInfo { return l.sess.Others() }

// Candidate takes a candidate of the remote's, the JSON of an RTCIceCandidateInit, as m.call.candidates has them. One that cannot be
// used is left out.
func (l *Leg) Candidate(init string) { l.sess.Candidate(Publisher, init) }

// SetKey puts the key under an index with which somebody's frames are opened.
func (l *Leg) SetKey(identity sfu.Identity, index uint8, key []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, err := l.keysOfLocked(identity)
	if err == nil {
		err = k.Set(index, key)
	}
	if err != nil {
		return fmt.Errorf("key %d of %s: %w", index, identity, err)
	}
	for _, out := range l.outgoing {
		out.keyed(identity)
	}
	return nil
}

// keysOfLocked returns the keys of somebody, which may have none yet.
func (l *Leg) keysOfLocked(identity sfu.Identity) (*framecrypto.Keys, error) {
	k := l.keys[identity]
	if k == nil {
		if len(l.keys) >= maxKeyrings {
			return nil, fmt.Errorf("there are keys of %d others", maxKeyrings)
		}
		k = &framecrypto.Keys{}
		l.keys[identity] = k
	}
	return k, nil
}

// SetOwnKey puts a key under an index and seals with it from now on.
func (l *Leg) SetOwnKey(index uint8, key []byte) error {
	if err := l.own.Set(index, key); err != nil {
		return fmt.Errorf("our own key %d: %w", index, err)
	}
	if err := l.own.Use(index); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range l.incoming {
		in.keyed()
	}
	return nil
}

// Leave takes the leg out of the room and closes its connection. It returns when that is done. Leaving twice is fine.
func (l *Leg) Leave(reason sfu.Reason) {
	l.left.Do(func() {
		close(l.stop)
		l.loops.Wait()
		l.sess.Leave(reason)
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, in := range l.incoming {
			in.close()
		}
		for _, out := range l.outgoing {
			out.close()
		}
	})
}
