package codec

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMime(t *testing.T) {
	for c := Opus; c <= AV1; c++ {
		if got := Parse(c.Mime()); got != c {
			t.Errorf("Parse(%q) = %v, want %v", c.Mime(), got, c)
		}
	}
	for mime, want := range map[string]Codec{"VIDEO/vp8": VP8, "audio/OPUS": Opus, "video/h264": H264, "": Unknown, "video/x": Unknown} {
		if got := Parse(mime); got != want {
			t.Errorf("Parse(%q) = %v, want %v", mime, got, want)
		}
	}
	if Codec(200).Mime() != "" || Opus.Video() || RED.Video() || !AV1.Video() || !VP8.Video() {
		t.Error("audio and video are mixed up")
	}
	for c, want := range map[Codec]uint32{Opus: 48000, RED: 48000, PCMU: 8000, H264: 90000} {
		if got := c.ClockRate(); got != want {
			t.Errorf("%v: clock rate %d, want %d", c, got, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	for _, c := range []struct {
		name    string
		codec   Codec
		payload []byte
		marker  bool
		want    Frame
		err     error
	}{
		{"opus", Opus, []byte{0xfc, 1}, false, Frame{KeyFrame: true, Start: true, End: true}, nil},
		{"opus DTX", Opus, []byte{0xf8}, false, Frame{KeyFrame: true, Start: true, End: true}, nil},
		{"empty audio", Opus, nil, false, Frame{KeyFrame: true, Start: true, End: true}, nil},

		{"vp8 key frame", VP8, []byte{0x10, 0x00, 1}, false, Frame{KeyFrame: true, Start: true}, nil},
		{"vp8 delta frame", VP8, []byte{0x10, 0x01}, true, Frame{Start: true, End: true}, nil},
		{"vp8 middle", VP8, []byte{0x00, 0x00}, false, Frame{}, nil},
		{"vp8 later partition", VP8, []byte{0x11, 0x00}, false, Frame{}, nil},
		{"vp8 encrypted key frame", VP8, []byte{0x90, 0xe0, 0x81, 0x02, 3, 0x20, 0xf0, 0xaa}, false, Frame{KeyFrame: true, Start: true, Joins: 1}, nil},
		{"vp8 layer 2 that syncs", VP8, []byte{0x90, 0xe0, 0x02, 3, 0xa0, 0xf1}, false, Frame{Start: true, Temporal: 2, Joins: 4}, nil},
		{"vp8 layer 1", VP8, []byte{0x90, 0x20, 0x40, 0xf1}, false, Frame{Start: true, Temporal: 1}, nil},
		{"vp8 empty", VP8, nil, true, Frame{End: true}, ErrShort},
		{"vp8 cut off", VP8, []byte{0x90, 0xf0, 0x81}, false, Frame{}, ErrShort},
		{"vp8 start without a frame", VP8, []byte{0x10}, false, Frame{}, ErrShort},

		{"vp9 key frame", VP9, []byte{0x8c, 0x81, 0x02, 0xff}, true, Frame{KeyFrame: true, Start: true, End: true}, nil},
		{"vp9 key picture, upper layer", VP9, []byte{0x2c, 0x03, 0x11}, false, Frame{Start: true, End: true, Spatial: 1}, nil},
		{"vp9 predicted", VP9, []byte{0xec, 0x05, 0x00}, false, Frame{Start: true, End: true}, nil},
		{"vp9 middle", VP9, []byte{0xe0, 0x05, 0x44}, false, Frame{Temporal: 2, Spatial: 2}, nil},
		{"vp9 switching up from layer 1", VP9, []byte{0xe8, 0x05, 0x30}, false, Frame{Start: true, Temporal: 1, Joins: 0xfc}, nil},
		{"vp9 empty", VP9, nil, false, Frame{}, ErrShort},
		{"vp9 cut off", VP9, []byte{0xa0, 0x81}, false, Frame{}, ErrShort},

		{"h264 parameter sets and slice", H264, []byte{24, 0, 2, 0x67, 1, 0, 2, 0x68, 1, 0, 2, 0x65, 1}, false, Frame{KeyFrame: true, Intra: true}, nil},
		{"h264 SPS", H264, []byte{0x67, 1}, false, Frame{KeyFrame: true}, nil},
		{"h264 IDR slice", H264, []byte{0x65, 1}, false, Frame{Intra: true}, nil},
		{"h264 first fragment of an IDR slice", H264, []byte{28, 0x85, 1}, false, Frame{Intra: true}, nil},
		{"h264 later fragment of an IDR slice", H264, []byte{28, 0x05, 1}, false, Frame{}, nil},
		{"h264 slice", H264, []byte{0x41, 1}, true, Frame{End: true}, nil},
		{"h264 aggregation cut off", H264, []byte{24, 0, 9, 0x67}, false, Frame{}, ErrShort},
		{"h264 empty unit", H264, []byte{24, 0, 0, 0x67}, false, Frame{}, ErrShort},
		{"h264 fragment cut off", H264, []byte{28}, false, Frame{}, ErrShort},
		{"h264 empty", H264, nil, false, Frame{}, ErrShort},

		{"h265 VPS", H265, []byte{32 << 1, 1, 0}, false, Frame{KeyFrame: true}, nil},
		{"h265 aggregated SPS", H265, []byte{48 << 1, 1, 0, 3, 33 << 1, 1, 0}, false, Frame{KeyFrame: true}, nil},
		{"h265 first fragment of IDR", H265, []byte{49 << 1, 1, 0x80 | 19}, false, Frame{Intra: true}, nil},
		{"h265 layer 2", H265, []byte{1 << 1, 3, 0}, false, Frame{Temporal: 2}, nil},
		{"h265 empty", H265, []byte{1}, false, Frame{}, ErrShort},

		{"av1 new sequence", AV1, []byte{0x18, 1}, false, Frame{KeyFrame: true, Start: true}, nil},
		{"av1 other", AV1, []byte{0x10, 1}, true, Frame{End: true}, nil},
		{"av1 empty", AV1, nil, false, Frame{}, ErrShort},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got Frame
			if err := c.codec.Describe(c.payload, nil, c.marker, new(Dependency), &got); !errors.Is(err, c.err) {
				t.Errorf("Describe(%x): error %v, want %v", c.payload, err, c.err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("Describe(%x) (-want +got):\n%s", c.payload, d)
			}
		})
	}
}

func TestVP8Rewrite(t *testing.T) {
	for _, c := range []struct {
		name       string
		in         []byte // descriptor and one octet of frame
		change     func(d *VP8Descriptor)
		out        []byte
		pictureWas uint16
	}{
		{"no extension", []byte{0x10, 1}, func(d *VP8Descriptor) { d.PictureID, d.TL0 = 9, 9 }, []byte{0x10}, 0},
		{"7 bits", []byte{0x90, 0x80, 0x7f, 1}, func(d *VP8Descriptor) { d.PictureID = 5 }, []byte{0x90, 0x80, 0x05}, 127},
		{"7 bits grow to 15", []byte{0x90, 0x80, 0x7f, 1}, func(d *VP8Descriptor) { d.PictureID, d.Wide = 0x1234, true }, []byte{0x90, 0x80, 0x92, 0x34}, 127},
		{"15 bits", []byte{0x80, 0x80, 0xff, 0xfe, 1}, func(d *VP8Descriptor) { d.PictureID = 3 }, []byte{0x80, 0x80, 0x80, 0x03}, 0x7ffe},
		{
			"everything", []byte{0xb0, 0xf0, 0x81, 0x02, 3, 0x64, 1},
			func(d *VP8Descriptor) { d.PictureID, d.TL0, d.KeyIndex = 0x0203, 200, 31 }, []byte{0xb0, 0xf0, 0x82, 0x03, 200, 0x7f}, 0x0102,
		},
		{"key index without layer", []byte{0x90, 0x10, 0x07, 1}, func(d *VP8Descriptor) { d.KeyIndex = 8 }, []byte{0x90, 0x10, 0x08}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := ParseVP8(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if d.Size != len(c.in)-1 || d.PictureID != c.pictureWas {
				t.Errorf("size %d, picture id %d; want %d, %d", d.Size, d.PictureID, len(c.in)-1, c.pictureWas)
			}
			same := d
			if got := same.Append(nil); d.first&0x80 != 0 && string(got) != string(c.in[:d.Size]) {
				t.Errorf("unchanged: %x, want %x", got, c.in[:d.Size])
			}
			c.change(&d)
			if got := d.Append(nil); string(got) != string(c.out) {
				t.Errorf("got %x, want %x", got, c.out)
			}
		})
	}
}

func FuzzDescribe(f *testing.F) {
	for _, payload := range [][]byte{
		{0x90, 0xe0, 0x81, 0x02, 3, 0x20, 0xf0, 0xaa}, {0x2c, 0x03, 0x11}, {24, 0, 2, 0x67, 1, 0, 2, 0x68, 1}, {28, 0x85, 1}, {0x18, 1},
		{48 << 1, 1, 0, 3, 33 << 1, 1, 0},
	} {
		for c := Opus; c <= AV1; c++ {
			f.Add(uint8(c), payload, []byte(nil))
		}
	}
	f.Add(uint8(VP9), []byte{0x8c, 0x81, 0x02}, l2t2().bytes(0))
	f.Add(uint8(AV1), []byte{0x10}, append(l2t2().bytes(0), 0))
	f.Fuzz(func(t *testing.T, c uint8, payload, dd []byte) {
		var frame Frame
		var state Dependency
		_ = Codec(c).Describe(payload, dd, true, &state, &frame)
		_ = Codec(c).Describe(payload, dd, false, &state, &frame)
		if frame.Spatial < 0 || frame.Spatial > 7 || frame.Temporal < 0 || frame.Temporal > 7 {
			t.Errorf("Describe(%x, %x): layers %d, %d", payload, dd, frame.Spatial, frame.Temporal)
		}
		if d, err := ParseVP8(payload); err == nil {
			if out := d.Append(nil); len(out) > MaxVP8Size || len(payload) > 0 && payload[0]&0x80 != 0 && len(out) != d.Size {
				t.Errorf("ParseVP8(%x): appended %x, size %d", payload, out, d.Size)
			}
		}
	})
}

func BenchmarkDescribe(b *testing.B) {
	var frame Frame
	payload := []byte{0x90, 0xe0, 0x81, 0x02, 3, 0x20, 0xf0, 0xaa}
	b.ReportAllocs()
	for b.Loop() {
		if VP8.Describe(payload, nil, true, nil, &frame) != nil {
			b.Fatal("broken")
		}
	}
}
