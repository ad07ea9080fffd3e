package rtc_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"callserver/sfu/forward"
	"callserver/sfu/rtc"
)

// policer lets so many bits/s through and drops the rest.
type policer struct {
	rate   atomic.Int64 // bits/s
	credit float64      // bits
	at     time.Time
}

func (p *policer) drops(size int) bool {
	now := time.Now()
	rate := float64(p.rate.Load())
	p.credit = min(p.credit+rate*now.Sub(p.at).Seconds(), rate/10)
	p.at = now
	if p.credit < float64(size)*8 {
		return true
	}
	p.credit -= float64(size) * 8
	return false
}

// TestNarrowLine sends a client more than its line carries: the owner hears how much that is, and, when the line is wide again, that there is no limit any
// more, which padding has found out. Another client on a good line is never limited.
func TestNarrowLine(t *testing.T) {
	for _, single := range []bool{true, false} {
		bubble(t, func(w *world) { testNarrowLine(t, w, single) })
	}
}

func testNarrowLine(t *testing.T, w *world, single bool) {
	const narrow, wide = 300_000, 5_000_000
	alice, bob, carol := w.join(true, 17), w.join(single, 17), w.join(true, 17)
	defer carol.leave()
	defer bob.leave()
	defer alice.leave()
	camera := alice.Publish("cam", "video/VP8")
	alice.wants = append(alice.wants, rtc.Want{CID: "cam", Video: true, Mime: "video/VP8"})
	source := alice.feed(alice.negotiate(false), "cam", forward.SourceOptions{Video: true})
	carol.negotiate(false)
	if single {
		bob.negotiate(false)
	} else {
		bob.peer.Negotiate(false)
	}
	for _, m := range []*member{bob, carol} {
		m.subscribe("TR_V", source, "video/VP8")
	}
	w.until("both bound", func() bool { return count[rtc.DownlinkBound](bob)+count[rtc.DownlinkBound](carol) == 2 })

	var line policer
	line.rate.Store(wide)
	var padding, again atomic.Int32
	w.net.Drop(func(b []byte, from, to string) bool { // one packet after the other
		if len(b) < 20 || b[0]>>6 != 2 || b[1] >= 192 && b[1] <= 223 || !strings.HasPrefix(from, "10.0.0.") || !strings.HasPrefix(to, "10.0.1.2:") {
			return false
		}
		if b[1]&0x7f == 97 {
			again.Add(1)
			if b[0]&0x20 != 0 {
				padding.Add(1)
			}
		}
		return line.drops(len(b) + 28)
	})
	limit := func(m *member) (e rtc.BitrateChanged) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, other := range slices.Backward(m.events) {
			if e, ok := other.(rtc.BitrateChanged); ok {
				return e
			}
		}
		return e
	}
	n := 0
	low, all := 0, 0
	send := func(d time.Duration) { // a layer of 870 kbit/s, or what the owner chooses instead
		low, all = 0, 0
		for range d / (10 * time.Millisecond) {
			size := 1000
			if e := limit(bob); e.Limited {
				for _, size = range []int{1000, 480, 120} {
					if e.Bitrate > int64(size+80)*800 {
						break
					}
				}
			}
			if all++; size == 120 {
				low++
			}
			bob.peer.Want(900_000)
			camera.Send(0, n%100 == 0, 20, make([]byte, size))
			n++
			time.Sleep(10 * time.Millisecond)
		}
	}
	send(5 * time.Second)
	if e := limit(bob); e.Limited || padding.Load() > 0 {
		t.Fatalf("on a wide line: %+v, %d packets of padding", e, padding.Load())
	}
	line.rate.Store(narrow)
	send(4 * time.Second)
	if e := limit(bob); !e.Limited || e.Bitrate > 2*narrow || e.Bitrate < narrow/2 {
		t.Errorf("on a narrow line: %+v", e)
	}
	send(20 * time.Second)
	if e := limit(bob); !e.Limited || e.Bitrate > 2*narrow || e.Bitrate < narrow/2 || low < all*3/4 {
		t.Errorf("later: %+v; %d packets of %d of the layer that fits", e, low, all)
	}
	if p := padding.Load(); p == 0 || p > 400 {
		t.Errorf("%d packets of padding in 24 s", p)
	}
	line.rate.Store(wide)
	send(15 * time.Second)
	if e := limit(bob); e.Limited {
		t.Errorf("on a line that is wide again: %+v", e)
	}
	before := padding.Load()
	send(5 * time.Second)
	if p := padding.Load(); p != before {
		t.Errorf("%d packets of padding without a limit", p-before)
	}
	if c := count[rtc.BitrateChanged](carol); c != 0 {
		t.Errorf("carol, on a good line, is told of a limit %d times", c)
	}
	w.net.Drop(nil)
}

// TestLossyLine loses a tenth of what is sent to a client: what it asks for comes twice, in case that is lost again. As long as few are lost
// it comes once.
func TestLossyLine(t *testing.T) {
	for _, single := range []bool{true, false} {
		bubble(t, func(w *world) { testLossyLine(t, w, single) })
	}
}

func testLossyLine(t *testing.T, w *world, single bool) {
	alice, bob := w.join(true, 17), w.join(single, 17)
	defer bob.leave()
	defer alice.leave()
	camera := alice.Publish("cam", "video/VP8")
	alice.wants = append(alice.wants, rtc.Want{CID: "cam", Video: true, Mime: "video/VP8"})
	source := alice.feed(alice.negotiate(false), "cam", forward.SourceOptions{Video: true})
	if single {
		bob.negotiate(false)
	} else {
		bob.peer.Negotiate(false)
	}
	bob.subscribe("TR_V", source, "video/VP8")
	w.until("bob bound", func() bool { return count[rtc.DownlinkBound](bob) == 1 })

	var every, all, lost atomic.Int32                 // which packet is lost, how many came, how many were lost
	w.net.Drop(func(b []byte, from, to string) bool { // only first transmissions: a client of Pion's goes on asking, whatever comes by RTX, and is answered eight times
		if len(b) < 20 || b[0]>>6 != 2 || b[1]&0x7f != 96 || !strings.HasPrefix(from, "10.0.0.") || !strings.HasPrefix(to, "10.0.1.2:") {
			return false
		}
		if all.Add(1)%every.Load() != 0 {
			return false
		}
		lost.Add(1)
		return true
	})
	for _, tc := range []struct {
		every, least, most int32 // packets sent again for each that was lost
	}{{200, 1, 8}, {10, 12, 16}} {
		every.Store(tc.every)
		var before forward.SinkStats
		for n := range 800 {
			if n == 400 { // what the line loses is known by now
				before = bob.sinks["TR_V"].Stats()
				lost.Store(0)
			}
			camera.Send(0, n%100 == 0, 20, make([]byte, 500))
			time.Sleep(10 * time.Millisecond)
		}
		after := bob.sinks["TR_V"].Stats()
		again := int32(after.Retransmitted - before.Retransmitted)
		if n := lost.Load(); again < n*tc.least || again > n*tc.most {
			t.Errorf("one of %d lost: %d packets, sent %d again, want %d to %d times as many", tc.every, n, again, tc.least, tc.most)
		}
	}
	w.net.Drop(nil)
}
