package egress

import (
	"testing"
	"unsafe"
)

// TestHotLines: what each packet needs of a Leg lies in the lines that are fetched ahead.
func TestHotLines(t *testing.T) {
	var l Leg
	if end := unsafe.Offsetof(l.gate) + unsafe.Sizeof(l.gate); end > hotLines*64 || end <= (hotLines-1)*64 {
		t.Errorf("it ends at byte %d, and %d lines are fetched", end, hotLines)
	}
}
