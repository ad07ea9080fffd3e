package forward

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"callserver/sfu/codec"

	"pgregory.net/rapid"
)

// studio is a simulcast publisher behind a bad network: packets are lost, come late or twice.
type studio struct {
	*world
	rand      *rand.Rand
	cameras   []camera
	flight    []flying          // packets on their way
	origin    map[uint32]flying // by the id in the payload
	stopped   [maxStreams]bool  // by dynacast
	sinks     []*Sink
	receivers []*receiver
}

type flying struct {
	pkt
	id      uint32
	stream  int8
	frame   uint32 // running number of the frame
	tid     uint8
	capture time.Time
	arrives time.Time
}

// tick captures one frame with every camera and delivers what has arrived by then.
func (s *studio) tick(lossy bool, frame uint32) {
	for i := range s.cameras {
		if s.stopped[i] {
			s.cameras[i].ts += 3000
			continue
		}
		key := s.publisher.requests[i] > 0 || s.cameras[i].frames == 0
		s.publisher.requests[i] = 0
		s.cameras[i].size = 1 + s.rand.IntN(4)
		for _, d := range s.cameras[i].frame(key) {
			v, _ := codec.ParseVP8(d.payload)
			f := flying{pkt: d, id: uint32(len(s.origin) + 1), stream: int8(i), frame: frame, tid: v.Temporal, capture: s.now, arrives: s.now}
			f.payload = binary.BigEndian.AppendUint32(f.payload, f.id)
			s.origin[f.id] = f
			s.send(f, lossy)
		}
	}
	s.wait(ms(33))
	s.deliver()
}

func (s *studio) send(f flying, lossy bool) {
	switch fate := s.rand.IntN(100); {
	case !lossy:
	case fate < 5: // lost
		return
	case fate < 15:
		f.arrives = f.arrives.Add(ms(1 + s.rand.IntN(150)))
	case fate < 20: // twice
		s.flight = append(s.flight, f)
	}
	s.flight = append(s.flight, f)
}

func (s *studio) deliver() {
	slices.SortStableFunc(s.flight, func(a, b flying) int { return a.arrives.Compare(b.arrives) })
	for len(s.flight) > 0 && !s.flight[0].arrives.After(s.now) {
		f := s.flight[0]
		s.flight = s.flight[1:]
		s.Source.Push(Layer{Spatial: f.stream}, f.packet(s.world.TB), s.now)
	}
}

func newStudio(t *rapid.T, tb testing.TB) *studio {
	s := &studio{world: newWorld(tb, SourceOptions{Codec: codec.VP8, Video: true, Spatials: 3}), origin: map[uint32]flying{}}
	s.rand = rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	for i := range 3 {
		s.cameras = append(s.cameras, camera{
			ssrc: uint32(i + 1), layers: rapid.IntRange(1, 3).Draw(t, "temporal layers"), narrow: rapid.Bool().Draw(t, "7-bit picture ids"),
			seq: rapid.Uint16().Draw(t, "seq"), ts: rapid.Uint32().Draw(t, "ts"), picture: rapid.Uint16().Draw(t, "picture"),
			tl0: rapid.Uint8().Draw(t, "tl0"), keyidx: rapid.Uint8().Draw(t, "keyidx"),
		})
	}
	return s
}

func (s *studio) attach() {
	r := new(receiver)
	s.receivers = append(s.receivers, r)
	s.sinks = append(s.sinks, s.Attach(r, SinkOptions{Target: s.layer()}))
}

func (s *studio) layer() Layer { return Layer{int8(s.rand.IntN(3)), int8(s.rand.IntN(4))} }

// reports sends what browsers send for each stream: the same wall clock for all.
func (s *studio) reports() {
	for i := range s.cameras {
		s.SenderReport(Layer{Spatial: int8(i)}, ntpDuration(s.now.Sub(start)+time.Hour), s.cameras[i].ts, s.now)
	}
}

// TestContinuity drives random loss, reordering, duplicates, layer changes, pauses and stopped streams, and checks what each receiver got.
func TestContinuity(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		name := map[bool]string{false: "lossless", true: "lossy"}[lossy]
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				s := newStudio(rt, t)
				s.attach()
				for frame := range uint32(60) {
					s.act()
					s.tick(lossy, frame)
				}
				for _, r := range s.receivers {
					s.check(rt, r.take(), lossy)
				}
			})
		})
	}
}

// act lets something happen.
func (s *studio) act() {
	k := s.sinks[s.rand.IntN(len(s.sinks))]
	switch s.rand.IntN(26) {
	case 0:
		if len(s.sinks) < 3 {
			s.attach()
		}
	case 1, 2, 3:
		k.SetTarget(s.layer())
	case 4:
		k.SetTarget(NoLayer)
	case 5:
		k.RequestKeyFrame(s.now)
	case 6, 7, 8:
		s.reports()
	case 9:
		i := s.rand.IntN(3)
		s.stopped[i] = !s.stopped[i]
		s.cameras[i].frames = 0 // goes on with a key frame
	}
}

// check checks what one receiver got.
func (s *studio) check(t *rapid.T, gs []got, lossy bool) {
	if len(gs) == 0 {
		return
	}
	first := gs[0].SequenceNumber
	slices.SortStableFunc(gs, func(a, b got) int { return int(int16(a.SequenceNumber-first)) - int(int16(b.SequenceNumber-first)) })
	ids := map[uint32]bool{}
	missing := 0
	var last got // the last with a payload
	var began flying
	for i, g := range gs {
		if i > 0 {
			gap := int(g.SequenceNumber-gs[i-1].SequenceNumber) - 1
			if gap < 0 {
				t.Fatalf("packet %d: sequence number %d twice", i, g.SequenceNumber)
			}
			missing += gap
		}
		if g.Padding > 0 {
			if missing++; !lossy {
				t.Fatalf("packet %d: padding without loss", i)
			}
			continue
		}
		id := binary.BigEndian.Uint32(g.bytes[len(g.bytes)-4:])
		source := s.origin[id]
		if ids[id] {
			t.Fatalf("packet %d: publisher's packet %d forwarded twice", i, id)
		}
		ids[id] = true
		d, v := s.mustParse(t, g.bytes), s.mustParse(t, source.payload)
		if string(g.bytes[d.Size:]) != string(source.payload[v.Size:]) || g.Marker != source.marker {
			t.Fatalf("packet %d: got %x marker %t, publisher sent %x marker %t", i, g.bytes, g.Marker, source.payload, source.marker)
		}
		if last.bytes != nil {
			if missing > 0 && !lossy {
				t.Fatalf("packet %d: %d sequence numbers missing, none was lost", i, missing)
			}
			s.checkStep(t, i, last, g, missing)
		}
		if began.id == 0 {
			began = source
		}
		drift := ms(int(int32(g.Timestamp-gs[0].Timestamp))/90) - source.capture.Sub(began.capture)
		if most := map[bool]time.Duration{false: ms(40), true: ms(300)}[lossy]; drift.Abs() > most {
			t.Fatalf("packet %d: %v off the time it was captured", i, drift)
		}
		last, missing = g, 0
	}
	if !lossy {
		s.checkWhole(t, ids)
	}
}

// checkStep checks two packets that follow each other, with so many missing in between.
func (s *studio) checkStep(t *rapid.T, i int, before, now got, missing int) {
	a, b := s.mustParse(t, before.bytes), s.mustParse(t, now.bytes)
	if d := int32(now.Timestamp - before.Timestamp); d < 0 || b.Start && d == 0 {
		t.Fatalf("packet %d: timestamp moves by %d, new frame %t", i, d, b.Start)
	}
	step := int(b.PictureID-a.PictureID) & 0x7fff
	if !a.Wide {
		step = int(b.PictureID-a.PictureID) & 0x7f
		if a.PictureID&0x7f != a.PictureID || b.Wide && b.PictureID > a.PictureID+uint16(missing)+1 {
			t.Fatalf("packet %d: picture id %d after %d, growing to 15 bits", i, b.PictureID, a.PictureID)
		}
	} else if !b.Wide {
		t.Fatalf("packet %d: picture id has 7 bits again", i)
	}
	if most := missing + 1; step > most {
		t.Fatalf("packet %d: picture id %d after %d with %d packets missing", i, b.PictureID, a.PictureID, missing)
	}
	if b.Start && step == 0 {
		t.Fatalf("packet %d: new frame has the old picture id %d", i, b.PictureID)
	}
	if d := int(b.TL0 - a.TL0); d > missing+1 {
		t.Fatalf("packet %d: TL0PICIDX %d after %d with %d packets missing", i, b.TL0, a.TL0, missing)
	}
}

// checkWhole checks that no frame was forwarded in part, except the one that a layer switch or a pause cut short.
func (s *studio) checkWhole(t *rapid.T, ids map[uint32]bool) {
	type key struct {
		stream int8
		frame  uint32
	}
	sent, all := map[key]int{}, map[key]int{}
	for id, f := range s.origin {
		k := key{f.stream, f.frame}
		all[k]++
		if ids[id] {
			sent[k]++
		}
	}
	for k, n := range sent {
		if n != all[k] {
			t.Fatalf("stream %d frame %d: %d of %d packets forwarded", k.stream, k.frame, n, all[k])
		}
	}
}

func (s *studio) mustParse(t *rapid.T, b []byte) codec.VP8Descriptor {
	d, err := codec.ParseVP8(b)
	if err != nil {
		t.Fatalf("descriptor of %x: %v", b, err)
	}
	return d
}
