package rtc

import (
	"testing"
	"unsafe"
)

// TestHotLines: what each packet needs of a downlink lies in the lines that are fetched ahead.
func TestHotLines(t *testing.T) {
	var d downlink
	end := unsafe.Offsetof(d.first) + unsafe.Offsetof(d.first.media) + unsafe.Sizeof(d.first.media)
	if end > hotLines*64 || end <= (hotLines-1)*64 {
		t.Errorf("it ends at byte %d, and %d lines are fetched", end, hotLines)
	}
}
