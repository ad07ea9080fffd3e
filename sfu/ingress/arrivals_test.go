package ingress

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtcp"
	"pgregory.net/rapid"
)

// told is what reports say: when each number arrived, in ticks, -1 for lost. They must follow each other without a gap once they begin.
func told(t rapid.TB, a *Arrivals, into map[uint16]int64) {
	t.Helper()
	for raw := a.Feedback(); raw != nil; raw = a.Feedback() {
		var cc rtcp.TransportLayerCC
		if err := cc.Unmarshal(raw); err != nil {
			t.Fatalf("report %x: %v", raw, err)
		}
		if cc.SenderSSRC != 99 || cc.MediaSSRC != 7 {
			t.Fatalf("report of %d on %d", cc.SenderSSRC, cc.MediaSSRC)
		}
		at, seq, deltas := int64(cc.ReferenceTime)*referenceUnit, cc.BaseSequenceNumber, cc.RecvDeltas
		note := func(status uint16) {
			if seq-cc.BaseSequenceNumber >= cc.PacketStatusCount {
				return // the rest of the last chunk
			}
			if into[seq] = -1; status != rtcp.TypeTCCPacketNotReceived {
				at += deltas[0].Delta / 250
				deltas = deltas[1:]
				into[seq] = at
			}
			seq++
		}
		for _, c := range cc.PacketChunks {
			switch c := c.(type) {
			case *rtcp.RunLengthChunk:
				for range c.RunLength {
					note(c.PacketStatusSymbol)
				}
			case *rtcp.StatusVectorChunk:
				for _, s := range c.SymbolList {
					note(s)
				}
			}
		}
		if len(deltas) > 0 || seq-cc.BaseSequenceNumber != cc.PacketStatusCount {
			t.Fatalf("report %x: %d deltas left, %d statuses of %d", raw, len(deltas), seq-cc.BaseSequenceNumber, cc.PacketStatusCount)
		}
	}
}

// TestArrivalsAreTold: what came is told with its time, all that was left out as lost, whatever the order and wherever a report ends.
func TestArrivalsAreTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := newArrivals(99, nil)
		want, got := map[uint16]int64{}, map[uint16]int64{}
		next, at := rapid.Uint16().Draw(t, "first"), time.Duration(0)
		first, last := next, next
		var held []uint16
		arrive := func(seq uint16) {
			if _, ok := want[seq]; ok {
				return
			}
			a.record(7, seq, start.Add(at))
			want[seq] = int64(at / arrivalTick)
			if seq-last < 1<<15 {
				last = seq
			}
		}
		arrive(next)
		for range rapid.IntRange(1, 400).Draw(t, "packets") {
			at += time.Duration(rapid.SampledFrom([]int{0, 100, 1000, 30_000, 90_000, 20_000_000}).Draw(t, "microseconds")) * time.Microsecond
			next++
			switch rapid.IntRange(0, 9).Draw(t, "fate") {
			case 0: // lost
			case 1:
				held = append(held, next)
			default:
				arrive(next)
			}
			if len(held) > 0 && rapid.IntRange(0, 3).Draw(t, "late") == 0 {
				if next-held[0] < smallestWindow {
					arrive(held[0])
				}
				held = held[1:]
			}
			if rapid.IntRange(0, 20).Draw(t, "report") == 0 {
				told(t, a, got)
			}
		}
		told(t, a, got)
		for seq := first; seq != last; seq++ {
			if _, ok := got[seq]; !ok {
				t.Fatalf("nothing is told of %d, between %d and %d", seq, first, last)
			}
		}
		for seq, at := range got {
			if at < 0 {
				if _, came := want[seq]; came {
					t.Fatalf("%d came and is told as lost", seq)
				}
				delete(got, seq)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal("arrivals (-want +got):\n", d)
		}
		if more := a.Feedback(); more != nil {
			t.Fatalf("a report on nothing: %x", more)
		}
	})
}

// TestArrivalsAreBounded: numbers that jump cost a bounded time and memory, and what follows is told.
func TestArrivalsAreBounded(t *testing.T) {
	a := newArrivals(99, nil)
	for i := range 3 * largestWindow {
		a.record(7, uint16(i*9), start.Add(time.Duration(i)*time.Millisecond))
	}
	if len(a.times) != largestWindow {
		t.Errorf("%d numbers are remembered, want %d", len(a.times), largestWindow)
	}
	got := map[uint16]int64{}
	told(t, a, got)
	if len(got) == 0 || len(got) > largestWindow {
		t.Errorf("%d numbers are told, want at most %d", len(got), largestWindow)
	}
}

func BenchmarkArrivals(b *testing.B) {
	a := newArrivals(99, nil)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		a.record(7, uint16(n), start.Add(time.Duration(n)*4*time.Millisecond))
		if n%25 == 24 {
			a.Feedback()
		}
	}
}
