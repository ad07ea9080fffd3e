package relay

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/forward"
	"callserver/sfu/frame"
	"callserver/sfu/framecrypto"
	"callserver/sfu/packet"
)

// world is a stage, and the time.
type world struct {
	testing.TB
	now   time.Time
	codec codec.Codec
	stage *Stage
	deaf  bool
	out   []out
}

// out is a packet of the stage's receiver.
type out struct {
	seq     uint16
	time    uint32
	picture uint16
	key     bool
	marker  bool
	body    string
}

func newWorld(t testing.TB, c codec.Codec) *world {
	w := &world{TB: t, now: time.Unix(1000, 0), codec: c}
	w.stage = New(forward.NewSource(forward.SourceOptions{Codec: c, Video: c.Video()}), func() time.Time { return w.now })
	w.stage.Source().Attach(w, forward.SinkOptions{Target: forward.MaxTemporal(0)})
	return w
}

// WriteRTP implements forward.Writer.
func (w *world) WriteRTP(o *forward.Outgoing) error {
	if w.deaf {
		return nil
	}
	p := out{seq: o.SequenceNumber, time: o.Timestamp, marker: o.Marker, body: string(o.Payload)}
	if w.codec == codec.VP8 {
		if d, err := codec.ParseVP8(append(slices.Clone(o.Head), o.Payload...)); err == nil {
			p.picture, p.key = d.PictureID, d.KeyFrame
		}
	}
	w.out = append(w.out, p)
	return nil
}

// track is a published track, of which there may be several.
type track struct {
	w        *world
	source   *forward.Source
	sequence uint16
	time     uint32
	picture  uint16
	asked    int
	sealer   *framecrypto.Sealer
}

func (t *track) RequestKeyFrame(int8) { t.asked++ }
func (t *track) Await()               {}

func (w *world) track(sequence uint16, time uint32) *track {
	t := &track{w: w, sequence: sequence, time: time, picture: sequence,
		source: forward.NewSource(forward.SourceOptions{Codec: w.codec, Video: w.codec.Video()})}
	t.source.SetUpstream(t)
	return t
}

// onto makes the track's feed, and has it take over.
func (t *track) onto(f *Feed) *Feed {
	t.w.stage.Cut(f)
	f.From(t.source.Attach(f, forward.SinkOptions{Target: forward.MaxTemporal(0)}))
	return f
}

// send sends a frame, in packets of a size; those of which drop says so are lost.
func (t *track) send(key bool, body string, drop func(i int) bool) {
	t.w.Helper()
	data := []byte(body)
	if t.w.codec.Video() {
		t.time += 3000
		t.picture++
		data = append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0}, body...)
		if key {
			data[0] = 0
		}
	} else {
		t.time += 960
	}
	if t.sealer != nil {
		var err error
		if data, err = t.sealer.Seal(nil, data, t.time, key); err != nil {
			t.w.Fatal(err)
		}
	}
	if !t.w.codec.Video() {
		t.push(data, false, drop != nil && drop(0))
		return
	}
	s := frame.NewSplitter(t.w.codec)
	s.Start(&frame.Frame{Head: []byte{0x90, 0x80, 0x80 | byte(t.picture>>8), byte(t.picture)}, Data: data})
	for i := 0; ; i++ {
		payload, last, ok := s.Next(nil)
		if !ok {
			return
		}
		t.push(payload, last, drop != nil && drop(i))
	}
}

func (t *track) push(payload []byte, marker, lost bool) {
	p := packet.Get(packet.Capacity)
	p.SSRC, p.SequenceNumber, p.Timestamp, p.Marker = 77, t.sequence, t.time, marker
	p.Payload = p.Buffer()[:copy(p.Buffer(), payload)]
	t.sequence++
	if lost {
		p.Release()
		return
	}
	t.source.Push(forward.Layer{}, p, t.w.now)
}

func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.stage.Tick(w.now)
}

// continuous checks that the receiver saw one stream.
func (w *world) continuous(holes int) {
	w.Helper()
	for i := 1; i < len(w.out); i++ {
		a, b := w.out[i-1], w.out[i]
		if missing := int(b.seq - a.seq - 1); missing > 0 {
			holes -= missing
		} else if missing < 0 {
			w.Errorf("packet %d after %d", b.seq, a.seq)
		}
		if int32(b.time-a.time) < 0 {
			w.Errorf("time %d after %d", b.time, a.time)
		}
	}
	if holes != 0 {
		w.Errorf("%d holes more than there are in %+v", holes, w.out)
	}
}

func (w *world) bodies() string {
	var list []string
	for _, p := range w.out {
		list = append(list, strings.Trim(p.body, "\x00\x01"))
	}
	return strings.Join(list, " ")
}

// A cut is made at once for sound, at a key frame for a picture.
func TestCut(t *testing.T) {
	for _, tc := range []struct {
		name  string
		codec codec.Codec
		play  func(w *world, a, b *track)
		want  string
	}{
		{"sound", codec.Opus, func(w *world, a, b *track) {
			a.onto(w.stage.Pass())
			a.send(false, "a1", nil)
			b.onto(w.stage.Pass())
			b.send(false, "b1", nil)
			a.send(false, "a2", nil)
			b.send(false, "b2", nil)
		}, "a1 b1 b2"},
		{"a picture waits for its key frame", codec.VP8, func(w *world, a, b *track) {
			a.onto(w.stage.Pass())
			a.send(true, "a1", nil)
			b.onto(w.stage.Pass())
			b.send(false, "b1", nil)
			a.send(false, "a2", nil)
			b.send(true, "b2", nil)
			a.send(false, "a3", nil)
			b.send(false, "b3", nil)
		}, "a1 a2 b2 b3"},
		{"a cut that is taken back", codec.VP8, func(w *world, a, b *track) {
			first := a.onto(w.stage.Pass())
			a.send(true, "a1", nil)
			b.onto(w.stage.Pass())
			w.stage.Cut(first)
			b.send(true, "b1", nil)
			a.send(false, "a2", nil)
		}, "a1 a2"},
		{"to nothing, and back", codec.VP8, func(w *world, a, b *track) {
			first := a.onto(w.stage.Pass())
			a.send(true, "a1", nil)
			w.stage.Cut(nil)
			a.send(false, "a2", nil)
			w.stage.Cut(first)
			a.send(false, "a3", nil) // goes on where it was: nothing else was shown
		}, "a1 a3"},
		{"there and back", codec.VP8, func(w *world, a, b *track) {
			a.onto(w.stage.Pass())
			a.send(true, "a1", nil)
			b.onto(w.stage.Pass())
			b.send(true, "b1", nil)
			a.onto(w.stage.Pass())
			a.send(true, "a2", nil)
			b.send(true, "b2", nil)
		}, "a1 b1 a2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, tc.codec)
			a, b := w.track(65530, 1<<31-5), w.track(200, 7)
			w.now = w.now.Add(time.Second)
			tc.play(w, a, b)
			if got := w.bodies(); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			if !strings.Contains(tc.want, "a3") {
				w.continuous(0)
				for i := 1; i < len(w.out) && tc.codec == codec.VP8; i++ {
					if w.out[i].picture != w.out[i-1].picture+1 {
						t.Errorf("picture %d after %d", w.out[i].picture, w.out[i-1].picture)
					}
				}
			}
		})
	}
}

// Requests for key frames go to whom is shown, and to whom is to be.
func TestKeyFrames(t *testing.T) {
	w := newWorld(t, codec.VP8)
	a, b := w.track(1, 1), w.track(2, 2)
	a.send(true, "a0", nil)
	b.send(true, "b0", nil)
	w.pass(time.Second)
	a.onto(w.stage.Pass())
	if a.asked != 1 {
		t.Errorf("asked %d times for the first picture", a.asked)
	}
	a.send(true, "a1", nil)
	w.pass(time.Second)
	b.onto(w.stage.Pass())
	if b.asked != 1 {
		t.Errorf("asked %d times for the picture to cut to", b.asked)
	}
	before := a.asked
	w.stage.RequestKeyFrame(0)
	if a.asked != before+1 || b.asked != 1 {
		t.Errorf("asked %d and %d times for the receiver", a.asked-before, b.asked-1)
	}
	w.stage.Cut(nil)
	w.stage.RequestKeyFrame(0) // of nobody
}

func keyring(t testing.TB, index uint8) *framecrypto.Keys {
	t.Helper()
	k := &framecrypto.Keys{}
	if err := k.Set(index, bytes.Repeat([]byte{index + 1}, 16)); err != nil {
		t.Fatal(err)
	}
	if err := k.Use(index); err != nil {
		t.Fatal(err)
	}
	return k
}

// What clients seal is opened, and what is not whole, or no key opens, does not come through.
func TestOpen(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for _, c := range []codec.Codec{codec.Opus, codec.VP8} {
		w := newWorld(t, c)
		keys := &framecrypto.Keys{}
		a := w.track(65530, 90000)
		a.sealer = framecrypto.NewSealer(keyring(t, 3), sealed[c], 1)
		feed := a.onto(w.stage.Open(keys))
		a.send(true, "keyless", nil)
		if err := keys.Set(3, bytes.Repeat([]byte{4}, 16)); err != nil {
			t.Fatal(err)
		}
		a.asked = 0
		w.pass(time.Second)
		w.stage.RequestKeyFrame(0)
		if a.asked != 0 {
			t.Errorf("%v: asked %d times without a key", c, a.asked)
		}
		feed.Keyed()
		if c.Video() != (a.asked == 1) {
			t.Errorf("%v: asked %d times with the key", c, a.asked)
		}
		a.send(false, "delta", nil)
		if c.Video() && len(w.out) > 0 {
			t.Error("a picture that cannot be decoded came through")
		}
		w.out = nil
		a.send(true, "one", nil)
		if !c.Video() {
			a.send(false, "two", nil)
		} else {
			a.send(false, long, nil)
		}
		a.send(false, "three", nil)
		want := "onetwothree"
		if c.Video() {
			want = "one" + long + "three"
		}
		if got := strings.ReplaceAll(w.bodies(), " ", ""); got != want {
			t.Errorf("%v: %d bytes, want %d: %.100s", c, len(got), len(want), got)
		}
		w.continuous(0)
		if s := w.stage.Stats(); s.Keyless != 1 || s.Forged+s.Dropped != 0 {
			t.Errorf("%v: %+v", c, s)
		}
		a.sealer = framecrypto.NewSealer(keyring(t, 9), sealed[c], 1)
		if err := keys.Set(9, bytes.Repeat([]byte{1}, 16)); err != nil {
			t.Fatal(err)
		}
		n := len(w.out)
		a.send(true, "forged", nil)
		if s := w.stage.Stats(); s.Forged != 1 || len(w.out) != n {
			t.Errorf("%v: %+v, %d packets of a forged frame", c, s, len(w.out)-n)
		}
		feed.Close()
	}
}

// A sender takes up a new key a while after it was told: what it sent meanwhile, a key frame too, is sealed with the one before. The first picture
// is asked for once its key is in use.
func TestOpenLateKey(t *testing.T) {
	w := newWorld(t, codec.VP8)
	before, after := keyring(t, 0), keyring(t, 1)
	keys := &framecrypto.Keys{}
	a := w.track(1, 90000)
	a.sealer = framecrypto.NewSealer(before, sealed[codec.VP8], 1)
	feed := a.onto(w.stage.Open(keys))
	a.send(true, "old", nil)
	if err := keys.Set(1, bytes.Repeat([]byte{2}, 16)); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Second)
	feed.Keyed()
	a.send(true, "asked for, and old", nil)
	w.pass(time.Second)
	a.asked = 0
	a.send(false, "old, too", nil)
	if a.asked != 0 {
		t.Errorf("asked %d times for what cannot be opened", a.asked)
	}
	a.sealer = framecrypto.NewSealer(after, sealed[codec.VP8], 2)
	w.pass(time.Second)
	a.send(false, "new", nil)
	if a.asked != 1 {
		t.Errorf("asked %d times with the key in use, want once", a.asked)
	}
	a.send(true, "picture", nil)
	if got := w.bodies(); !strings.Contains(got, "picture") || strings.Contains(got, "old") || strings.Contains(got, "new") {
		t.Errorf("got %q", got)
	}
}

// A frame with a missing packet is dropped as a whole, the receiver is to know, and a key frame is asked for.
func TestOpenLoss(t *testing.T) {
	w := newWorld(t, codec.VP8)
	a := w.track(1, 1)
	a.sealer = framecrypto.NewSealer(keyring(t, 0), framecrypto.VP8, 1)
	a.onto(w.stage.Open(keyring(t, 0)))
	a.send(true, "one", nil)
	a.send(false, strings.Repeat("x", 3000), func(i int) bool { return i == 1 })
	a.send(false, "two", nil)
	if got := w.bodies(); got != "one" {
		t.Errorf("%s before what is missing", got)
	}
	a.asked = 0
	for range 30 {
		w.pass(50 * time.Millisecond)
	}
	if got := w.bodies(); got != "one two" {
		t.Errorf("%s after what is missing", got)
	}
	w.continuous(1)
	if s := w.stage.Stats(); s.Dropped != 1 || a.asked == 0 {
		t.Errorf("%+v, asked %d times", s, a.asked)
	}
}

// What we seal our clients can open, and without a key nothing leaves.
func TestSeal(t *testing.T) {
	for _, c := range []codec.Codec{codec.Opus, codec.VP8} {
		w := newWorld(t, c)
		own := &framecrypto.Keys{}
		a := w.track(1, 1)
		a.onto(w.stage.Seal(own, 5))
		a.send(true, "keyless", nil)
		if len(w.out) > 0 {
			t.Fatalf("%v: published in the clear: %+v", c, w.out)
		}
		if err := own.Set(0, bytes.Repeat([]byte{1}, 16)); err != nil {
			t.Fatal(err)
		}
		if err := own.Use(0); err != nil {
			t.Fatal(err)
		}
		a.send(true, "words", nil)
		opener := framecrypto.NewOpener(keyring(t, 0), sealed[c])
		if len(w.out) != 1 {
			t.Fatalf("%v: %d packets", c, len(w.out))
		}
		plain, err := opener.Open(nil, []byte(w.out[0].body), true)
		if err != nil || !strings.HasSuffix(string(plain), "words") || strings.Contains(w.out[0].body, "words") {
			t.Errorf("%v: opened %q, %v", c, plain, err)
		}
	}
}

// The clock of what is shown is passed on.
func TestReport(t *testing.T) {
	w := newWorld(t, codec.Opus)
	sink := w.stage.Source().Attach(w, forward.SinkOptions{})
	a := w.track(1, 1)
	w.stage.Report(w.now) // nothing is shown
	a.onto(w.stage.Pass())
	a.send(false, "x", nil)
	w.stage.Report(w.now) // nothing is known
	if _, ok := sink.SenderReport(w.now); ok {
		t.Error("a clock out of nothing")
	}
	a.source.SenderReport(forward.Layer{}, 1<<40, a.time, w.now)
	w.stage.Report(w.now)
	if sr, ok := sink.SenderReport(w.now); !ok || sr.NTPTime != 1<<40 || sr.RTPTime != a.time {
		t.Errorf("clock %+v, %v; want %d", sr, ok, a.time)
	}
}

func TestAllocations(t *testing.T) {
	for _, c := range []codec.Codec{codec.Opus, codec.VP8} {
		w := newWorld(t, c)
		a := w.track(1, 1)
		a.onto(w.stage.Open(keyring(t, 0)))
		sealer := framecrypto.NewSealer(keyring(t, 0), sealed[c], 1)
		body, sent := []byte(strings.Repeat("x", 900)), []byte(nil)
		a.sealer = sealer
		a.send(true, "begin", nil)
		w.deaf = true
		once := func() {
			a.time += 3000
			sent = sent[:0]
			if c.Video() {
				sent = append(sent, 0x90, 0x80, 0x81, byte(a.time/3000))
			}
			var err error
			if sent, err = sealer.Seal(sent, body, a.time, false); err != nil {
				t.Fatal(err)
			}
			a.push(sent, true, false)
		}
		for range 1500 { // until the histories are full
			once()
		}
		n := testing.AllocsPerRun(500, once)
		if n > 0.5 && !raceEnabled { // the pools may be emptied now and then
			t.Errorf("%v: %v allocations a frame", c, n)
		}
	}
}
