package prefetch

import (
	"testing"
	"unsafe"
)

// TestLines: nothing changes, and what is no memory of ours is no harm.
func TestLines(t *testing.T) {
	var b [256]byte
	Lines(unsafe.Pointer(&b), 4)
	Lines(unsafe.Pointer(&b), 64)
	Lines(nil, 1)
	if b != [256]byte{} {
		t.Error("memory changed")
	}
}

// BenchmarkLines is what fetching costs where everything is at hand.
func BenchmarkLines(b *testing.B) {
	var lines [256]byte
	for range b.N {
		Lines(unsafe.Pointer(&lines), 4)
	}
}
