package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"
)

// A caller is one user with one older client, in at most one call. Safe for concurrent use.
type caller struct {
	*account
	user string
	bot  string
	api  *webrtc.API

	mu   sync.Mutex
	call *session // the last one; nil before the first
}

// A session is one call of a caller.
type session struct {
	id, party string
	peer      *webrtc.PeerConnection
	voice     *webrtc.TrackLocalStaticRTP
	invited   time.Time
	heard     chan struct{} // closed with the first packet
	over      chan struct{} // closed when the bot hangs up or rejects

	mu      sync.Mutex
	answer  time.Time // by the bot
	linked  time.Time // ICE and DTLS
	first   time.Time // packet
	ended   time.Time // by the bot
	reason  string
	failed  error
	waiting []webrtc.ICECandidateInit // until the answer is there
}

// content is what is read of every event of a call.
type content struct {
	Call       string                     `json:"call_id"`
	Party      string                     `json:"party_id"`
	Reason     string                     `json:"reason"`
	Answer     *webrtc.SessionDescription `json:"answer"`
	Candidates []webrtc.ICECandidateInit  `json:"candidates"`
}

// newAPI makes what peers are made with: sound only, on loopback, without anything that a call over loopback needs not.
func newAPI() (*webrtc.API, error) {
	var media webrtc.MediaEngine
	opus := webrtc.RTPCodecParameters{
		RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1"},
		PayloadType:        111,
	}
	if err := media.RegisterCodec(opus, webrtc.RTPCodecTypeAudio); err != nil {
		return nil, err
	}
	var setting webrtc.SettingEngine
	setting.SetIncludeLoopbackCandidate(true)
	setting.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	setting.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	return webrtc.NewAPI(webrtc.WithMediaEngine(&media), webrtc.WithSettingEngine(setting)), nil
}

// busy reports whether the caller is in a call or waits for one.
func (c *caller) busy() bool {
	s := c.session()
	return s != nil && s.up()
}

func (c *caller) session() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.call
}

// up reports whether media flows and nobody has hung up.
func (s *session) up() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed == nil && !s.first.IsZero() && s.ended.IsZero()
}

// place calls the bot. The session's channels tell what becomes of it.
func (c *caller) place(ctx context.Context) (*session, error) {
	s := &session{id: rand.Text(), party: rand.Text(), heard: make(chan struct{}), over: make(chan struct{})}
	if err := s.open(c.api); err != nil {
		return s, err
	}
	offer, err := s.peer.CreateOffer(nil)
	if err != nil {
		return s, err
	}
	gathered := webrtc.GatheringCompletePromise(s.peer)
	if err := s.peer.SetLocalDescription(offer); err != nil {
		return s, err
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return s, ctx.Err()
	}
	c.mu.Lock()
	c.call = s
	c.mu.Unlock()
	s.invited = time.Now()
	return s, c.send(ctx, "m.call.invite", "invite-"+s.id, map[string]any{
		"call_id": s.id, "party_id": s.party, "version": "1", "lifetime": 60_000, "invitee": c.bot,
		"offer":               s.peer.LocalDescription(),
		"sdp_stream_metadata": map[string]any{s.voice.StreamID(): map[string]any{"purpose": "m.usermedia", "audio_muted": false, "video_muted": true}},
	})
}

// open makes the peer with its track.
func (s *session) open(api *webrtc.API) (err error) {
	if s.peer, err = api.NewPeerConnection(webrtc.Configuration{}); err != nil {
		return err
	}
	if s.voice, err = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, "voice", "stream-"+s.id); err != nil {
		return err
	}
	if _, err = s.peer.AddTrack(s.voice); err != nil {
		return err
	}
	s.peer.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if state == webrtc.PeerConnectionStateConnected && s.linked.IsZero() {
			s.linked = time.Now()
		}
	})
	s.peer.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { // in a goroutine of its own, which ends with the peer
		buffer := make([]byte, 1500)
		for first := true; ; first = false {
			if _, _, err := t.Read(buffer); err != nil {
				return
			}
			if first {
				s.packet()
			}
		}
	})
	return nil
}

// packet notes the first packet.
func (s *session) packet() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first.IsZero() {
		s.first = time.Now()
		close(s.heard)
	}
}

// listen takes an event of the room.
func (c *caller) listen(ctx context.Context, e incoming, at time.Time) {
	s := c.session()
	var what content
	if s == nil || e.Sender != c.bot || json.Unmarshal(e.Content, &what) != nil || what.Call != s.id {
		return
	}
	switch e.Type {
	case "m.call.answer":
		s.mu.Lock()
		s.answer = at
		s.mu.Unlock()
		if err := s.take(what.Answer); err != nil {
			s.fail(err)
			return
		}
		err := c.send(ctx, "m.call.select_answer", "select-"+s.id, map[string]any{"call_id": s.id, "party_id": s.party, "version": "1", "selected_party_id": what.Party})
		if err != nil {
			s.fail(err)
		}
	case "m.call.candidates":
		s.candidates(what.Candidates)
	case "m.call.hangup", "m.call.reject":
		s.hungUp(what.Reason, at)
	}
}

func (s *session) take(answer *webrtc.SessionDescription) error {
	if answer == nil {
		return fmt.Errorf("an answer without a description")
	}
	if err := s.peer.SetRemoteDescription(*answer); err != nil {
		return err
	}
	s.mu.Lock()
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	s.candidates(waiting)
	return nil
}

// candidates of the bot, which may come before its answer.
func (s *session) candidates(all []webrtc.ICECandidateInit) {
	if s.peer.RemoteDescription() == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waiting = append(s.waiting, all...)
		return
	}
	for _, one := range all {
		if one.Candidate == "" {
			continue // there are no more
		}
		if err := s.peer.AddICECandidate(one); err != nil {
			s.fail(err)
		}
	}
}

func (s *session) hungUp(reason string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.IsZero() {
		s.ended, s.reason = at, reason
		close(s.over)
	}
}

func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
}

// hangup ends the call, if there is one.
func (c *caller) hangup(ctx context.Context) error {
	s := c.session()
	if s == nil {
		return nil
	}
	if s.peer != nil {
		_ = s.peer.Close() // it ends either way
	}
	if !s.up() {
		return nil
	}
	s.hungUp("by the caller", time.Now())
	return c.send(ctx, "m.call.hangup", "hangup-"+s.id, map[string]any{"call_id": s.id, "party_id": s.party, "version": "1", "reason": "user_hangup"})
}
