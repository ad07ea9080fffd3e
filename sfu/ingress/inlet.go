// Package ingress is the way in from a client: an inlet for each connection opens its packets, finds out what they are part of and passes them on.
// It owns the roll-over counters of received streams, the table of who sends what (SSRC, mid and rid, RFC 8843 §9.2, RFC 8852), unwrapping retransmissions
// and noting arrivals for congestion control feedback.
// It never starts a goroutine, keeps a media packet, or decides what was negotiated: it is told.
package ingress

// Hot path: see ARCHITECTURE.md#packet

import (
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/packet"
	"callserver/sfu/srtp"

	"github.com/pion/rtcp"
)

// maxStreams bounds how many SSRCs of one client are remembered at once. When it is reached those go first that are of no section.
const maxStreams = 512

// lately is how many streams are found without a look into the map of all.
const lately = 8

// maxLayers is how many simulcast streams a section may have.
const maxLayers = 3

// maxName bounds a mid or rid in a header extension, in bytes.
const maxName = 32

// Options say where an Inlet passes what it does not know itself.
type Options struct {
	SSRC     uint32                                     // ours, as the sender of feedback
	Feedback func(packets []rtcp.Packet, now time.Time) // RTCP about what we send
	// Transport takes a packet of transport-wide feedback on what we send, as it came; nil = nobody does. It belongs to the callee.
	Transport func(packet []byte)
	Line      func()          // what Arrivals.Line says may be new; nil = nobody asks
	Panic     func(value any) // a panic below Receive, recovered
	Counters  *Counters
}

// A Section takes the packets of a media section. Calls for one layer come one after the other.
type Section interface {
	// Media takes p, which is parsed and unwrapped, of a simulcast stream (0 where there is one only).
	Media(layer int8, p *packet.Packet, now time.Time)
	// Report takes a report of the client's on the stream.
	Report(layer int8, ssrc uint32, sr *rtcp.SenderReport, now time.Time)
}

// Terms are what was negotiated for a section. They belong to the Inlet once it has them.
type Terms struct {
	MID        string
	To         Section
	Payloads   [2]uint8 // payload types taken
	RTX        uint8    // payload type of retransmissions of the first, 0 = none
	RIDs       []string // simulcast streams, lowest first; empty = one stream
	SSRC       uint32   // declared for the one stream, 0 = none
	Repair     uint32   // declared for its retransmissions, 0 = none
	Ignored    []uint32 // declared, but not taken
	Extensions packet.Extensions
	Names      Names

	begun [maxLayers]uint32 // SSRC of each stream; guarded by the Inlet's lock
}

// Names are the ids of the header extensions that say what a packet is part of; 0 = not negotiated.
type Names struct{ MID, RID, RepairedRID uint8 }

// Counters are totals of what went nowhere. Any number of inlets may share them.
type Counters struct {
	Forged   atomic.Uint64 // packets that are not authentic
	Unrouted atomic.Uint64 // packets of no section that was negotiated
}

// An Inlet takes what one client sends on one connection. Safe for concurrent use.
type Inlet struct {
	Arrivals *Arrivals
	options  Options

	mu      sync.Mutex
	opener  *srtp.Opener // nil until the keys are known: packets are dropped
	table   []*Terms
	version uint32 // of the table
	names   Names
	streams map[uint32]*stream
	lately  [lately]*stream // some of them: most clients send no more than these
}

// stream is one SSRC of the client. Guarded by Inlet.mu.
type stream struct {
	ssrc           uint32
	rollover       srtp.Rollover
	mid, rid, rrid string // told by header extensions so far
	version        uint32 // of the table that terms and layer are from
	terms          *Terms // nil = not known
	layer          int8
}

// New returns an Inlet that drops everything until it is told keys and sections.
func New(o Options) *Inlet {
	return &Inlet{options: o, Arrivals: newArrivals(o.SSRC, o.Line), streams: map[uint32]*stream{}}
}

// SetOpener sets the keys of the client.
func (in *Inlet) SetOpener(o *srtp.Opener) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.opener = o
}

// SetTerms replaces what was negotiated.
func (in *Inlet) SetTerms(table []*Terms) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.table = table
	in.version++
	for _, t := range table {
		if t.Names.MID != 0 {
			in.names.MID = t.Names.MID
		}
		if t.Names.RID != 0 {
			in.names.RID, in.names.RepairedRID = t.Names.RID, t.Names.RepairedRID
		}
		if t.Extensions.TransportCC != 0 {
			in.Arrivals.extension.Store(uint32(t.Extensions.TransportCC))
		}
	}
}

// Close drops everything from now on.
func (in *Inlet) Close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.opener, in.table, in.streams, in.lately = nil, nil, map[uint32]*stream{}, [lately]*stream{}
}

// Receive takes a datagram, RTP or RTCP. It may write to b, and does not keep it.
func (in *Inlet) Receive(b []byte, now time.Time) {
	defer in.recover()
	switch {
	case len(b) >= 8 && b[1] >= 192 && b[1] <= 223: // RFC 5761 §4
		in.control(b, now)
	case len(b) <= packet.Capacity:
		in.media(b, now)
	}
}

func (in *Inlet) recover() {
	if r := recover(); r != nil {
		in.options.Panic(r)
	}
}

// route is where a packet goes.
type route struct {
	terms   *Terms
	layer   int8
	primary uint32 // of the stream that a retransmission belongs to, 0 = unknown
}

// media opens an RTP packet and passes it on.
func (in *Inlet) media(b []byte, now time.Time) {
	header := headerSize(b)
	if header == 0 {
		return
	}
	p := packet.Get(len(b))
	size, r := in.open(p.Buffer(), b, header)
	if size == 0 {
		p.Release()
		return
	}
	if r.terms == nil {
		in.Arrivals.probe(p.Buffer()[:size], now)
		in.options.Counters.Unrouted.Add(1)
		p.Release()
		return
	}
	if p.Parse(size, r.terms.Extensions) != nil {
		p.Release()
		return
	}
	if p.HasTransportSequence {
		in.Arrivals.take(p, size, now)
	}
	t := r.terms
	switch p.PayloadType {
	case t.Payloads[0], t.Payloads[1]:
	case t.RTX:
		if t.RTX == 0 || r.primary == 0 || p.UnwrapRetransmission(r.primary, t.Payloads[0]) != nil {
			p.Release() // probes are empty retransmissions
			return
		}
	default:
		p.Release()
		return
	}
	t.To.Media(r.layer, p, now)
}

// open authenticates the packet in b and decrypts it into to. It returns its size without protection, 0 if it is of no use.
func (in *Inlet) open(to, b []byte, header int) (size int, r route) {
	ssrc, seq := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint16(b[2:])
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.opener == nil {
		return 0, r
	}
	s := in.lately[ssrc%lately]
	if s == nil || s.ssrc != ssrc {
		s = in.streams[ssrc]
	}
	var index uint64
	if s == nil {
		index = uint64(seq)
	} else {
		index = s.rollover.Index(seq)
	}
	plain, err := in.opener.RTP(to, b, header, ssrc, index)
	if err != nil {
		in.options.Counters.Forged.Add(1)
		return 0, r
	}
	if s == nil {
		if len(in.streams) >= maxStreams {
			in.forget()
		}
		s = &stream{ssrc: ssrc}
		in.streams[ssrc] = s
	}
	in.lately[ssrc%lately] = s
	s.rollover.Accept(index)
	if s.terms == nil || s.version != in.version {
		in.find(s, ssrc, plain)
	}
	if s.terms == nil {
		return len(plain), r
	}
	r = route{terms: s.terms, layer: s.layer}
	if s.terms.RTX != 0 && plain[1]&0x7f == s.terms.RTX {
		r.primary = in.primary(s.terms, s.layer)
	}
	return len(plain), r
}

// forget makes room among the streams: what is of no section goes, or else all. A stream that is forgotten and goes on after its numbers went
// round is lost, since its roll-over counter is. Guarded by mu.
func (in *Inlet) forget() {
	in.lately = [lately]*stream{}
	maps.DeleteFunc(in.streams, func(_ uint32, s *stream) bool { return s.terms == nil })
	if len(in.streams) >= maxStreams {
		clear(in.streams)
	}
}

// primary is the SSRC of the stream of a section and layer that is not of retransmissions, 0 if it has not begun.
func (in *Inlet) primary(t *Terms, layer int8) uint32 {
	if ssrc := t.begun[layer]; ssrc != 0 {
		return ssrc
	}
	return t.SSRC
}

// headerSize is the size of an RTP header with everything before the payload, 0 if b is no RTP packet (RFC 3550 §5.1, RFC 8285).
func headerSize(b []byte) int {
	if len(b) < 12 || b[0]>>6 != 2 {
		return 0
	}
	n := 12 + 4*int(b[0]&0x0f)
	if b[0]&0x10 != 0 {
		if len(b) < n+4 {
			return 0
		}
		n += 4 + 4*int(binary.BigEndian.Uint16(b[n+2:]))
	}
	if n > len(b) {
		return 0
	}
	return n
}

// find looks up what a stream is part of, with what its packet says about itself. Guarded by mu.
func (in *Inlet) find(s *stream, ssrc uint32, b []byte) {
	in.names.read(s, b)
	s.version, s.terms, s.layer = in.version, nil, 0
	payload := b[1] & 0x7f
	t := in.section(s, ssrc, payload)
	if t == nil || slices.Contains(t.Ignored, ssrc) {
		return
	}
	if len(t.RIDs) > 0 {
		rid := s.rid
		if s.rrid != "" {
			rid = s.rrid
		}
		i := slices.Index(t.RIDs, rid)
		if i < 0 || i >= len(t.begun) {
			return
		}
		s.layer = int8(i)
	}
	s.terms = t
	if s.rrid == "" && payload != t.RTX {
		t.begun[s.layer] = ssrc
	}
}

// section finds the section of a stream: by SSRC where the description names it, by mid where the packets do, or else because only one
// can be meant.
func (in *Inlet) section(s *stream, ssrc uint32, payload uint8) *Terms {
	var only *Terms
	suits := 0
	for _, t := range in.table {
		if ssrc != 0 && (ssrc == t.SSRC || ssrc == t.Repair) || s.mid != "" && s.mid == t.MID {
			return t
		}
		if payload == t.Payloads[0] || payload == t.Payloads[1] || t.RTX != 0 && payload == t.RTX {
			only = t
			suits++
		}
	}
	if s.mid != "" || suits != 1 || len(only.RIDs) > 0 && in.names.MID != 0 {
		return nil
	}
	return only
}

// read notes the names in a packet's header extensions.
func (n Names) read(s *stream, b []byte) {
	for _, e := range []struct {
		id uint8
		to *string
	}{{n.MID, &s.mid}, {n.RID, &s.rid}, {n.RepairedRID, &s.rrid}} {
		if v := extension(b, e.id); len(v) > 0 && len(v) <= maxName {
			*e.to = string(v)
		}
	}
}

// control opens a compound of RTCP packets and passes them on.
func (in *Inlet) control(b []byte, now time.Time) {
	packets := in.openControl(b)
	feedback := false
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.SenderReport:
			if t, layer := in.sender(p.SSRC); t != nil {
				t.To.Report(layer, p.SSRC, p, now)
			}
			feedback = feedback || len(p.Reports) > 0
		case *rtcp.SourceDescription, *rtcp.Goodbye:
		default:
			feedback = true
		}
	}
	if feedback {
		in.options.Feedback(packets, now)
	}
}

func (in *Inlet) openControl(b []byte) []rtcp.Packet {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.opener == nil {
		return nil
	}
	plain, err := in.opener.RTCP(b)
	if err != nil {
		in.options.Counters.Forged.Add(1)
		return nil
	}
	plain = slices.Clone(plain) // some of the types point into it
	if plain = in.reports(plain); len(plain) == 0 {
		return nil
	}
	packets, err := rtcp.Unmarshal(plain)
	if err != nil {
		return nil
	}
	return packets
}

// reports passes on the transport-wide feedback in a compound, which comes often and is read elsewhere, and returns what else is in it.
func (in *Inlet) reports(compound []byte) (rest []byte) {
	const feedback, transportWide = 205, 15 // draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1
	for at := 0; at+4 <= len(compound); {
		size := 4 + 4*int(binary.BigEndian.Uint16(compound[at+2:]))
		if at+size > len(compound) {
			return compound
		}
		if compound[at+1] != feedback || compound[at]&0x1f != transportWide {
			at += size
			continue
		}
		if in.options.Transport != nil {
			in.options.Transport(slices.Clone(compound[at : at+size]))
		}
		compound = slices.Delete(compound, at, at+size)
	}
	return compound
}

// sender is what the SSRC of a report belongs to.
func (in *Inlet) sender(ssrc uint32) (*Terms, int8) {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.streams[ssrc]
	if s == nil || s.terms == nil || s.version != in.version || s.rrid != "" {
		return nil, 0
	}
	return s.terms, s.layer
}
