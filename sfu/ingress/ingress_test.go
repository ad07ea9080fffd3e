package ingress

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"callserver/sfu/packet"
	"callserver/sfu/srtp"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtcp"
	pion "github.com/pion/srtp/v3"
)

var start = time.Unix(1700000000, 0)

// Header extension ids of the tests.
const (
	idMID = iota + 1
	idRID
	idRepaired
	idTransport
	idLeft
)

var names = Names{MID: idMID, RID: idRID, RepairedRID: idRepaired}

// section notes what arrives.
type section struct{ got []string }

func (s *section) Media(layer int8, p *packet.Packet, _ time.Time) {
	again := ""
	if p.Retransmitted {
		again = " again"
	}
	s.got = append(s.got, fmt.Sprintf("%d: %d/%d %q%s", layer, p.SSRC, p.SequenceNumber, p.Payload, again))
	p.Release()
}

func (s *section) Report(layer int8, ssrc uint32, sr *rtcp.SenderReport, _ time.Time) {
	s.got = append(s.got, fmt.Sprintf("%d: report of %d at %d", layer, ssrc, sr.RTPTime))
}

// world is an inlet and the client in front of it.
type world struct {
	*Inlet
	t        testing.TB
	at       time.Duration // when packets arrive, since start
	client   *pion.Context
	audio    section
	video    section
	feedback int
	counters Counters
	room     []byte // for what is received: it may be written to
}

func newWorld(t testing.TB) *world {
	w := &world{t: t}
	w.Inlet = New(Options{SSRC: 99, Counters: &w.counters, Feedback: func([]rtcp.Packet, time.Time) { w.feedback++ }, Panic: func(v any) { t.Errorf("panic: %v", v) }})
	material := make([]byte, srtp.GCM128.Material())
	_, opener, err := srtp.Server(srtp.GCM128, material)
	if err != nil {
		t.Fatal(err)
	}
	if w.client, err = pion.CreateContext(material[:16], material[32:44], pion.ProtectionProfileAeadAes128Gcm); err != nil {
		t.Fatal(err)
	}
	w.SetOpener(opener)
	w.SetTerms(w.terms())
	return w
}

// terms are those of a microphone without retransmissions and a camera with three layers.
func (w *world) terms() []*Terms {
	return []*Terms{
		{MID: "0", To: &w.audio, Payloads: [2]uint8{111, 111}, Names: Names{MID: idMID}},
		{MID: "1", To: &w.video, Payloads: [2]uint8{96, 96}, RTX: 97, RIDs: []string{"q", "h", "f"}, Names: names,
			Extensions: packet.Extensions{TransportCC: idTransport, SendTime: idLeft}},
	}
}

// rtp is an RTP packet: its payload type, SSRC, number and header extensions.
type rtp struct {
	pt             uint8
	ssrc           uint32
	seq            uint16
	mid, rid, rrid string
	transport      uint16
	left           time.Duration // by the client's clock; 0 is not told
	payload        string
}

func (r rtp) marshal() []byte {
	b := make([]byte, 12, 200)
	b[0], b[1] = 0x90, r.pt
	binary.BigEndian.PutUint16(b[2:], r.seq)
	binary.BigEndian.PutUint32(b[8:], r.ssrc)
	b = append(b, 0xbe, 0xde, 0, 0)
	for id, v := range map[byte]string{idMID: r.mid, idRID: r.rid, idRepaired: r.rrid} {
		if v != "" {
			b = append(append(b, id<<4|byte(len(v)-1)), v...)
		}
	}
	if r.transport != 0 {
		b = binary.BigEndian.AppendUint16(append(b, idTransport<<4|1), r.transport)
	}
	if r.left != 0 {
		left := uint32(r.left << 18 / time.Second)
		b = append(b, idLeft<<4|2, byte(left>>16), byte(left>>8), byte(left))
	}
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[14:], uint16(len(b)/4-4))
	return append(b, r.payload...)
}

// send has the client send a packet.
func (w *world) send(r rtp) {
	w.t.Helper()
	sealed, err := w.client.EncryptRTP(nil, r.marshal(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.receive(sealed)
}

func (w *world) sendRTCP(packets ...rtcp.Packet) {
	w.t.Helper()
	plain, err := rtcp.Marshal(packets)
	if err != nil {
		w.t.Fatal(err)
	}
	sealed, err := w.client.EncryptRTCP(nil, plain, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.receive(sealed)
}

func (w *world) receive(b []byte) {
	w.room = append(w.room[:0], b...)
	w.Receive(w.room, start.Add(w.at))
}

func (w *world) want(what string, s *section, want ...string) {
	w.t.Helper()
	if d := cmp.Diff(want, s.got); d != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, d)
	}
	s.got = nil
}

// TestRoutes sends what clients send, in the ways by which they say what it is.
func TestRoutes(t *testing.T) {
	w := newWorld(t)
	w.send(rtp{pt: 111, ssrc: 5, seq: 1, payload: "by payload type: only one has it"})
	w.want("audio", &w.audio, `0: 5/1 "by payload type: only one has it"`)
	w.send(rtp{pt: 96, ssrc: 7, seq: 1, payload: "which layer?"})
	w.want("no rid", &w.video)
	w.send(rtp{pt: 96, ssrc: 7, seq: 2, mid: "1", rid: "h", payload: "this one"})
	w.send(rtp{pt: 96, ssrc: 7, seq: 3, payload: "remembered"})
	w.send(rtp{pt: 97, ssrc: 8, seq: 9, mid: "1", rrid: "h", payload: "\x00\x01lost"})
	w.send(rtp{pt: 97, ssrc: 8, seq: 10, payload: "\x00\x00lost too"})
	w.send(rtp{pt: 97, ssrc: 8, seq: 11}) // a probe
	w.send(rtp{pt: 97, ssrc: 9, seq: 1, mid: "1", rrid: "f", payload: "\x00\x00of what has not begun"})
	w.send(rtp{pt: 98, ssrc: 7, seq: 4, payload: "not negotiated"})
	w.want("video", &w.video, `1: 7/2 "this one"`, `1: 7/3 "remembered"`, `1: 7/1 "lost" again`, `1: 7/0 "lost too" again`)
	w.send(rtp{pt: 96, ssrc: 10, seq: 1, mid: "1", rid: "x", payload: "unknown rid"})
	w.send(rtp{pt: 96, ssrc: 11, seq: 1, mid: "2", rid: "h", payload: "unknown mid"})
	w.want("unknown", &w.video)
	if forged, unrouted := w.counters.Forged.Load(), w.counters.Unrouted.Load(); forged != 0 || unrouted != 3 {
		t.Errorf("%d forged, %d unrouted", forged, unrouted)
	}
}

// TestDeclared goes by the SSRCs of the description, where a section has no rids.
func TestDeclared(t *testing.T) {
	w := newWorld(t)
	w.SetTerms([]*Terms{
		{MID: "0", To: &w.video, Payloads: [2]uint8{96, 96}, RTX: 97, SSRC: 3, Repair: 4, Ignored: []uint32{1, 2}, Names: names},
		{MID: "1", To: &w.audio, Payloads: [2]uint8{96, 96}, RTX: 97, Names: names},
	})
	w.send(rtp{pt: 97, ssrc: 4, seq: 1, payload: "\x00\x05early"})
	w.send(rtp{pt: 96, ssrc: 3, seq: 6, payload: "media"})
	w.send(rtp{pt: 96, ssrc: 1, seq: 1, mid: "0", payload: "a lower layer"})
	w.want("declared", &w.video, `0: 3/5 "early" again`, `0: 3/6 "media"`)
	w.send(rtp{pt: 96, ssrc: 30, seq: 1, payload: "which of the two?"})
	w.send(rtp{pt: 96, ssrc: 31, seq: 1, mid: "1", payload: "this one"})
	w.want("undeclared", &w.audio, `0: 31/1 "this one"`)
}

// TestRenegotiated takes the new table for streams that it knows.
func TestRenegotiated(t *testing.T) {
	w := newWorld(t)
	w.send(rtp{pt: 96, ssrc: 7, seq: 1, mid: "1", rid: "h", payload: "before"})
	terms := w.terms()
	terms[1].RIDs = []string{"h"}
	w.SetTerms(terms)
	w.send(rtp{pt: 96, ssrc: 7, seq: 2, payload: "after"})
	w.want("renegotiated", &w.video, `1: 7/1 "before"`, `0: 7/2 "after"`)
	w.SetTerms(nil)
	w.send(rtp{pt: 96, ssrc: 7, seq: 3, payload: "gone"})
	w.Close()
	w.send(rtp{pt: 96, ssrc: 7, seq: 4, payload: "closed"})
	w.want("nothing", &w.video)
}

// TestForged drops what is not authentic, without letting it change what is known.
func TestForged(t *testing.T) {
	w := newWorld(t)
	w.send(rtp{pt: 111, ssrc: 5, seq: 65535, payload: "one"})
	forged := rtp{pt: 111, ssrc: 5, seq: 30000, payload: "forged, long enough for a tag"}.marshal()
	w.receive(forged)
	w.receive(forged[:11])
	w.receive([]byte{0x80, 200, 0, 1, 0, 0, 0, 1})
	w.receive([]byte{0x80})
	w.send(rtp{pt: 111, ssrc: 5, seq: 0, payload: "next round"})
	w.want("authentic", &w.audio, `0: 5/65535 "one"`, `0: 5/0 "next round"`)
	if forged := w.counters.Forged.Load(); forged != 2 {
		t.Errorf("%d forged", forged)
	}
}

// TestControl passes reports to their streams and feedback on.
func TestControl(t *testing.T) {
	w := newWorld(t)
	w.send(rtp{pt: 96, ssrc: 7, seq: 2, mid: "1", rid: "h", payload: "x"})
	w.send(rtp{pt: 97, ssrc: 8, seq: 2, mid: "1", rrid: "h", payload: "\x00\x01y"})
	w.video.got = nil
	w.sendRTCP(&rtcp.SenderReport{SSRC: 7, RTPTime: 90}, &rtcp.SourceDescription{})
	w.sendRTCP(&rtcp.SenderReport{SSRC: 8, RTPTime: 91}) // retransmissions have a clock of no use
	w.sendRTCP(&rtcp.SenderReport{SSRC: 70})
	w.want("reports", &w.video, "1: report of 7 at 90")
	if w.feedback != 0 {
		t.Errorf("%d times feedback", w.feedback)
	}
	w.sendRTCP(&rtcp.ReceiverReport{SSRC: 1})
	w.sendRTCP(&rtcp.SenderReport{SSRC: 7, RTPTime: 92, Reports: []rtcp.ReceptionReport{{SSRC: 3}}})
	w.sendRTCP(&rtcp.PictureLossIndication{MediaSSRC: 3})
	if w.feedback != 3 {
		t.Errorf("%d times feedback, want 3", w.feedback)
	}
}

// TestTransportFeedback passes on reports on each packet as they came, and the rest of a compound without them.
func TestTransportFeedback(t *testing.T) {
	w := newWorld(t)
	var got []string
	w.options.Transport = func(b []byte) { got = append(got, fmt.Sprintf("%x", b)) }
	report := func(base uint16) *rtcp.TransportLayerCC {
		return &rtcp.TransportLayerCC{
			Header:     rtcp.Header{Count: rtcp.FormatTCC, Type: rtcp.TypeTransportSpecificFeedback, Length: 5, Padding: true},
			SenderSSRC: 1, MediaSSRC: 2, BaseSequenceNumber: base, PacketStatusCount: 1, ReferenceTime: 3,
			PacketChunks: []rtcp.PacketStatusChunk{&rtcp.RunLengthChunk{PacketStatusSymbol: rtcp.TypeTCCPacketReceivedSmallDelta, RunLength: 1}},
			RecvDeltas:   []*rtcp.RecvDelta{{Type: rtcp.TypeTCCPacketReceivedSmallDelta, Delta: 1000}},
		}
	}
	w.sendRTCP(report(5), &rtcp.PictureLossIndication{MediaSSRC: 3}, report(6))
	w.sendRTCP(report(7))
	if len(got) != 3 || w.feedback != 1 {
		t.Fatalf("%d reports, %d times other feedback: %q", len(got), w.feedback, got)
	}
	for i, b := range got {
		want, err := report(uint16(5 + i)).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if b != fmt.Sprintf("%x", want) {
			t.Errorf("report %d is %s, want %x", i, b, want)
		}
	}
}

// FuzzReports takes compounds apart that nobody has checked yet.
func FuzzReports(f *testing.F) {
	f.Add([]byte{0x8f, 205, 0, 1, 0, 0, 0, 1, 0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2})
	f.Add([]byte{0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x8f, 205, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		size := 0
		in := New(Options{Transport: func(b []byte) { size += len(b) }})
		if all := len(b); len(in.reports(b))+size != all {
			t.Errorf("%d bytes of %d are missing", all-size, all)
		}
	})
}

// TestArrivals reports media, retransmissions and probes on streams of nobody.
func TestArrivals(t *testing.T) {
	w := newWorld(t)
	if got := w.Arrivals.Feedback(); got != nil {
		t.Errorf("got %v before anything arrived", got)
	}
	w.send(rtp{pt: 96, ssrc: 7, seq: 1, mid: "1", rid: "h", transport: 1, payload: "media"})
	w.send(rtp{pt: 97, ssrc: 8, seq: 1, mid: "1", rrid: "h", transport: 2})
	w.send(rtp{pt: 96, ssrc: 0, seq: 1, transport: 3})
	w.send(rtp{pt: 96, ssrc: 7, seq: 2, transport: 5, payload: "media"})
	got := map[uint16]int64{}
	told(t, w.Arrivals, got)
	if d := cmp.Diff(map[uint16]int64{1: 0, 2: 0, 3: 0, 4: -1, 5: 0}, got); d != "" {
		t.Errorf("arrivals in ticks (-want +got):\n%s", d)
	}
	if got := w.Arrivals.Feedback(); got != nil {
		t.Errorf("got %v twice", got)
	}
}

// TestNarrowLine: packets that arrive ever later than they left, and fewer than before, show what the line carries, which is told.
func TestNarrowLine(t *testing.T) {
	w := newWorld(t)
	told := 0
	w.Arrivals.changed = func() { told++ }
	left := time.Hour
	send := func(period time.Duration) (limit int64, limited bool) {
		for range 20 {
			left += 10 * time.Millisecond
			w.at += period
			number := uint16(left / (10 * time.Millisecond))
			w.send(rtp{pt: 96, ssrc: 7, seq: number, mid: "1", rid: "f", transport: number, left: left, payload: strings.Repeat("media", 20)})
		}
		bitrate, limited, _ := w.Arrivals.Line(start.Add(w.at))
		return bitrate, limited
	}
	for range 5 {
		if limit, limited := send(10 * time.Millisecond); limited {
			t.Fatalf("limited to %d bits/s", limit)
		}
	}
	if told > 0 {
		t.Errorf("told %d times of a line that is wide", told)
	}
	const narrow = 8 * 140 * 1000 / 30 // bits/s, a packet in 30 ms
	if limit, limited := send(30 * time.Millisecond); !limited || limit > narrow || limit < narrow/2 {
		t.Errorf("limit %d, %v, want up to %d", limit, limited, narrow)
	}
	if told == 0 {
		t.Error("nobody is told")
	}
}

// TestManyStreams forgets rather than grow without bounds.
func TestManyStreams(t *testing.T) {
	w := newWorld(t)
	for ssrc := range uint32(2 * maxStreams) {
		w.send(rtp{pt: 111, ssrc: ssrc + 1, seq: 1, mid: "0", payload: "x"})
	}
	if n := len(w.streams); n > maxStreams || len(w.audio.got) != 2*maxStreams {
		t.Errorf("%d streams, %d packets", n, len(w.audio.got))
	}
}

func TestAllocations(t *testing.T) {
	w := newWorld(t)
	terms := w.terms()
	terms[0].To = nothing{}
	w.SetTerms(terms)
	b := rtp{pt: 111, ssrc: 5, seq: 1, mid: "0", payload: "a frame"}.marshal()
	sealed, err := w.client.EncryptRTP(nil, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.receive(sealed)
	if n := testing.AllocsPerRun(200, func() { w.receive(sealed) }); n >= 1 {
		t.Errorf("%v allocations a packet", n)
	}
}

type nothing struct{}

func (nothing) Media(_ int8, p *packet.Packet, _ time.Time)        { p.Release() }
func (nothing) Report(int8, uint32, *rtcp.SenderReport, time.Time) {}

// FuzzReceive seals what comes as an authentic client may, and sends it as it is, too.
func FuzzReceive(f *testing.F) {
	f.Add(rtp{pt: 96, ssrc: 7, seq: 2, mid: "1", rid: "h", transport: 7, payload: "media"}.marshal())
	f.Add(rtp{pt: 97, ssrc: 8, seq: 2, mid: "1", rrid: "h", payload: "\x00\x01media"}.marshal())
	pli, _ := (&rtcp.PictureLossIndication{MediaSSRC: 3}).Marshal()
	f.Add(pli)
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWorld(t)
		w.receive(b)
		if sealed, err := w.client.EncryptRTP(nil, b, nil); err == nil {
			w.receive(sealed)
		}
		if sealed, err := w.client.EncryptRTCP(nil, b, nil); err == nil {
			w.receive(sealed)
		}
		w.Arrivals.Feedback()
	})
}

func FuzzExtension(f *testing.F) {
	one := []byte{0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0x31, 0x12, 0x34, 0}
	two := []byte{0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x10, 0, 0, 1, 3, 2, 0x12, 0x34}
	for _, b := range [][]byte{one, two} {
		if v := extension(b, 3); !slices.Equal(v, []byte{0x12, 0x34}) {
			f.Fatalf("%x: got %x", b, v)
		}
		if v := extension(b, 4); v != nil {
			f.Fatalf("%x: found an extension that is not there", b)
		}
		f.Add(b, uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, id uint8) {
		if v := extension(b, id); len(v) > 255 {
			t.Fatalf("%x: found %x", b, v)
		}
	})
}
