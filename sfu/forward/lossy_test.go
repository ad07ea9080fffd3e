package forward

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"callserver/sfu/codec"
)

// crossing is a publisher of three streams at 15 frames/s behind a line that loses packets by its nature, in virtual time. It answers requests as Chromium
// does, and each packet of a frame leaves some time after the one before.
type crossing struct {
	*cameras
	loss    float64
	spacing time.Duration // between the packets of a frame
	jitter  time.Duration // up to so much more, packets overtake each other
	random  *rand.Rand
	split   float64 // of the frames, of which the rest leaves 41 ms later

	since    time.Duration
	leaving  []upload // by time
	onward   []upload
	asked    []upload
	sent     [maxStreams]map[uint16]copied
	frames   []time.Duration // of the uppermost stream: when its last packet could have come
	complete []time.Duration
	missing  map[int]int // packets by frame
	nacks    int
	needless int // of them for what was on its way
}

// copied is what was sent of a packet.
type copied struct {
	p     pkt
	frame int
	at    time.Time // last
	again bool
	alive bool // on its way, or arrived
	came  bool
}

func newCrossing(t testing.TB, loss float64, spacing, jitter time.Duration) *crossing {
	c := &crossing{cameras: newCameras(t, 1), loss: loss, spacing: spacing, jitter: jitter, random: rand.New(rand.NewPCG(3, 5)), missing: map[int]int{}}
	for i, size := range []int{2, 4, 7} {
		c.c[i].size = size
		c.sent[i] = map[uint16]copied{}
	}
	c.SetRTT(2 * uplinkDelay)
	return c
}

// run lets d pass.
func (c *crossing) run(d time.Duration) {
	for end := c.since + d; c.since < end; c.since += time.Millisecond {
		if c.since%(66*time.Millisecond) == 0 {
			c.film()
		}
		for len(c.leaving) > 0 && !c.leaving[0].at.After(c.now) {
			c.send(c.leaving[0])
			c.leaving = c.leaving[1:]
		}
		c.answer()
		c.arrive()
		if c.since%(20*time.Millisecond) == 0 {
			c.ask()
		}
		if c.since%(200*time.Millisecond) == 0 {
			c.Expire(c.now)
		}
		c.wait(time.Millisecond)
	}
}

// film makes a frame of every stream.
func (c *crossing) film() {
	key := false
	for _, n := range c.publisher.take() {
		key = key || n > 0
	}
	at := c.now
	for i := range c.c {
		c.c[i].ts += 66*90 - 3000
		split := -1
		if c.random.Float64() < c.split {
			split = 1 + c.random.IntN(c.c[i].size-1)
		}
		for k, p := range c.c[i].frame(key || c.c[i].frames == 0) {
			if k == split {
				at = at.Add(ms(41))
			}
			if i == 2 {
				c.missing[len(c.frames)]++
			}
			c.sent[i][p.seq] = copied{p: p, frame: len(c.frames)}
			c.leaving = append(c.leaving, upload{at: at, stream: int8(i), p: p})
			at = at.Add(c.spacing)
		}
	}
	c.frames = append(c.frames, c.since+at.Sub(c.now)-c.spacing+uplinkDelay)
	c.complete = append(c.complete, 0)
}

// send puts a packet on the line.
func (c *crossing) send(up upload) {
	s := c.sent[up.stream][up.p.seq]
	s.at = c.now
	lost := c.since > time.Second && c.random.Float64() < c.loss
	s.alive = s.alive || !lost
	c.sent[up.stream][up.p.seq] = s
	if lost {
		return
	}
	up.at = c.now.Add(uplinkDelay + time.Duration(c.random.Int64N(int64(c.jitter)+1)))
	c.onward = append(c.onward, up)
}

// arrive takes what has come off the line.
func (c *crossing) arrive() {
	kept := c.onward[:0]
	for _, up := range c.onward {
		if up.at.After(c.now) {
			kept = append(kept, up)
			continue
		}
		if s := c.sent[up.stream][up.p.seq]; !s.came {
			s.came = true
			c.sent[up.stream][up.p.seq] = s
			if up.stream == 2 {
				if c.missing[s.frame]--; c.missing[s.frame] == 0 {
					c.complete[s.frame] = c.since
				}
			}
		}
		c.push(up.stream, up.p)
		if c.Misses() {
			c.ask()
		}
	}
	c.onward = kept
}

// ask sends what there is to ask for on its way; that never gets lost.
func (c *crossing) ask() {
	asked := c.requests()
	c.nacks += len(asked)
	for _, r := range asked {
		if c.sent[r.stream][r.p.seq].alive {
			c.needless++
		}
	}
	c.asked = append(c.asked, asked...)
}

// answer sends again what has been sent, but no sooner than a round trip and 5 ms after it was last, as Chromium does.
func (c *crossing) answer() {
	for len(c.asked) > 0 && !c.asked[0].at.After(c.now) {
		stream, seq := c.asked[0].stream, c.asked[0].p.seq
		c.asked = c.asked[1:]
		s := c.sent[stream][seq]
		if s.at.IsZero() || s.again && c.now.Sub(s.at) < 2*uplinkDelay+5*time.Millisecond {
			continue
		}
		s.again = true
		c.sent[stream][seq] = s
		s.p.rtx = true
		c.send(upload{stream: stream, p: s.p})
	}
}

// watch has somebody receive the uppermost stream for d, and returns the percentage of its frames that were whole more than 150 ms after they could have
// been, which is a freeze at 15 frames/s.
func (c *crossing) watch(d time.Duration) (late float64) {
	c.Helper()
	var r receiver
	c.Attach(&r, SinkOptions{Target: MaxTemporal(2)})
	for ; d > 0; d -= time.Second {
		c.run(time.Second)
		r.take()
	}
	frames := len(c.frames) - 30 // the last ones may still come
	for i, at := range c.frames[:frames] {
		if c.complete[i] == 0 {
			c.Fatalf("frame %d never came", i)
		}
		if c.complete[i]-at > 150*time.Millisecond {
			late++
		}
	}
	return 100 * late / float64(frames)
}

// TestLossyUplink: where a twentieth of all packets is lost it takes three losses of one packet to freeze the picture, the last of a frame or any other.
func TestLossyUplink(t *testing.T) {
	for _, tc := range []struct {
		name    string
		spacing time.Duration
		split   float64
		want    float64 // percent
	}{
		{"frames in one burst", 0, 0, 0.1},
		{"1 ms between packets", ms(1), 0, 0.1},
		{"4 ms between packets", ms(4), 0, 0.05},
		{"some in two bursts", 0, 0.02, 0.14},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCrossing(t, 0.05, tc.spacing, 0)
			c.split = tc.split
			minutes := 30
			if testing.Short() {
				minutes, tc.want = 3, 2*tc.want
			}
			late := c.watch(time.Duration(minutes) * time.Minute)
			t.Logf("%.3f %% of %d frames late, %d requests", late, len(c.frames), c.nacks)
			if late > tc.want {
				t.Errorf("%.3f %% of %d frames came more than 150 ms late, want at most %.2f", late, len(c.frames), tc.want)
			}
		})
	}
}

// TestCleanUplinkIsNotAsked: nothing is asked for where nothing is lost, but for what is overtaken by others, even if the publisher holds the rest of a
// frame back now and then.
func TestCleanUplinkIsNotAsked(t *testing.T) {
	for _, tc := range []struct {
		name            string
		spacing, jitter time.Duration
		split           float64
		want            int // a minute
	}{
		{"frames in one burst", 0, 0, 0, 0},
		{"1 ms between packets", ms(1), 0, 0, 0},
		{"5 ms between packets", ms(5), 0, 0, 0},
		{"some in two bursts", 0, 0, 0.02, 0},
		{"10 ms jitter", ms(1), ms(10), 0, 150},
		{"30 ms jitter", ms(1), ms(30), 0, 310},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCrossing(t, 0, tc.spacing, tc.jitter)
			c.split = tc.split
			c.watch(2 * time.Minute)
			t.Logf("%d requests, %d of them for packets on their way", c.nacks, c.needless)
			if c.nacks > 2*tc.want {
				t.Errorf("%d packets asked for in two minutes, %d of them on their way, want at most %d", c.nacks, c.needless, 2*tc.want)
			}
		})
	}
}

// TestEndOfFrame: the end of a frame is asked for when the rest of it is some time ago, as often as any loss, and no more once it or the next frame came.
func TestEndOfFrame(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true})
	w.SetRTT(ms(40))
	c := camera{ssrc: 1, size: 4}
	var r receiver
	w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
	asked := func(after int, want ...uint16) {
		t.Helper()
		w.wait(ms(after))
		if got := w.Nacks(0, w.now); !slices.Equal(got, want) {
			t.Errorf("asked for %v, want %v", got, want)
		}
	}
	w.push(0, c.frame(true)...)
	if w.Waits() {
		t.Error("waits though the frame is whole")
	}
	frame := c.frame(false)
	w.push(0, frame[:2]...)
	asked(60) // on a line that loses nothing
	w.push(0, frame[3])
	asked(0, frame[2].seq)
	w.push(0, frame[2])
	for range 80 { // in which the long time from one packet to the next is forgotten
		w.push(0, c.frame(false)...)
	}
	frame = c.frame(false)
	w.push(0, frame[:2]...)
	if !w.Waits() || w.Misses() {
		t.Errorf("waits: %t, knows that something is missing: %t, want only the first", w.Waits(), w.Misses())
	}
	asked(7)
	asked(1, frame[2].seq)
	if !w.Misses() {
		t.Error("misses nothing")
	}
	asked(49)
	frame[2].rtx, frame[3].rtx = true, true
	w.push(0, frame[2])
	asked(7)
	asked(1, frame[3].seq)
	w.push(0, frame[3])
	if asked(100); w.Waits() {
		t.Error("waits though the frame is whole")
	}

	frame = c.frame(false)
	w.push(0, frame[:3]...)
	asked(20, frame[3].seq)
	w.push(0, c.frame(false)...) // shows the loss, too
	asked(0)
	asked(50, frame[3].seq)
	w.push(0, frame[3])

	w.wait(lossyFor)
	frame = c.frame(false)
	w.push(0, frame[:3]...)
	asked(60) // the line has lost nothing for long
	w.push(0, c.frame(false)...)
	asked(0, frame[3].seq)
	w.push(0, frame[3])

	w.push(0, c.frame(false)[:3]...) // and no more
	n := 0
	for range 300 {
		w.wait(ms(20))
		n += len(w.Nacks(0, w.now))
	}
	if n != 5 || w.Waits() {
		t.Errorf("asked %d times for the end of a stream, want 5; waits: %t", n, w.Waits())
	}
}

// TestEndOfFrameOnSlowLines: the more time there is between the packets of a frame, the later its end is asked for; of one whose publisher never says which
// packet ends a frame, never.
func TestEndOfFrameOnSlowLines(t *testing.T) {
	for _, between := range []int{5, 10, 30} {
		w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true})
		c := camera{ssrc: 1, size: 4}
		var r receiver
		w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
		n := 0
		for i := range 300 {
			for k, p := range c.frame(i == 0) {
				if i%10 == 9 && k == 1 { // a loss
					continue
				}
				p.marker = p.marker && between != 30
				for range between {
					n += len(w.Nacks(0, w.now))
					w.wait(time.Millisecond)
				}
				w.push(0, p)
			}
			w.GiveUp()
		}
		if n > 35 { // of 30 losses
			t.Errorf("asked %d times for what comes each %d ms, 30 of them lost", n, between)
		}
	}
}

// lane is a Lane that works when it is told to.
type lane struct{ list []Delivery }

func (l *lane) Take(d Delivery) { l.list = append(l.list, d) }

func (l *lane) run() {
	Deliver(l.list)
	l.list = nil
}

// laneReceiver is a receiver of one.
type laneReceiver struct {
	receiver
	lane
}

func (r *laneReceiver) Lane() Lane { return &r.lane }

// TestLossInTheFirstKeyFrame has a receiver begin with a better stream, of whose key frame a packet is lost. It shows before the receiver's lane gets to
// it, while the stream is still nobody's: all the same it is asked for. With the first packet nobody has begun.
func TestLossInTheFirstKeyFrame(t *testing.T) {
	for _, missing := range []int{0, 1, 2} {
		cs := newCameras(t, 1)
		var r laneReceiver
		k := cs.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
		film := func(lost int) (p pkt) {
			asked := cs.publisher.take()
			for i := range cs.c {
				ps := cs.c[i].frame(asked[i] > 0 || cs.c[i].frames == 0)
				if i == 2 && lost >= 0 {
					p = ps[lost]
					ps = append(ps[:lost:lost], ps[lost+1:]...)
				}
				cs.push(int8(i), ps...)
			}
			return p
		}
		for range 60 {
			film(-1)
			r.run()
			cs.wait(ms(33))
		}
		k.SetTarget(MaxTemporal(2))
		lost := film(missing)
		if missing == 2 { // shows with the next frame
			cs.wait(ms(33))
			film(-1)
		}
		want := []uint16{lost.seq}
		if missing == 0 {
			want = nil
		}
		if got := cs.Nacks(2, cs.now); !slices.Equal(got, want) {
			t.Errorf("packet %d of the key frame: asked for %d, want %d", missing, got, want)
		}
		r.run()
		cs.push(2, lost)
		if r.run(); missing > 0 && k.Current().Spatial != 2 {
			t.Errorf("packet %d of the key frame: stream %d is forwarded", missing, k.Current().Spatial)
		}
	}
}

// TestLostForGood has a packet never come, as often as it is asked for: receivers need a key frame, and would find out only after seconds.
func TestLostForGood(t *testing.T) {
	for _, tc := range []struct {
		name    string
		key     int           // frames after the loss comes a key frame anyhow; 0 means never
		queue   time.Duration // by which each frame comes later than the one before
		discard bool          // nobody receives it
		want    int
	}{
		{name: "for good", want: 1},
		{name: "before a key frame", key: 3},
		{name: "in a queue", queue: ms(20)},
		{name: "for nobody", discard: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, SourceOptions{Codec: codec.VP8, ClockRate: 90_000, Video: true})
			w.SetRTT(ms(40))
			var r receiver
			k := w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
			v := camera{ssrc: 1, size: 3}
			requests, at := 0, -1
			for frame := range 150 {
				ps := v.frame(frame == 0 || tc.key > 0 && frame == 60+tc.key)
				if frame == 10 && tc.discard {
					k.Detach()
				}
				if frame == 60 {
					ps = append(ps[:1], ps[2:]...)
				}
				w.push(0, ps...)
				for range 2 {
					w.wait(ms(16))
					w.Nacks(0, w.now)
				}
				w.wait(ms(1) + tc.queue)
				if n := w.publisher.take()[0]; n > 0 && frame >= 60 {
					if requests += n; at < 0 {
						at = frame - 60
					}
					w.push(0, v.frame(true)...)
				}
			}
			if requests != tc.want || at > 15 {
				t.Errorf("%d requests, the first %d frames after the loss; want %d, within 15", requests, at, tc.want)
			}
		})
	}
}
