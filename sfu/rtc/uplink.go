// Hot path: see ARCHITECTURE.md#packet

package rtc

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"callserver/sfu/forward"
	"callserver/sfu/packet"
	"callserver/sfu/rtc/description"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// uplink is a media section on which the client sends. It outlives renegotiations and implements forward.Upstream. Safe
// for concurrent use.
type uplink struct {
	peer    *Peer
	mid     string
	section Section // guarded by Peer.negotiation

	terms   atomic.Pointer[terms]
	source  atomic.Pointer[forward.Source] // nil = packets are dropped
	streams [description.MaxLayers]stream
}

// terms are the numbers negotiated for the packets of an uplink.
type terms struct {
	extensions packet.Extensions
	payloads   [2]uint8 // payload types taken: codec, and Opus below RED
	rids       []string // lowest resolution first
}

// stream is one RTP stream of an uplink.
type stream struct {
	ssrc atomic.Uint32 // 0 = nothing arrived yet
}

func newUplink(p *Peer, mid string) *uplink { return &uplink{peer: p, mid: mid} }

// describe takes over what was negotiated and returns it for the owner. A new track on an old section starts unfed.
func (u *uplink) describe(s *description.Section, pl *description.Plan) Section {
	if u.section.CID != s.CID {
		u.feed(nil)
	}
	t := &terms{rids: pl.RIDs}
	t.payloads = [2]uint8{pl.Codecs[0].Payload, pl.Codecs[len(pl.Codecs)-1].Payload}
	for _, e := range pl.Extensions {
		switch e.URI {
		case description.URIAudioLevel:
			t.extensions.AudioLevel = e.ID
		case description.URITransportCC:
			t.extensions.TransportCC = e.ID
		case description.URIDependency:
			t.extensions.DependencyDescriptor = e.ID
		case description.URICaptureTime:
			t.extensions.AbsCaptureTime = e.ID
		}
	}
	u.terms.Store(t)
	u.section = Section{
		MID: s.MID, CID: s.CID, StreamID: s.StreamID, Video: s.Kind == description.Video, Mime: pl.Codecs[0].Format.Mime,
		RIDs: slices.Clone(pl.RIDs), SSRCs: slices.Clone(s.SSRCs), Active: true,
	}
	return u.section
}

// feed directs the packets to s; nil drops them.
func (u *uplink) feed(s *forward.Source) {
	u.source.Store(s)
	if s != nil {
		s.SetUpstream(u)
	}
}

// onTrack runs in a goroutine of Pion's, one for each stream, and reads it until it ends.
func (p *Peer) onTrack(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	leave, ok := p.enter()
	if !ok {
		return
	}
	defer leave()
	defer p.recover("media")
	transceiver := receiver.RTPTransceiver()
	if transceiver == nil {
		return
	}
	u := (*p.uplinks.Load())[transceiver.Mid()]
	if u == nil {
		return
	}
	layer := forward.Layer{}
	if rid := track.RID(); rid != "" {
		i := slices.Index(u.terms.Load().rids, rid)
		if i < 0 {
			return
		}
		layer.Spatial = int8(i)
	}
	ssrc := uint32(track.SSRC())
	u.streams[layer.Spatial].ssrc.Store(ssrc)
	p.start(func() { u.reportLoop(receiver, track.RID(), layer, ssrc) })
	u.readLoop(track, layer)
}

// readLoop reads one stream until it ends.
func (u *uplink) readLoop(track *webrtc.TrackRemote, layer forward.Layer) {
	for {
		p := packet.Get()
		n, attributes, err := track.Read(p.Buffer())
		// A payload type that was not negotiated is an error of Pion's with the packet read all the same; ours below
		// decides.
		if err != nil && !errors.Is(err, webrtc.ErrCodecNotFound) {
			p.Release()
			return
		}
		u.take(p, n, attributes.Get(webrtc.AttributeRtxSsrc) != nil, layer, time.Now())
	}
}

// take passes one packet on. It owns p.
func (u *uplink) take(p *packet.Packet, n int, retransmitted bool, layer forward.Layer, now time.Time) {
	t := u.terms.Load()
	if p.Parse(n, t.extensions) != nil || p.PayloadType != t.payloads[0] && p.PayloadType != t.payloads[1] {
		p.Release()
		return
	}
	p.Retransmitted = retransmitted
	if p.HasTransportSequence && !retransmitted {
		u.peer.client.tap.record(p.SSRC, p.TransportSequence, now)
	}
	source := u.source.Load()
	if source == nil {
		p.Release()
		return
	}
	source.Push(layer, p, now)
}

// reportLoop reads the RTCP that accompanies one stream until it ends.
func (u *uplink) reportLoop(receiver *webrtc.RTPReceiver, rid string, layer forward.Layer, ssrc uint32) {
	b := make([]byte, receiveMTU)
	for {
		var n int
		var err error
		if rid == "" {
			n, _, err = receiver.Read(b)
		} else {
			n, _, err = receiver.ReadSimulcast(b, rid)
		}
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(b[:n])
		if err != nil {
			continue
		}
		now := time.Now()
		for _, p := range packets {
			if sr, ok := p.(*rtcp.SenderReport); ok && sr.SSRC == ssrc {
				if s := u.source.Load(); s != nil {
					s.SenderReport(layer, sr.NTPTime, sr.RTPTime, now)
				}
			}
		}
	}
}

// RequestKeyFrame implements forward.Upstream: it sends a PLI (RFC 4585 §6.3.1) for one stream, or for all of them if
// spatial is negative. Streams that have not begun need none.
func (u *uplink) RequestKeyFrame(spatial int8) {
	var packets []rtcp.Packet
	for i := range u.streams {
		ssrc := u.streams[i].ssrc.Load()
		if ssrc != 0 && (spatial < 0 || int(spatial) == i) {
			packets = append(packets, &rtcp.PictureLossIndication{SenderSSRC: u.peer.client.ssrc, MediaSSRC: ssrc})
		}
	}
	u.peer.client.send(packets)
}

// losses returns the requests for lost packets that are due (RFC 4585 §6.2.1).
func (u *uplink) losses(now time.Time) []rtcp.Packet {
	s := u.source.Load()
	if s == nil {
		return nil
	}
	var out []rtcp.Packet
	for i := range u.streams {
		ssrc := u.streams[i].ssrc.Load()
		if ssrc == 0 {
			continue
		}
		if lost := s.Nacks(int8(i), now); len(lost) > 0 {
			out = append(out, &rtcp.TransportLayerNack{SenderSSRC: u.peer.client.ssrc, MediaSSRC: ssrc,
				Nacks: rtcp.NackPairsFromSequenceNumbers(lost)})
		}
	}
	return out
}

// report appends the reception reports of the uplink's streams.
func (u *uplink) report(out []rtcp.ReceptionReport, rtt time.Duration, now time.Time) []rtcp.ReceptionReport {
	s := u.source.Load()
	if s == nil {
		return out
	}
	if rtt > 0 {
		s.SetRTT(rtt)
	}
	for i := range u.streams {
		ssrc := u.streams[i].ssrc.Load()
		if ssrc == 0 {
			continue
		}
		if r, ok := s.ReceptionReport(int8(i), now); ok {
			r.SSRC = ssrc
			out = append(out, r)
		}
	}
	return out
}
