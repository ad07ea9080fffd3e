package link

import (
	"fmt"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// udp returns an IPv4 packet of that many bytes whose last byte is its number.
func udp(size int, number byte) []byte {
	p := make([]byte, size)
	p[0], p[9], p[size-1] = 0x45, 17, number
	return p
}

func tcp(size int) []byte {
	p := udp(size, 0)
	p[9] = 6
	return p
}

// arrival is when which packet came out.
type arrival struct {
	number byte
	after  time.Duration
}

// drain takes out everything, moving the time to each packet's due time.
func drain(l *Lane, from time.Time) []arrival {
	var out []arrival
	for {
		due, ok := l.Next()
		if !ok {
			return out
		}
		if due.Before(from) {
			due = from
		}
		for p := l.Pop(due); p != nil; p = l.Pop(due) {
			out = append(out, arrival{p[len(p)-1], due.Sub(start)})
		}
	}
}

func TestLaneTimes(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name       string
		conditions Conditions
		sizes      []int // pushed at the same moment
		want       []arrival
	}{
		{"perfect", Conditions{}, []int{100, 100}, []arrival{{0, 0}, {1, 0}}},
		{"delay", Conditions{Delay: 50 * ms}, []int{100, 100}, []arrival{{0, 50 * ms}, {1, 50 * ms}}},
		{"rate", Conditions{Rate: 80_000}, []int{100, 200}, []arrival{{0, 10 * ms}, {1, 30 * ms}}},
		{"rate and delay", Conditions{Rate: 80_000, Delay: 5 * ms}, []int{100, 100}, []arrival{{0, 15 * ms}, {1, 25 * ms}}},
		{"queue full", Conditions{Rate: 80_000, QueueLen: 2}, []int{100, 100, 100}, []arrival{{0, 10 * ms}, {1, 20 * ms}}},
		{"cut", Conditions{Loss: 1}, []int{100, 100}, nil},
		{"only tcp cut", Conditions{Loss: 1, Only: TCP}, []int{100}, []arrival{{0, 0}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := NewLane(1)
			l.Set(tt.conditions)
			for i, size := range tt.sizes {
				l.Push(udp(size, byte(i)), start)
			}
			if got := drain(l, start); fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if s := l.Stats(); s.Sent != s.Delivered+s.Lost+s.Overflown {
				t.Errorf("packets unaccounted for: %+v", s)
			}
		})
	}
}

func TestLaneQueueEmptiesWithTime(t *testing.T) {
	l := NewLane(1)
	l.Set(Conditions{Rate: 80_000, QueueLen: 1})
	if !l.Push(udp(100, 0), start) || l.Push(udp(100, 1), start) {
		t.Fatal("want the first accepted and the second dropped")
	}
	if later := start.Add(10 * time.Millisecond); !l.Push(udp(100, 2), later) {
		t.Error("the wire was free again, and the packet dropped")
	}
}

// What a queue cost and how late the carrier was is told once, then anew.
func TestLanePeaks(t *testing.T) {
	const ms = time.Millisecond
	l := NewLane(1)
	l.Set(Conditions{Rate: 80_000, Delay: 50 * ms})
	l.Push(udp(100, 0), start)
	l.Push(udp(100, 1), start)
	l.Pop(start.Add(63 * ms))
	if got, want := l.Peaks(), (Peaks{Queue: 20 * ms, Late: 3 * ms}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	l.Pop(start.Add(71 * ms))
	if got, want := l.Peaks(), (Peaks{Late: ms}); got != want {
		t.Errorf("the second time: got %+v, want %+v", got, want)
	}
	if s := l.Stats(); s.Bytes != 200 {
		t.Errorf("%d bytes delivered, want 200", s.Bytes)
	}
}

// A change concerns only what comes after it.
func TestLaneChange(t *testing.T) {
	l := NewLane(1)
	l.Set(Conditions{Delay: time.Second})
	l.Push(udp(100, 0), start)
	l.Set(Conditions{Loss: 1})
	l.Push(udp(100, 1), start)
	l.Set(Conditions{})
	l.Push(tcp(100), start)
	if got := drain(l, start); len(got) != 2 || got[0].after != time.Second {
		t.Errorf("got %v, want two arrivals, the first after 1 s", got)
	}
}

func TestLaneJitter(t *testing.T) {
	for _, reorder := range []bool{false, true} {
		t.Run(fmt.Sprintf("reorder %v", reorder), func(t *testing.T) {
			l := NewLane(7)
			l.Set(Conditions{Delay: 20 * time.Millisecond, Jitter: 30 * time.Millisecond, Reorder: reorder})
			for i := range 100 {
				l.Push(udp(100, byte(i)), start.Add(time.Duration(i)*time.Millisecond))
			}
			disorder, last := 0, arrival{}
			for i, a := range drain(l, start) {
				if i > 0 && a.number < last.number {
					disorder++
				}
				if sent := time.Duration(a.number) * time.Millisecond; a.after < sent+20*time.Millisecond || a.after > sent+50*time.Millisecond {
					t.Errorf("packet %d took %v, want 20 to 50 ms", a.number, a.after-sent)
				}
				last = a
			}
			if (disorder > 0) != reorder {
				t.Errorf("%d packets out of order", disorder)
			}
		})
	}
}

// Chance follows from the seed, and comes near its probability.
func TestLaneLoss(t *testing.T) {
	fate := func(seed uint64) (lost uint64, order string) {
		l := NewLane(seed)
		l.Set(Conditions{Loss: 0.3})
		for range 10_000 {
			order += fmt.Sprint(l.Push(udp(60, 0), start))[:1]
			l.Pop(start)
		}
		return l.Stats().Lost, order
	}
	lost, first := fate(1)
	if lost < 2800 || lost > 3200 {
		t.Errorf("%d of 10000 lost, want about 3000", lost)
	}
	if _, again := fate(1); again != first {
		t.Error("the same seed gave another fate")
	}
	if _, other := fate(2); other == first {
		t.Error("another seed gave the same fate")
	}
}

func TestLaneIsBounded(t *testing.T) {
	l := NewLane(1)
	l.Set(Conditions{Delay: time.Hour})
	for range maxFlying + 5 {
		l.Push(udp(60, 0), start)
	}
	if s := l.Stats(); s.Overflown != 5 {
		t.Errorf("%+v, want 5 overflown", s)
	}
}

func FuzzProtocolOf(f *testing.F) {
	f.Add(udp(60, 0))
	f.Add(tcp(20))
	f.Add([]byte{0x60})
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 0, 17}, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if p := ProtocolOf(packet); p == AnyProtocol {
			t.Errorf("%x is of any protocol", packet)
		}
	})
}
