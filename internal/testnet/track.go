package testnet

import (
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// Track is a track that a Client publishes, with one stream or several of simulcast.
type Track struct {
	CID    string
	Sender *webrtc.RTPSender
	client *Client
	layers []*layer
	mime   string
	mid    func() string
}

// layer is one RTP stream of a Track.
type layer struct {
	local    *webrtc.TrackLocalStaticRTP
	sequence uint16
	time     uint32
	picture  uint16
}

// Publish adds a track that the next Offer carries. Rids make it simulcast.
func (c *Client) Publish(cid, mime string, rids ...string) *Track {
	c.t.Helper()
	capability := webrtc.RTPCodecCapability{MimeType: mime}
	t := &Track{CID: cid, client: c, mime: mime}
	if len(rids) == 0 {
		rids = []string{""}
	}
	for i, rid := range rids {
		var options []func(*webrtc.TrackLocalStaticRTP)
		if rid != "" {
			options = append(options, webrtc.WithRTPStreamID(rid))
		}
		local, err := webrtc.NewTrackLocalStaticRTP(capability, cid, "stream-"+cid, options...)
		c.must(err)
		t.layers = append(t.layers, &layer{local: local, sequence: 65530, time: 1 << 20, picture: 100})
		if i > 0 {
			c.must(t.Sender.AddEncoding(local))
			continue
		}
		direction := webrtc.RTPTransceiverDirectionSendonly
		if c.options.Plain {
			direction = webrtc.RTPTransceiverDirectionSendrecv
		}
		transceiver, err := c.Publisher.AddTransceiverFromTrack(local, webrtc.RTPTransceiverInit{Direction: direction})
		c.must(err)
		t.Sender, t.mid = transceiver.Sender(), transceiver.Mid
	}
	return t
}

// Unpublish stops the track; the next Offer makes its section inactive.
func (t *Track) Unpublish() {
	t.client.t.Helper()
	t.client.must(t.client.Publisher.RemoveTrack(t.Sender))
}

// MID is the track's media section, known after an Offer.
func (t *Track) MID() string { return t.mid() }

// Send writes one packet of a layer: for VP8 a whole frame with a picture id, for audio a frame with its level in -dBov.
func (t *Track) Send(i int, key bool, level uint8, payload []byte) {
	l := t.layers[i]
	h := rtp.Header{Version: 2, Marker: true, SequenceNumber: l.sequence, Timestamp: l.time}
	l.sequence++
	extensions := t.Sender.GetParameters().HeaderExtensions
	for _, e := range extensions {
		var value []byte
		switch {
		case e.URI == sdp.SDESMidURI:
			value = []byte(t.mid())
		case e.URI == sdp.SDESRTPStreamIDURI && l.local.RID() != "":
			value = []byte(l.local.RID())
		case e.URI == sdp.AudioLevelURI:
			value = []byte{0x80 | level}
		}
		if len(value) > 0 {
			t.client.must(h.SetExtension(uint8(e.ID), value))
		}
	}
	if t.mime == webrtc.MimeTypeVP8 {
		l.time += 3000
		l.picture++
		// RFC 7741 §4.2: X and S, then I with a 15-bit picture id; then the frame tag, P bit clear on a key frame.
		descriptor := []byte{0x90, 0x80, 0x80 | byte(l.picture>>8), byte(l.picture), 1}
		if key {
			descriptor[4] = 0
			payload = append([]byte{0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00}, payload...)
		}
		payload = append(descriptor, payload...)
	} else {
		h.Marker = false
		l.time += 960
	}
	t.client.must(l.local.WriteRTP(&rtp.Packet{Header: h, Payload: payload}))
}
