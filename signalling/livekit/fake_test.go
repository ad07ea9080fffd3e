package livekit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/livekit"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"google.golang.org/protobuf/proto"

	"callserver/signalling/token"
)

// A fake is a client of the protocol as SDKs are: it answers what it is asked over the websocket and keeps what it is
// told. One connection (v1) or two (v0).
type fake struct {
	t      testing.TB
	node   *node
	grant  token.Grant
	single bool

	ctx    context.Context //nolint:containedctx // the life of the fake, which its test ends
	cancel context.CancelFunc
	loops  sync.WaitGroup
	pub    *webrtc.PeerConnection // the only one with v1
	sub    *webrtc.PeerConnection

	mu        sync.Mutex
	ws        *websocket.Conn
	unsaid    [][]byte // before there was a websocket
	told      []*livekit.SignalResponse
	news      chan struct{} // closed and replaced with every message and packet
	sid       string
	token     string // newest
	offering  bool   // an offer is unanswered
	again     bool   // offer once more after it
	offerID   uint32
	early     map[livekit.SignalTarget][]webrtc.ICECandidateInit
	received  map[string]int    // packets by track sid
	payloads  map[string][]byte // last payload by track sid
	data      []*livekit.DataPacket
	channels  map[string]*webrtc.DataChannel
	published map[string]*webrtc.TrackLocalStaticRTP // by cid
	tracks    []*webrtc.TrackRemote
}

// join connects a client that subscribes to everything. Its first message is there when join returns.
func (n *node) join(t testing.TB, identity string, single bool) *fake {
	t.Helper()
	return n.joinAs(t, grant(identity), single)
}

func (n *node) joinAs(t testing.TB, g token.Grant, single bool) *fake {
	t.Helper()
	f := &fake{
		t: t, node: n, grant: g, single: single, token: mint(t, g),
		news:     make(chan struct{}),
		early:    map[livekit.SignalTarget][]webrtc.ICECandidateInit{},
		received: map[string]int{}, payloads: map[string][]byte{},
		channels: map[string]*webrtc.DataChannel{}, published: map[string]*webrtc.TrackLocalStaticRTP{},
	}
	f.ctx, f.cancel = context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(f.close)
	f.pub = f.newPC(livekit.SignalTarget_PUBLISHER)
	for _, label := range []string{reliableLabel, lossyLabel} {
		f.open(f.pub, label)
	}
	var first *livekit.SignalResponse
	if single {
		f.placeholders(3, 3)
		offer := f.createOffer()
		first = f.connect("/rtc/v1", url.Values{"join_request": {wrap(t, &livekit.JoinRequest{
			ClientInfo:         &livekit.ClientInfo{Sdk: livekit.ClientInfo_JS, Version: "2.23.0", Protocol: 17},
			ConnectionSettings: &livekit.ConnectionSettings{AutoSubscribe: true},
			PublisherOffer:     &livekit.SessionDescription{Type: "offer", Sdp: offer.SDP, Id: f.offerID},
		}, livekit.WrappedJoinRequest_GZIP)}})
	} else {
		f.sub = f.newPC(livekit.SignalTarget_SUBSCRIBER)
		first = f.connect("/rtc", url.Values{"auto_subscribe": {"1"}, "sdk": {"js"}, "protocol": {"16"}, "version": {"2.23.0"}})
	}
	f.sid = first.GetJoin().GetParticipant().GetSid()
	if f.sid == "" {
		t.Fatalf("first message of %s is %v, want join", g.Identity, first)
	}
	return f
}

// connect opens the websocket, waits for the first message and starts reading the others.
func (f *fake) connect(path string, query url.Values) *livekit.SignalResponse {
	f.t.Helper()
	query.Set("access_token", f.token)
	ws, _, err := websocket.Dial(f.ctx, f.node.ws(path+"?"+query.Encode()), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	ws.SetReadLimit(maxMessage)
	first, err := f.read(ws)
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.ws = ws
	unsaid := f.unsaid
	f.unsaid = nil
	f.mu.Unlock()
	for _, raw := range unsaid {
		_ = ws.Write(f.ctx, websocket.MessageBinary, raw)
	}
	f.loops.Go(func() { f.readLoop(ws) })
	return first
}

// resume connects again to the session that the client has.
func (f *fake) resume() *livekit.SignalResponse {
	f.t.Helper()
	f.mu.Lock()
	f.told, f.offering, f.again = nil, false, false
	f.mu.Unlock()
	if !f.single {
		return f.connect("/rtc", url.Values{"reconnect": {"1"}, "sid": {f.sid}, "protocol": {"16"}})
	}
	return f.connect("/rtc/v1", url.Values{"join_request": {wrap(f.t, &livekit.JoinRequest{
		ClientInfo: &livekit.ClientInfo{Protocol: 17}, Reconnect: true, ParticipantSid: f.sid,
	}, livekit.WrappedJoinRequest_NONE)}})
}

func (f *fake) read(ws *websocket.Conn) (*livekit.SignalResponse, error) {
	_, raw, err := ws.Read(f.ctx)
	if err != nil {
		return nil, err
	}
	m := &livekit.SignalResponse{}
	if err := proto.Unmarshal(raw, m); err != nil {
		f.t.Error(err)
		return nil, err
	}
	f.note(func() { f.told = append(f.told, m) })
	return m, nil
}

func (f *fake) readLoop(ws *websocket.Conn) {
	for {
		m, err := f.read(ws)
		if err != nil {
			return
		}
		if err := f.react(m); err != nil && f.ctx.Err() == nil {
			f.t.Errorf("%s: %T: %v", f.grant.Identity, m.Message, err)
		}
	}
}

// note changes what the client knows and wakes who waits for it.
func (f *fake) note(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.news)
	f.news = make(chan struct{})
}

// until waits for what the client knows to satisfy ok.
func (f *fake) until(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		f.mu.Lock()
		done, news := ok(), f.news
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-news:
		case <-deadline:
			f.mu.Lock()
			defer f.mu.Unlock()
			f.t.Fatalf("%s waited in vain for %s; told %v", f.grant.Identity, what, summary(f.told))
		}
	}
}

// heard waits for a message and returns the first that matches.
func heard[T any](f *fake, what string, pick func(*livekit.SignalResponse) (T, bool)) (found T) {
	f.t.Helper()
	f.until(what, func() bool {
		for _, m := range f.told {
			if v, ok := pick(m); ok {
				found = v
				return true
			}
		}
		return false
	})
	return found
}

// participant waits for an update about an identity that satisfies ok.
func (f *fake) participant(identity, what string, ok func(*livekit.ParticipantInfo) bool) *livekit.ParticipantInfo {
	f.t.Helper()
	return heard(f, identity+" "+what, func(m *livekit.SignalResponse) (*livekit.ParticipantInfo, bool) {
		for _, p := range append(m.GetUpdate().GetParticipants(), m.GetJoin().GetOtherParticipants()...) {
			if p.Identity == identity && ok(p) {
				return p, true
			}
		}
		return nil, false
	})
}

func summary(told []*livekit.SignalResponse) (kinds []string) {
	for _, m := range told {
		kinds = append(kinds, strings.TrimPrefix(fmt.Sprintf("%T", m.Message), "*livekit.SignalResponse_"))
	}
	return kinds
}

// react does what every client does about a message.
func (f *fake) react(m *livekit.SignalResponse) error {
	switch m := m.Message.(type) {
	case *livekit.SignalResponse_RefreshToken:
		f.note(func() { f.token = m.RefreshToken })
	case *livekit.SignalResponse_Answer:
		return f.answered(m.Answer)
	case *livekit.SignalResponse_Offer:
		return f.answer(m.Offer)
	case *livekit.SignalResponse_Trickle:
		return f.candidate(m.Trickle)
	case *livekit.SignalResponse_MediaSectionsRequirement:
		f.placeholders(int(m.MediaSectionsRequirement.NumAudios), int(m.MediaSectionsRequirement.NumVideos))
		f.offer(false)
	}
	return nil
}

func (f *fake) say(m *livekit.SignalRequest) {
	raw, err := proto.Marshal(m)
	if err != nil {
		f.t.Error(err)
		return
	}
	f.mu.Lock()
	ws := f.ws
	if ws == nil {
		f.unsaid = append(f.unsaid, raw)
	}
	f.mu.Unlock()
	if ws != nil {
		_ = ws.Write(f.ctx, websocket.MessageBinary, raw)
	}
}

func (f *fake) newPC(target livekit.SignalTarget) *webrtc.PeerConnection {
	f.t.Helper()
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetFireOnTrackBeforeFirstRTP(true) // whoever waits for the first is ours, and close wakes it
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() })
	if f.node.settings != nil {
		f.node.settings(&s)
	}
	var media webrtc.MediaEngine
	if err := media.RegisterDefaultCodecs(); err != nil {
		f.t.Fatal(err)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(&media)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		f.t.Fatal(err)
	}
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c == nil {
			return
		}
		raw, _ := json.Marshal(c.ToJSON())
		f.say(&livekit.SignalRequest{Message: &livekit.SignalRequest_Trickle{
			Trickle: &livekit.TrickleRequest{CandidateInit: string(raw), Target: target},
		}})
	})
	pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { f.receive(track) })
	pc.OnDataChannel(func(d *webrtc.DataChannel) { f.listen(d) })
	return pc
}

// receive counts the packets of a track; Pion gives each track a goroutine of its own.
func (f *fake) receive(track *webrtc.TrackRemote) {
	f.mu.Lock()
	if f.ctx.Err() != nil { // close has begun
		f.mu.Unlock()
		return
	}
	f.tracks = append(f.tracks, track)
	f.loops.Add(1)
	f.mu.Unlock()
	defer f.loops.Done()
	_, sid, _ := strings.Cut(track.StreamID(), "|")
	for {
		p, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		f.note(func() { f.received[sid]++; f.payloads[sid] = p.Payload })
	}
}

func (f *fake) open(pc *webrtc.PeerConnection, label string) {
	ordered := label == reliableLabel
	d, err := pc.CreateDataChannel(label, &webrtc.DataChannelInit{Ordered: &ordered})
	if err != nil {
		f.t.Fatal(err)
	}
	d.OnOpen(func() { f.note(func() { f.channels[label] = d }) })
	if f.single {
		f.listen(d)
	}
}

func (f *fake) listen(d *webrtc.DataChannel) {
	d.OnMessage(func(m webrtc.DataChannelMessage) {
		p := &livekit.DataPacket{}
		if err := proto.Unmarshal(m.Data, p); err != nil {
			f.t.Error(err)
		}
		f.note(func() { f.data = append(f.data, p) })
	})
}

func (f *fake) placeholders(audio, video int) {
	recv := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
	for range audio {
		_, _ = f.pub.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio, recv)
	}
	for range video {
		_, _ = f.pub.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, recv)
	}
}

// createOffer makes the next offer and applies it.
func (f *fake) createOffer() webrtc.SessionDescription {
	offer, err := f.pub.CreateOffer(nil)
	if err == nil {
		err = f.pub.SetLocalDescription(offer)
	}
	if err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	f.offering = true
	f.offerID++
	f.mu.Unlock()
	return offer
}

// offer sends an offer, or remembers to when the previous one is answered.
func (f *fake) offer(restart bool) {
	f.mu.Lock()
	if f.offering && !restart {
		f.again = true
		f.mu.Unlock()
		return
	}
	f.offering = true
	f.offerID++
	id := f.offerID
	f.mu.Unlock()
	offer, err := f.pub.CreateOffer(&webrtc.OfferOptions{ICERestart: restart})
	if err == nil {
		err = f.pub.SetLocalDescription(offer)
	}
	if err != nil {
		f.t.Error(err)
	}
	f.say(&livekit.SignalRequest{Message: &livekit.SignalRequest_Offer{
		Offer: &livekit.SessionDescription{Type: "offer", Sdp: offer.SDP, Id: id},
	}})
}

func (f *fake) answered(d *livekit.SessionDescription) error {
	if err := f.pub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: d.Sdp}); err != nil {
		return err
	}
	f.mu.Lock()
	again := f.again
	f.offering, f.again = false, false
	f.mu.Unlock()
	if again {
		f.offer(false)
	}
	return f.flush(f.pub, livekit.SignalTarget_PUBLISHER)
}

func (f *fake) answer(d *livekit.SessionDescription) error {
	if err := f.sub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: d.Sdp}); err != nil {
		return err
	}
	answer, err := f.sub.CreateAnswer(nil)
	if err != nil {
		return err
	}
	if err := f.sub.SetLocalDescription(answer); err != nil {
		return err
	}
	f.say(&livekit.SignalRequest{Message: &livekit.SignalRequest_Answer{
		Answer: &livekit.SessionDescription{Type: "answer", Sdp: answer.SDP, Id: d.Id},
	}})
	return f.flush(f.sub, livekit.SignalTarget_SUBSCRIBER)
}

func (f *fake) candidate(t *livekit.TrickleRequest) error {
	var init webrtc.ICECandidateInit
	if err := json.Unmarshal([]byte(t.CandidateInit), &init); err != nil {
		return err
	}
	pc := f.pub
	if t.Target == livekit.SignalTarget_SUBSCRIBER {
		pc = f.sub
	}
	if pc == nil {
		return errors.New("candidate for a connection that there is not")
	}
	if pc.RemoteDescription() == nil {
		f.early[t.Target] = append(f.early[t.Target], init)
		return nil
	}
	return pc.AddICECandidate(init)
}

func (f *fake) flush(pc *webrtc.PeerConnection, target livekit.SignalTarget) error {
	for _, init := range f.early[target] {
		if err := pc.AddICECandidate(init); err != nil {
			return err
		}
	}
	delete(f.early, target)
	return nil
}

// publish announces a track, offers it and returns its sid.
func (f *fake) publish(cid string, kind livekit.TrackType, source livekit.TrackSource) string {
	f.t.Helper()
	mime := webrtc.MimeTypeOpus
	if kind == livekit.TrackType_VIDEO {
		mime = webrtc.MimeTypeVP8
	}
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: mime}, cid, "stream")
	if err != nil {
		f.t.Fatal(err)
	}
	f.say(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{
		AddTrack: &livekit.AddTrackRequest{Cid: cid, Type: kind, Source: source, Name: cid, Width: 640, Height: 360},
	}})
	if _, err := f.pub.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
		f.t.Fatal(err)
	}
	f.offer(false)
	f.mu.Lock()
	f.published[cid] = track
	f.mu.Unlock()
	return heard(f, "track_published "+cid, func(m *livekit.SignalResponse) (string, bool) {
		p := m.GetTrackPublished()
		return p.GetTrack().GetSid(), p.GetCid() == cid
	})
}

// send pushes packets of a track until stop is closed: key frames of VP8, or Opus.
func (f *fake) send(cid string, payload []byte) {
	f.mu.Lock()
	track := f.published[cid]
	f.mu.Unlock()
	f.loops.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for seq := uint16(1); ; seq++ {
			p := &rtp.Packet{Header: rtp.Header{Version: 2, Marker: true, SequenceNumber: seq, Timestamp: uint32(seq) * 1800}, Payload: payload}
			_ = track.WriteRTP(p)
			select {
			case <-tick.C:
			case <-f.ctx.Done():
				return
			}
		}
	})
}

// receives waits until n more packets of a track have come.
func (f *fake) receives(sid string, n int) {
	f.t.Helper()
	f.mu.Lock()
	before := f.received[sid]
	f.mu.Unlock()
	f.until("media of "+sid, func() bool { return f.received[sid] >= before+n })
}

// drop cuts the websocket without a word.
func (f *fake) drop() {
	f.mu.Lock()
	ws := f.ws
	f.mu.Unlock()
	_ = ws.CloseNow()
}

func (f *fake) close() {
	f.cancel()
	f.mu.Lock()
	ws, tracks := f.ws, f.tracks
	f.mu.Unlock()
	if ws != nil {
		_ = ws.CloseNow()
	}
	// A closed track wakes one reader, and Pion is another one itself where media came before the description that it belongs to.
	for _, track := range tracks {
		_ = track.SetReadDeadline(time.Now())
	}
	_ = f.pub.Close()
	if f.sub != nil {
		_ = f.sub.Close()
	}
	f.loops.Wait()
}
