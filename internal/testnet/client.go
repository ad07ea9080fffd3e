package testnet

import (
	"encoding/json"
	"sync"
	"testing"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/transport/v5"
	"github.com/pion/webrtc/v4"
)

// ClientOptions describe a Client.
type ClientOptions struct {
	Net        transport.Net // nil = the system's, loopback included
	Single     bool          // one connection (protocol v1)
	Plain      bool          // no client of the LiveKit kind: one connection without data channels, sections that carry both ways
	Sections   int           // audio and as many video sections to receive on, offered from the start (v1)
	TCP        bool          // ICE over TCP only
	Negotiated bool          // data channels 100 to 102 are there without asking (protocol 18)

	// Candidate is called with every local candidate as JSON.
	Candidate func(subscriber bool, init string)
	// Track is called with every track that begins.
	Track func(*Received)
	// Data is called with every message.
	Data func(label string, b []byte)
}

// Client behaves like a LiveKit client as far as WebRTC goes: it offers the publisher connection, or the only one, and
// answers the subscriber connection. It has Pion's default interceptors, so it answers NACKs and sends reports. Only one
// goroutine may negotiate at a time; the callbacks come from others.
type Client struct {
	Publisher  *webrtc.PeerConnection
	Subscriber *webrtc.PeerConnection // nil in single mode
	t          testing.TB
	options    ClientOptions
	reads      sync.WaitGroup

	mu       sync.Mutex
	channels map[string]*webrtc.DataChannel
	held     []webrtc.ICECandidateInit
}

// Received is a track that the client receives.
type Received struct {
	Track    *webrtc.TrackRemote
	Receiver *webrtc.RTPReceiver
	MID      string
	Packets  chan *rtp.Packet // the newest 256; older ones are dropped
	client   *Client
}

// NewClient creates the connections; Close ends them.
func NewClient(t testing.TB, o ClientOptions) *Client {
	t.Helper()
	c := &Client{t: t, options: o, channels: map[string]*webrtc.DataChannel{}}
	c.Publisher = c.connection(false)
	if !o.Single && !o.Plain {
		c.Subscriber = c.connection(true)
	}
	for range o.Sections {
		c.AddSections(1, 0)
	}
	c.AddSections(0, o.Sections)
	if o.Plain {
		return c
	}
	for i, label := range []string{"_reliable", "_lossy", "_data_track"} {
		ordered, none, id, negotiated := i == 0, uint16(0), uint16(100+i), true
		init := &webrtc.DataChannelInit{Ordered: &ordered}
		if !ordered {
			init.MaxRetransmits = &none
		}
		if o.Negotiated {
			init.Negotiated, init.ID = &negotiated, &id
		}
		channel, err := c.Publisher.CreateDataChannel(label, init)
		c.must(err)
		c.watch(channel)
	}
	return c
}

func (c *Client) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *Client) connection(subscriber bool) *webrtc.PeerConnection {
	c.t.Helper()
	media := &webrtc.MediaEngine{}
	c.must(media.RegisterDefaultCodecs())
	for _, uri := range []string{sdp.AudioLevelURI, sdp.SDESMidURI} {
		c.must(media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, webrtc.RTPCodecTypeAudio))
	}
	registry := &interceptor.Registry{}
	c.must(webrtc.RegisterDefaultInterceptors(media, registry))
	settings := webrtc.SettingEngine{}
	settings.DisableCloseByDTLS(true) // Pion closing itself waits 200 ms under a lock, which virtual time cannot pass
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	settings.SetIncludeLoopbackCandidate(c.options.Net == nil)
	if c.options.Net != nil {
		settings.SetNet(c.options.Net)
	}
	if c.options.TCP {
		settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
	}
	api := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(registry),
		webrtc.WithSettingEngine(settings))
	pc, err := api.NewPeerConnection(webrtc.Configuration{})
	c.must(err)
	pc.OnICECandidate(func(candidate *webrtc.ICECandidate) {
		if candidate == nil || c.options.Candidate == nil {
			return
		}
		if text, err := json.Marshal(candidate.ToJSON()); err == nil {
			c.options.Candidate(subscriber, string(text))
		}
	})
	pc.OnTrack(c.onTrack)
	pc.OnDataChannel(c.watch)
	return pc
}

func (c *Client) watch(channel *webrtc.DataChannel) {
	label := channel.Label()
	channel.OnOpen(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.Subscriber == nil || channel.Transport() == c.Publisher.SCTP() {
			c.channels[label] = channel
		}
	})
	channel.OnMessage(func(m webrtc.DataChannelMessage) {
		if c.options.Data != nil {
			c.options.Data(label, m.Data)
		}
	})
}

// Send sends on an open channel and reports whether it is open.
func (c *Client) Send(label string, b []byte) bool {
	c.mu.Lock()
	channel := c.channels[label]
	c.mu.Unlock()
	return channel != nil && channel.Send(b) == nil
}

func (c *Client) onTrack(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	r := &Received{Track: track, Receiver: receiver, client: c, Packets: make(chan *rtp.Packet, 256)}
	if t := receiver.RTPTransceiver(); t != nil {
		r.MID = t.Mid()
	}
	if c.options.Track != nil {
		c.options.Track(r)
	}
	c.reads.Go(func() {
		b := make([]byte, 1500)
		for {
			if _, _, err := receiver.Read(b); err != nil {
				return
			}
		}
	})
	for {
		p, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		for {
			select {
			case r.Packets <- p:
			default:
				<-r.Packets
				continue
			}
			break
		}
	}
}

// Feedback sends RTCP about the track, such as a PLI; the media SSRC is the caller's to set.
func (r *Received) Feedback(packets ...rtcp.Packet) error {
	pc := r.client.Publisher
	if r.client.Subscriber != nil {
		pc = r.client.Subscriber
	}
	return pc.WriteRTCP(packets)
}

// AddSections adds sections to receive on, as a client does that is told media_sections_requirement.
func (c *Client) AddSections(audio, video int) {
	c.t.Helper()
	init := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
	for range audio {
		_, err := c.Publisher.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio, init)
		c.must(err)
	}
	for range video {
		_, err := c.Publisher.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, init)
		c.must(err)
	}
}

// Offer creates and applies an offer for the publisher connection, or the only one.
func (c *Client) Offer(restart bool) string {
	c.t.Helper()
	offer, err := c.Publisher.CreateOffer(&webrtc.OfferOptions{ICERestart: restart})
	c.must(err)
	c.must(c.Publisher.SetLocalDescription(offer))
	return offer.SDP
}

// Accept applies the server's answer to Offer.
func (c *Client) Accept(answer string) {
	c.t.Helper()
	c.must(c.Publisher.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}))
	c.flush()
}

// Answer applies the server's offer for the subscriber connection, or the only one, and returns the answer.
func (c *Client) Answer(offer string) string {
	c.t.Helper()
	pc := c.Publisher
	if c.Subscriber != nil {
		pc = c.Subscriber
	}
	c.must(pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}))
	answer, err := pc.CreateAnswer(nil)
	c.must(err)
	c.must(pc.SetLocalDescription(answer))
	return answer.SDP
}

// Candidate takes a candidate of the server.
func (c *Client) Candidate(subscriber bool, init string) {
	c.t.Helper()
	var candidate webrtc.ICECandidateInit
	c.must(json.Unmarshal([]byte(init), &candidate))
	if subscriber {
		c.must(c.Subscriber.AddICECandidate(candidate))
		return
	}
	c.mu.Lock()
	c.held = append(c.held, candidate)
	c.mu.Unlock()
	c.flush()
}

// flush hands over the candidates that came before the answer.
func (c *Client) flush() {
	if c.Publisher.RemoteDescription() == nil {
		return
	}
	c.mu.Lock()
	held := c.held
	c.held = nil
	c.mu.Unlock()
	for _, candidate := range held {
		c.must(c.Publisher.AddICECandidate(candidate))
	}
}

// Close ends the connections and returns when their goroutines have ended.
func (c *Client) Close() {
	for _, pc := range []*webrtc.PeerConnection{c.Publisher, c.Subscriber} {
		if pc != nil {
			if err := pc.GracefulClose(); err != nil {
				c.t.Error(err)
			}
		}
	}
	c.reads.Wait()
}
