package srtp

import (
	"reflect"
	"testing"
)

// TestHotLines: the standard library's AES-GCM lies in the lines that are fetched ahead.
func TestHotLines(t *testing.T) {
	p := newPair(t, GCM128)
	if size := reflect.TypeOf(p.seal.rtp.aead).Elem().Size(); size > aeadLines*64 || size <= (aeadLines-1)*64 {
		t.Errorf("it has %d bytes, and %d lines are fetched", size, aeadLines)
	}
}
