package forward

import (
	"testing"
	"time"

	"callserver/sfu/codec"

	"github.com/pion/rtcp"
)

// TestReportsKeepLipSync follows a picture's capture time through two simulcast streams with clocks of their own.
func TestReportsKeepLipSync(t *testing.T) {
	cs := newCameras(t, 1)
	var r receiver
	k := cs.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
	ntp := func() uint64 { return 1<<60 + ntpDuration(cs.now.Sub(start)) }
	if _, ok := k.SenderReport(cs.now); ok {
		t.Error("a report before any packet")
	}
	cs.run(1)
	if _, ok := k.SenderReport(cs.now); ok {
		t.Error("a report before the publisher's")
	}
	report := func() {
		for i := range cs.c {
			cs.SenderReport(Layer{Spatial: int8(i)}, ntp(), cs.c[i].ts, cs.now) // the next frame is captured now
		}
	}
	report()
	check := func() {
		t.Helper()
		captured := ntp()
		cs.run(1)
		gs := r.take()
		sr, ok := k.SenderReport(cs.now)
		if !ok {
			t.Fatal("no report")
		}
		// What the receiver makes of it: when was the frame captured?
		passed := int64(int32(sr.RTPTime - gs[len(gs)-1].Timestamp))
		got := sr.NTPTime - ntpDuration(time.Duration(passed)*time.Second/90000)
		if off := time.Duration(int64(got-captured)) * time.Second >> 32; off.Abs() > ms(2) { // frames come every 33 ms here, and are 33.3 ms apart
			t.Errorf("stream %d: the receiver is %v off", k.Current().Spatial, off)
		}
	}
	check()
	for _, spatial := range []int8{2, 1} {
		cs.run(16) // key frames come twice a second at most
		report()
		k.SetTarget(MaxTemporal(spatial))
		check()
		check()
		if got := k.Current().Spatial; got != spatial {
			t.Fatalf("stream %d, want %d", got, spatial)
		}
	}
}

func TestResume(t *testing.T) {
	const rate = 90000
	for _, c := range []struct {
		name   string
		passed time.Duration
		mapped int32 // ms after the last one sent
		known  bool
		want   int32 // units after the last one sent
	}{
		{"by arrival", ms(100), 0, false, 9000},
		{"by the clocks", ms(100), 90, true, 8100},
		{"somewhat ahead", ms(100), 900, true, 81000},
		{"far ahead", ms(100), 5000, true, 9000},
		{"same picture", ms(10), 0, true, 1},
		{"a little back", ms(10), -40, true, 1},
		{"far back", ms(100), -60, true, 9000},
		{"no time passed", 0, 0, false, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := splice{started: true, timestamp: 4294967000, at: time.Hour}
			got := s.resume(77, s.timestamp+uint32(c.mapped*90), c.known, rate, time.Hour+c.passed)
			if int32(got-s.timestamp) != c.want {
				t.Errorf("%d after the last one, want %d", int32(got-s.timestamp), c.want)
			}
		})
	}
}

func TestRoundTripTime(t *testing.T) {
	cs := newCameras(t, 1)
	var r receiver
	k := cs.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
	cs.SenderReport(Layer{}, 1<<60, 0, cs.now)
	cs.run(3)
	sr, ok := k.SenderReport(cs.now)
	if !ok || sr.PacketCount != 3 || sr.OctetCount == 0 {
		t.Fatalf("report %+v, %t", sr, ok)
	}
	cs.wait(ms(350))
	k.ReceptionReport(rtcp.ReceptionReport{
		LastSenderReport: uint32(sr.NTPTime >> 16), Delay: 65536 / 4, FractionLost: 64, TotalLost: 0xfffffe, Jitter: 900,
	}, cs.now)
	s := k.Stats()
	if s.RTT.Round(time.Millisecond) != ms(100) || s.FractionLost != 0.25 || s.Lost != -2 || s.Jitter != ms(10) {
		t.Errorf("got RTT %v, fraction %v, lost %d, jitter %v", s.RTT, s.FractionLost, s.Lost, s.Jitter)
	}
	k.ReceptionReport(rtcp.ReceptionReport{LastSenderReport: 12345}, cs.now)
	if got := k.Stats().RTT; got != s.RTT {
		t.Errorf("an answer to nobody changed the round trip time to %v", got)
	}
}

// TestAnswerTime: a round trip that a queue made long is not counted besides that queue.
func TestAnswerTime(t *testing.T) {
	var r reports
	expect := func(waits, want time.Duration) {
		t.Helper()
		if got := r.answerTime(waits); got != want {
			t.Errorf("waiting %v: %v, want %v", waits, got, want)
		}
	}
	expect(0, defaultRTT*3/4)
	expect(ms(500), defaultRTT*3/4+ms(500))
	r.measured(ms(40))
	expect(0, ms(30))
	expect(ms(500), ms(530))
	r.measured(ms(680))
	expect(0, maxResendGap)
	expect(ms(500), ms(560))
	for range 100 {
		r.measured(ms(200))
	}
	if got := r.answerTime(ms(100)); got < ms(245) || got > ms(250) {
		t.Errorf("on a way that is long for good: %v, want 250 ms", got)
	}
}

func TestReceptionReport(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.Opus})
	if _, ok := w.ReceptionReport(0, w.now); ok {
		t.Error("a report before the first packet")
	}
	for _, seq := range []uint16{10, 11, 13} {
		w.push(0, opus(seq, uint32(seq)*960))
		w.wait(ms(20))
	}
	w.SenderReport(Layer{}, 0x1122334455667788, 0, w.now)
	w.wait(time.Second)
	r, ok := w.ReceptionReport(0, w.now)
	if !ok || r.SSRC != 1 || r.TotalLost != 1 || r.FractionLost != 64 || r.LastSequenceNumber != 13 || r.LastSenderReport != 0x33445566 || r.Delay != 1<<16 {
		t.Errorf("got %+v", r)
	}
}

func TestSpeech(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.Opus})
	seq := uint16(0)
	talk := func(d time.Duration, level int) {
		for ; d > 0; d -= ms(20) {
			w.push(0, pkt{seq: seq, ts: uint32(seq) * 960, ssrc: 1, payload: []byte{1}, level: level})
			seq++
			w.wait(ms(20))
		}
	}
	hear := func(what string, wantActive bool, low, high float64) {
		t.Helper()
		if loudness, active := w.Level(w.now); active != wantActive || loudness < low || loudness > high {
			t.Errorf("%s: loudness %.4f, active %t; want %.4f to %.4f, %t", what, loudness, active, low, high, wantActive)
		}
	}
	hear("before anything", false, 0, 0)
	talk(ms(820), 127)
	hear("silence", false, 0, 0)
	talk(ms(400), 20)
	hear("one loud window", true, 0.05, 0.07) // two thirds of 0.1
	talk(ms(1200), 20)
	hear("loud", true, 0.09, 0.1)
	talk(ms(1200), 36)
	hear("too quiet", false, 0, 0.01)
	for range 3 { // a quarter of the time is not speech
		talk(ms(100), 10)
		talk(ms(300), 127)
	}
	hear("clicks", false, 0, 0.01)
	talk(ms(1200), 20)
	hear("loud again", true, 0.09, 0.1)
	w.wait(ms(2000)) // muted: no packets at all
	hear("stale", false, 0, 0)
}

func TestResendsCountWithoutRTX(t *testing.T) {
	for rtx, want := range map[bool]uint32{true: 3, false: 5} {
		cs := newCameras(t, 1)
		var r receiver
		k := cs.Attach(&r, SinkOptions{Target: MaxTemporal(0), RTX: rtx})
		cs.SenderReport(Layer{}, 1<<60, 0, cs.now)
		cs.run(3)
		gs := r.take()
		k.Nack(seqs(gs[:2]), cs.now)
		sr, _ := k.SenderReport(cs.now)
		if per := uint32(len(gs[0].bytes)); sr.PacketCount != want || sr.OctetCount != want*per {
			t.Errorf("RTX %t: %d packets, %d bytes; want %d of %d bytes each", rtx, sr.PacketCount, sr.OctetCount, want, per)
		}
	}
}

// TestPausesAreNotLosses: discontinuous transmission and mute leave gaps in time, not in the numbers.
func TestPausesAreNotLosses(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.Opus})
	for i := range 20 {
		w.push(0, pkt{seq: uint16(i), ts: uint32(i) * 19200, ssrc: 1, payload: []byte{0xf8}})
		for range 40 {
			w.wait(ms(10))
			if lost := w.Nacks(0, w.now); len(lost) > 0 {
				t.Fatalf("asked for %v", lost)
			}
		}
	}
	w.wait(time.Minute)
	w.push(0, pkt{seq: 500, ts: 20 * 19200, ssrc: 1, payload: []byte{0xf8}}) // counted on while muted
	if lost := w.Nacks(0, w.now); len(lost) > 0 {
		t.Errorf("asked for %d packets of a pause", len(lost))
	}
}
