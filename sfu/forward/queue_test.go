package forward

import (
	"errors"
	"testing"
	"time"

	"callserver/sfu/codec"
)

// TestQueueIsReckonedWith: what is sent again arrives when the queue has passed, and what is asked for until then is not sent once more.
func TestQueueIsReckonedWith(t *testing.T) {
	for _, o := range []SourceOptions{{Codec: codec.VP8, Video: true}, {Codec: codec.Opus}} {
		w := newWorld(t, o)
		var r receiver
		k := w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
		if o.Video {
			c := camera{ssrc: 1}
			w.push(0, c.frame(true)...)
		} else {
			w.push(0, opus(1, 960))
		}
		first := seqs(r.take())[:1]
		k.SetWait(ms(500))
		for at := range 10 { // asked for ten times in a second
			k.Nack(first, w.now)
			want := 0
			if at == 0 || at == 6 || at == 8 { // 500 and then 100 ms and most of a round trip later
				want = 1
			}
			if n := len(r.take()); n != want {
				t.Errorf("%v: sent again %d times after %d ms, want %d", o.Codec, n, 100*at, want)
			}
			if at == 5 {
				k.SetWait(ms(100)) // what was sent before takes as long as it was to
			}
			w.wait(ms(100))
		}

		r.err = errors.New("too much is sent again")
		w.wait(ms(300))
		k.Nack(first, w.now)
		r.take()
		r.err = nil
		w.wait(ms(20))
		k.Nack(first, w.now)
		if n := len(r.take()); n != 1 {
			t.Errorf("%v: after the line did not take it it was sent %d times, want 1", o.Codec, n)
		}
	}
}

// TestCutIntoQueue: the key frame that takes over after a Cut is asked for when the queue is no longer full.
func TestCutIntoQueue(t *testing.T) {
	for _, tc := range []struct{ wait, least, most time.Duration }{
		{0, 0, ms(40)}, {ms(150), 0, ms(40)}, {ms(500), ms(340), ms(420)}, {ms(2000), ms(890), ms(970)},
	} {
		cs := newCameras(t, 1)
		var r receiver
		k := cs.Attach(&r, SinkOptions{Target: MaxTemporal(2), RTX: true})
		cs.run(60)
		k.SetWait(tc.wait)
		r.take()
		k.Cut(MaxTemporal(0))
		cut := cs.now
		for len(r.take()) == 0 && cs.now.Sub(cut) < 2*time.Second {
			cs.run(1)
			cs.Nacks(0, cs.now)
		}
		if d := cs.now.Sub(cut); d < tc.least || d > tc.most+ms(33) {
			t.Errorf("waiting %v: the lower layer begins after %v, want %v to %v", tc.wait, d, tc.least, tc.most)
		}
	}
}
