package codec

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// descriptor writes dependency descriptors by the syntax of the AV1 RTP specification §A.8.
type descriptor struct {
	start, end bool
	template   uint8
	number     uint16
	extended   bool
	structure  *testStructure
	mask       uint32
	hasMask    bool
	custom     []uint8 // decode target indications
}

type testStructure struct {
	offset  uint8
	targets int
	layers  [][2]int8 // spatial, temporal of each template
	dtis    []string  // of each template: - not present, D discardable, S switch, R required
	fdiffs  [][]uint8
	chains  int
	sizes   int // resolutions
}

func (d descriptor) bytes(targets int) []byte {
	var w appender
	flag := func(b bool) {
		if b {
			w.write(1, 1)
		} else {
			w.write(0, 1)
		}
	}
	flag(d.start)
	flag(d.end)
	w.write(uint32(d.template), 6)
	w.write(uint32(d.number), 16)
	if d.extended || d.structure != nil || d.hasMask || d.custom != nil {
		flag(d.structure != nil)
		flag(d.hasMask)
		flag(d.custom != nil)
		w.write(0, 2)
		if s := d.structure; s != nil {
			s.write(&w)
			targets = s.targets
		}
		if d.hasMask {
			w.write(d.mask, targets)
		}
		for _, i := range d.custom {
			w.write(uint32(i), 2)
		}
	}
	return w.b
}

func (s *testStructure) write(w *appender) {
	w.write(uint32(s.offset), 6)
	w.write(uint32(s.targets-1), 5)
	for i := range s.layers {
		switch {
		case i == len(s.layers)-1:
			w.write(3, 2)
		case s.layers[i+1] == s.layers[i]:
			w.write(0, 2)
		case s.layers[i+1][0] == s.layers[i][0]:
			w.write(1, 2)
		default:
			w.write(2, 2)
		}
	}
	for _, dtis := range s.dtis {
		for _, c := range dtis {
			w.write(map[rune]uint32{'-': 0, 'D': 1, 'S': 2, 'R': 3}[c], 2)
		}
	}
	for _, diffs := range s.fdiffs {
		for _, diff := range diffs {
			w.write(1, 1)
			w.write(uint32(diff-1), 4)
		}
		w.write(0, 1)
	}
	writeNonSymmetric(w, uint32(s.chains), uint32(s.targets)+1)
	if s.chains > 0 {
		for t := range s.targets {
			writeNonSymmetric(w, uint32(t%s.chains), uint32(s.chains))
		}
		for range s.layers {
			for range s.chains {
				w.write(1, 4)
			}
		}
	}
	if s.sizes == 0 {
		w.write(0, 1)
		return
	}
	w.write(1, 1)
	for i := range s.sizes {
		w.write(uint32(320<<i-1), 16)
		w.write(uint32(180<<i-1), 16)
	}
}

// writeNonSymmetric is ns(n) of the AV1 bitstream specification §4.10.7, read backwards.
func writeNonSymmetric(w *appender, v, n uint32) {
	bits := 0
	for x := n; x != 0; x >>= 1 {
		bits++
	}
	m := uint32(1)<<bits - n
	if v < m {
		w.write(v, bits-1)
		return
	}
	w.write((v+m)>>1, bits-1)
	w.write((v+m)&1, 1)
}

// l2t2 is the first descriptor of a stream of two spatial and two temporal layers.
func l2t2() descriptor {
	return descriptor{start: true, end: true, template: 10, number: 500, structure: &testStructure{
		offset: 10, targets: 4, chains: 3, sizes: 2,
		layers: [][2]int8{{0, 0}, {0, 1}, {1, 0}, {1, 1}},
		dtis:   []string{"SSSS", "-D-R", "--SS", "---D"},
		fdiffs: [][]uint8{{4}, {2}, {1, 4}, {1, 2}},
	}}
}

func TestDependency(t *testing.T) {
	var state Dependency
	for _, c := range []struct {
		name string
		dd   []byte
		want Frame
		err  error
	}{
		{"before the structure", descriptor{template: 12, number: 499}.bytes(4), Frame{Number: 499, HasNumber: true}, ErrNoStructure},
		{"key frame", l2t2().bytes(0), Frame{KeyFrame: true, Start: true, End: true, Number: 500, HasNumber: true, Joins: 3}, nil},
		{"upper layer", descriptor{end: true, template: 12, number: 501}.bytes(4), Frame{End: true, Spatial: 1, Joins: 3, Number: 501, HasNumber: true}, nil},
		{"discardable", descriptor{start: true, template: 11, number: 502}.bytes(4), Frame{Start: true, Temporal: 1, Number: 502, HasNumber: true}, nil},
		{
			"own indications after a mask", descriptor{start: true, template: 11, number: 502, hasMask: true, mask: 3, custom: []uint8{0, 2, 0, 0}}.bytes(4),
			Frame{Start: true, Temporal: 1, Number: 502, HasNumber: true, Joins: 2}, nil,
		},
		{"unknown template", descriptor{template: 14, number: 503}.bytes(4), Frame{Number: 503, HasNumber: true}, ErrNoStructure},
		{"template ids wrap", descriptor{template: 9, number: 503}.bytes(4), Frame{Number: 503, HasNumber: true}, ErrNoStructure},
		{"cut off", []byte{0x80, 1}, Frame{}, ErrShort},
		{"structure cut off", l2t2().bytes(0)[:8], Frame{Start: true, End: true, Number: 500, HasNumber: true}, ErrStructure},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Frame{}
			if err := AV1.Describe(nil, c.dd, false, &state, &got); !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%x (-want +got):\n%s", c.dd, d)
			}
		})
	}
}

func TestLateStructure(t *testing.T) {
	var state Dependency
	var f Frame
	newer := l2t2()
	newer.number, newer.template, newer.structure.offset = 520, 20, 20
	if err := state.describe(newer.bytes(0), &f); err != nil {
		t.Fatal(err)
	}
	if err := state.describe(l2t2().bytes(0), &f); !errors.Is(err, ErrStructure) {
		t.Errorf("a late structure: error %v, want %v", err, ErrStructure)
	}
	if err := state.describe(descriptor{template: 22, number: 521}.bytes(4), &f); err != nil || f.Spatial != 1 {
		t.Errorf("after a late structure: spatial layer %d, error %v", f.Spatial, err)
	}
	again := l2t2()
	again.number = 60000 // a sender that began anew
	if err := state.describe(again.bytes(0), &f); err != nil || !f.KeyFrame {
		t.Errorf("a new beginning: key frame %t, error %v", f.KeyFrame, err)
	}
}

func TestVP9FallsBackToItsDescriptor(t *testing.T) {
	var f Frame
	dd := descriptor{template: 12, number: 499}.bytes(4)
	if err := VP9.Describe([]byte{0x2c, 0x43, 0x11}, dd, false, new(Dependency), &f); err != nil {
		t.Fatal(err)
	}
	want := Frame{Start: true, End: true, Spatial: 1, Temporal: 2, Number: 499, HasNumber: true}
	if d := cmp.Diff(want, f); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestDependencyRewrite(t *testing.T) {
	var work Dependency
	key, delta := l2t2(), descriptor{start: true, template: 11, number: 502}
	for _, c := range []struct {
		name  string
		in    descriptor
		limit Limit
		want  func(d *descriptor)
	}{
		{"number only", delta, Limit{0, 0}, func(d *descriptor) {}},
		{"no limit", key, NoLimit, func(d *descriptor) {}},
		{"limit above all", key, Limit{1, 7}, func(d *descriptor) {}},
		{"lower spatial layer", key, Limit{0, 7}, func(d *descriptor) { d.hasMask, d.mask = true, 0b0011 }},
		{"lower temporal layer", key, Limit{1, 0}, func(d *descriptor) { d.hasMask, d.mask = true, 0b0101 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := c.in.bytes(4)
			out := work.Rewrite([]byte{0xee}, in, 7, c.limit)
			d := c.in
			d.number = 7
			c.want(&d)
			want := d.bytes(4)
			for len(want)+1 < len(out) { // zero padding is allowed
				want = append(want, 0)
			}
			if diff := cmp.Diff(append([]byte{0xee}, want...), out); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if string(in) != string(c.in.bytes(4)) {
				t.Error("the original was written to")
			}
			again := work.Rewrite(nil, out[1:], 7, c.limit)
			if string(again) != string(out[1:]) && len(again) != len(out)-1 {
				t.Errorf("a second time: %x, want %x", again, out[1:])
			}
		})
	}
	if out := work.Rewrite(nil, []byte{1, 2}, 7, NoLimit); len(out) != 2 {
		t.Errorf("a broken descriptor became %x", out)
	}
}

func FuzzDependency(f *testing.F) {
	f.Add(l2t2().bytes(0), uint8(0), uint8(1))
	f.Add(descriptor{start: true, template: 11, number: 502, hasMask: true, mask: 3, custom: []uint8{0, 2, 0, 0}}.bytes(4), uint8(1), uint8(0))
	f.Fuzz(func(t *testing.T, dd []byte, spatial, temporal uint8) {
		var work, before, after Dependency
		limit := Limit{int8(spatial % 4), int8(temporal % 8)}
		out := work.Rewrite(nil, dd, 77, limit)
		if len(out) < len(dd) || len(out) > len(dd)+5 {
			t.Errorf("%x became %x", dd, out)
		}
		var a, b Frame
		if before.describe(dd, &a) != nil {
			return
		}
		if err := after.describe(out, &b); err != nil || b.Number != 77 {
			t.Errorf("%x became %x: %v", dd, out, err)
		}
		a.Number = 77
		if a != b {
			t.Errorf("%x became %x: %+v, was %+v", dd, out, b, a)
		}
	})
}
