package packet

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func TestNewer(t *testing.T) {
	for _, c := range []struct {
		a, b uint16
		want bool
	}{{1, 0, true}, {0, 1, false}, {0, 65535, true}, {65535, 0, false}, {5, 5, false}, {32767, 0, true}, {32768, 0, false}} {
		if got := Newer(c.a, c.b); got != c.want {
			t.Errorf("Newer(%d, %d) = %t", c.a, c.b, got)
		}
	}
}

func TestUnwrapper(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u Unwrapper
		first := rapid.Uint16().Draw(t, "first")
		highest := 1<<16 | uint64(first)
		if got := u.Unwrap(first); got != highest {
			t.Fatalf("first Unwrap(%d) = %d, want %d", first, got, highest)
		}
		for range 50 {
			want := uint64(int64(highest) + rapid.Int64Range(-30000, 30000).Draw(t, "step"))
			highest = max(highest, want)
			if got := u.Unwrap(uint16(want)); got != want {
				t.Fatalf("Unwrap(%d) = %d, want %d", uint16(want), got, want)
			}
		}
		seq := rapid.Uint16().Draw(t, "restart")
		if got := u.Restart(seq); uint16(got) != seq || got < highest+1<<15 {
			t.Fatalf("Restart(%d) = %d after %d", seq, got, highest)
		}
	})
}

func TestLossBitmap(t *testing.T) {
	type step struct {
		seq  uint64
		want Arrival
		gap  uint64
	}
	var b LossBitmap
	for i, s := range []step{
		{70000, Newest, 0}, {70001, Newest, 0}, {70001, Duplicate, 0}, {70005, Newest, 3}, {70003, Late, 0}, {70003, Duplicate, 0},
		{69999, Late, 0}, {70005 + 2047, Newest, 2046}, {70005, Duplicate, 0}, {70004, Ancient, 0}, {70006, Late, 0},
		{90000, Newest, 90000 - 72052 - 1}, {89999, Late, 0}, {80000, Ancient, 0},
	} {
		if got, gap := b.Receive(s.seq); got != s.want || gap != s.gap {
			t.Errorf("step %d: Receive(%d) = %d, %d, want %d, %d", i, s.seq, got, gap, s.want, s.gap)
		}
	}
}

func TestHistory(t *testing.T) {
	h := NewHistory(64, time.Second)
	add := func(seq uint64, at time.Duration) {
		p := Get(Capacity)
		h.Add(seq, p, at)
		p.Release()
	}
	for seq := range uint64(100) {
		add(1000+seq, ms(int(seq)))
	}
	if len(h.slots) != 64 {
		t.Errorf("%d slots for young packets, want the limit of 64", len(h.slots))
	}
	for seq := uint64(1000); seq < 1100; seq++ {
		p := h.Get(seq)
		if want := seq >= 1036; (p != nil) != want {
			t.Errorf("Get(%d) found %t, want %t", seq, p != nil, want)
		}
		if p != nil {
			p.Release()
		}
	}
	add(1010, ms(100)) // too late: its slot holds a newer one
	if h.Get(1010) != nil {
		t.Error("an old packet took the place of a newer one")
	}
	h.Expire(ms(1050))
	if p := h.Get(1050); p != nil {
		t.Error("an expired packet is still there")
	}
	if p := h.Get(1060); p == nil {
		t.Error("a young packet is gone")
	} else {
		p.Release()
	}
	h.Expire(ms(5000))
	if h.slots != nil {
		t.Error("an empty history keeps its memory")
	}
	slow := NewHistory(64, time.Second)
	for seq := range uint64(100) {
		p := Get(Capacity)
		slow.Add(1+seq, p, time.Duration(seq)*200*time.Millisecond)
		p.Release()
	}
	if len(slow.slots) != smallestHistory {
		t.Errorf("%d slots for a slow stream, want %d", len(slow.slots), smallestHistory)
	}
	slow.Clear()
}

func TestHistoryReleasesEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := NewHistory(64, time.Second)
		packets := map[*Packet]bool{}
		seq, at := uint64(1<<16), time.Duration(0)
		for range 200 {
			seq += uint64(rapid.SampledFrom([]int{1, 1, 1, 2, 40, 40000}).Draw(t, "step"))
			at += ms(rapid.IntRange(0, 400).Draw(t, "time"))
			p := &Packet{buffer: make([]byte, Capacity)}
			p.references.Store(2) // ours stays, so that it never goes to the pool
			packets[p] = true
			h.Add(seq-uint64(rapid.IntRange(0, 3).Draw(t, "back")), p, at)
			p.Release()
			if rapid.IntRange(0, 9).Draw(t, "expire") == 0 {
				h.Expire(at)
			}
		}
		h.Expire(at + time.Minute)
		for p := range packets {
			if n := p.references.Load(); n != 1 {
				t.Fatalf("a packet has %d references, want ours only", n)
			}
		}
	})
}

func TestLosses(t *testing.T) {
	var l Losses
	l.Add(70005, 3, ms(0)) // 70002 to 70004
	due := func(at int, want ...uint16) {
		t.Helper()
		if d := cmp.Diff(want, l.Due(ms(at), nil)); d != "" {
			t.Errorf("due at %d ms (-want +got):\n%s", at, d)
		}
	}
	low := func(seqs ...int) (low []uint16) {
		for _, s := range seqs {
			low = append(low, uint16(s))
		}
		return low
	}
	due(0, low(70002, 70003, 70004)...)
	due(69)
	if tries := l.Found(70003, false, ms(60)); tries != 1 {
		t.Errorf("found after %d tries, want 1", tries)
	}
	due(70, low(70002, 70004)...)
	due(139)
	due(140, low(70002, 70004)...)
	due(1000, low(70002, 70004)...)
	due(2000, low(70002, 70004)...)
	if n := l.Outstanding(); n != 2 {
		t.Errorf("%d outstanding, want 2", n)
	}
	due(3000)
	if n := l.Outstanding(); n != 0 {
		t.Errorf("%d outstanding after five tries, want none", n)
	}

	l.SetRTT(ms(5))
	l.Add(80000, 1, ms(0))
	due(0, low(79999)...)
	due(19)
	due(20, low(79999)...)
	l.Clear()
	l.SetRTT(time.Second)
	l.Add(80000, 1, ms(0))
	due(0, low(79999)...)
	due(399)
	due(400, low(79999)...)
	due(800, low(79999)...) // the back-off is bounded, too
}

// An answer that crosses the second request for it is an answer, not disorder: taken for that, it delayed each later request until its answer crossed the
// second one, too.
func TestLossesThatCross(t *testing.T) {
	var l Losses
	l.SetRTT(ms(40))
	l.Add(100, 1, ms(0))
	l.Due(ms(0), nil)
	if got := l.Due(ms(40), nil); len(got) != 0 {
		t.Errorf("asked for again after a round trip, when the answer is about to come")
	}
	if got := l.Due(ms(50), nil); len(got) != 1 {
		t.Errorf("not asked for again after a round trip and a quarter")
	}
	if tries := l.Found(99, false, ms(52)); tries != 2 {
		t.Errorf("found after %d tries, want 2", tries)
	}
	l.Add(200, 1, ms(100))
	if got := l.Due(ms(100), nil); len(got) != 1 {
		t.Error("the next loss is not asked for at once")
	}
}

// Where packets overtake each other they are given the time that they take, and no more than that is ever asked for twice.
func TestLossesAreNotDisorder(t *testing.T) {
	var l Losses
	l.SetRTT(ms(40))
	l.Add(50, 1, ms(0))
	l.Due(ms(0), nil)
	l.Found(49, true, ms(10))
	l.Add(100, 1, ms(0))
	if got := l.Due(ms(0), nil); len(got) != 1 {
		t.Fatal("without disorder, but with one that was sent again unasked, the first packet is asked for at once")
	}
	if tries := l.Found(99, false, ms(15)); tries != 0 {
		t.Errorf("found after %d tries, but no answer comes within 15 of 40 ms", tries)
	}
	l.Add(200, 1, ms(100))
	if got := l.Due(ms(114), nil); len(got) != 0 {
		t.Error("asked for after 14 ms, where packets came 15 ms late")
	}
	if got := l.Due(ms(115), nil); len(got) != 1 {
		t.Error("not asked for after 15 ms")
	}
	if tries := l.Found(199, false, ms(155)); tries != 1 {
		t.Errorf("found after %d tries, want 1: the answer", tries)
	}
	for n := range 100 { // only losses from here
		l.Add(uint64(1000+10*n), 1, ms(1000))
	}
	l.Clear()
	l.Add(3000, 1, ms(2000))
	if got := l.Due(ms(2001), nil); len(got) != 1 {
		t.Error("the disorder of long ago still delays")
	}
	l.Found(2999, false, ms(2005))
	l.Add(4000, 1, ms(3000))
	l.Found(3999, false, ms(3900))
	l.Add(5000, 1, ms(4000))
	if got := l.Due(ms(4000)+maxNackPatience, nil); len(got) != 1 {
		t.Error("patience has no bound")
	}
}

// A packet may be known to be missing before a later one comes: it is asked for as if that had shown it, and nothing more of it when that comes.
func TestLossesOfAnEnd(t *testing.T) {
	var l Losses
	l.SetRTT(ms(40))
	l.Add(103, 1, ms(0))
	if d := cmp.Diff([]uint16{102}, l.Due(ms(0), nil)); d != "" {
		t.Error("due at once (-want +got):\n", d)
	}
	l.Arrived(105)
	l.Add(105, 3, ms(30))
	if d := cmp.Diff([]uint16{103, 104}, l.Due(ms(30), nil)); d != "" {
		t.Error("due when a later one comes (-want +got):\n", d)
	}
	if d := cmp.Diff([]uint16{102}, l.Due(ms(50), nil)); d != "" {
		t.Error("due after a round trip and a quarter (-want +got):\n", d)
	}
	l.Clear()
	l.Add(203, 1, ms(1000))
	l.Due(ms(1000), nil)
	if l.Arrived(202); l.Outstanding() != 0 {
		t.Error("waits for what came before anything later")
	}
}

func TestLossesAreBounded(t *testing.T) {
	var l Losses
	l.Add(1000, 60, 0)
	l.Add(2000, 60, 0)
	if n := l.Outstanding(); n != 100 {
		t.Errorf("%d outstanding, want the latest 100", n)
	}
	if got := l.Due(0, nil); len(got) != maxAhead || got[0] != 960 {
		t.Errorf("%d due from %d, want %d from the oldest on", len(got), got[0], maxAhead)
	}
	l.Add(5000, 101, 0)
	if n := l.Outstanding(); n != 0 {
		t.Errorf("%d outstanding after an outage, want none", n)
	}
}

// Where a queue overflows what is asked for again comes late and makes others come late: no more of it than arrives, but for a burst.
func TestLossesOfAQueue(t *testing.T) {
	var l Losses
	l.SetRTT(ms(40))
	l.Add(1030, 30, ms(0))
	asked := 0
	for at := 0; at < 3000; at += 20 {
		asked += len(l.Due(ms(at), nil))
	}
	if asked != maxAhead {
		t.Errorf("asked for %d packets of a stream that ended, want %d", asked, maxAhead)
	}
	if n := l.Outstanding(); n != 0 {
		t.Errorf("%d outstanding after three seconds", n)
	}

	// A line that loses a third of all: every packet is asked for at least once.
	l.Clear()
	missed := map[uint64]bool{}
	for seq := uint64(5000); seq < 8000; seq++ {
		at := ms(int(seq-5000) * 10)
		if seq%3 == 0 {
			missed[seq] = true
			continue
		}
		if (seq-1)%3 == 0 {
			l.Add(seq, 1, at)
		}
		l.Arrived(seq)
		for _, s := range l.Due(at, nil) {
			delete(missed, uint64(s))
			l.Found(uint64(s), false, at+ms(40))
		}
	}
	if len(missed) > 3 {
		t.Errorf("%d of 1000 losses were not asked for", len(missed))
	}
}

func TestReception(t *testing.T) {
	r := NewReception(90000)
	if _, ok := r.Report(0); ok {
		t.Error("a report before the first packet")
	}
	base := uint64(1<<16 + 65530)
	receive := func(n uint64, retransmitted bool, at time.Duration) {
		r.Receive(base+n, uint32(3000*n), retransmitted, at)
	}
	for n := range uint64(10) {
		if n != 3 && n != 4 {
			receive(n, false, time.Duration(n)*time.Second/30)
		}
	}
	receive(3, true, ms(400)) // repaired: still lost on the path
	receive(4, false, ms(400))
	r.SenderReport(0x0000_1234_5678_0000, ms(500))
	got, ok := r.Report(ms(1500))
	want := Report{FractionLost: 256 / 10, Lost: 1, HighestSequenceNumber: 65530 + 9, LastSenderReport: 0x12345678, Delay: 1 << 16}
	if d := cmp.Diff(want, got); !ok || d != "" {
		t.Errorf("first report (-want +got):\n%s", d)
	}
	receive(10, false, ms(333))
	if got, _ := r.Report(ms(2500)); got.FractionLost != 0 || got.Lost != 1 {
		t.Errorf("second report %+v, want no loss in its interval", got)
	}
	r.Restart()
	if _, ok := r.Report(0); ok || r.Lost() != 0 {
		t.Error("a restart kept something")
	}
}

func TestJitter(t *testing.T) {
	r := NewReception(90000)
	var want int64 // RFC 3550 §A.8, in its own words
	var before int64
	for n := range int64(200) {
		at := time.Duration(n)*time.Second/30 + ms(int(n*7%11))
		r.Receive(uint64(1<<16+n), uint32(4294960000+3000*n), false, at)
		transit := Ticks(at, 90000) - 3000*n
		if n > 0 {
			d := max(transit-before, before-transit)
			want += d - (want+8)>>4
		}
		before = transit
	}
	got, _ := r.Report(0)
	if int64(got.Jitter) != want>>4 || want == 0 {
		t.Errorf("jitter %d, want %d", got.Jitter, want>>4)
	}
	r.Receive(1<<16+200, uint32((4294960000+3000*200)&0xffffffff), false, time.Hour) // a pause
	if after, _ := r.Report(0); after.Jitter != got.Jitter {
		t.Errorf("jitter %d after a pause, was %d", after.Jitter, got.Jitter)
	}
	if got := r.Jitter(); got != time.Duration(want>>4)*time.Second/90000 {
		t.Errorf("jitter %v", got)
	}
}

func TestTicks(t *testing.T) {
	for d, want := range map[time.Duration]int64{time.Second: 90000, ms(33): 2970, -ms(10): -900, 1000 * time.Hour: 324000000000} {
		if got := Ticks(d, 90000); got != want {
			t.Errorf("Ticks(%v) = %d, want %d", d, got, want)
		}
	}
}
