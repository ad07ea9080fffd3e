// Hot path: see ARCHITECTURE.md#packet

package rtc

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"callserver/sfu/codec"
	"callserver/sfu/egress"
	"callserver/sfu/forward"
	"callserver/sfu/prefetch"
	"callserver/sfu/rtc/description"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// downlink is one track that we send: the forward.Writer of its sink, and the track that Pion negotiates. Safe for concurrent use, except for
// what belongs to the turn of the leg's worker; place and stop are called under Peer.negotiation.
type downlink struct {
	// What each packet needs comes first, close together.
	leg     *egress.Leg
	numbers atomic.Uint64          // a wire, packed; 0 = not negotiated
	streams atomic.Pointer[outlet] // nil = no section
	kind    description.Kind
	rtx     atomic.Bool // lost packets are sent again on a stream of their own
	taken   bool        // first is in use
	first   outlet      // room for the first of streams, which mostly is the only one

	sink    atomic.Pointer[forward.Sink]
	bound   atomic.Bool // DownlinkBound was sent
	peer    *Peer
	options DownlinkOptions

	mu         sync.Mutex
	connection *connection // nil = waits for a section
	sender     *webrtc.RTPSender
}

// maxPadding is the most that a packet can have (RFC 3550 §5.1), in bytes.
const maxPadding = 255

// errRepair refuses a retransmission: more would take the place of what is new.
var errRepair = errors.New("rtc: too many retransmissions for the line")

// outlet is the streams of a downlink for as long as it has its section. In the turn of the leg's worker only, but for the SSRCs.
type outlet struct {
	stamp      uint32 // RTP timestamp sent last
	sequence   uint16 // of the retransmissions
	media, rtx egress.Stream
	head       [2 + codec.MaxVP8Size]byte
}

// wire is how the packets of a downlink look: numbers negotiated for its section.
type wire struct {
	payload, rtx            uint8 // payload types; rtx 0 = retransmissions go out as they were
	dependency, captureTime uint8 // header extension ids; 0 = not negotiated
	transport               uint8 // the same of the transport-wide sequence number; never without rtx: a packet that goes out again as it was cannot have a new one
}

// pack makes one number of a wire, other than 0.
func (w wire) pack() uint64 {
	return 1<<63 | uint64(w.payload) | uint64(w.rtx)<<8 | uint64(w.dependency)<<16 | uint64(w.captureTime)<<24 | uint64(w.transport)<<32
}

func unpack(n uint64) wire {
	return wire{payload: uint8(n), rtx: uint8(n >> 8), dependency: uint8(n >> 16), captureTime: uint8(n >> 24), transport: uint8(n >> 32)}
}

func newDownlink(p *Peer, l *egress.Leg, o DownlinkOptions) *downlink {
	d := &downlink{peer: p, leg: l, options: o, kind: description.Audio}
	if description.FindFormat(o.Mime).Video() {
		d.kind = description.Video
	}
	return d
}

func (d *downlink) placed() bool { return d.on() != nil }

// on is the connection that carries the downlink, nil while it waits for a section.
func (d *downlink) on() *connection {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.connection
}

// place ties the downlink to a sender of c.
func (d *downlink) place(c *connection, sender *webrtc.RTPSender, rtx bool) {
	video := d.kind == description.Video
	out := &d.first
	if d.taken { // the worker may still be at it
		out = new(outlet)
	}
	d.taken = true
	*out = outlet{media: egress.Stream{SSRC: c.newSSRC(), Once: rtx, Video: video}}
	if rtx {
		// No wrap soon: a receiver that loses the first packets would miscount the roll-over (RFC 3711 §3.3.1).
		out.rtx, out.sequence = egress.Stream{SSRC: c.newSSRC(), Once: true, Video: video}, uint16(rand.Uint32N(1<<15))
	}
	d.mu.Lock()
	d.connection, d.sender = c, sender
	d.mu.Unlock()
	d.streams.Store(out)
	d.rtx.Store(rtx)
}

// stop ends sending; the section is free afterwards.
func (d *downlink) stop() {
	d.mu.Lock()
	c, sender := d.connection, d.sender
	d.connection, d.sender = nil, nil
	d.mu.Unlock()
	d.numbers.Store(0)
	d.streams.Store(nil)
	d.bound.Store(false)
	if c == nil || sender == nil {
		return
	}
	if err := c.pc.RemoveTrack(sender); err != nil {
		d.peer.log.Debug("remove sender", "track", d.options.TrackID, "error", err)
	}
}

// negotiated notes the numbers to send with.
func (d *downlink) negotiated(w wire) {
	if w.rtx == 0 || !d.rtx.Load() {
		d.rtx.Store(false)
		w.transport = 0
		if out := d.streams.Load(); out != nil && d.numbers.Load() == 0 {
			out.media.Once = false // what is sent again must be what was sent before
		}
	}
	if c := d.on(); c != nil && d.kind == description.Video {
		c.congestion.follow(d.leg)
	}
	d.numbers.Store(w.pack())
}

func (d *downlink) sending() *description.Sending {
	o := d.options
	cname := o.CNAME
	if cname == "" {
		cname = o.StreamID
	}
	s := &description.Sending{StreamID: o.StreamID, TrackID: o.TrackID, CNAME: cname}
	if out := d.streams.Load(); out != nil {
		s.SSRC = out.media.SSRC
		if d.rtx.Load() {
			s.RTX = out.rtx.SSRC
		}
	}
	return s
}

// ssrc is that of the media stream, 0 if there is none.
func (d *downlink) ssrc() uint32 {
	if out := d.streams.Load(); out != nil {
		return out.media.SSRC
	}
	return 0
}

// bindAll reports the downlinks that can be written to from now on.
func (p *Peer) bindAll() {
	for _, d := range *p.downlinks.Load() {
		if d.numbers.Load() != 0 && d.bound.CompareAndSwap(false, true) {
			p.emit(DownlinkBound{TrackID: d.options.TrackID, Writer: d, RTX: d.rtx.Load()})
		}
	}
}

// Fetch has the processor fetch what WriteRTP needs, as forward.Deliver asks for it.
func (d *downlink) Fetch(step int) {
	if step == 0 {
		prefetch.Lines(unsafe.Pointer(d), hotLines)
		return
	}
	if out := d.streams.Load(); step == 1 && out != nil {
		out.media.Fetch()
	}
	d.leg.Fetch(step)
}

// hotLines is how many cache lines of a downlink each packet needs.
const hotLines = 3

// Lane says where WriteRTP is called: in the turn of the client's worker.
func (d *downlink) Lane() forward.Lane { return d.leg.Lane() }

// WriteRTP implements forward.Writer. A packet before the connection is up is lost silently.
func (d *downlink) WriteRTP(o *forward.Outgoing) error {
	n, out := d.numbers.Load(), d.streams.Load()
	if n == 0 || out == nil {
		return nil
	}
	w := unpack(n)
	b := d.leg.Header()
	if b == nil {
		return nil
	}
	stream, payload, seq := &out.media, w.payload, o.SequenceNumber
	p := egress.Packet{Head: o.Head, Payload: o.Payload, Padding: o.Padding, Fill: o.Fill, Again: o.Retransmission}
	if o.Retransmission && d.kind == description.Video && !d.leg.Repair(len(o.Head)+len(o.Payload)) {
		return errRepair
	}
	if o.Retransmission && w.rtx != 0 && d.rtx.Load() { // RFC 4588 §4
		stream, payload, p.Again = &out.rtx, w.rtx, false
		out.sequence++
		seq = out.sequence
		p.Head = append(binary.BigEndian.AppendUint16(out.head[:0], o.SequenceNumber), o.Head...)
	}
	first, second := byte(2<<6), payload
	if o.Padding > 0 {
		first |= 1 << 5
	}
	if o.Marker {
		second |= 1 << 7
	}
	b = append(b, first, second, byte(seq>>8), byte(seq))
	b = binary.BigEndian.AppendUint32(b, o.Timestamp)
	b = binary.BigEndian.AppendUint32(b, stream.SSRC)
	p.Header, p.Number = w.extend(b, o)
	out.stamp = o.Timestamp
	return d.leg.Send(stream, &p)
}

// pad sends a packet of padding on the stream of retransmissions, where it is taken for an empty one. It belongs to the turn of the leg's worker. It returns the
// size of the packet, 0 if there is no such stream.
func (d *downlink) pad() int {
	w, out := unpack(d.numbers.Load()), d.streams.Load()
	if out == nil || w.rtx == 0 || w.transport == 0 || out.rtx.SSRC == 0 {
		return 0
	}
	b := d.leg.Header()
	if b == nil {
		return 0
	}
	out.sequence++
	b = append(b, 2<<6|1<<5, w.rtx, byte(out.sequence>>8), byte(out.sequence))
	b = binary.BigEndian.AppendUint32(b, out.stamp)
	b = binary.BigEndian.AppendUint32(b, out.rtx.SSRC)
	p := egress.Packet{Padding: maxPadding, Urgent: true}
	p.Header, p.Number = w.extend(b, &forward.Outgoing{})
	if d.leg.Send(&out.rtx, &p) != nil {
		return 0
	}
	return len(p.Header) + maxPadding
}

// extend appends the header extensions that are present and negotiated, and returns where the transport-wide sequence number is to go. The two-byte
// form is used only where it must be (RFC 8285 §4.3), which extmap-allow-mixed permits.
func (w *wire) extend(b []byte, o *forward.Outgoing) (header []byte, number uint8) {
	dependency := w.dependency != 0 && len(o.DependencyDescriptor) > 0 && len(o.DependencyDescriptor) < 256
	captureTime := w.captureTime != 0 && len(o.AbsCaptureTime) > 0 && len(o.AbsCaptureTime) <= 16
	if !dependency && !captureTime && w.transport == 0 {
		return b, 0
	}
	two := dependency && (len(o.DependencyDescriptor) > 16 || w.dependency > 14) || captureTime && w.captureTime > 14 || w.transport > 14
	b[0] |= 1 << 4
	at := len(b)
	if two {
		b = append(b, 0x10, 0, 0, 0)
	} else {
		b = append(b, 0xbe, 0xde, 0, 0)
	}
	if w.transport != 0 { // first, so that its place fits into a byte
		b = element(b, w.transport, noNumber[:], two)
		number = uint8(len(b) - len(noNumber))
	}
	if dependency {
		b = element(b, w.dependency, o.DependencyDescriptor, two)
	}
	if captureTime {
		b = element(b, w.captureTime, o.AbsCaptureTime, two)
	}
	for (len(b)-at)%4 != 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[at+2:], uint16((len(b)-at)/4-1))
	return b, number
}

// noNumber is the room for a transport-wide sequence number.
var noNumber [2]byte

// element appends one header extension (RFC 8285 §4.2, §4.3).
func element(b []byte, id uint8, value []byte, two bool) []byte {
	if two {
		b = append(b, id, byte(len(value)))
	} else {
		b = append(b, id<<4|byte(len(value)-1))
	}
	return append(b, value...)
}

// feedback takes the RTCP about what we send. It is worked on in the worker's turn, since what is asked for again is sent there.
func (c *connection) feedback(packets []rtcp.Packet, now time.Time) {
	p := c.peer
	if c != p.sender() {
		return
	}
	c.leg.Do(func() {
		defer p.recover("feedback")
		for _, b := range packets {
			if b, ok := b.(*rtcp.ReceiverEstimatedMaximumBitrate); ok {
				c.congestion.capacity(int64(b.Bitrate))
			}
		}
		for _, d := range *p.downlinks.Load() {
			d.feedback(packets, &c.congestion, now)
		}
	})
}

// feedback hands what concerns this downlink to its sink.
func (d *downlink) feedback(packets []rtcp.Packet, g *congestion, now time.Time) {
	k, ssrc := d.sink.Load(), d.ssrc()
	if k == nil || ssrc == 0 {
		return
	}
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.TransportLayerNack:
			if p.MediaSSRC == ssrc {
				for _, pair := range p.Nacks {
					if sent := k.Nack(pair.PacketList(), now); d.kind == description.Video {
						g.repeat(k, sent)
					}
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
	if k == nil || d.numbers.Load() == 0 {
		return nil
	}
	sr, ok := k.SenderReport(now)
	if !ok {
		return nil
	}
	sr.SSRC = d.ssrc()
	return []rtcp.Packet{&sr, &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
		Source: sr.SSRC,
		Items:  []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: d.sending().CNAME}},
	}}}}
}

// Bind implements webrtc.TrackLocal. Nothing is ever sent through Pion: what it says here is of no consequence.
func (d *downlink) Bind(webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	return pionCodecs(description.FindFormat(d.options.Mime))[0], nil
}

// Unbind implements webrtc.TrackLocal.
func (d *downlink) Unbind(webrtc.TrackLocalContext) error { return nil }

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
