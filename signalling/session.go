package signalling

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"callserver/sfu"
	"callserver/sfu/rtc"
	"callserver/signalling/token"
)

// A Session is a participant of a room together with its WebRTC peer. It outlives the connection that its edge's
// client talks through. All methods but Ready, SID and Is belong to one goroutine, the loop of its edge, which calls
// Events whenever Ready is signalled and before it acts on an offer of the client.
type Session struct {
	grant  token.Grant
	ladder *ladder
	log    *slog.Logger
	part   *sfu.Participant
	peer   *rtc.Peer
	sid    sfu.SID
	single bool

	uplinks   uplinks
	downlinks map[sfu.SID]string // track -> mime, wanted towards the client
	offered   bool               // the client has shown its first description
	connected bool               // the media connection has been up
	since     time.Time          // when it came up last
	step      step               // what the negotiations are about

	ready chan struct{} // capacity 1; of participant and peer
	left  sync.Once
	ice   func(sfu.SID) []ICEServer
	ended func(sfu.Reason) // takes the session out of the server's registry
}

// Ready is signalled when Events may have something to return. Safe for concurrent use.
func (s *Session) Ready() <-chan struct{} { return s.ready }

// ICEServers are what the client may use besides our own addresses, with credentials that hold from now on for a while.
func (s *Session) ICEServers() []ICEServer {
	if s.step == relayAlone {
		return withoutUDP(s.ice(s.sid))
	}
	return s.ice(s.sid)
}

// SID is the participant's id. Safe for concurrent use.
func (s *Session) SID() sfu.SID { return s.sid }

// Is reports whether the session is that of identity in room. Safe for concurrent use.
func (s *Session) Is(room sfu.RoomID, identity sfu.Identity) bool {
	return s.grant.Room == string(room) && s.grant.Identity == string(identity)
}

// Grant is what the client's token allows.
func (s *Session) Grant() token.Grant { return s.grant }

// Info describes the participant.
func (s *Session) Info() sfu.ParticipantInfo { return s.part.Info() }

// Others describes everybody else whom the participant may see.
func (s *Session) Others() []*sfu.ParticipantInfo { return s.part.Others() }

// Snapshot is the room, the participant and the others at one moment. What Events returns afterwards is newer.
func (s *Session) Snapshot() sfu.Snapshot { return s.part.Snapshot() }

// Single reports whether the client has one connection, which it offers itself.
func (s *Session) Single() bool { return s.single }

// EverConnected reports whether the media connection has been up at some time.
func (s *Session) EverConnected() bool { return s.connected }

// Start begins the negotiation with a client that has two connections: our offer comes by Events. A client with one
// connection offers by itself.
func (s *Session) Start() {
	if !s.single {
		s.joined()
	}
}

// Offer answers the client's offer, and announces the tracks that it shows for the first time. A refusal is an
// *Error; the session is then of no further use to the client.
func (s *Session) Offer(id uint32, sdp string) (Description, error) {
	a, err := s.peer.Offer(id, sdp, s.uplinks.wants())
	if err != nil {
		return Description{}, &Error{Code: Invalid, Text: "offer refused", Err: fmt.Errorf("answer offer %d of %s: %w", id, s.sid, err)}
	}
	s.joined()
	now := time.Now()
	for _, track := range s.uplinks.offered(a.Sections) {
		s.part.Unpublish(track, now)
	}
	s.bind(now)
	s.part.ResendQualities(now)
	return Description{ID: a.ID, SDP: a.SDP, Tracks: tracks(a.Tracks)}, nil
}

// joined notes that the negotiation has begun.
func (s *Session) joined() {
	if !s.offered {
		s.offered = true
		s.part.SetState(sfu.Joined, time.Now())
	}
}

// bind lets media flow into the tracks whose section has been found.
func (s *Session) bind(now time.Time) {
	for _, p := range s.uplinks.match() {
		media := sfu.Media{MID: p.section.MID, Mime: p.section.Mime, RIDs: p.section.RIDs, SSRCs: p.section.SSRCs}
		if !slices.Contains(p.asked.cids, p.section.CID) {
			media.SDPCID = p.section.CID
		}
		source, err := s.part.Negotiated(p.asked.track, media, now)
		if err == nil {
			err = s.peer.Uplink(p.section.MID, source)
		}
		if err != nil {
			s.log.Warn("track not received", "track", p.asked.track, "mid", p.section.MID, "err", err)
		}
	}
}

// Answer takes the client's answer to our offer.
func (s *Session) Answer(id uint32, sdp string) error {
	err := s.peer.Answer(id, sdp)
	if err == nil || errors.Is(err, rtc.ErrStale) { // a stale answer is the client's to get over
		return nil
	}
	return &Error{Code: Invalid, Text: "answer refused", Err: fmt.Errorf("answer %d of %s: %w", id, s.sid, err)}
}

// Candidate takes one of the client's ICE candidates. One that cannot be used is left out: ICE needs only one that can.
func (s *Session) Candidate(t Target, init string) {
	if err := s.peer.Candidate(rtc.Target(t), init); err != nil {
		s.log.Debug("candidate not used", "err", err)
	}
}

// Publish announces a track, or one more codec of a track that r names. The error is one of sfu's.
func (s *Session) Publish(r sfu.TrackRequest) (sfu.TrackInfo, error) {
	info, err := s.part.Publish(r, time.Now())
	if err != nil {
		return sfu.TrackInfo{}, err
	}
	s.ask(r.CID, info)
	return info, nil
}

// ask remembers what to look for in the client's offers, and looks at the latest.
func (s *Session) ask(cid string, info sfu.TrackInfo) {
	a := &asked{track: info.SID, cids: []string{cid}, want: rtc.Want{
		Video:      info.Kind == sfu.Video,
		DisableRED: info.DisableRED,
		DisableDTX: info.DisableDTX,
		Stereo:     info.Stereo,
		Encrypted:  info.Encryption != sfu.EncryptionNone,
	}}
	for _, c := range info.Codecs {
		if c.CID == cid {
			a.want.Mime = c.Mime
		}
	}
	s.uplinks.ask(a)
	s.bind(time.Now())
}

// Announced reports whether the client published the track, whether or not media has been negotiated for it.
func (s *Session) Announced(track sfu.SID) bool {
	return slices.ContainsFunc(s.uplinks.asked, func(a *asked) bool { return a.track == track })
}

// Mute says that the client muted or unmuted a track of its own.
func (s *Session) Mute(track sfu.SID, muted bool) error { return s.part.Mute(track, muted, time.Now()) }

// Subscribe subscribes the participant to tracks or away from them.
func (s *Session) Subscribe(tracks []sfu.SID, on bool) { s.part.Subscribe(tracks, on, time.Now()) }

// Settings says what the client wants of tracks that it receives.
func (s *Session) Settings(tracks []sfu.SID, t sfu.TrackSettings) {
	s.part.Settings(tracks, t, time.Now())
}

// Permissions says who may receive the participant's tracks.
func (s *Session) Permissions(all bool, p []sfu.TrackPermission) {
	s.part.Permissions(all, p, time.Now())
}

// Update changes the participant's name, metadata and attributes; nil leaves as is, an empty attribute deletes it.
func (s *Session) Update(name, metadata *string, attributes map[string]string) error {
	return s.part.Update(name, metadata, attributes, time.Now())
}

// UpdateAudioTrack changes the features of an audio track of the participant.
func (s *Session) UpdateAudioTrack(track sfu.SID, features []int32) error {
	return s.part.UpdateAudioTrack(track, features, time.Now())
}

// UpdateVideoTrack changes the size, in pixels, of a video track of the participant.
func (s *Session) UpdateVideoTrack(track sfu.SID, width, height uint32) error {
	return s.part.UpdateVideoTrack(track, width, height, time.Now())
}

// SendData sends a message to the data channels of those identities, or of everybody else in the room if there are
// none. It never blocks, and the payload must not be written afterwards. The error is one of sfu's.
func (s *Session) SendData(payload []byte, reliable bool, to []sfu.Identity) error {
	return s.part.SendData(payload, reliable, to)
}

// Lost says that the media connection is dead while the client is heard otherwise: that is the fault of the way that it took, and the next
// negotiation may be about another one.
func (s *Session) Lost() {
	now, way := time.Now(), s.peer.Way()
	if next := s.ladder.lost(stayOf(s.grant), way, s.since, now); next != allWays {
		s.log.Info("media ended soon", "over", way.String(), "after", now.Sub(s.since).Round(time.Second), "next", next.String())
	}
}

// Return decides which ways the client is told that comes back. It comes before RelayAlone, ICEServers and Resume.
func (s *Session) Return() {
	s.step = s.ladder.next(stayOf(s.grant), time.Now())
	s.peer.AvoidUDP(s.step == tcpAlone)
}

// RelayAlone reports whether the client is to use a relay and nothing else, because all else did not last.
func (s *Session) RelayAlone() bool { return s.step == relayAlone }

// Resume has everything told again to a client that comes back, and its connections negotiated anew.
func (s *Session) Resume() {
	s.part.Resync(time.Now())
	s.peer.Negotiate(true)
}

// Leave takes the participant out of the room and closes its connections. It returns when they are closed. Leaving
// twice is fine.
func (s *Session) Leave(reason sfu.Reason) {
	s.left.Do(func() {
		s.part.Leave(reason, time.Now())
		s.peer.Close()
		s.ended(reason)
	})
}

func tracks(m map[string]string) map[string]sfu.SID {
	out := make(map[string]sfu.SID, len(m))
	for mid, track := range m {
		out[mid] = sfu.SID(track)
	}
	return out
}
