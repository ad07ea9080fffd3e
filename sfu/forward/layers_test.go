package forward

import (
	"testing"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/packet"

	"github.com/google/go-cmp/cmp"
)

func TestBest(t *testing.T) {
	for _, c := range []struct {
		target  int8
		live    uint8
		streams int8
		want    int8
	}{
		{2, 0b111, 3, 2}, {2, 0b011, 3, 1}, {2, 0b001, 3, 0}, {2, 0, 3, 2}, {1, 0b101, 3, 0}, {1, 0b100, 3, 2}, {0, 0b110, 3, 1},
		{7, 0b1, 1, 0}, {2, 0b11, 2, 1}, {2, 0, 2, 1},
	} {
		if got := best(c.target, c.live, c.streams); got != c.want {
			t.Errorf("best(%d, %03b, %d) = %d, want %d", c.target, c.live, c.streams, got, c.want)
		}
	}
}

// cameras are simulcast streams with a key frame whenever one is asked for.
type cameras struct {
	*world
	c  [maxStreams]camera
	on [maxStreams]bool
}

func newCameras(t testing.TB, layers int) *cameras {
	cs := &cameras{world: newWorld(t, SourceOptions{Codec: codec.VP8, Video: true, Spatials: 3}), on: [maxStreams]bool{true, true, true}}
	for i := range cs.c {
		cs.c[i] = camera{ssrc: uint32(i + 1), ts: uint32(i) * 1000000, layers: layers, size: i + 1}
	}
	return cs
}

// run lets the streams that are on send n frames each.
func (cs *cameras) run(n int) {
	for range n {
		asked := cs.publisher.take()
		for i := range cs.c {
			if cs.on[i] {
				cs.push(int8(i), cs.c[i].frame(asked[i] > 0 || cs.c[i].frames == 0)...)
			} else {
				cs.c[i].ts, cs.c[i].frames = cs.c[i].ts+3000, 0
			}
		}
		cs.wait(ms(33))
	}
}

func TestFallsBackToWhatArrives(t *testing.T) {
	cs := newCameras(t, 1)
	var r receiver
	k := cs.Attach(&r, SinkOptions{Target: MaxTemporal(2)})
	current := func(want int8) {
		t.Helper()
		if got := k.Current().Spatial; got != want {
			t.Errorf("stream %d is forwarded, want %d", got, want)
		}
	}
	cs.run(10)
	current(2)
	cs.on[2] = false
	cs.run(15)
	current(2) // not known yet
	cs.run(10)
	current(1)
	cs.on[1] = false
	cs.run(25)
	current(0)
	cs.on[0], cs.on[1] = false, true
	k.SetTarget(MaxTemporal(0))
	cs.run(25)
	current(1)
	cs.on[0] = true
	cs.run(5)
	current(0)
	k.SetTarget(MaxTemporal(2))
	cs.on[2] = true
	cs.run(5)
	current(2)
	gs := r.take()
	checkNumbers(t, gs)
	if n := k.Stats().Switches; n < 5 {
		t.Errorf("%d switches counted, want at least 5", n)
	}
	if live := cs.Live(cs.now); live != [3]bool{true, true, true} {
		t.Errorf("live %v", live)
	}
}

// checkNumbers checks numbers and time, where frames may be far apart.
func checkNumbers(t *testing.T, gs []got) {
	t.Helper()
	for i := 1; i < len(gs); i++ {
		if gs[i].SequenceNumber != gs[i-1].SequenceNumber+1 {
			t.Errorf("packet %d: sequence number %d after %d", i, gs[i].SequenceNumber, gs[i-1].SequenceNumber)
		}
		if d := int32(gs[i].Timestamp - gs[i-1].Timestamp); d < 0 || d > 2*90000 {
			t.Errorf("packet %d: timestamp moves by %d", i, d)
		}
	}
}

// TestCut stops what is above the target at once, if something else can take its place.
func TestCut(t *testing.T) {
	for _, tc := range []struct {
		name string
		on   [maxStreams]bool
		want int8 // forwarded right after
		then int8
	}{
		{"the layer arrives", [maxStreams]bool{true, true, true}, -1, 0},
		{"nothing else arrives", [maxStreams]bool{false, false, true}, 2, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cs := newCameras(t, 1)
			cs.on = tc.on
			var r receiver
			k := cs.Attach(&r, SinkOptions{Target: MaxTemporal(2), RTX: true})
			cs.run(10)
			before := r.take()
			checkNumbers(t, before)
			last := before[len(before)-1].SequenceNumber
			k.Cut(MaxTemporal(0))
			if got := k.Current().Spatial; got != tc.want {
				t.Errorf("stream %d is forwarded after the cut, want %d", got, tc.want)
			}
			k.Nack([]uint16{last}, cs.now)
			if resent := k.Stats().Retransmitted; (resent > 0) != (tc.want >= 0) {
				t.Errorf("%d packets of before sent again", resent)
			}
			cs.run(10)
			if got := k.Current().Spatial; got != tc.then {
				t.Errorf("stream %d is forwarded then, want %d", got, tc.then)
			}
			if after := r.take(); len(after) == 0 || after[len(after)-1].SequenceNumber == last {
				t.Error("nothing is forwarded any more")
			}
		})
	}
}

func TestTemporalLimit(t *testing.T) {
	cs := newCameras(t, 3)
	var r receiver
	k := cs.Attach(&r, SinkOptions{Target: Layer{0, 0}})
	frames := func() (tids []uint8) {
		for _, g := range r.take() {
			tids = append(tids, parsed(t, g).Temporal)
		}
		return tids
	}
	cs.run(8)
	if d := cmp.Diff([]uint8{0, 0}, frames()); d != "" {
		t.Errorf("limit 0 (-want +got):\n%s", d)
	}
	k.SetTarget(Layer{0, 1})
	cs.run(8)
	if d := cmp.Diff([]uint8{0, 1, 0, 1}, frames()); d != "" {
		t.Errorf("limit 1 (-want +got):\n%s", d)
	}
	k.SetTarget(MaxTemporal(0))
	cs.run(8)
	if d := cmp.Diff([]uint8{0, 2, 1, 2, 0, 2, 1, 2}, frames()); d != "" {
		t.Errorf("no limit (-want +got):\n%s", d)
	}
	k.SetTarget(Layer{0, 0})
	cs.run(4)
	if d := cmp.Diff([]uint8{0}, frames()); d != "" {
		t.Errorf("limit 0 again (-want +got):\n%s", d)
	}
	if k.Stats().Dropped == 0 {
		t.Error("nothing counted as dropped")
	}
}

func TestPictureIDsHaveNoHoles(t *testing.T) {
	cs := newCameras(t, 3)
	var r receiver
	cs.Attach(&r, SinkOptions{Target: Layer{1, 1}})
	cs.run(40)
	gs := r.take()
	for i := 1; i < len(gs); i++ {
		a, b := parsed(t, gs[i-1]), parsed(t, gs[i])
		if d := b.PictureID - a.PictureID; d > 1 || b.Start != (d == 1) {
			t.Errorf("packet %d: picture id %d after %d, new frame %t", i, b.PictureID, a.PictureID, b.Start)
		}
	}
	checkNumbers(t, gs)
}

func TestPauseAndResume(t *testing.T) {
	cs := newCameras(t, 1)
	var r receiver
	k := cs.Attach(&r, SinkOptions{Target: MaxTemporal(0), Paused: true})
	if asked := cs.publisher.take(); asked != [3]int{} {
		t.Errorf("a paused receiver asked for key frames: %v", asked)
	}
	cs.run(10)
	if gs := r.take(); len(gs) != 0 {
		t.Fatalf("%d packets while paused", len(gs))
	}
	k.SetTarget(MaxTemporal(0))
	cs.run(10)
	before := r.take()
	k.SetTarget(NoLayer)
	cs.run(90)
	if gs := r.take(); len(gs) != 0 || k.Current() != NoLayer || k.Stats().Target != NoLayer {
		t.Fatalf("%d packets while paused, layer %v", len(gs), k.Current())
	}
	k.SetTarget(MaxTemporal(0))
	cs.run(3)
	after := r.take()
	if len(before) == 0 || len(after) == 0 {
		t.Fatalf("%d packets before, %d after the pause", len(before), len(after))
	}
	a, b := before[len(before)-1], after[0]
	if b.SequenceNumber != a.SequenceNumber+1 || !parsed(t, b).KeyFrame {
		t.Errorf("after the pause: %d after %d, key frame %t", b.SequenceNumber, a.SequenceNumber, parsed(t, b).KeyFrame)
	}
	if d := b.Timestamp - a.Timestamp; d != 91*3000 {
		t.Errorf("the pause took %d, want %d", d, 91*3000)
	}
}

// svc is a VP9 stream of two spatial and two temporal layers, two packets a layer frame.
type svc struct {
	seq    uint16
	ts     uint32
	frames int
}

func (v *svc) frame(key bool) (ps []pkt) {
	if key {
		v.frames = 0
	}
	tid := uint8(v.frames % 2)
	v.frames++
	for spatial := range uint8(2) {
		for part := range 2 {
			b := []byte{0xa0, uint8(v.frames) & 0x7f, tid<<5 | spatial<<1, 0, byte(v.seq)}
			if part == 0 {
				b[0] |= 0x08
			} else {
				b[0] |= 0x04
			}
			if !key {
				b[0] |= 0x40
			}
			if tid == 0 {
				b[2] |= 0x10 // U
			}
			ps = append(ps, pkt{seq: v.seq, ts: v.ts, ssrc: 5, marker: spatial == 1 && part == 1, payload: b})
			v.seq++
		}
	}
	v.ts += 3000
	return ps
}

func TestSVC(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.VP9, Video: true, SVC: true})
	var r receiver
	k := w.Attach(&r, SinkOptions{Target: Layer{0, 0}})
	var v svc
	run := func(n int, key bool) []got {
		for i := range n {
			w.push(0, v.frame(key && i == 0)...)
			w.wait(ms(33))
		}
		return r.take()
	}
	all := run(4, true)
	if len(all) != 4 || k.Current() != (Layer{0, 0}) {
		t.Fatalf("%d packets at the lowest layers, want 4; current %v", len(all), k.Current())
	}
	for i, g := range all {
		if g.Marker != (i%2 == 1) {
			t.Errorf("packet %d: marker %t: the end of the picture is the end of its highest layer that is sent", i, g.Marker)
		}
	}
	k.SetTarget(Layer{1, 1})
	if n := w.publisher.take(); n[0] != 1 {
		t.Errorf("%d key frame requests for a higher spatial layer, want 1", n[0])
	}
	gs := run(2, false)
	if len(gs) != 4 { // T0 lets T1 begin, spatially it stays
		t.Errorf("%d packets of 2 pictures before the key frame, want 4", len(gs))
	}
	all = append(all, gs...)
	gs = run(2, true)
	if len(gs) != 8 || k.Current() != (Layer{1, 1}) {
		t.Errorf("%d packets of 2 whole pictures, want 8; current %v", len(gs), k.Current())
	}
	all = append(all, gs...)
	k.SetTarget(Layer{0, 1})
	gs = run(2, false)
	if len(gs) != 4 {
		t.Errorf("%d packets after going down, want 4", len(gs))
	}
	all = append(all, gs...)
	checkNumbers(t, all)
	k.Nack(seqs(all[:5]), w.now)
	for i, g := range r.take() {
		g.Retransmission = false
		if d := cmp.Diff(all[i], g, cmp.AllowUnexported(got{})); d != "" {
			t.Errorf("packet %d differs the second time (-first +again):\n%s", i, d)
		}
	}
}

func TestDependencyDescriptorNumbersRise(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.AV1, Video: true, Spatials: 2})
	// One template with one decode target: an L1T1 structure.
	dd := func(key bool, number uint16) []byte {
		b := []byte{0xc0, uint8(number >> 8), uint8(number)}
		if key { // flags 10000, offset 0, 1 target, last template, DTI switch, no differences, no chains, no resolutions
			b = append(b, 0x80, 0x00, 0xe0)
		}
		return b
	}
	var r receiver
	k := w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
	number := [2]uint16{100, 65000}
	seq := [2]uint16{1, 1}
	send := func(i int8, key bool) {
		w.push(i, pkt{seq: seq[i], ts: uint32(seq[i]) * 3000, ssrc: uint32(i + 1), marker: true, payload: []byte{0x10, byte(seq[i])}, dd: dd(key, number[i])})
		seq[i]++
		number[i]++
	}
	for n := range 6 {
		if n == 3 {
			k.SetTarget(MaxTemporal(1))
		}
		send(0, n == 0)
		send(1, n == 0 || n == 3)
		w.wait(ms(33))
	}
	gs := r.take()
	if len(gs) != 7 { // 0 to 3 of the low one, 3 to 5 of the high one
		t.Fatalf("%d packets, want 7", len(gs))
	}
	for i, g := range gs {
		if got := uint16(g.DependencyDescriptor[1])<<8 | uint16(g.DependencyDescriptor[2]); got != 100+uint16(i) {
			t.Errorf("packet %d: frame number %d, want %d", i, got, 100+i)
		}
	}
}

func TestH264BeginsAtParameterSets(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.H264, Video: true})
	var r receiver
	w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
	for i, payload := range [][]byte{{0x41, 1}, {0x67, 1}, {0x68, 1}, {28, 0x85, 1}, {28, 0x45, 1}, {0x41, 2}} {
		w.push(0, pkt{seq: uint16(i), ts: uint32(i / 5 * 3000), ssrc: 1, payload: payload})
	}
	if gs := r.take(); len(gs) != 5 || gs[0].bytes[0] != 0x67 {
		t.Errorf("%d packets, want 5 from the SPS on", len(gs))
	}
}

func TestBrokenPacketsAreDropped(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true})
	var r receiver
	w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
	w.push(0, pkt{seq: 1, ssrc: 1, payload: []byte{0x90, 0xf0}})
	w.push(5, pkt{seq: 1, ssrc: 1, payload: []byte{0x10, 0}})
	w.Source.Push(NoLayer, packet.Get(packet.Capacity), w.now)
	if gs := r.take(); len(gs) != 0 {
		t.Errorf("%d packets forwarded", len(gs))
	}
	if w.Nacks(7, w.now) != nil {
		t.Error("requests for a stream there is not")
	}
	if _, ok := w.ReceptionReport(-1, w.now); ok {
		t.Error("a report for a stream there is not")
	}
	w.SenderReport(NoLayer, 0, 0, w.now)
}

func TestPaddingLeavesNoGap(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true})
	var r receiver
	w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
	c := camera{ssrc: 1}
	w.push(0, c.frame(true)...)
	for range 3 {
		w.push(0, pkt{seq: c.seq, ts: c.ts - 3000, ssrc: 1})
		c.seq++
	}
	w.push(0, c.frame(false)...)
	checkContinuous(t, r.take(), 2)
}

func TestSenderThatBeginsAnew(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.Opus})
	var r receiver
	w.Attach(&r, SinkOptions{})
	seq, ts := uint16(5000), uint32(100)
	play := func(ssrc uint32, n int) {
		for range n {
			w.push(0, pkt{seq: seq, ts: ts, ssrc: ssrc, payload: []byte{1}})
			seq, ts = seq+1, ts+960
			w.wait(ms(20))
		}
	}
	play(1, 5)
	seq, ts = 100, 7777777
	play(2, 5) // another SSRC
	seq, ts = 60000, 42
	play(2, 5) // numbers from before all memory: the first two are taken for strays
	seq = 10000
	play(2, 5) // a jump ahead
	gs := r.take()
	if len(gs) != 5+5+3+5 {
		t.Fatalf("%d packets, want 18", len(gs))
	}
	for i := 1; i < len(gs); i++ {
		if gs[i].SequenceNumber != gs[i-1].SequenceNumber+1 {
			t.Errorf("packet %d: sequence number %d after %d", i, gs[i].SequenceNumber, gs[i-1].SequenceNumber)
		}
		if d := gs[i].Timestamp - gs[i-1].Timestamp; d < 960 || d > 3*960 {
			t.Errorf("packet %d: timestamp moves by %d", i, d)
		}
	}
}

func TestBitrateAndCounts(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.Opus})
	var r receiver
	k := w.Attach(&r, SinkOptions{})
	for i := range 120 {
		if i == 50 {
			continue // lost
		}
		w.push(0, pkt{seq: uint16(i), ts: uint32(i) * 960, ssrc: 9, payload: make([]byte, 100)})
		w.wait(ms(20))
	}
	w.push(0, pkt{seq: 119, ts: 119 * 960, ssrc: 9, payload: make([]byte, 100)}) // again
	if got := w.Nacks(0, w.now); len(got) != 1 || got[0] != 50 {
		t.Errorf("asked for %v, want 50", got)
	}
	w.push(0, pkt{seq: 50, ts: 50 * 960, ssrc: 9, payload: make([]byte, 100), rtx: true})
	s := w.Source.Stats()
	want := LayerStats{SSRC: 9, Packets: 120, Bytes: 12000, Bitrate: 40000, Lost: 1, Recovered: 1, Duplicates: 1, Nacks: 1, Live: true, Jitter: s.Layers[0].Jitter}
	if d := cmp.Diff(want, s.Layers[0]); d != "" || s.Sinks != 1 {
		t.Errorf("source with %d sinks (-want +got):\n%s", s.Sinks, d)
	}
	ks := k.Stats()
	if ks.Packets != 120 || ks.Bytes != 12000 || ks.Bitrate != 40000 {
		t.Errorf("sink %+v", ks)
	}
	w.Nacks(0, w.now.Add(5*time.Second))
	if got := w.Source.Stats().Layers[0]; got.Bitrate != 0 || got.Live {
		t.Errorf("after 5 s of silence: %+v", got)
	}
}
