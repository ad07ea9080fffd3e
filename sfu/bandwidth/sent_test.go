package bandwidth

import (
	"encoding/binary"
	"testing"
	"time"
)

func TestSent(t *testing.T) {
	var s Sent
	const hour = 71 * time.Minute // shortly before the stamps go round
	at := func(i int) time.Duration { return hour + time.Duration(i)*time.Millisecond }
	for i := range 70_000 { // the numbers go round, too
		s.Add(100+i%1000, at(i))
	}
	if s.Next() != uint16(70_000-1<<16) || len(s.slots) != 1024 {
		t.Fatalf("next is %d, %d slots; want a second of packets", s.Next(), len(s.slots))
	}
	for i := 69_000; i < 70_000; i++ {
		p := s.find(uint16(i - 1<<16))
		if p == nil || p.length() != 100+i%1000 || p.when(at(70_000)).Round(time.Millisecond) != at(i) {
			t.Fatalf("packet %d: %+v", i, p)
		}
	}
	for _, number := range []uint16{uint16(68_000 - 1<<16), s.Next(), s.Next() + 1000} {
		if p := s.find(number); p != nil {
			t.Errorf("packet %d is known: %+v", number, p)
		}
	}
	if p := new(Sent).find(0); p != nil {
		t.Errorf("a packet before any: %+v", p)
	}
}

// The memory is bounded, whatever is sent.
func TestSentGrows(t *testing.T) {
	var s Sent
	for i := range 100_000 {
		s.Add(1000, time.Duration(i)*time.Microsecond)
	}
	if len(s.slots) != largestSent {
		t.Errorf("%d slots, want %d", len(s.slots), largestSent)
	}
	if got := testing.AllocsPerRun(1000, func() { s.Add(1000, time.Second) }); got != 0 {
		t.Errorf("%.1f allocations a packet", got)
	}
}

func BenchmarkSent(b *testing.B) {
	var s Sent
	at := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		at += 5 * time.Millisecond
		s.Add(1100, at)
	}
}

// BenchmarkFeedback is a report of 64 ms at 2 Mbit/s. ns/op is per packet.
func BenchmarkFeedback(b *testing.B) {
	const packets, spacing = 16, 4 * time.Millisecond
	var e Estimator
	now := time.Hour
	report := writeFeedback(0, packets, func(n int) (time.Duration, bool) { return now + time.Duration(n)*spacing, true })
	reference := binary.BigEndian.Uint32(report[16:])
	b.ReportAllocs()
	for range b.N / packets {
		binary.BigEndian.PutUint16(report[12:], e.Sent.Next())
		binary.BigEndian.PutUint32(report[16:], reference)
		reference += 1 << 8 // a unit of 64 ms
		for range packets {
			now += spacing
			e.Sent.Add(1100, now)
		}
		e.Feedback(report, now)
	}
}
