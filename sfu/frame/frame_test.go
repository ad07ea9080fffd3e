package frame

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"callserver/sfu/codec"
	"callserver/sfu/packet"
)

var start = time.Unix(1000, 0)

// sent is the packets of a stream as the test makes them.
type sent struct {
	codec    codec.Codec
	sequence uint16
	splitter *Splitter
}

func newSent(c codec.Codec, sequence uint16) *sent {
	return &sent{codec: c, sequence: sequence, splitter: NewSplitter(c)}
}

// packets splits a frame.
func (s *sent) packets(f *Frame) (list []*packet.Packet) {
	s.splitter.Start(f)
	for {
		p := packet.Get(packet.Capacity)
		payload, last, ok := s.splitter.Next(p.Buffer()[:0])
		if !ok {
			p.Release()
			return list
		}
		p.SequenceNumber, p.Timestamp, p.Payload, p.Marker = s.sequence, f.Timestamp, payload, last && f.Ends
		s.sequence++
		list = append(list, p)
	}
}

// picture is a frame of any codec.
func picture(c codec.Codec, timestamp uint32, key bool, body []byte) *Frame {
	f := &Frame{Timestamp: timestamp, Key: key, Ends: true}
	switch c {
	case codec.VP8:
		f.Head = []byte{0x90, 0x80, 0x81, byte(timestamp / 3000)}
		f.Data = append([]byte{1}, body...)
		if key {
			f.Data[0] = 0
		}
	case codec.VP9:
		f.Head = []byte{vp9ID | vp9Begin | vp9End, 0x81, byte(timestamp / 3000)}
		f.Data = body
		if !key {
			f.Head[0] |= vp9Predicted
		}
	case codec.H264:
		if key {
			f.Data = append(f.Data, "\x00\x00\x00\x01\x67\x42\xc0\x1f\x00\x00\x00\x01\x68\xce\x00\x00\x00\x01\x65"...)
		} else {
			f.Data = append(f.Data, "\x00\x00\x00\x01\x41"...)
		}
		f.Data = append(f.Data, body...)
	}
	return f
}

var codecs = []codec.Codec{codec.VP8, codec.VP9, codec.H264}

func drain(b *Builder, now time.Time) (list []*Frame) {
	for f := b.Next(now); f != nil; f = b.Next(now) {
		c := *f
		c.Head, c.Data = bytes.Clone(f.Head), bytes.Clone(f.Data)
		list = append(list, &c)
	}
	return list
}

func same(a, b *Frame) bool {
	return a.Timestamp == b.Timestamp && bytes.Equal(a.Head, b.Head) && bytes.Equal(a.Data, b.Data) && a.Key == b.Key && a.Ends == b.Ends
}

// Frames of any size come out as they went in, whatever the order of their packets.
func TestRoundTrip(t *testing.T) {
	for _, c := range codecs {
		rapid.Check(t, func(t *rapid.T) {
			s, b := newSent(c, uint16(rapid.Uint32().Draw(t, "sequence"))), NewBuilder(c)
			defer b.Close()
			var want []*Frame
			var list []*packet.Packet
			for i := range rapid.IntRange(1, 5).Draw(t, "frames") {
				size := rapid.SampledFrom([]int{1, 2, 100, MaxPayload - 4, MaxPayload, MaxPayload + 1, 5000, 60000}).Draw(t, "size")
				f := picture(c, uint32(i)*3000, i == 0, bytes.Repeat([]byte{byte(7 + i)}, size))
				want = append(want, f)
				list = append(list, s.packets(f)...)
			}
			for _, p := range list {
				if len(p.Payload) > MaxPayload {
					t.Fatalf("a payload of %d bytes", len(p.Payload))
				}
			}
			first := list[0]
			b.Add(first, start)
			got := drain(b, start)
			rest := list[1:]
			r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 1))
			r.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
			for _, p := range rest {
				b.Add(p, start)
				got = append(got, drain(b, start)...)
			}
			if len(got) != len(want) || b.GivenUp() != 0 {
				t.Fatalf("%d frames, want %d; %d given up", len(got), len(want), b.GivenUp())
			}
			for i := range got {
				if !same(got[i], want[i]) {
					t.Fatalf("frame %d: %d bytes after %x, key %v; want %d after %x, key %v", i,
						len(got[i].Data), got[i].Head, got[i].Key, len(want[i].Data), want[i].Head, want[i].Key)
				}
			}
		})
	}
}

// What is lost costs the frame that it was of, as a whole.
func TestLoss(t *testing.T) {
	type at struct{ frame, packet int } // packet below 0 counts from the end
	// Frames of three packets each, 0 and 3 are key frames.
	for _, tc := range []struct {
		name    string
		lost    []at
		want    string // the frames that come out
		h264    string // where they differ: it says only of key frames that they begin, or of what follows the end of another
		givenUp uint64
	}{
		{name: "nothing", want: "012345"},
		{name: "in the middle", lost: []at{{1, 1}}, want: "02345", givenUp: 1},
		{name: "the first of a frame", lost: []at{{1, 0}}, want: "02345", givenUp: 1},
		{name: "the last of a frame", lost: []at{{1, 2}}, want: "02345", h264: "0345", givenUp: 1},
		{name: "the last, before a key frame", lost: []at{{2, 2}}, want: "01345", givenUp: 1},
		{name: "a whole frame", lost: []at{{1, 0}, {1, 1}, {1, 2}}, want: "02345", h264: "0345", givenUp: 1},
		{name: "from one to the next", lost: []at{{1, 2}, {2, 0}}, want: "0345", givenUp: 1},
		{name: "two of one frame", lost: []at{{1, 0}, {1, 2}}, want: "02345", h264: "0345", givenUp: 2},
		{name: "two frames", lost: []at{{1, 1}, {4, 1}}, want: "0235", givenUp: 2},
	} {
		for _, c := range codecs {
			t.Run(fmt.Sprint(tc.name, " ", c), func(t *testing.T) {
				s, b := newSent(c, 65530), NewBuilder(c)
				defer b.Close()
				now := start
				var got []*Frame
				for i := range 6 {
					list := s.packets(picture(c, uint32(i)*3000, i%3 == 0, bytes.Repeat([]byte{byte('0' + i)}, 2*MaxPayload+100)))
					for n, p := range list {
						if slices.Contains(tc.lost, at{i, n}) || slices.Contains(tc.lost, at{i, n - len(list)}) {
							p.Release()
							continue
						}
						b.Add(p, now)
						got = append(got, drain(b, now)...)
					}
					now = now.Add(33 * time.Millisecond)
				}
				if len(tc.lost) > 0 && len(got) > tc.lost[0].frame {
					t.Errorf("%d frames without waiting for what is missing", len(got))
				}
				got = append(got, drain(b, now.Add(patience))...)
				out, gaps := "", 0
				for _, f := range got {
					out += string(f.Data[len(f.Data)-1])
					if f.Gap {
						gaps++
					}
				}
				want := tc.want
				if c == codec.H264 && tc.h264 != "" {
					want = tc.h264
				}
				if out != want || b.GivenUp() != tc.givenUp || gaps > len(tc.lost) || len(tc.lost) > 0 && gaps == 0 {
					t.Errorf("frames %s, %d given up, %d gaps; want %s, %d", out, b.GivenUp(), gaps, want, tc.givenUp)
				}
			})
		}
	}
}

// What comes late, but not too late, costs nothing.
func TestLate(t *testing.T) {
	s, b := newSent(codec.VP8, 0), NewBuilder(codec.VP8)
	defer b.Close()
	var list []*packet.Packet
	for i := range 3 {
		list = append(list, s.packets(picture(codec.VP8, uint32(i)*3000, i == 0, bytes.Repeat([]byte{1}, 3000)))...)
	}
	for i, p := range list {
		if i != 4 {
			b.Add(p, start)
		}
	}
	if n := len(drain(b, start.Add(patience-1))); n != 1 {
		t.Errorf("%d frames before what is missing", n)
	}
	b.Add(list[4].Retain(), start.Add(patience-1))
	if n := len(drain(b, start.Add(patience-1))); n != 2 || b.GivenUp() != 0 {
		t.Errorf("%d frames after what was missing, %d given up", n, b.GivenUp())
	}
	b.Add(list[4], start) // once more
	if f := b.Next(start); f != nil {
		t.Errorf("a frame of a packet that came twice: %+v", f)
	}
}

func TestBroken(t *testing.T) {
	for _, tc := range []struct {
		name     string
		codec    codec.Codec
		payloads []string // of one frame, the last has the marker
	}{
		{"VP8 without a start", codec.VP8, []string{"\x80\x80\x01\x00abc"}},
		{"VP8 descriptor cut short", codec.VP8, []string{"\x90\x80"}},
		{"VP8 descriptor cut short later", codec.VP8, []string{"\x90\x80\x01\x00abc", "\x80\x80"}},
		{"VP9 without a beginning", codec.VP9, []string{"\x84\x01abc"}},
		{"VP9 descriptor cut short", codec.VP9, []string{"\xba"}},
		{"VP9 structure cut short", codec.VP9, []string{"\x0a\xf8\x00"}},
		{"H.264 fragment without a start", codec.H264, []string{"\x7c\x05abc"}},
		{"H.264 fragment of nothing", codec.H264, []string{"\x7c\x85"}},
		{"H.264 aggregation longer than it is", codec.H264, []string{"\x78\x00\x09abc"}},
		{"H.264 aggregation of nothing", codec.H264, []string{"\x78\x00\x00abc"}},
		{"H.264 aggregation with a rest", codec.H264, []string{"\x78\x00\x01\x65a"}},
		{"H.264 of an unknown form", codec.H264, []string{"\x7eabc"}},
	} {
		b := NewBuilder(tc.codec)
		for i, payload := range tc.payloads {
			p := packet.Get(packet.Capacity)
			p.SequenceNumber, p.Timestamp, p.Marker = uint16(i), 1, i == len(tc.payloads)-1
			p.Payload = p.Buffer()[:copy(p.Buffer(), payload)]
			b.Add(p, start)
		}
		if f := b.Next(start); f != nil || b.GivenUp() != 1 {
			t.Errorf("%s: %+v, %d given up", tc.name, f, b.GivenUp())
		}
		// It does no harm to what follows.
		s := newSent(tc.codec, uint16(len(tc.payloads)))
		for _, p := range s.packets(picture(tc.codec, 2, true, []byte("abc"))) {
			b.Add(p, start)
		}
		if f := b.Next(start); f == nil || !f.Gap {
			t.Errorf("%s: no frame after it: %+v", tc.name, f)
		}
		b.Close()
	}
}

// A frame beyond all bounds, and a jump, cost no more than what they are of.
func TestBounds(t *testing.T) {
	for _, c := range codecs {
		s, b := newSent(c, 0), NewBuilder(c)
		endless := s.packets(picture(c, 1, true, bytes.Repeat([]byte{7}, 2*window*MaxPayload)))
		for _, p := range endless {
			b.Add(p, start)
			if f := b.Next(start); f != nil {
				t.Fatalf("%v: a frame of %d bytes", c, len(f.Data))
			}
		}
		s.sequence += 20000
		for _, p := range s.packets(picture(c, 2, true, []byte("abc"))) {
			b.Add(p, start)
		}
		if got := drain(b, start.Add(patience)); len(got) != 1 {
			t.Errorf("%v: %d frames after a jump", c, len(got))
		}
		b.Close()
	}
}

// A key frame with a scalability structure keeps it in its first packet only.
func TestStructure(t *testing.T) {
	head := []byte{vp9ID | vp9Layers | vp9Begin | vp9End | vp9Structure, 0x81, 0x02, 0x00, 0x05, 0x30, 1, 2, 3, 4, 5, 6, 7, 8}
	s := newSent(codec.VP9, 0)
	list := s.packets(&Frame{Head: head, Data: bytes.Repeat([]byte{1}, 3000), Ends: true})
	for i, p := range list {
		size, _, err := vp9Size(p.Payload)
		if want := map[bool]int{true: len(head), false: 5}[i == 0]; err != nil || size != want {
			t.Errorf("packet %d has a descriptor of %d bytes (%x), %v; want %d", i, size, p.Payload[:size], err, want)
		}
		if begin, end := p.Payload[0]&vp9Begin != 0, p.Payload[0]&vp9End != 0; begin != (i == 0) || end != (i == len(list)-1) {
			t.Errorf("packet %d of %d begins %v, ends %v", i, len(list), begin, end)
		}
	}
}

func TestUnits(t *testing.T) {
	for _, tc := range []struct{ name, data, want string }{
		{"one", "\x00\x00\x00\x01abc", "abc"},
		{"short and long codes", "\x00\x00\x01abc\x00\x00\x00\x01de\x00\x00\x01f", "abc|de|f"},
		{"a zero at the end", "\x00\x00\x01abc\x00", "abc\x00"},
		{"nothing between", "\x00\x00\x01\x00\x00\x01abc", "|abc"},
		{"no code", "abc", ""},
		{"a code alone", "\x00\x00\x01", ""},
	} {
		got := ""
		for i, rest := 0, []byte(tc.data); len(rest) > 0; i++ {
			var unit []byte
			unit, rest = nextUnit(rest)
			if i > 0 {
				got += "|"
			}
			got += string(unit)
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestAllocations(t *testing.T) {
	for _, c := range codecs {
		s, b := newSent(c, 0), NewBuilder(c)
		f := picture(c, 1, true, bytes.Repeat([]byte{1}, 5000))
		n := testing.AllocsPerRun(200, func() {
			f.Timestamp += 3000
			s.splitter.Start(f)
			for {
				p := packet.Get(packet.Capacity)
				payload, last, ok := s.splitter.Next(p.Buffer()[:0])
				if !ok {
					p.Release()
					break
				}
				p.SequenceNumber, p.Timestamp, p.Payload, p.Marker = s.sequence, f.Timestamp, payload, last
				s.sequence++
				b.Add(p, start)
			}
			if b.Next(start) == nil {
				t.Fatal("no frame")
			}
		})
		if n > 0.5 && !raceEnabled { // the pool may be emptied now and then
			t.Errorf("%v: %v allocations a frame", c, n)
		}
		b.Close()
	}
}

// FuzzBuilder takes packets as they come from a network: two bytes say the number and the marker of each, one its length.
func FuzzBuilder(f *testing.F) {
	f.Add(uint8(0), []byte("\x00\x81\x0a\x90\x80\x01\x00abcdef"))
	f.Add(uint8(1), []byte("\x00\x81\x05\x8c\x01abc\x02\x01\x05\x8c\x01abc"))
	f.Add(uint8(2), []byte("\x00\x01\x04\x7c\x85ab\x01\x81\x04\x7c\x45ab\x03\x01\x06\x78\x00\x03\x67ab"))
	f.Fuzz(func(t *testing.T, kind uint8, stream []byte) {
		c := codecs[int(kind)%len(codecs)]
		b, splitter, now := NewBuilder(c), NewSplitter(c), start
		defer b.Close()
		for len(stream) >= 3 {
			n := min(int(stream[2]), len(stream)-3)
			p := packet.Get(packet.Capacity)
			p.SequenceNumber, p.Timestamp, p.Marker = uint16(stream[0])*uint16(1+stream[1]>>4&3), uint32(stream[1]&15), stream[1]&0x80 != 0
			p.Payload = p.Buffer()[:copy(p.Buffer(), stream[3:3+n])]
			stream = stream[3+n:]
			b.Add(p, now)
			now = now.Add(50 * time.Millisecond)
			for f := b.Next(now); f != nil; f = b.Next(now) {
				if len(f.Data) == 0 {
					t.Fatal("an empty frame")
				}
				splitter.Start(f)
				for buffer := make([]byte, 0, packet.Capacity); ; {
					payload, last, ok := splitter.Next(buffer)
					if !ok {
						break
					}
					if len(payload) > MaxPayload || len(payload) == 0 {
						t.Fatalf("a payload of %d bytes", len(payload))
					}
					if last && len(splitter.rest) > 0 {
						t.Fatal("more after the last")
					}
				}
			}
		}
	})
}
