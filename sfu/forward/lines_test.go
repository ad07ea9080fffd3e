package forward

import (
	"testing"
	"unsafe"
)

// TestHotLines: what each packet needs of a Sink lies in the lines that are fetched ahead.
func TestHotLines(t *testing.T) {
	var k Sink
	if end := unsafe.Offsetof(k.counts) + unsafe.Offsetof(k.counts.Bytes) + unsafe.Sizeof(k.counts.Bytes); end > hotLines*64 || end <= (hotLines-1)*64 {
		t.Errorf("it ends at byte %d, and %d lines are fetched", end, hotLines)
	}
}
