//go:build amd64 || arm64

// Hot path: see ARCHITECTURE.md#packet

package prefetch

import "unsafe"

// Lines has the first n cache lines from p fetched, n at least 1. It does not wait for them, reads nothing as far as the language is concerned, and p
// may be anything: an address that is none is ignored.
//
//go:noescape
func Lines(p unsafe.Pointer, n int)
