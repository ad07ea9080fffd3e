package forward

import (
	"testing"
	"time"

	"callserver/sfu/codec"
)

// uplink is a publisher of three streams at 15 frames/s behind a line with a queue, in virtual time.
type uplink struct {
	*cameras
	rate    int // packets a second; 0 = all at once
	waiting []upload
	busy    time.Time // when the line has sent what it is sending
	onward  []upload  // left the queue, with the time of arrival
	sent    [maxStreams]map[uint16]pkt
	again   [maxStreams]map[uint16]time.Time // when a packet was sent again last
	asked   []upload                         // requests for packets on their way to the publisher
	keys    [maxStreams]int

	nacks, resent, dropped int
}

type upload struct {
	at     time.Time
	stream int8
	p      pkt
}

const (
	uplinkDelay = 20 * time.Millisecond
	uplinkQueue = 50 // packets
	uplinkFrame = 66 // ms
)

func newUplink(t testing.TB) *uplink {
	u := &uplink{cameras: newCameras(t, 1)}
	for i, size := range []int{1, 3, 7} { // packets a frame: 160, 450 and 900 kbit/s
		u.c[i].size = size
		u.sent[i], u.again[i] = map[uint16]pkt{}, map[uint16]time.Time{}
	}
	u.SetRTT(2 * uplinkDelay)
	return u
}

// run lets d pass.
func (u *uplink) run(d time.Duration) {
	for end := u.now.Add(d); u.now.Before(end); u.wait(time.Millisecond) {
		since := int(u.now.Sub(start) / time.Millisecond)
		u.answer()
		if since%uplinkFrame == 0 {
			u.film()
		}
		u.carry()
		if since%20 == 0 {
			u.ask()
		}
		if since%200 == 0 {
			u.Expire(u.now)
		}
	}
}

// film sends a frame of every stream that is on; a request for a key frame of one brings key frames of all.
func (u *uplink) film() {
	key := false
	for i, n := range u.publisher.take() {
		u.keys[i] += n
		key = key || n > 0
	}
	for i := range u.c {
		if !u.on[i] {
			u.c[i].ts, u.c[i].frames = u.c[i].ts+uplinkFrame*90, 0
			continue
		}
		u.c[i].ts += uplinkFrame*90 - 3000
		for _, p := range u.c[i].frame(key || u.c[i].frames == 0) {
			u.sent[i][p.seq] = p
			u.send(upload{stream: int8(i), p: p})
		}
	}
}

func (u *uplink) send(up upload) {
	if len(u.waiting) >= uplinkQueue {
		u.dropped++
		return
	}
	u.waiting = append(u.waiting, up)
}

// carry takes packets through the line.
func (u *uplink) carry() {
	for len(u.waiting) > 0 && !u.busy.After(u.now) {
		up := u.waiting[0]
		u.waiting = u.waiting[1:]
		if u.rate > 0 {
			u.busy = u.now.Add(time.Second / time.Duration(u.rate))
		}
		up.at = u.now.Add(uplinkDelay)
		u.onward = append(u.onward, up)
	}
	for len(u.onward) > 0 && !u.onward[0].at.After(u.now) {
		u.push(u.onward[0].stream, u.onward[0].p)
		u.onward = u.onward[1:]
	}
}

// requests is what there is to ask for now, by when the publisher hears of it.
func (cs *cameras) requests() (asked []upload) {
	for i := range cs.c {
		for _, seq := range cs.Nacks(int8(i), cs.now) {
			asked = append(asked, upload{at: cs.now.Add(uplinkDelay), stream: int8(i), p: pkt{seq: seq}})
		}
	}
	return asked
}

// ask sends what there is to ask for on its way.
func (u *uplink) ask() {
	asked := u.requests()
	u.nacks += len(asked)
	u.asked = append(u.asked, asked...)
}

// answer sends packets again, each once in a round trip, as browsers do.
func (u *uplink) answer() {
	for len(u.asked) > 0 && !u.asked[0].at.After(u.now) {
		stream, seq := u.asked[0].stream, u.asked[0].p.seq
		u.asked = u.asked[1:]
		p, ok := u.sent[stream][seq]
		if !ok || u.now.Sub(u.again[stream][seq]) < 2*uplinkDelay {
			continue
		}
		u.again[stream][seq] = u.now
		p.rtx = true
		u.resent++
		u.send(upload{stream: stream, p: p})
	}
}

// widen makes the line wide again: the publisher sends all streams, and the receiver gets the best of them soon.
func (u *uplink) widen(t *testing.T, k *Sink) {
	t.Helper()
	u.rate = 0
	u.on[1], u.on[2] = true, true
	u.run(500 * time.Millisecond)
	if got := k.Current().Spatial; got != 2 {
		t.Errorf("stream %d half a second after the upper ones came back, want 2", got)
	}
}

// TestUplinkBecomesNarrow: where the publisher's line no longer carries what it sends the publisher gives the upper streams up. What is on its way
// and what is sent again of them does not keep the receivers from the one that is left, and takes little of the line.
func TestUplinkBecomesNarrow(t *testing.T) {
	u := newUplink(t)
	var r receiver
	k := u.Attach(&r, SinkOptions{Target: MaxTemporal(2)})
	u.run(5 * time.Second)
	if got := k.Current().Spatial; got != 2 {
		t.Fatalf("stream %d on a wide line, want 2", got)
	}
	u.rate = 34 // 300 kbit/s
	narrow := u.now
	u.run(800 * time.Millisecond)
	u.on[1], u.on[2] = false, false
	gaveUp := u.now
	u.keys = [maxStreams]int{}
	last := gaveUp // when a packet of the upper streams arrived that was not sent again
	var asked, began time.Time
	for u.now.Sub(narrow) < 10*time.Second {
		for _, up := range u.onward {
			if up.stream > 0 && !up.p.rtx && up.at.After(last) {
				last = up.at
			}
		}
		u.run(10 * time.Millisecond)
		if u.keys[0] > 0 && asked.IsZero() {
			asked = u.now
		}
		if k.Current().Spatial == 0 && began.IsZero() {
			began = u.now
		}
	}
	t.Logf("given up after %v, last packet after %v, a key frame of the lowest asked for after %v, it comes after %v; %d requests, %d packets sent again, %d dropped, key frames asked for %v",
		gaveUp.Sub(narrow), last.Sub(narrow), asked.Sub(narrow), began.Sub(narrow), u.nacks, u.resent, u.dropped, u.keys)
	if took := asked.Sub(last); asked.IsZero() || took > 300*time.Millisecond {
		t.Errorf("a key frame of the lowest stream is asked for %v after the last packet of those above, want within 300 ms", took)
	}
	if took := began.Sub(last); began.IsZero() || took > time.Second {
		t.Errorf("the lowest stream begins %v after the last packet of those above, want within 1 s: there is a queue", took)
	}
	if u.resent > 20 {
		t.Errorf("%d packets sent again through a queue of %d, want at most 20", u.resent, uplinkQueue)
	}
	if u.keys[0] == 0 || u.keys[0] > 2 || u.keys[1]+u.keys[2] > 0 {
		t.Errorf("key frames asked for: %v, want one or two of the lowest stream", u.keys)
	}

	u.widen(t, k)
	checkNumbers(t, r.take())
}

// TestPublisherIsToldToSendLess: a publisher that is told what its line carries gives the upper streams up at once, but for what stands in the queue. The
// key frame of the stream that is left is asked for while it does, and comes when it is empty.
func TestPublisherIsToldToSendLess(t *testing.T) {
	for _, tc := range []struct {
		name  string
		layer int8
		rate  int // packets a second
	}{
		{"the lowest stream fits", 0, 34},
		{"two streams fit", 1, 110},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := newUplink(t)
			var r receiver
			k := u.Attach(&r, SinkOptions{Target: MaxTemporal(2)})
			u.run(5 * time.Second)
			bitrate := int64(1) // fits just so
			for _, s := range u.Stats().Layers[:tc.layer+1] {
				bitrate += s.Bitrate
			}
			u.rate = tc.rate
			u.run(200 * time.Millisecond)
			for i := tc.layer + 1; i < 3; i++ {
				u.on[i] = false
			}
			u.run(300 * time.Millisecond)
			u.keys, u.nacks = [maxStreams]int{}, 0
			u.Narrow(bitrate, u.now)
			told := u.now
			queue := time.Duration(len(u.waiting)) * time.Second / time.Duration(u.rate)
			for u.now.Sub(told) < 3*time.Second && k.Current().Spatial != tc.layer {
				u.run(10 * time.Millisecond)
			}
			if took := u.now.Sub(told); took > queue+150*time.Millisecond {
				t.Errorf("stream %d begins after %v, want it when the queue of %v is empty", tc.layer, took, queue)
			}
			u.run(3 * time.Second)
			if got := k.Current().Spatial; got != tc.layer {
				t.Errorf("stream %d later, want %d", got, tc.layer)
			}
			if u.keys[tc.layer] == 0 || u.keys[2] > 0 || u.nacks > 0 {
				t.Errorf("key frames asked for %v, %d packets asked for again", u.keys, u.nacks)
			}
			u.widen(t, k)
			checkNumbers(t, r.take())
		})
	}
}

// TestEncoderPause: a stream that leaves out frames without losing any is not given up for a lower one.
func TestEncoderPause(t *testing.T) {
	u := newUplink(t)
	var r receiver
	k := u.Attach(&r, SinkOptions{Target: MaxTemporal(2)})
	u.run(5 * time.Second)
	u.keys = [maxStreams]int{}
	before := k.Stats().Switches
	c := u.c[2]
	u.on[2] = false
	u.run(400 * time.Millisecond)
	u.on[2], u.c[2].frames = true, c.frames
	u.run(2 * time.Second)
	if n := k.Stats().Switches - before; n != 0 || u.keys != [maxStreams]int{} {
		t.Errorf("%d switches, key frames asked for %v", n, u.keys)
	}
}

// TestNobodysLosses: nothing is asked for again that no receiver would get.
func TestNobodysLosses(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true})
	c := camera{ssrc: 1, size: 1}
	w.push(0, c.frame(true)...)
	c.frame(false)
	w.push(0, c.frame(false)...)
	if got := w.Nacks(0, w.now); got != nil {
		t.Errorf("asked for %v though there is no receiver", got)
	}
	if w.Waits() {
		t.Error("waits for what nobody wants")
	}
	var r receiver
	w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
	w.push(0, c.frame(true)...)
	c.frame(false)
	w.push(0, c.frame(false)...)
	if got := w.Nacks(0, w.now); len(got) != 1 {
		t.Errorf("asked for %v, want the one packet that is missing", got)
	}
}

// TestWait: what frames wait on their way is what they come later than they were taken; jitter and clocks that drift are none.
func TestWait(t *testing.T) {
	const rate, frame = 90_000, 66 * time.Millisecond
	var p pace
	at, timestamp := time.Hour, uint32(1)<<31-90_000
	next := func(after time.Duration) time.Duration {
		at += after
		timestamp += uint32(frame * rate / time.Second)
		w := p.wait(timestamp, at, rate)
		p.timestamp, p.at = timestamp, at
		return w
	}
	next(0)
	for i := range 20_000 {
		jitter := ms(15 * (i%3 - 1))
		if w := next(frame + jitter - ms(15*((i+2)%3-1)) + 7*time.Microsecond); i > 0 && w > ms(60) {
			t.Fatalf("frame %d of a line with jitter, from a clock that is slow by 100 millionths, has waited %v", i, w)
		}
	}
	before := next(frame)
	for range 10 {
		next(2 * frame)
	}
	if w := next(frame) - before; w < 9*frame || w > 10*frame {
		t.Errorf("a queue of ten frames' time is taken for %v", w)
	}
	for range 10 {
		next(0)
	}
	if w := next(frame); w > ms(60) {
		t.Errorf("a queue that is empty is taken for %v", w)
	}
	next(time.Minute)
	timestamp += 1 << 30
	if w := next(frame); w != 0 {
		t.Errorf("after a jump of the clock: %v", w)
	}
}
