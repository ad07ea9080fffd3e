package forward

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/packet"
)

// counter is a Writer that costs nothing.
type counter struct{ n int }

func (c *counter) WriteRTP(*Outgoing) error { c.n++; return nil }

// belt pushes an endless stream of VP8 packets without allocating.
type belt struct {
	source  *Source
	seq     uint16
	ts      uint32
	picture uint16
	now     time.Time
	size    int
}

func (b *belt) push() {
	p := packet.Get(packet.Capacity)
	buffer := p.Buffer()
	p.SequenceNumber, p.Timestamp, p.SSRC, p.Marker = b.seq, b.ts, 1, b.seq%7 == 6
	p.Payload = buffer[:b.size]
	first := byte(0x80)
	if b.seq%7 == 0 {
		first = 0x90
		b.ts += 3000
		b.picture++
	}
	buffer[0], buffer[1], buffer[2], buffer[3], buffer[4], buffer[5], buffer[6] = first, 0xe0, 0x80|uint8(b.picture>>8&0x7f), uint8(b.picture), 1, 0, 1
	if b.seq == 0 {
		buffer[6] = 0 // key frame
	}
	b.seq++
	b.now = b.now.Add(5 * time.Millisecond)
	b.source.Push(Layer{}, p, b.now)
}

func newBelt(receivers int) *belt {
	b := &belt{source: NewSource(SourceOptions{Codec: codec.VP8, Video: true}), now: start, size: 1100}
	for range receivers {
		b.source.Attach(new(counter), SinkOptions{Target: MaxTemporal(0)})
	}
	return b
}

func TestPushDoesNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes sync.Pool drop what it is given")
	}
	b := newBelt(10)
	for range 2000 { // rings grow on demand
		b.push()
	}
	if n := testing.AllocsPerRun(2000, b.push); n != 0 {
		t.Errorf("%v allocations a packet with 10 receivers, want none", n)
	}
}

func TestAudioPushDoesNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes sync.Pool drop what it is given")
	}
	s := NewSource(SourceOptions{Codec: codec.Opus})
	for range 10 {
		s.Attach(new(counter), SinkOptions{})
	}
	seq, now := uint16(0), start
	push := func() {
		p := packet.Get(packet.Capacity)
		p.SequenceNumber, p.Timestamp, p.SSRC, p.Payload = seq, uint32(seq)*960, 1, p.Buffer()[:80]
		p.HasAudioLevel, p.AudioLevel = true, 20
		seq, now = seq+1, now.Add(20*time.Millisecond)
		s.Push(Layer{}, p, now)
	}
	for range 500 {
		push()
	}
	if n := testing.AllocsPerRun(1000, push); n != 0 {
		t.Errorf("%v allocations a packet with 10 receivers, want none", n)
	}
}

func TestNackDoesNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes sync.Pool drop what it is given")
	}
	b := newBelt(0)
	var c counter
	k := b.source.Attach(&c, SinkOptions{Target: MaxTemporal(0)})
	for range 2000 {
		b.push()
	}
	seqs := make([]uint16, 1)
	n := testing.AllocsPerRun(300, func() {
		b.push()
		seqs[0] = b.seq - 5
		k.Nack(seqs, b.now)
	})
	if n != 0 {
		t.Errorf("%v allocations an answer, want none", n)
	}
	if s := k.Stats(); s.Retransmitted < 300 {
		t.Errorf("%d retransmitted, want at least 300: %+v", s.Retransmitted, s)
	}
}

func BenchmarkPush(b *testing.B) {
	for _, receivers := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("receivers=%d", receivers), func(b *testing.B) {
			belt := newBelt(receivers)
			for range 2000 {
				belt.push()
			}
			b.ReportAllocs()
			for b.Loop() {
				belt.push()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*receivers), "ns/forwarded")
		})
	}
}

// TestConcurrency is for the race detector: streams, receivers and reports at the same time.
func TestConcurrency(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true, Spatials: 3})
	var wg sync.WaitGroup
	var steady receiver
	k := w.Attach(&steady, SinkOptions{Target: MaxTemporal(2)})
	const frames = 300
	for i := range int8(3) {
		wg.Go(func() {
			c := camera{ssrc: uint32(i + 1), size: 3, layers: 3}
			for n := range frames {
				now := start.Add(time.Duration(n) * 33 * time.Millisecond)
				for _, d := range c.frame(n%30 == 0) {
					w.Source.Push(Layer{Spatial: i}, d.packet(t), now)
				}
				w.Source.SenderReport(Layer{Spatial: i}, uint64(n)<<32, c.ts, now)
				w.Nacks(i, now)
				w.ReceptionReport(i, now)
			}
		})
	}
	wg.Go(func() {
		for n := range frames {
			now := start.Add(time.Duration(n) * 33 * time.Millisecond)
			var r receiver
			other := w.Attach(&r, SinkOptions{Target: MaxTemporal(int8(n % 3)), Paused: n%5 == 0})
			k.SetTarget(Layer{int8(n % 3), int8(n % 4)})
			other.SetTarget(MaxTemporal(int8(n % 2)))
			k.Nack([]uint16{uint16(n), uint16(n + 1)}, now)
			other.RequestKeyFrame(now)
			k.SenderReport(now)
			w.Live(now)
			w.SetRTT(ms(n))
			w.Level(now)
			w.Source.Stats()
			k.Stats()
			other.Detach()
			other.Detach()
		}
	})
	wg.Wait()
	if len(steady.take()) == 0 {
		t.Error("nothing was forwarded")
	}
	w.Close()
	w.Close()
	if n := w.Source.Stats().Sinks; n != 0 {
		t.Errorf("%d sinks after Close", n)
	}
	late := w.Attach(&steady, SinkOptions{Target: MaxTemporal(0)})
	c := camera{ssrc: 9}
	w.push(0, c.frame(true)...)
	if len(steady.take()) != 0 || late.Current() != NoLayer {
		t.Error("a closed source forwards")
	}
}

// TestLevel says how much each packet of a batch lacks to the longest of its stream.
func TestLevel(t *testing.T) {
	type in struct {
		stream  int8
		size    int
		padding bool
	}
	var list []Delivery
	for _, i := range []in{{0, 1000, false}, {0, 1001, false}, {0, 985, false}, {0, 984, false}, {1, 990, false}, {0, 0, true}} {
		list = append(list, Delivery{in: inbound{packet: &packet.Packet{Payload: make([]byte, i.size)}, stream: i.stream, padding: i.padding}})
	}
	level(list)
	for i, want := range []uint8{1, 0, 16, 0, 0, 0} {
		if got := list[i].in.fill; got != want {
			t.Errorf("packet %d: %d, want %d", i, got, want)
		}
	}
}
