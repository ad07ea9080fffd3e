package bench

import (
	"encoding/binary"
	"time"

	"github.com/pion/rtcp"
)

const (
	reportInterval  = time.Second
	requestInterval = 500 * time.Millisecond // between two requests for the first key frame of a stream
	maxInbound      = 8192                   // streams that one participant receives at most
	maxNack         = 64                     // packets asked for at once; more missing is a break, not loss
)

// A link is the media connection of one participant: what it sends, what it receives, and the RTCP about both. Its loop's
// goroutine only, once attached.
type link struct {
	socket *socket
	keys   *keys
	to     socketAddress
	ssrc   uint32 // of its reports
	cname  string

	gone      bool // the participant left
	transport uint16
	streams   []*stream
	inbound   map[uint32]*inbound
	last      *inbound         // that a packet came on
	flows     map[uint32]*flow // by track
	nextSend  time.Duration    // of reports
	resends   []resend         // asked for, at most batchSize

	bad, foreign  uint64 // packets that do not authenticate; that are not ours
	nacked, asked uint64 // packets asked of us; packets that we asked for
	keyRequests   uint64 // of the server
}

// resend is a packet that the server asked for.
type resend struct {
	stream *stream
	seq    uint16
}

// inbound is one RTP stream received.
type inbound struct {
	ssrc     uint32
	roll     rollover
	base     uint64 // first index
	received uint64
	priorGot uint64 // at the last report
	priorDue uint64
	report   uint32        // middle of the newest sender report
	reportAt time.Duration // when it came
	flow     *flow
	askedAt  time.Duration // for a key frame
	missing  []uint16      // to be asked for
}

// receive takes one RTP or RTCP packet.
func (l *link) receive(b []byte, arrival, now time.Duration, lp *loop) {
	if l.keys == nil || len(b) < 12 {
		return // before the handshake ended nothing is meant for us
	}
	if b[1] >= 192 && b[1] <= 223 { // RFC 5761 §4
		l.receiveRTCP(b, now)
		return
	}
	n, ok := headerSize(b)
	if !ok {
		l.bad++
		return
	}
	ssrc := binary.BigEndian.Uint32(b[8:])
	in := l.last // the packets of a run are of one stream
	if in == nil || in.ssrc != ssrc {
		if in = l.inbound[ssrc]; in == nil {
			if len(l.inbound) >= maxInbound {
				l.foreign++
				return
			}
			in = &inbound{ssrc: ssrc}
			l.inbound[ssrc] = in
		}
		l.last = in
	}
	index := in.roll.index(binary.BigEndian.Uint16(b[2:]))
	payload, err := l.keys.in.open(b, n, uint32(index>>16))
	if err != nil {
		l.bad++
		return
	}
	rtx := b[1]&0x7f == rtxPT
	in.arrived(index, !rtx)
	if b[0]&0x20 != 0 && len(payload) > 0 { // RFC 3550 §5.1: padding
		payload = payload[:max(len(payload)-int(payload[len(payload)-1]), 0)]
	}
	if rtx && len(payload) >= 2 { // RFC 4588 §4
		payload = payload[2:]
	}
	if len(payload) == 0 { // a probe
		return
	}
	s, ok := readStamp(payload)
	if !ok || int(s.track) >= len(lp.tracks) {
		l.foreign++
		return
	}
	f := in.flow
	if f == nil || f.track.id != s.track {
		if f = l.flows[s.track]; f == nil {
			f = &flow{track: lp.tracks[s.track]}
			l.flows[s.track] = f
		}
	}
	if !rtx {
		in.flow = f
	}
	f.note(s, arrival, lp.window)
	if lp.window.holds(s.sent) {
		lp.latency.add(arrival - s.sent)
	}
}

// arrived notes a packet for reports and asks for those that it leaves out.
func (in *inbound) arrived(index uint64, ask bool) {
	if !in.roll.begun {
		in.base = index
	} else if gap := index - in.roll.last; ask && index > in.roll.last && gap > 1 && gap <= maxNack {
		for i := in.roll.last + 1; i < index; i++ {
			in.missing = append(in.missing, uint16(i))
		}
	}
	in.roll.accept(index)
	in.received++
}

func (l *link) receiveRTCP(b []byte, now time.Duration) {
	raw, err := l.keys.inRTCP.DecryptRTCP(nil, b, nil)
	if err != nil {
		l.bad++
		return
	}
	packets, err := rtcp.Unmarshal(raw)
	if err != nil {
		l.bad++
		return
	}
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.PictureLossIndication:
			l.wantKey(p.MediaSSRC)
		case *rtcp.FullIntraRequest:
			for _, e := range p.FIR {
				l.wantKey(e.SSRC)
			}
		case *rtcp.TransportLayerNack:
			for _, pair := range p.Nacks {
				seqs := pair.PacketList()
				l.nacked += uint64(len(seqs))
				l.wantAgain(p.MediaSSRC, seqs)
			}
		case *rtcp.ReceiverReport:
			l.reported(p.Reports)
		case *rtcp.SenderReport:
			l.reported(p.Reports)
			if in := l.inbound[p.SSRC]; in != nil {
				in.report, in.reportAt = uint32(p.NTPTime>>16), now
			}
		}
	}
}

func (l *link) wantKey(ssrc uint32) {
	for _, s := range l.streams {
		if s.ssrc == ssrc {
			s.keyWanted = true
			l.keyRequests++
		}
	}
}

// wantAgain notes packets to send again. What a hostile server asks for is bounded by what a loop sends of it at once.
func (l *link) wantAgain(ssrc uint32, seqs []uint16) {
	for _, s := range l.streams {
		if s.ssrc != ssrc {
			continue
		}
		for _, seq := range seqs {
			if len(l.resends) < batchSize {
				l.resends = append(l.resends, resend{s, seq})
			}
		}
	}
}

func (l *link) reported(reports []rtcp.ReceptionReport) {
	for _, r := range reports {
		for _, s := range l.streams {
			s.known = s.known || s.ssrc == r.SSRC
		}
	}
}

// requests returns what cannot wait for the next report: lost packets, and first key frames.
func (l *link) requests(now time.Duration) (out []rtcp.Packet) {
	for ssrc, in := range l.inbound {
		if len(in.missing) > 0 {
			out = append(out, &rtcp.TransportLayerNack{SenderSSRC: l.ssrc, MediaSSRC: ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(in.missing)})
			l.asked += uint64(len(in.missing))
			in.missing = in.missing[:0]
		}
		if f := in.flow; f != nil && f.track.video && f.keyAt == 0 && now-max(in.askedAt, f.firstAt) > requestInterval {
			in.askedAt = now
			out = append(out, &rtcp.PictureLossIndication{SenderSSRC: l.ssrc, MediaSSRC: ssrc})
		}
	}
	return out
}

// reports returns the sender and receiver reports that are due (RFC 3550 §6.4). wall is the time of day.
func (l *link) reports(now time.Duration, wall time.Time) (out []rtcp.Packet) {
	for _, s := range l.streams {
		if s.packets > 0 {
			out = append(out,
				&rtcp.SenderReport{SSRC: s.ssrc, NTPTime: ntp(wall), RTPTime: s.timestamp, PacketCount: s.packets, OctetCount: s.octets},
				&rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
					Source: s.ssrc, Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: l.cname}},
				}}})
		}
	}
	var blocks []rtcp.ReceptionReport
	for ssrc, in := range l.inbound {
		if in.received != in.priorGot {
			blocks = append(blocks, in.block(ssrc, now))
		}
	}
	for len(blocks) > 0 {
		n := min(len(blocks), 31)
		out = append(out, &rtcp.ReceiverReport{SSRC: l.ssrc, Reports: blocks[:n]})
		blocks = blocks[n:]
	}
	return out
}

func (in *inbound) block(ssrc uint32, now time.Duration) rtcp.ReceptionReport {
	due := in.roll.last - in.base + 1
	got := in.received
	lost := int64(due) - int64(got)
	r := rtcp.ReceptionReport{
		SSRC: ssrc, LastSequenceNumber: uint32(in.roll.last),
		TotalLost: uint32(min(max(lost, 0), 1<<23-1)), LastSenderReport: in.report,
	}
	if d, g := due-in.priorDue, got-in.priorGot; d > g {
		r.FractionLost = uint8(min((d-g)*256/d, 255))
	}
	if in.reportAt > 0 {
		r.Delay = uint32((now - in.reportAt) * 65536 / time.Second)
	}
	in.priorDue, in.priorGot = due, got
	return r
}

// ntp is the 64-bit time of RFC 3550 §4.
func ntp(t time.Time) uint64 {
	const since1900 = 2208988800
	return uint64(t.Unix()+since1900)<<32 | uint64(t.Nanosecond())<<32/uint64(time.Second)
}
