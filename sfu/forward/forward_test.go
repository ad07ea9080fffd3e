package forward

import (
	"testing"
	"time"

	"callserver/sfu/codec"

	"github.com/google/go-cmp/cmp"
)

func opus(seq uint16, ts uint32) pkt {
	return pkt{seq: seq, ts: ts, ssrc: 1, payload: []byte{0xfc, byte(seq)}}
}

func TestAudioPassesThrough(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.Opus})
	var r receiver
	k := w.Attach(&r, SinkOptions{})
	for i := range 5 {
		w.push(0, opus(uint16(65534+i), uint32(960*i)))
		w.wait(ms(20))
	}
	gs := r.take()
	if len(gs) != 5 {
		t.Fatalf("got %d packets, want 5", len(gs))
	}
	for i, g := range gs {
		if want := gs[0].SequenceNumber + uint16(i); g.SequenceNumber != want {
			t.Errorf("packet %d: sequence number %d, want %d", i, g.SequenceNumber, want)
		}
		if want := uint32(960 * i); g.Timestamp != want {
			t.Errorf("packet %d: timestamp %d, want %d", i, g.Timestamp, want)
		}
		if want := []byte{0xfc, byte(65534 + i)}; string(g.bytes) != string(want) {
			t.Errorf("packet %d: payload %x, want %x", i, g.bytes, want)
		}
	}
	if c := k.Current(); c != MaxTemporal(0) {
		t.Errorf("current layer %v, want %v", c, MaxTemporal(0))
	}
}

func TestVideoBeginsAtKeyFrame(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true})
	c := camera{ssrc: 7, seq: 100, size: 2}
	w.push(0, c.frame(true)...)
	var r receiver
	k := w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
	if n := w.take(); n[0] != 1 {
		t.Fatalf("%d key frame requests at once, want 1", n[0])
	}
	w.wait(ms(33))
	w.push(0, c.frame(false)...)
	if gs := r.take(); len(gs) != 0 || k.Current() != NoLayer {
		t.Fatalf("got %d packets and layer %v before a key frame, want none", len(gs), k.Current())
	}
	w.wait(ms(33))
	w.push(0, c.frame(true)...)
	if gs := r.take(); len(gs) != 2 || !parsed(t, gs[0]).KeyFrame {
		t.Fatalf("got %d packets, want the 2 of the key frame", len(gs))
	}
	if n := w.take(); n[0] != 0 {
		t.Errorf("%d more key frame requests, want none", n[0])
	}
}

func TestSimulcastSwitch(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true, Spatials: 2})
	low, high := camera{ssrc: 1, seq: 65530, ts: 1000, picture: 100}, camera{ssrc: 2, seq: 10, ts: 500000, picture: 9000, tl0: 77, keyidx: 9, size: 2}
	var r receiver
	k := w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
	both := func(n int, key int8) {
		for i := range n {
			w.push(0, low.frame(i == 0 && key == 0)...)
			w.push(1, high.frame(i == 0 && key == 1)...)
			w.wait(ms(33))
		}
	}
	both(5, 0)
	k.SetTarget(MaxTemporal(1))
	if n := w.take(); n != [3]int{0, 1, 0} {
		t.Fatalf("key frame requests %v after asking for the high stream, want one for it", n)
	}
	both(3, -1)
	if k.Current().Spatial != 0 {
		t.Fatalf("current %v before the key frame, want the old stream", k.Current())
	}
	both(4, 1)
	if k.Current().Spatial != 1 {
		t.Fatalf("current %v after the key frame, want the new stream", k.Current())
	}
	k.SetTarget(MaxTemporal(0))
	both(2, 0)
	if k.Current().Spatial != 0 {
		t.Fatalf("current %v, want the low stream again", k.Current())
	}
	checkContinuous(t, r.take(), 5+3+1+4*2+1+1)
}

// checkContinuous checks a run of packets without loss, of one stream as the receiver sees it.
func checkContinuous(t *testing.T, gs []got, want int) {
	t.Helper()
	if len(gs) != want {
		t.Errorf("got %d packets, want %d", len(gs), want)
	}
	for i := 1; i < len(gs); i++ {
		before, now := gs[i-1], gs[i]
		a, b := parsed(t, before), parsed(t, now)
		if now.SequenceNumber != before.SequenceNumber+1 {
			t.Errorf("packet %d: sequence number %d after %d", i, now.SequenceNumber, before.SequenceNumber)
		}
		newFrame := uint16(0)
		if b.Start {
			newFrame = 1
		}
		if b.PictureID != (a.PictureID+newFrame)&0x7fff {
			t.Errorf("packet %d: picture id %d after %d, new frame %t", i, b.PictureID, a.PictureID, b.Start)
		}
		if d := int32(now.Timestamp - before.Timestamp); d < 0 || b.Start && d == 0 || d > 3*3000 {
			t.Errorf("packet %d: timestamp moves by %d, new frame %t", i, d, b.Start)
		}
		if d := b.TL0 - a.TL0; d > 1 {
			t.Errorf("packet %d: TL0PICIDX %d after %d", i, b.TL0, a.TL0)
		}
		if d := (b.KeyIndex - a.KeyIndex) & 0x1f; d > 1 || d == 1 && !b.KeyFrame {
			t.Errorf("packet %d: KEYIDX %d after %d", i, b.KeyIndex, a.KeyIndex)
		}
	}
}

func TestNackIsAnsweredWithTheSameBytes(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true, Spatials: 2})
	low, high := camera{ssrc: 1, seq: 5, narrow: true, picture: 120}, camera{ssrc: 2, seq: 900, ts: 7, picture: 500}
	var r receiver
	k := w.Attach(&r, SinkOptions{Target: MaxTemporal(1)})
	for i := range 12 {
		w.push(0, low.frame(i == 0)...)
		if i > 5 {
			w.push(1, high.frame(i == 6)...)
		}
		w.wait(ms(33))
	}
	first := r.take()
	k.Nack(seqs(first), w.now)
	again := r.take()
	if len(again) != len(first) {
		t.Fatalf("%d packets sent again, want %d", len(again), len(first))
	}
	for i := range again {
		if !again[i].Retransmission {
			t.Errorf("packet %d is not marked as a retransmission", i)
		}
		again[i].Retransmission = false
		if d := cmp.Diff(first[i], again[i], cmp.AllowUnexported(got{})); d != "" {
			t.Errorf("packet %d differs the second time (-first +again):\n%s", i, d)
		}
	}

	seq := []uint16{first[3].SequenceNumber}
	for i := range 10 {
		for _, wait := range []time.Duration{ms(10), ms(60)} { // within a round trip of the last answer, and later
			w.wait(wait)
			k.Nack(seq, w.now)
			want := 0
			if wait > ms(10) && i+1 < maxResends {
				want = 1
			}
			if got := len(r.take()); got != want {
				t.Errorf("request %d, %v after the last: %d answers, want %d", i, wait, got, want)
			}
		}
	}
}

// TestHistoryOfNobody: a stream that nobody gets keeps its packets for as long as a receiver may be about to begin with it, without being told to forget.
func TestHistoryOfNobody(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.Opus})
	seq := uint16(0)
	held := func() (n int) {
		st := w.streams[0]
		for i := range uint16(audioHistory) {
			if p := st.history.Get(st.order.unwrapper.Unwrap(seq - i)); p != nil {
				p.Release()
				n++
			}
		}
		return n
	}
	talk := func(d time.Duration) {
		for end := w.now.Add(d); w.now.Before(end); w.wait(ms(20)) {
			seq++
			w.push(0, pkt{seq: seq, ts: uint32(seq) * 960, ssrc: 1, payload: []byte{0xf8}})
		}
	}
	k := w.Attach(&receiver{}, SinkOptions{})
	talk(3 * time.Second)
	if n := held(); n != 50 {
		t.Errorf("%d packets are kept of what somebody gets, want a second", n)
	}
	k.Detach()
	talk(3 * time.Second)
	if n := held(); n != 10 {
		t.Errorf("%d packets are kept of what nobody gets, want 200 ms", n)
	}
	w.wait(unforwardedAge)
	w.Expire(w.now)
	if n := held(); n > 0 {
		t.Errorf("%d packets are kept of a stream that stopped", n)
	}
}

// TestForgottenPacketsNeedAKeyFrame: a picture that misses what nobody has any more does not go on without one.
func TestForgottenPacketsNeedAKeyFrame(t *testing.T) {
	const frames = 90                           // three seconds
	for _, age := range []int{32, frames - 5} { // that only the history has forgotten, and the journal, too
		w := newWorld(t, SourceOptions{Codec: codec.VP8, Video: true})
		v := camera{ssrc: 1}
		var r receiver
		k := w.Attach(&r, SinkOptions{Target: MaxTemporal(0)})
		for i := range frames {
			w.push(0, v.frame(i == 0)...)
			w.wait(ms(33))
			w.Expire(w.now)
		}
		sent := seqs(r.take())
		forgotten := sent[len(sent)*(frames-age)/frames:][:3]
		if known := k.journal.find(forgotten[0]) != nil; known != (age == 32) {
			t.Fatalf("%d frames old: in the journal %t", age, known)
		}
		w.publisher.take()
		for _, c := range []struct {
			name string
			key  bool // a key frame comes before
			seqs []uint16
			want int
		}{
			{"at hand", false, sent[len(sent)-3:], 0},
			{"never sent", false, []uint16{sent[len(sent)-1] + 1000}, 0},
			{"forgotten", false, forgotten, 1},
			{"once more, before it can have come", false, forgotten, 0},
			{"it came", true, forgotten, 0},
		} {
			w.push(0, v.frame(c.key)...)
			k.Nack(c.seqs, w.now)
			if got := w.publisher.take()[0]; got != c.want {
				t.Errorf("%d frames old, %s: %d requests, want %d", age, c.name, got, c.want)
			}
			w.wait(ms(33))
		}
	}
}

// TestSoundIsSentAgain: what was sent of a sound is not noted, and found all the same, for as long as the run of it lasts.
func TestSoundIsSentAgain(t *testing.T) {
	w := newWorld(t, SourceOptions{Codec: codec.Opus})
	var r receiver
	k := w.Attach(&r, SinkOptions{})
	for _, seq := range []uint16{65530, 65531, 65534, 65532, 65535, 1, 2} { // one is late, 65533 and 0 are lost
		w.push(0, opus(seq, 960*uint32(seq+20)))
		w.wait(ms(20))
	}
	first := r.take()
	k.Nack(seqs(first), w.now)
	again := r.take()
	if len(first) != 7 || len(again) != len(first) {
		t.Fatalf("%d packets, and %d sent again, want 7 of each", len(first), len(again))
	}
	for i := range again {
		again[i].Retransmission = false
		if d := cmp.Diff(first[i], again[i], cmp.AllowUnexported(got{})); d != "" {
			t.Errorf("packet %d differs the second time (-first +again):\n%s", i, d)
		}
	}
	k.Nack(seqs(first), w.now.Add(ms(10)))
	if n := len(r.take()); n != 0 {
		t.Errorf("%d packets sent again within a round trip, want none", n)
	}

	last, before := first[len(first)-1].SequenceNumber, k.Stats().Unavailable
	k.Nack([]uint16{first[0].SequenceNumber - 1, last - 2, last + 1, last + 1<<15}, w.now)
	w.push(0, opus(3, 960*23))
	k.SetTarget(NoLayer)
	k.Nack([]uint16{last + 1}, w.now)
	k.SetTarget(MaxTemporal(0))
	w.push(0, opus(4, 960*24))
	k.Nack([]uint16{last + 1}, w.now)
	if gs := r.take(); len(gs) != 2 || gs[0].Retransmission || gs[1].Retransmission {
		t.Errorf("%+v: want the new packets alone", gs)
	}
	if n := k.Stats().Unavailable - before; n != 6 {
		t.Errorf("%d requests are counted that cannot be answered, want 6", n)
	}
}
