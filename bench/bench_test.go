package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"go.uber.org/goleak"

	"callserver/sfu/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHistogramQuantiles(t *testing.T) {
	var h histogram
	if h.quantile(.5) != 0 {
		t.Error("an empty histogram has a median")
	}
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(rand.ExpFloat64() * float64(20*time.Millisecond))
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, .01, .5, .95, .99, 1} {
		want := all[max(int(q*float64(len(all))+.5)-1, 0)]
		got := h.quantile(q)
		if got < want-time.Microsecond || got > want+want/16+2*time.Microsecond {
			t.Errorf("quantile %v is %s, want %s", q, got, want)
		}
	}
	var sum histogram
	sum.merge(&h)
	sum.merge(&h)
	if sum.n != 20_000 || sum.max != h.max || sum.quantile(.5) != h.quantile(.5) {
		t.Errorf("two of the same give %d values up to %s", sum.n, sum.max)
	}
	for us := range uint64(100_000) {
		if i := bucketOf(us); us > bucketTop(i) || i > 0 && us <= bucketTop(i-1) {
			t.Fatalf("%d us is in bucket %d, %d to %d", us, i, bucketTop(i-1)+1, bucketTop(i))
		}
	}
}

func TestStampSurvivesAnotherDescriptor(t *testing.T) {
	want := stamp{track: 7, layer: 2, flags: flagKey | flagLast, frame: 9, counter: 1 << 20, sent: time.Minute}
	b := make([]byte, 100)
	want.put(b)
	for _, payload := range [][]byte{b, b[6:], append([]byte{1, 2}, b...)} {
		if got, ok := readStamp(payload); !ok || got != want {
			t.Errorf("read %+v, %t, want %+v", got, ok, want)
		}
	}
	if _, ok := readStamp(b[:90]); ok {
		t.Error("a stamp was found where there is none")
	}
}

// TestProtection: what we seal, Pion opens, and the other way round, over a roll-over.
func TestProtection(t *testing.T) {
	material := make([]byte, 2*(keySize+saltSize))
	for i := range material {
		material[i] = byte(i * 7)
	}
	k, err := newKeys(material, true)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := newKeys(material, false)
	if err != nil {
		t.Fatal(err)
	}
	pion, err := srtp.CreateContext(material[:keySize], material[2*keySize:2*keySize+saltSize], srtp.ProtectionProfileAeadAes128Gcm)
	if err != nil {
		t.Fatal(err)
	}
	var roll rollover
	for index := uint64(65_000); index < 66_500; index++ {
		p := rtp.Packet{Header: rtp.Header{Version: 2, SSRC: 5, SequenceNumber: uint16(index)}, Payload: []byte("payload")}
		if err := p.SetExtension(4, []byte("12")); err != nil {
			t.Fatal(err)
		}
		raw, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		n, ok := headerSize(raw)
		if !ok || n != p.MarshalSize()-len(p.Payload) {
			t.Fatalf("header of %d bytes, %t", n, ok)
		}
		sealed := k.out.seal(append(slices.Clone(raw), make([]byte, tagSize)...)[:len(raw)], n, uint32(index>>16))
		opened, err := pion.DecryptRTP(nil, sealed, nil)
		if err != nil || !bytes.Equal(opened, raw) {
			t.Fatalf("packet %d: Pion reads %x, %v, want %x", index, opened, err, raw)
		}
		guess := roll.index(uint16(index))
		roll.accept(guess)
		payload, err := peer.in.open(sealed, n, uint32(guess>>16))
		if err != nil || string(payload) != "payload" {
			t.Fatalf("packet %d: we read %q, %v", index, payload, err)
		}
	}
	if got := roll.index(65_000); got != 65_000 {
		t.Errorf("a straggler from before the roll-over is %d", got)
	}
	if _, err := newKeys(material[1:], true); err == nil {
		t.Error("short material makes keys")
	}
}

// TestStream: what a server looks at in our packets is valid, and frames keep their rate.
func TestStream(t *testing.T) {
	material := make([]byte, 2*(keySize+saltSize))
	k, err := newKeys(material, true)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := newKeys(material, false)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[uint8]bool{midID: true, ridID: true, transportID: true, audioLevelID: true}
	video := &track{id: 3, video: true}
	for layer, shape := range vp8Shapes {
		s := newStream(video, layer, "7", ids, 99)
		start, total, counter := s.timestamp, 0, uint32(0)
		var transport uint16
		for frame := range 300 {
			s.keyWanted = frame%100 == 0
			s.known = frame >= 200
			var parts [][]byte
			room := make([]byte, 2048)
			s.sendFrame(s.next, frame >= 100, k.out, &transport,
				func() []byte { return room }, func(n int) { parts = append(parts, slices.Clone(room[:n])) })
			for i, raw := range parts {
				var p rtp.Packet
				n, _ := headerSize(raw)
				payload, err := peer.in.open(raw, n, uint32((s.index-1)>>16))
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Unmarshal(raw[:n+len(payload)]); err != nil {
					t.Fatal(err)
				}
				if got := string(p.GetExtension(ridID)); (got == rids[layer]) == s.known {
					t.Fatalf("frame %d: rid %q, known %t", frame, got, s.known)
				}
				if p.Timestamp != start+uint32(frame)*shape.ticks || p.Marker != (i == len(parts)-1) {
					t.Fatalf("frame %d part %d: timestamp %d, marker %t", frame, i, p.Timestamp-start, p.Marker)
				}
				d, err := codec.ParseVP8(p.Payload)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := d.Frame(p.Marker).KeyFrame, i == 0 && frame%100 == 0; got != want {
					t.Fatalf("frame %d part %d: key frame %t, want %t", frame, i, got, want)
				}
				st, ok := readStamp(p.Payload)
				if !ok || st.counter != counter || st.track != 3 || int(st.layer) != layer || st.sent != time.Duration(frame)*shape.interval {
					t.Fatalf("frame %d part %d: stamp %+v, %t", frame, i, st, ok)
				}
				counter++
				total += len(p.Payload)
			}
		}
		want := 300 * shape.packets * shape.size
		if total < want*95/100 || total > want*105/100 {
			t.Errorf("layer %d: %d bytes in 300 frames, want about %d", layer, total, want)
		}
		for _, seq := range []uint16{uint16(s.index), uint16(s.index) - history - 1, uint16(s.index) + 100} {
			if n := s.again(seq, k.out, make([]byte, 2048)); n != 0 {
				t.Errorf("layer %d: packet %d of %d is remembered", layer, seq, s.index)
			}
		}
		if c := video.layers[layer]; c.measured != uint32(200*shape.packets) || c.first != uint32(100*shape.packets) || c.keyFrames != 2 {
			t.Errorf("layer %d: counted %+v", layer, c)
		}
	}
}

func TestFlow(t *testing.T) {
	w := window{time.Second, 10 * time.Second}
	at := func(counter uint32, layer uint8) stamp { // a packet each millisecond
		return stamp{layer: layer, counter: counter, sent: time.Duration(counter) * time.Millisecond}
	}
	span := func(from, to uint32) (out []uint32) {
		for ; from < to; from++ {
			out = append(out, from)
		}
		return out
	}
	type want struct{ received, missing, reordered, duplicates int64 }
	for name, c := range map[string]struct {
		come []uint32
		want want
	}{
		"everything":            {span(0, 11_000), want{received: 9000}},
		"nothing":               {nil, want{missing: 9000}},
		"a hole":                {append(span(0, 2000), span(2010, 11_000)...), want{received: 8990, missing: 10}},
		"late and in order":     {append(append(span(0, 2000), 2001, 2000), span(2002, 11_000)...), want{received: 9000, reordered: 1}},
		"twice":                 {append(append(span(0, 2000), 1999), span(2000, 11_000)...), want{received: 9000, duplicates: 1}},
		"the head is missing":   {span(1500, 11_000), want{received: 8500, missing: 500}},
		"the tail is missing":   {span(0, 9000), want{received: 8000, missing: 1000}},
		"only before and after": {append(span(0, 1000), span(10_000, 11_000)...), want{missing: 9000}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := &track{}
			tr.layers[0] = sent{measured: 9000, first: 1000}
			f := &flow{track: tr}
			for _, counter := range c.come {
				f.note(at(counter, 0), 0, w)
			}
			if got := (want{f.received, f.missing(), f.reordered, f.duplicates}); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestFlowOverLayers: changing layers loses nothing, a pause between them does.
func TestFlowOverLayers(t *testing.T) {
	for name, c := range map[string]struct {
		pause   time.Duration
		missing int64
	}{"at once": {0, 0}, "after a second": {time.Second, 27 * 7}} {
		t.Run(name, func(t *testing.T) {
			tr := &track{video: true}
			tr.layers[1] = sent{measured: 100}
			tr.layers[2] = sent{measured: 1010, first: 1000}
			f := &flow{track: tr}
			w := window{0, time.Hour}
			for i := range uint32(10) {
				f.note(stamp{layer: 1, counter: i, sent: time.Second}, 0, w)
			}
			for i := range uint32(10) {
				f.note(stamp{layer: 2, counter: 2000 + i, sent: time.Second + c.pause}, 0, w)
			}
			f.note(stamp{layer: 1, counter: 10, sent: time.Second / 2}, 0, w)
			if f.missing() != c.missing || f.received != 21 || f.layers[2] != 10 || f.reordered != 1 {
				t.Errorf("missing %d, want %d; %+v", f.missing(), c.missing, f)
			}
		})
	}
}

func TestKeyFrameIsWhole(t *testing.T) {
	tr := &track{video: true}
	f := &flow{track: tr}
	part := func(frame uint32, flags uint8, arrival time.Duration) {
		f.note(stamp{layer: 1, frame: frame, flags: flags}, arrival, never)
	}
	part(4, flagKey|flagLast, 1) // its beginning was lost
	part(5, flagFirst|flagLast, 2)
	part(6, flagKey|flagFirst, 3)
	if f.keyAt != 0 {
		t.Error("half a key frame counts")
	}
	part(6, flagKey|flagLast, 4)
	if f.keyAt != 4 || f.firstAt != 1 {
		t.Errorf("key frame at %d, first packet at %d", f.keyAt, f.firstAt)
	}
}

func TestDescription(t *testing.T) {
	d := description{session: 1, ufrag: "u", pwd: "p", fingerprint: "sha-256 AA", candidates: []string{"1 1 udp 1 127.0.0.1 9 typ host"}}
	d.add(section{kind: "audio"})
	d.add(section{kind: "application"})
	mid := d.add(section{kind: "video", cid: "t1"})
	offer := d.offer()
	for _, line := range []string{"a=group:BUNDLE 0 1 2", "a=simulcast:send q;h;f", "a=rid:f send", "a=msid:t1 t1", "a=setup:actpass", "a=sctp-port:5000", "a=fmtp:97 apt=96"} {
		if !strings.Contains(offer, line+"\r\n") {
			t.Errorf("no %q in\n%s", line, offer)
		}
	}
	if mid != "2" || strings.Contains(strings.ReplaceAll(offer, "\r\n", ""), "\n") {
		t.Errorf("mid %s, or a bare line feed in %q", mid, offer)
	}
	a, err := parseAnswer("v=0\r\na=fingerprint:sha-256 BB\r\nm=audio 9 X 111\r\na=mid:0\r\na=sendonly\r\na=ice-ufrag:uu\r\na=ice-pwd:pp\r\na=setup:active\r\n" +
		"m=video 9 X 96\r\na=mid:2\r\na=recvonly\r\na=extmap:4 x\r\na=extmap:10/recvonly y\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\nm=video 0 X 96\r\na=mid:3\r\na=recvonly\r\n")
	want := answer{ufrag: "uu", pwd: "pp", fingerprint: "sha-256 BB", active: true, candidates: []string{"1 1 udp 1 127.0.0.1 9 typ host"},
		receives: map[string]map[uint8]bool{"2": {4: true, 10: true}}}
	if diff := cmp.Diff(want, a, cmp.AllowUnexported(answer{}), cmpopts.EquateEmpty()); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := parseAnswer("v=0\r\n"); err == nil {
		t.Error("an answer without credentials passes")
	}
}

func FuzzPackets(f *testing.F) {
	f.Add([]byte{0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0, 1, 2, 3})
	f.Add([]byte{0x80, 200, 0, 6, 0, 0, 0, 1})
	f.Add([]byte{0x8f, 111})
	material := make([]byte, 2*(keySize+saltSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := newKeys(material, true)
		if err != nil {
			t.Fatal(err)
		}
		l := &link{keys: k, inbound: map[uint32]*inbound{}, flows: map[uint32]*flow{}}
		lp := &loop{tracks: []*track{{}}, window: window{0, 1 << 62}}
		if n, ok := headerSize(b); ok && n > len(b) {
			t.Fatalf("a header of %d bytes in %d", n, len(b))
		}
		readStamp(b)
		l.receive(slices.Clone(b), 1, 1, lp)
		if n, ok := headerSize(b); ok { // the same, but authentic
			sealed := k.in.seal(append(slices.Clone(b), make([]byte, tagSize)...)[:len(b)], n, 0)
			l.receive(sealed, 1, 1, lp)
		}
		l.requests(1)
		l.reports(1, time.Unix(0, 0))
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add("v=0\r\na=fingerprint:x\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\nm=audio 9\r\na=mid:0\r\na=extmap:1 x\r\na=recvonly\r\n")
	f.Add("m=\na=extmap:999/x\na=mid")
	f.Fuzz(func(_ *testing.T, sdp string) { _, _ = parseAnswer(sdp) })
}

func TestProcess(t *testing.T) {
	raw := []byte("12 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 19 20 100 22\n")
	p, err := parseStat(raw)
	if err != nil || p.CPU != 2*time.Second || p.RSS <= 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := parseStat([]byte("12 (a")); err == nil {
		t.Error("half a line passes")
	}
	if n := switches([]byte("Name:\tx\nvoluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t4\n")); n != 7 {
		t.Errorf("%d switches", n)
	}
}

func TestOptions(t *testing.T) {
	good := Options{URL: "ws://127.0.0.1:7880", Key: "k", Secret: "s", Load: Load{Rooms: 1, Publishers: 1, Audio: true}}
	change := func(f func(*Options)) Options { o := good; f(&o); return o }
	for name, o := range map[string]Options{
		"no room":       change(func(o *Options) { o.Load.Rooms = 0 }),
		"no media":      change(func(o *Options) { o.Load.Audio = false }),
		"too many":      change(func(o *Options) { o.Load.Subscribers = maxParticipants }),
		"no secret":     change(func(o *Options) { o.Secret = "" }),
		"backwards":     change(func(o *Options) { o.JoinRate = -1 }),
		"not a server":  change(func(o *Options) { o.URL = "ftp://127.0.0.1" }),
		"somebody else": change(func(o *Options) { o.URL = "wss://192.0.2.1" }),
		"no such pid":   change(func(o *Options) { o.PID = 1 << 30 }),
		"nobody home":   change(func(o *Options) { o.URL = "ws://127.0.0.1:1" }),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Run(t.Context(), o); err == nil {
				t.Error("no error")
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, good); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before it began: %v", err)
	}
}

func TestReport(t *testing.T) {
	before, after := processes{}, processes{at: 10 * time.Second}
	after.own.CPU, after.server = 9*time.Second*time.Duration(2), process{CPU: 5 * time.Second, RSS: 10 << 20, Switches: 3}
	r := newReport(Options{Load: Load{Rooms: 1, Publishers: 2, Video: true}, Duration: 10 * time.Second, PID: 1}, 1, before, after)
	r.Generator.Share = .9
	r.Joins.Times.Count = 2
	r.Packets.Forwarded, r.Packets.Lost = 990, 10
	r.conclude()
	if r.Packets.Loss != .01 || r.Server.PerCPUSecond != 198 || r.Server.RSSEach != 5<<20 || r.Packets.PerSecond != 99 {
		t.Errorf("%+v %+v", r.Packets, r.Server)
	}
	var table, text bytes.Buffer
	if err := errors.Join(r.WriteTable(&table), r.WriteJSON(&text)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(table.String(), "VOID") || !strings.Contains(table.String(), "198 packets per CPU-second") {
		t.Errorf("table:\n%s", &table)
	}
	var back Report
	if err := json.Unmarshal(text.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*r, back, cmpopts.IgnoreUnexported(Packets{})); diff != "" {
		t.Errorf("JSON and back: %s", diff)
	}
}
