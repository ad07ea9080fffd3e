package forward

import (
	"slices"
	"testing"
	"time"

	"callserver/sfu/codec"

	"github.com/google/go-cmp/cmp"
)

// TestKeyFrameRequests counts what reaches the publisher, in milliseconds since the start.
func TestKeyFrameRequests(t *testing.T) {
	for _, c := range []struct {
		name string
		rtt  time.Duration
		keys []int // when key frames come
		ask  []int // when a receiver asks
		want []int
	}{
		{"at once", 0, nil, []int{10}, []int{10, 210}},
		{"repeated until it comes", ms(20), []int{300}, []int{0}, []int{0, 200}},
		{"twice a second at most", ms(20), nil, []int{0, 100, 300}, []int{0, 200}},
		{"slow path", ms(200), nil, []int{0}, []int{0, 400}},
		{"shared while under way", 0, []int{150}, []int{0, 50, 100}, []int{0}},
		{"after one that was answered", 0, []int{60, 560}, []int{0, 180}, []int{0, 500}},
		{"long after one that was answered", 0, []int{60, 760}, []int{0, 700}, []int{0, 700}},
		{"a burst of joiners", 0, []int{40, 540}, []int{0, 20, 60, 80, 200, 400, 620, 700}, []int{0, 500}},
		{"just delivered", 0, []int{100}, []int{110}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true})
			w.SetRTT(c.rtt)
			var r receiver
			v := camera{ssrc: 1}
			k := w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
			w.push(0, v.frame(true)...)
			w.publisher.take()
			w.wait(time.Minute) // nothing of this counts
			began := w.now
			var got []int
			for at := 0; at < 1000; at += 10 {
				w.now = began.Add(ms(at))
				for _, n := range c.ask {
					if n == at {
						k.RequestKeyFrame(w.now)
					}
				}
				key := false
				for _, n := range c.keys {
					key = key || n == at
				}
				w.push(0, v.frame(key)...)
				w.Nacks(0, w.now)
				if n := w.publisher.take()[0]; n > 0 {
					got = append(got, at)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("requests at (-want +got):\n%s", d)
			}
			if n := w.Source.Stats().Layers[0].Requests; n < uint64(len(got)) {
				t.Errorf("%d requests counted, want at least %d", n, len(got))
			}
		})
	}
}

// TestJoinersWaitForKeyFrames has receivers arrive for ten seconds, 40 a second: none waits for its first key frame much longer than half a
// second, and the publisher makes two a second.
func TestJoinersWaitForKeyFrames(t *testing.T) {
	const answer = 3 // frames of 10 ms from request to key frame
	w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true})
	v := camera{ssrc: 1}
	w.push(0, v.frame(true)...)
	w.wait(time.Minute)
	var requests, inFlight int
	waiting := map[*Sink]time.Time{}
	var waits []time.Duration
	for n := range 1000 {
		if n%5 == 0 || n%5 == 2 { // 40 a second
			waiting[w.Attach(&receiver{}, SinkOptions{Target: MaxTemporal(0)})] = w.now
		}
		key := inFlight == 1
		inFlight = max(inFlight-1, 0)
		w.push(0, v.frame(key)...)
		w.Nacks(0, w.now)
		if got := w.publisher.take()[0]; got > 0 {
			requests += got
			inFlight = answer
		}
		for k, since := range waiting {
			if k.Current() != NoLayer {
				waits = append(waits, w.now.Sub(since))
				delete(waiting, k)
			}
		}
		w.wait(ms(10))
	}
	slices.Sort(waits)
	if longest, median := waits[len(waits)-1], waits[len(waits)/2]; longest > ms(550) || median > ms(300) {
		t.Errorf("waited %v at most, %v in the median", longest, median)
	}
	if requests > 21 || requests < 20 {
		t.Errorf("%d requests in ten seconds", requests)
	}
}

func TestSilentStreamIsNotAskedForEver(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true})
	v := camera{ssrc: 1}
	w.push(0, v.frame(true)...)
	var r receiver
	k := w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
	total := w.publisher.take()[0]
	for range 6000 {
		w.wait(ms(10))
		w.Nacks(0, w.now)
		total += w.publisher.take()[0]
	}
	if total != maxKeyFrameRetries {
		t.Errorf("%d requests in a minute of silence, want %d", total, maxKeyFrameRetries)
	}
	w.push(0, v.frame(false)...)
	if n := w.publisher.take()[0]; n != 1 {
		t.Errorf("%d requests when it goes on, want 1", n)
	}
	k.Detach()
	for range 200 {
		w.wait(ms(10))
		w.Nacks(0, w.now)
	}
	if n := w.publisher.take()[0]; n != 0 {
		t.Errorf("%d requests for nobody", n)
	}
}

// TestAwait: who asks for key frames hears that one is outstanding though it is not to be asked for yet, and no packet comes.
func TestAwait(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true})
	v := camera{ssrc: 1}
	w.push(0, v.frame(true)...)
	if w.Waits() || w.awaited > 0 {
		t.Fatalf("waits: %v, told %d times, before anybody does", w.Waits(), w.awaited)
	}
	w.Attach(&receiver{}, SinkOptions{Patience: time.Second})
	if n := w.publisher.take()[0]; n > 0 || !w.Waits() || w.awaited == 0 {
		t.Errorf("%d requests, waits: %v, told %d times", n, w.Waits(), w.awaited)
	}
}

func TestUpstreamComesLater(t *testing.T) {
	s := NewSource(SourceOptions{Codec: codec.VP8, Video: true})
	w := &world{TB: t, Source: s, now: start}
	var r receiver
	w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
	v := camera{ssrc: 1}
	w.push(0, v.frame(true)[1:]...)
	w.push(0, v.frame(false)...)
	s.SetUpstream(&w.publisher)
	if n := w.publisher.take()[0]; n != 1 {
		t.Errorf("%d requests once there is somebody to ask, want 1", n)
	}
}
