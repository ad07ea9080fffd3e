package codec

// Hot path: see ARCHITECTURE.md#packet

import "encoding/binary"

// A Limit is the highest layers that a receiver gets.
type Limit struct{ Spatial, Temporal int8 }

// NoLimit lets every layer pass.
var NoLimit = Limit{127, 127}

// Rewrite appends to b the dependency descriptor dd with another frame number. Where dd brings a template structure with layers beyond the
// limit, it also says that the decode targets made of them are not active. d is only working memory.
func (d *Dependency) Rewrite(b, dd []byte, number uint16, limit Limit) []byte {
	from := len(b)
	b = append(b, dd...)
	if len(dd) < mandatorySize {
		return b
	}
	binary.BigEndian.PutUint16(b[from+1:], number)
	if len(dd) == mandatorySize || dd[mandatorySize]&0x80 == 0 || limit == NoLimit {
		return b
	}
	r := bits{b: dd, at: extendedFlagsEnd}
	if d.known = false; d.current.parse(&r) != nil {
		return b
	}
	active, all := d.current.activeTargets(limit)
	if active == all {
		return b
	}
	rest := d.current.end
	if dd[mandatorySize]&maskPresent != 0 {
		mask := bits{b: dd, at: rest}
		active &= mask.read(int(d.current.targets))
		rest = mask.at
	}
	w := appender{b: b[:from], at: 8 * from}
	w.copy(dd, 0, d.current.end)
	binary.BigEndian.PutUint16(w.b[from+1:], number)
	w.b[from+mandatorySize] |= maskPresent
	w.write(active, int(d.current.targets))
	w.copy(dd, rest, 8*len(dd))
	return w.b
}

// maskPresent is active_decode_targets_present_flag in the first octet after the mandatory fields.
const maskPresent = 0x40

// activeTargets returns the decode targets, a bit each, that need no layer beyond the limit, and all there are.
func (s *structure) activeTargets(limit Limit) (active, all uint32) {
	for target := range s.targets {
		all |= 1 << target
		if of := s.target[target]; of.Spatial <= limit.Spatial && of.Temporal <= limit.Temporal {
			active |= 1 << target
		}
	}
	return active, all
}

// appender writes a bit string.
type appender struct {
	b  []byte
	at int // bits
}

func (w *appender) write(v uint32, n int) {
	for i := n - 1; i >= 0; i-- {
		w.bit(uint8(v >> i & 1))
	}
}

func (w *appender) copy(b []byte, from, to int) {
	for at := from; at < to; at++ {
		w.bit(b[at/8] >> (7 - at%8) & 1)
	}
}

func (w *appender) bit(v uint8) {
	if w.at%8 == 0 {
		w.b = append(w.b, 0)
	}
	w.b[w.at/8] |= v << (7 - w.at%8)
	w.at++
}
