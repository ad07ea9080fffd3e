// Package prefetch has the processor fetch memory into its caches before it is used.
// Media servers deal with the state of thousands of streams, a little of each at a time, so that the next packet's is seldom in a cache: most of the time that a packet
// takes is waiting for it. Whoever knows what comes next says so here, and goes on meanwhile.
// A cache line has 64 bytes, as on the processors that matter.
package prefetch
