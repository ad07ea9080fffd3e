package codec

// Hot path: see ARCHITECTURE.md#packet

import "encoding/binary"

// The dependency descriptor is the header extension that says, in the clear, what an AV1 or VP9 frame depends on
// (AV1 RTP specification, appendix A).

const (
	maxTemplates     = 64
	maxTargets       = 32
	mandatorySize    = 3
	extendedFlagsEnd = 29 // bits: the mandatory fields and five flags
)

// Decode target indications (appendix A.8.2).
const (
	dtiNotPresent = 0
	dtiSwitch     = 2
)

// Dependency is what the dependency descriptors of one stream have said so far. The zero value is ready; not safe for concurrent use.
type Dependency struct {
	current   structure
	known     bool
	beginning uint16 // frame number that current came with
}

// structure is a template dependency structure.
type structure struct {
	offset    uint8 // template_id_offset
	targets   uint8 // number of decode targets, 1 to 32
	templates uint8
	template  [maxTemplates]template
	target    [maxTargets]Limit // the highest layers each decode target is made of
	end       int               // bit where the active decode targets mask would follow
}

type template struct {
	spatial, temporal int8
	indications       uint64 // two bits for each decode target, the first one lowest
}

func (t *template) indication(target uint8) uint8 { return uint8(t.indications >> (2 * target) & 3) }

func (d *Dependency) describe(dd []byte, f *Frame) error {
	if len(dd) < mandatorySize {
		return ErrShort
	}
	f.Start, f.End = dd[0]&0x80 != 0, dd[0]&0x40 != 0
	f.Number, f.HasNumber = binary.BigEndian.Uint16(dd[1:]), true
	id := dd[0] & 0x3f

	var customIndications bool
	r := bits{b: dd, at: 8 * mandatorySize}
	if len(dd) > mandatorySize {
		hasStructure, hasMask := r.flag(), r.flag()
		customIndications = r.flag()
		r.skip(2) // custom frame differences, custom chains
		if hasStructure {
			if err := d.replace(&r, f.Number); err != nil {
				return err
			}
			f.KeyFrame = f.Start
		}
		if hasMask && d.known {
			r.skip(int(d.current.targets))
		}
	}
	if !d.known {
		return ErrNoStructure
	}
	index := (id - d.current.offset) & 0x3f
	if index >= d.current.templates {
		return ErrNoStructure
	}
	t := d.current.template[index]
	if customIndications {
		t.indications = r.indications(d.current.targets)
		if r.over {
			return ErrShort
		}
	}
	f.Spatial, f.Temporal = t.spatial, t.temporal
	f.Joins = d.current.joins(&t)
	return nil
}

// replace reads a new structure, unless it comes with a packet so late that it has been replaced itself.
func (d *Dependency) replace(r *bits, number uint16) error {
	if back := int16(d.beginning - number); d.known && back > 0 && back < lateStructure {
		return ErrStructure
	}
	d.known = false
	if err := d.current.parse(r); err != nil {
		return err
	}
	d.known, d.beginning = true, number
	return nil
}

// lateStructure is how many frames back a structure is taken for a late packet rather than for a sender that began anew.
const lateStructure = 600

// joins returns the temporal layers, a bit each, that can be begun with a frame: the decode targets of its spatial layer that may switch here.
func (s *structure) joins(t *template) (layers uint8) {
	for target := range s.targets {
		if t.indication(target) != dtiSwitch {
			continue
		}
		if of := s.target[target]; of.Spatial == t.spatial {
			layers |= 1 << of.Temporal
		}
	}
	return layers
}

// layers finds out what each decode target is made of.
func (s *structure) layers() {
	for target := range s.targets {
		var of Limit
		for i := range s.templates {
			if t := &s.template[i]; t.indication(target) != dtiNotPresent {
				of = Limit{max(of.Spatial, t.spatial), max(of.Temporal, t.temporal)}
			}
		}
		s.target[target] = of
	}
}

func (s *structure) parse(r *bits) error {
	s.offset, s.targets, s.templates = uint8(r.read(6)), uint8(r.read(5))+1, 0
	spatial, temporal := int8(0), int8(0)
	for more := true; more; {
		if s.templates == maxTemplates || r.over {
			return ErrStructure
		}
		s.template[s.templates] = template{spatial: spatial, temporal: temporal}
		s.templates++
		switch r.read(2) { // next_layer_idc
		case 0:
		case 1:
			temporal++
		case 2:
			spatial, temporal = spatial+1, 0
		case 3:
			more = false
		}
		if spatial > 3 || temporal > 7 {
			return ErrStructure
		}
	}
	maxSpatial := spatial
	for i := range s.templates {
		s.template[i].indications = r.indications(s.targets)
	}
	s.layers()
	for range s.templates { // frame differences
		for r.flag() && !r.over {
			r.skip(4)
		}
	}
	if chains := r.nonSymmetric(uint32(s.targets) + 1); chains > 0 {
		for range s.targets {
			r.nonSymmetric(chains) // which chain protects the target
		}
		r.skip(4 * int(s.templates) * int(chains))
	}
	if r.flag() { // resolutions
		r.skip(32 * (int(maxSpatial) + 1))
	}
	if r.over {
		return ErrStructure
	}
	s.end = r.at
	return nil
}

// bits reads a bit string; past its end it returns zeros and sets over.
type bits struct {
	b    []byte
	at   int
	over bool
}

func (r *bits) read(n int) uint32 {
	var v uint32
	for range n {
		v <<= 1
		if r.at >= 8*len(r.b) {
			r.over = true
			continue
		}
		v |= uint32(r.b[r.at/8]>>(7-r.at%8)) & 1
		r.at++
	}
	return v
}

func (r *bits) flag() bool { return r.read(1) == 1 }

func (r *bits) skip(n int) {
	if r.at += n; r.at > 8*len(r.b) {
		r.at, r.over = 8*len(r.b), true
	}
}

// nonSymmetric reads ns(n) of the AV1 bitstream specification §4.10.7.
func (r *bits) nonSymmetric(n uint32) uint32 {
	w, x := 0, n
	for ; x != 0; x >>= 1 {
		w++
	}
	m := uint32(1)<<w - n
	v := r.read(w - 1)
	if v < m {
		return v
	}
	return v<<1 - m + r.read(1)
}

func (r *bits) indications(targets uint8) uint64 {
	var v uint64
	for target := range targets {
		v |= uint64(r.read(2)) << (2 * target)
	}
	return v
}
