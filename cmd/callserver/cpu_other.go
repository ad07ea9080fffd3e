//go:build !unix

package main

import "time"

// processTime is not known here: limits.load.cpu has no effect.
func processTime() time.Duration { return 0 }
