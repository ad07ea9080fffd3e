// Hot path: see ARCHITECTURE.md#packet

package rtc

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/forward"
	"callserver/sfu/rtc/description"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// downlink is one track that we send: the forward.Writer of its sink, and the track that Pion negotiates. Safe for
// concurrent use; place and stop are called under Peer.negotiation.
type downlink struct {
	peer    *Peer
	options DownlinkOptions
	kind    description.Kind

	sink     atomic.Pointer[forward.Sink]
	wire     atomic.Pointer[wire] // nil = not negotiated
	stream   atomic.Pointer[webrtc.TrackLocalWriter]
	ssrc     atomic.Uint32
	rtxSSRC  atomic.Uint32 // 0 = no retransmission stream
	sequence atomic.Uint32 // of the retransmission stream
	bound    atomic.Bool   // DownlinkBound was sent

	mu         sync.Mutex
	connection *connection // nil = waits for a section
	sender     *webrtc.RTPSender
}

// wire is how the packets of a downlink look: numbers negotiated for its section.
type wire struct {
	payload, rtx            uint8 // payload types; rtx 0 = retransmissions go out as they were
	dependency, captureTime uint8 // header extension ids; 0 = not negotiated
}

func newDownlink(p *Peer, o DownlinkOptions) *downlink {
	d := &downlink{peer: p, options: o, kind: description.Audio}
	if description.FindFormat(o.Mime).Video() {
		d.kind = description.Video
	}
	return d
}

func randomSSRC() uint32 {
	for {
		if v := rand.Uint32(); v != 0 {
			return v
		}
	}
}

func (d *downlink) placed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.connection != nil
}

// place ties the downlink to a sender of c.
func (d *downlink) place(c *connection, sender *webrtc.RTPSender, rtx bool) {
	d.mu.Lock()
	d.connection, d.sender = c, sender
	d.mu.Unlock()
	d.ssrc.Store(uint32(sender.GetParameters().Encodings[0].SSRC))
	d.rtxSSRC.Store(0)
	if rtx {
		d.rtxSSRC.Store(randomSSRC())
		d.sequence.Store(rand.Uint32N(1 << 15))
	}
	d.peer.start(func() { d.feedbackLoop(sender) })
}

// stop ends sending; the section is free afterwards.
func (d *downlink) stop() {
	d.mu.Lock()
	c, sender := d.connection, d.sender
	d.connection, d.sender = nil, nil
	d.mu.Unlock()
	d.wire.Store(nil)
	d.bound.Store(false)
	if c == nil {
		return
	}
	if err := c.pc.RemoveTrack(sender); err != nil {
		d.peer.log.Debug("remove sender", "track", d.options.TrackID, "error", err)
	}
}

// negotiated notes the numbers to send with.
func (d *downlink) negotiated(w wire) {
	if w.rtx == 0 {
		d.rtxSSRC.Store(0)
	}
	d.wire.Store(&w)
}

func (d *downlink) sending() *description.Sending {
	o := d.options
	cname := o.CNAME
	if cname == "" {
		cname = o.StreamID
	}
	return &description.Sending{StreamID: o.StreamID, TrackID: o.TrackID, CNAME: cname, SSRC: d.ssrc.Load(), RTX: d.rtxSSRC.Load()}
}

// bindAll reports the downlinks that can be written to from now on.
func (p *Peer) bindAll() {
	for _, d := range *p.downlinks.Load() {
		if d.wire.Load() != nil && d.bound.CompareAndSwap(false, true) {
			p.emit(DownlinkBound{TrackID: d.options.TrackID, Writer: d, RTX: d.rtxSSRC.Load() != 0})
		}
	}
}

// outgoing is what one WriteRTP call needs; pooled, because Pion keeps none of it.
type outgoing struct {
	header  rtp.Header
	payload [receiveMTU + 64]byte
}

var outgoingPool = sync.Pool{New: func() any { return new(outgoing) }}

// WriteRTP implements forward.Writer. A packet before the connection is up is lost silently.
func (d *downlink) WriteRTP(o *forward.Outgoing) error {
	w, stream := d.wire.Load(), d.stream.Load()
	if w == nil || stream == nil {
		return nil
	}
	out := outgoingPool.Get().(*outgoing)
	defer outgoingPool.Put(out)
	h := &out.header
	h.Version, h.Marker, h.PayloadType = 2, o.Marker, w.payload
	h.SequenceNumber, h.Timestamp, h.SSRC = o.SequenceNumber, o.Timestamp, d.ssrc.Load()
	h.Padding, h.PaddingSize = o.Padding > 0, o.Padding
	if err := w.extend(h, o); err != nil {
		return err
	}
	payload := o.Payload
	rtx := d.rtxSSRC.Load()
	switch {
	case o.Retransmission && w.rtx != 0 && rtx != 0: // RFC 4588 §4
		h.PayloadType, h.SSRC = w.rtx, rtx
		h.SequenceNumber = uint16(d.sequence.Add(1))
		payload = out.join(2, o)
		binary.BigEndian.PutUint16(payload, o.SequenceNumber)
	case len(o.Head) > 0:
		payload = out.join(0, o)
	}
	_, err := (*stream).WriteRTP(h, payload)
	return err
}

// join puts descriptor and payload together behind room for a header of n bytes.
func (out *outgoing) join(n int, o *forward.Outgoing) []byte {
	b := out.payload[:n]
	b = append(b, o.Head...)
	return append(b, o.Payload...)
}

// extend sets the header extensions that are present and negotiated. The two-byte form is used only where it must be
// (RFC 8285 §4.3), which extmap-allow-mixed permits.
func (w *wire) extend(h *rtp.Header, o *forward.Outgoing) error {
	h.Extensions = h.Extensions[:0]
	h.Extension, h.ExtensionProfile = false, rtp.ExtensionProfileOneByte
	dependency := w.dependency != 0 && len(o.DependencyDescriptor) > 0
	captureTime := w.captureTime != 0 && len(o.AbsCaptureTime) > 0
	if !dependency && !captureTime {
		return nil
	}
	h.Extension = true
	if dependency && (len(o.DependencyDescriptor) > 16 || w.dependency > 14) || captureTime && w.captureTime > 14 {
		h.ExtensionProfile = rtp.ExtensionProfileTwoByte
	}
	if dependency {
		if err := h.SetExtension(w.dependency, o.DependencyDescriptor); err != nil {
			return err
		}
	}
	if captureTime {
		return h.SetExtension(w.captureTime, o.AbsCaptureTime)
	}
	return nil
}

// feedbackLoop reads the RTCP that the client sends about this downlink until the sender stops.
func (d *downlink) feedbackLoop(sender *webrtc.RTPSender) {
	b := make([]byte, receiveMTU)
	for {
		n, _, err := sender.Read(b)
		if err != nil {
			return
		}
		if packets, err := rtcp.Unmarshal(b[:n]); err == nil {
			d.feedback(packets, time.Now())
		}
	}
}

// feedback hands what concerns this downlink to its sink. Pion delivers a compound packet to every stream that any part
// of it mentions.
func (d *downlink) feedback(packets []rtcp.Packet, now time.Time) {
	k := d.sink.Load()
	if k == nil {
		return
	}
	ssrc := d.ssrc.Load()
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.TransportLayerNack:
			if p.MediaSSRC == ssrc {
				for _, pair := range p.Nacks {
					k.Nack(pair.PacketList(), now)
				}
			}
		case *rtcp.PictureLossIndication:
			if p.MediaSSRC == ssrc {
				k.RequestKeyFrame(now)
			}
		case *rtcp.FullIntraRequest: // RFC 5104 §4.3.1: the stream is named in the entries
			for _, entry := range p.FIR {
				if entry.SSRC == ssrc {
					k.RequestKeyFrame(now)
				}
			}
		case *rtcp.ReceiverReport:
			reports(k, ssrc, p.Reports, now)
		case *rtcp.SenderReport:
			reports(k, ssrc, p.Reports, now)
		}
	}
}

func reports(k *forward.Sink, ssrc uint32, list []rtcp.ReceptionReport, now time.Time) {
	for _, r := range list {
		if r.SSRC == ssrc {
			k.ReceptionReport(r, now)
		}
	}
}

// report returns the sender report and description that are due, nil if there is nothing to say.
func (d *downlink) report(now time.Time) []rtcp.Packet {
	k := d.sink.Load()
	if k == nil || d.wire.Load() == nil {
		return nil
	}
	sr, ok := k.SenderReport(now)
	if !ok {
		return nil
	}
	sr.SSRC = d.ssrc.Load()
	return []rtcp.Packet{&sr, &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
		Source: sr.SSRC,
		Items:  []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: d.sending().CNAME}},
	}}}}
}

// Bind implements webrtc.TrackLocal: Pion is ready to take packets. The codec it is told is of no consequence, because
// headers are written here.
func (d *downlink) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	stream := c.WriteStream()
	d.stream.Store(&stream)
	return pionCodecs(description.FindFormat(d.options.Mime))[0], nil
}

// Unbind implements webrtc.TrackLocal.
func (d *downlink) Unbind(webrtc.TrackLocalContext) error {
	d.stream.Store(nil)
	return nil
}

// ID implements webrtc.TrackLocal.
func (d *downlink) ID() string { return d.options.TrackID }

// RID implements webrtc.TrackLocal.
func (d *downlink) RID() string { return "" }

// StreamID implements webrtc.TrackLocal.
func (d *downlink) StreamID() string { return d.options.StreamID }

// Kind implements webrtc.TrackLocal.
func (d *downlink) Kind() webrtc.RTPCodecType {
	if d.kind == description.Video {
		return webrtc.RTPCodecTypeVideo
	}
	return webrtc.RTPCodecTypeAudio
}
