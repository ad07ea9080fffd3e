package bench

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"callserver/signalling/token"
)

const (
	maxMessage   = 4 << 20 // bytes of one signal message
	pingInterval = 5 * time.Second
	placeholders = 3 // sections of each kind to receive on from the start, as JavaScript clients offer
	tokenLife    = 6 * time.Hour
)

// A refusal is an answer to a join that is none.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// A participant joins one room as livekit-client does: one connection, protocol /rtc/v1. Its fields belong to the
// goroutine of run; joined and err may be read once that has ended or joined was announced.
type participant struct {
	run      *run
	loop     *loop
	room     int
	number   int // in the room; publishers come first
	tracks   []*track
	ws       *websocket.Conn
	link     *link
	carrier  *transport
	sdp      description
	offered  uint32 // id of the newest offer
	waiting  bool   // an offer is unanswered
	again    bool   // and something changed since
	mids     map[string]*track
	dialled  time.Duration
	upAt     time.Duration // ICE and DTLS connected, 0 = never
	lostAt   time.Duration // when the server was gone, 0 = never
	token    string
	received answer // the newest

	connected chan error // one value when the transport is up or failed
}

func (p *participant) identity() string { return fmt.Sprintf("p%d", p.number) }

// serve joins, says so with joined(nil) or joined(err), and stays until ctx ends.
func (p *participant) serve(ctx context.Context, joined func(error)) {
	announced := false
	announce := func(err error) {
		if !announced {
			announced = true
			joined(err)
		}
	}
	err := p.stay(ctx, announce)
	if err != nil && ctx.Err() == nil && !(announced && p.run.options.Return) {
		err = fmt.Errorf("room %d, %s: %w", p.room, p.identity(), err)
		p.run.failed(err)
	}
	if announced && p.run.options.Return && err != nil && ctx.Err() == nil {
		p.comeBack(ctx)
		return
	}
	announce(err)
}

func (p *participant) stay(ctx context.Context, joined func(error)) error {
	s, err := openSocket(p.run.local)
	if err != nil {
		return err
	}
	p.loop.add(s)
	defer p.loop.drop(s)
	p.link = &link{
		socket: s, ssrc: rand.Uint32(), cname: p.identity(),
		inbound: map[uint32]*inbound{}, flows: map[uint32]*flow{},
	}
	if p.carrier, err = newTransport(s, p.run.identity); err != nil {
		return err
	}
	defer func() { _ = p.carrier.close() }() // nothing is left to be saved
	p.describe()

	join, cancel := context.WithTimeout(ctx, p.run.options.Timeout)
	defer cancel()
	p.dialled = p.run.clock.now()
	if err := p.dial(join); err != nil {
		return err
	}
	defer func() { _ = p.ws.CloseNow() }() // goodbye was said in leave
	messages := make(chan *livekit.SignalResponse)
	reading, stop := context.WithCancelCause(context.WithoutCancel(ctx)) // ending a read closes the socket: leave comes first
	defer stop(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		stop(p.readLoop(reading, messages))
	}()
	defer func() { stop(nil); <-done }()
	return p.talk(ctx, reading, messages, joined)
}

// talk answers the server until ctx ends, or reading from it does.
func (p *participant) talk(ctx, reading context.Context, messages <-chan *livekit.SignalResponse, joined func(error)) error {
	ping := time.NewTicker(pingInterval)
	defer ping.Stop()
	deadline := time.After(p.run.options.Timeout)
	p.connected = make(chan error, 1)
	connecting := make(chan struct{})
	begun := false
	defer func() {
		if begun {
			_ = p.carrier.agent.Close() // a connection attempt ends with it
			<-connecting
		}
	}()
	for {
		var err error
		select {
		case <-ctx.Done():
			p.leave()
			return ctx.Err()
		case <-reading.Done():
			return context.Cause(reading)
		case <-deadline:
			return errors.New("not connected in time")
		case <-ping.C:
			err = p.say(ctx, &livekit.SignalRequest{Message: &livekit.SignalRequest_Ping{Ping: time.Now().UnixMilli()}})
		case m := <-messages:
			err = p.react(ctx, m)
		case err = <-p.connected:
			if err == nil {
				deadline = nil
				joined(nil)
				err = p.publish(ctx)
			}
		}
		if err != nil {
			return err
		}
		if !begun && p.received.ufrag != "" {
			begun = true
			a := p.received
			go func() {
				defer close(connecting)
				p.connected <- p.connect(ctx, a)
			}()
		}
	}
}

// connect brings the media connection up.
func (p *participant) connect(ctx context.Context, a answer) error {
	ctx, cancel := context.WithTimeout(ctx, p.run.options.Timeout)
	defer cancel()
	k, to, err := p.carrier.connect(ctx, a)
	if err != nil {
		return err
	}
	p.upAt = p.run.clock.now()
	p.link.keys, p.link.to = k, newSocketAddress(to)
	p.loop.attach(p.link)
	return p.carrier.openChannels(ctx, !a.active)
}

// describe fills in the first offer.
func (p *participant) describe() {
	p.sdp = description{
		session: rand.Uint64() >> 2, ufrag: p.carrier.ufrag, pwd: p.carrier.pwd,
		fingerprint: p.run.identity.fingerprint, candidates: p.carrier.candidates,
	}
	p.mids = map[string]*track{}
	p.receiveOn(placeholders, placeholders)
	p.sdp.add(section{kind: "application"})
}

func (p *participant) receiveOn(audio, video int) {
	const most = 4096 // sections a server may ask for at once
	for range min(audio, most) {
		p.sdp.add(section{kind: "audio"})
	}
	for range min(video, most) {
		p.sdp.add(section{kind: "video"})
	}
}

// dial opens the websocket with the first offer in the URL.
func (p *participant) dial(ctx context.Context) error {
	if p.token == "" {
		o := p.run.options
		grant := token.Join(fmt.Sprintf("%s-%d", o.Load.Prefix, p.room), p.identity())
		grant.RoomCreate = true
		var err error
		if p.token, err = (token.Keys{o.Key: o.Secret}).Mint(o.Key, grant, tokenLife, time.Now()); err != nil {
			return err
		}
	}
	p.offered, p.waiting = 1, true
	request, err := proto.Marshal(&livekit.JoinRequest{
		ClientInfo:         &livekit.ClientInfo{Sdk: livekit.ClientInfo_JS, Version: "2.23.0", Protocol: 17, Os: "linux"},
		ConnectionSettings: &livekit.ConnectionSettings{AutoSubscribe: true},
		PublisherOffer:     &livekit.SessionDescription{Type: "offer", Sdp: p.sdp.offer(), Id: p.offered},
	})
	if err != nil {
		return err
	}
	wrapped, err := proto.Marshal(&livekit.WrappedJoinRequest{JoinRequest: request})
	if err != nil {
		return err
	}
	u := p.run.url.JoinPath("rtc", "v1")
	u.RawQuery = url.Values{"access_token": {p.token}, "join_request": {base64.URLEncoding.EncodeToString(wrapped)}}.Encode()
	ws, response, err := websocket.Dial(ctx, u.String(), nil)
	if err != nil {
		if response != nil && response.Body != nil { // the library leaves the beginning of it here
			var text bytes.Buffer
			_, _ = text.ReadFrom(response.Body)
			_ = response.Body.Close()
			return &refusal{status: response.StatusCode, text: fmt.Sprintf("join: %s: %s", response.Status, bytes.TrimSpace(text.Bytes()))}
		}
		var where *url.Error
		if errors.As(err, &where) {
			err = where.Err // without the address, which holds a token and the whole offer
		}
		return fmt.Errorf("join: %w", err)
	}
	ws.SetReadLimit(maxMessage)
	p.ws = ws
	return nil
}

// readLoop hands on what the server says until it ends.
func (p *participant) readLoop(ctx context.Context, messages chan<- *livekit.SignalResponse) error {
	for {
		_, raw, err := p.ws.Read(ctx)
		if err != nil {
			return fmt.Errorf("signalling ended: %w", err)
		}
		m := &livekit.SignalResponse{}
		if err := proto.Unmarshal(raw, m); err != nil {
			return fmt.Errorf("read signal message: %w", err)
		}
		select {
		case messages <- m:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (p *participant) say(ctx context.Context, m *livekit.SignalRequest) error {
	raw, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return p.ws.Write(ctx, websocket.MessageBinary, raw)
}

func (p *participant) react(ctx context.Context, m *livekit.SignalResponse) error {
	switch m := m.Message.(type) {
	case *livekit.SignalResponse_Answer:
		return p.answered(ctx, m.Answer)
	case *livekit.SignalResponse_Trickle:
		var c struct{ Candidate string }
		if err := json.Unmarshal([]byte(m.Trickle.CandidateInit), &c); err != nil {
			return fmt.Errorf("candidate: %w", err)
		}
		p.carrier.candidate(c.Candidate)
	case *livekit.SignalResponse_MediaSectionsRequirement:
		p.receiveOn(int(m.MediaSectionsRequirement.NumAudios), int(m.MediaSectionsRequirement.NumVideos))
		return p.offer(ctx)
	case *livekit.SignalResponse_Leave:
		return fmt.Errorf("told to leave: %s", m.Leave.GetReason())
	}
	return nil
}

// offer sends an offer, or remembers to when the previous one is answered.
func (p *participant) offer(ctx context.Context) error {
	if p.waiting {
		p.again = true
		return nil
	}
	p.waiting = true
	p.offered++
	return p.say(ctx, &livekit.SignalRequest{Message: &livekit.SignalRequest_Offer{
		Offer: &livekit.SessionDescription{Type: "offer", Sdp: p.sdp.offer(), Id: p.offered},
	}})
}

func (p *participant) answered(ctx context.Context, d *livekit.SessionDescription) error {
	if d.Id != 0 && d.Id != p.offered {
		return nil
	}
	a, err := parseAnswer(d.Sdp)
	if err != nil {
		return err
	}
	p.received = a
	for _, c := range a.candidates {
		p.carrier.candidate(c)
	}
	p.begin(a)
	p.waiting = false
	if p.again {
		p.again = false
		return p.offer(ctx)
	}
	return nil
}

// publish announces the tracks and offers a section for each.
func (p *participant) publish(ctx context.Context) error {
	if len(p.tracks) == 0 {
		return nil
	}
	for _, t := range p.tracks {
		s := section{kind: "audio", cid: fmt.Sprintf("t%d", t.id), ssrc: audioSSRC(t)}
		add := &livekit.AddTrackRequest{Cid: s.cid, Name: s.cid, Type: livekit.TrackType_AUDIO, Source: livekit.TrackSource_MICROPHONE, DisableRed: true}
		if t.video {
			s.kind = "video"
			add.Type, add.Source, add.DisableRed = livekit.TrackType_VIDEO, livekit.TrackSource_CAMERA, false
			for i, shape := range vp8Shapes {
				bits := uint32(shape.size*shape.packets*8) * uint32(time.Second/shape.interval)
				add.Layers = append(add.Layers, &livekit.VideoLayer{
					Quality: livekit.VideoQuality(i), Width: uint32(shape.width), Height: uint32(shape.height), Bitrate: bits, Rid: rids[i],
				})
			}
			top := vp8Shapes[len(vp8Shapes)-1]
			add.Width, add.Height = uint32(top.width), uint32(top.height)
			add.SimulcastCodecs = []*livekit.SimulcastCodec{{Codec: "vp8", Cid: s.cid, Layers: add.Layers}}
		}
		p.mids[p.sdp.add(s)] = t
		if err := p.say(ctx, &livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: add}}); err != nil {
			return err
		}
	}
	return p.offer(ctx)
}

// audioSSRC is the one stream of an audio track; video layers are known by mid and rid.
func audioSSRC(t *track) uint32 { return 0x10000000 + t.id*4 }

// begin sends the tracks whose sections the server accepted.
func (p *participant) begin(a answer) {
	for mid, t := range p.mids {
		ids, ok := a.receives[mid]
		if !ok {
			continue
		}
		delete(p.mids, mid)
		streams := []*stream{newStream(t, 0, mid, ids, audioSSRC(t))}
		if t.video {
			for layer := 1; layer < len(vp8Shapes); layer++ {
				streams = append(streams, newStream(t, layer, mid, ids, audioSSRC(t)+uint32(layer)))
			}
		}
		p.loop.publish(p.link, streams)
	}
}

// leave says goodbye; the context of the call has ended, so it gets one of its own.
func (p *participant) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.say(ctx, &livekit.SignalRequest{Message: &livekit.SignalRequest_Leave{Leave: &livekit.LeaveRequest{
		Reason: livekit.DisconnectReason_CLIENT_INITIATED, Action: livekit.LeaveRequest_DISCONNECT,
	}}}) // the server notices the close as well
}
