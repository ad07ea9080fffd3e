// Hot path: see ARCHITECTURE.md#packet

package rtc

import (
	"slices"
	"sync/atomic"
	"time"

	"callserver/sfu/forward"
	"callserver/sfu/ingress"
	"callserver/sfu/packet"
	"callserver/sfu/rtc/description"

	"github.com/pion/rtcp"
)

// uplink is a media section on which the client sends. It outlives renegotiations and implements forward.Upstream. Safe
// for concurrent use.
type uplink struct {
	peer    *Peer
	mid     string
	section Section // guarded by Peer.negotiation

	source  atomic.Pointer[forward.Source] // nil = packets are dropped
	streams [description.MaxLayers]stream
}

// stream is one RTP stream of an uplink.
type stream struct {
	ssrc atomic.Uint32 // 0 = nothing arrived yet
}

func newUplink(p *Peer, mid string) *uplink { return &uplink{peer: p, mid: mid} }

// uplinkOf is the uplink of a section, nil if there is none.
func uplinkOf(list []*uplink, mid string) *uplink {
	for _, u := range list {
		if u.mid == mid {
			return u
		}
	}
	return nil
}

// describe takes over what was negotiated and returns it for the owner. A new track on an old section starts unfed.
func (u *uplink) describe(s *description.Section, pl *description.Plan) Section {
	if u.section.CID != s.CID {
		u.feed(nil)
	}
	u.section = Section{
		MID: s.MID, CID: s.CID, StreamID: s.StreamID, Video: s.Kind == description.Video, Mime: pl.Codecs[0].Format.Mime,
		RIDs: slices.Clone(pl.RIDs), SSRCs: slices.Clone(s.SSRCs), Active: true,
	}
	return u.section
}

// terms is how the packets of the section are told, and what is to be read in them.
func (u *uplink) terms(s *description.Section, pl *description.Plan) *ingress.Terms {
	c := pl.Codecs[0]
	t := &ingress.Terms{MID: s.MID, To: u, RIDs: pl.RIDs, RTX: c.RTX,
		Payloads: [2]uint8{c.Payload, pl.Codecs[len(pl.Codecs)-1].Payload}}
	if len(pl.RIDs) == 0 {
		t.SSRC, t.Repair, t.Ignored = s.Streams()
	}
	for _, e := range pl.Extensions {
		switch e.URI {
		case description.URIMID:
			t.Names.MID = e.ID
		case description.URIRID:
			t.Names.RID = e.ID
		case description.URIRepairedRID:
			t.Names.RepairedRID = e.ID
		case description.URIAudioLevel:
			t.Extensions.AudioLevel = e.ID
		case description.URITransportCC:
			t.Extensions.TransportCC = e.ID
		case description.URISendTime:
			t.Extensions.SendTime = e.ID
		case description.URIDependency:
			t.Extensions.DependencyDescriptor = e.ID
		case description.URICaptureTime:
			t.Extensions.AbsCaptureTime = e.ID
		}
	}
	return t
}

// feed directs the packets to s; nil drops them.
func (u *uplink) feed(s *forward.Source) {
	u.source.Store(s)
	if s != nil {
		s.SetUpstream(u)
		u.Await()
	}
}

// Media implements ingress.Section.
func (u *uplink) Media(layer int8, p *packet.Packet, now time.Time) {
	if st := &u.streams[layer].ssrc; st.Load() != p.SSRC {
		st.Store(p.SSRC)
	}
	source := u.source.Load()
	if source == nil {
		p.Release()
		return
	}
	source.Push(forward.Layer{Spatial: layer}, p, now)
	if source.Misses() {
		// What is lost is asked for without waiting for the next tick: each few milliseconds decide whether what comes is in time.
		u.giveUp(source)
		u.peer.client.send(u.nack(nil, source, int(layer), now))
	}
	if source.Waits() {
		u.peer.wake()
	}
}

// Report implements ingress.Section.
func (u *uplink) Report(layer int8, ssrc uint32, sr *rtcp.SenderReport, now time.Time) {
	if s := u.source.Load(); s != nil && u.streams[layer].ssrc.Load() == ssrc {
		s.SenderReport(forward.Layer{Spatial: layer}, sr.NTPTime, sr.RTPTime, now)
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

// Await implements forward.Upstream: losses is called with each tick while something is outstanding.
func (u *uplink) Await() {
	if u.waits() {
		u.peer.wake()
	}
}

// waits reports whether losses has something to ask for, now or later.
func (u *uplink) waits() bool {
	s := u.source.Load()
	return s != nil && s.Waits()
}

// losses appends the requests for lost packets that are due (RFC 4585 §6.2.1): none while it is our own sockets that lose them.
func (u *uplink) losses(out []rtcp.Packet, now time.Time) []rtcp.Packet {
	s := u.source.Load()
	if s == nil || !s.Waits() {
		return out
	}
	u.giveUp(s)
	for i := range u.streams {
		out = u.nack(out, s, i, now)
	}
	return out
}

// giveUp has nack ask for nothing, but key frames, while it is our own sockets that lose packets.
func (u *uplink) giveUp(s *forward.Source) {
	if u.peer.engine.overflowing.Load() {
		s.GiveUp()
	}
}

// nack appends the request for packets of one stream that is due, if any.
func (u *uplink) nack(out []rtcp.Packet, s *forward.Source, layer int, now time.Time) []rtcp.Packet {
	ssrc := u.streams[layer].ssrc.Load()
	if ssrc == 0 {
		return out
	}
	if lost := s.Nacks(int8(layer), now); len(lost) > 0 {
		out = append(out, &rtcp.TransportLayerNack{SenderSSRC: u.peer.client.ssrc, MediaSSRC: ssrc,
			Nacks: rtcp.NackPairsFromSequenceNumbers(lost)})
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
