package bench

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets whose width is at most 1/32 of their value: small, fixed, and adding is a few
// instructions. The zero value is empty. Not safe for concurrent use.
type histogram struct {
	counts [64 * 32]uint32
	n      uint64
	max    time.Duration
}

// bucketOf gives microseconds below 32 a bucket each, and 32 to every power of two above.
func bucketOf(us uint64) int {
	if us < 32 {
		return int(us)
	}
	shift := bits.Len64(us) - 6
	return (shift+1)*32 + int(us>>shift) - 32
}

// bucketTop is the largest number of microseconds in a bucket.
func bucketTop(i int) uint64 {
	if i < 32 {
		return uint64(i)
	}
	shift := i/32 - 1
	return uint64(i%32+33)<<shift - 1
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0) // clocks of arrival and departure differ by less than a bucket
	h.counts[bucketOf(uint64(d.Microseconds()))]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile returns the value that the fraction q of all durations does not exceed, 0 when empty.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := max(uint64(q*float64(h.n)+0.5), 1)
	for i, c := range h.counts {
		if rank <= uint64(c) {
			return min(time.Duration(bucketTop(i))*time.Microsecond, h.max)
		}
		rank -= uint64(c)
	}
	return h.max
}
