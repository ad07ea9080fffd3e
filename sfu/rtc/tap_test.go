package rtc

import (
	"encoding/binary"
	"strings"
	"testing"
)

func FuzzTransportSequence(f *testing.F) {
	one := []byte{0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0x31, 0x12, 0x34, 0}
	two := []byte{0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x10, 0, 0, 1, 3, 2, 0x12, 0x34}
	for _, b := range [][]byte{one, two} {
		if seq, ok := transportSequence(b, 3); !ok || seq != 0x1234 {
			f.Fatalf("%x: got %x %v", b, seq, ok)
		}
		if _, ok := transportSequence(b, 4); ok {
			f.Fatalf("%x: found an extension that is not there", b)
		}
		f.Add(b, uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, id uint8) {
		if seq, ok := transportSequence(b, id); ok && !strings.Contains(string(b), string(binary.BigEndian.AppendUint16(nil, seq))) {
			t.Fatalf("%x: found %x", b, seq)
		}
	})
}
