package udp

import (
	"fmt"
	"testing"
)

func TestAllocations(t *testing.T) {
	from, to := listen(t, loopback, Options{Buffer: 1 << 20}), listen(t, loopback, Options{Buffer: 1 << 20})
	o, d, b := from.NewOutbox(), NewDestination(addrOf(to)), newInbox()
	data := datagrams(200, 200, 200, 100, 50)
	if n := testing.AllocsPerRun(100, func() {
		for _, x := range data {
			o.Add(d, x)
		}
		o.Flush()
		for n := 0; n < len(data); n += b.Len() {
			if err := to.Receive(b, nil); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations for five datagrams there and back", n)
	}
}

// BenchmarkFlush is what sending one datagram costs, alone and in runs. Nobody reads: the kernel drops what does not fit.
func BenchmarkFlush(b *testing.B) {
	for _, size := range []int{160, 1200} {
		for _, run := range []int{1, 6, 16} {
			b.Run(fmt.Sprintf("%d bytes/runs of %d", size, run), func(b *testing.B) {
				from := listen(b, loopback, Options{})
				to := listen(b, loopback, Options{})
				destinations := make([]*Destination, 32)
				for i := range destinations {
					destinations[i] = NewDestination(addrOf(to))
				}
				o, data := from.NewOutbox(), make([]byte, size)
				b.ReportAllocs()
				for n := 0; b.Loop(); n++ {
					o.Add(destinations[n/run%len(destinations)], data)
					if n%(run*len(destinations)) == run*len(destinations)-1 {
						o.Flush()
					}
				}
			})
		}
	}
}

// BenchmarkSingle is the same with one system call a datagram.
func BenchmarkSingle(b *testing.B) {
	from, to := listen(b, loopback, Options{}), listen(b, loopback, Options{})
	d, data := NewDestination(addrOf(to)), make([]byte, 1200)
	b.ReportAllocs()
	for b.Loop() {
		from.sendOne(d, data)
	}
}

// BenchmarkAlone is a flush of one datagram.
func BenchmarkAlone(b *testing.B) {
	from, to := listen(b, loopback, Options{}), listen(b, loopback, Options{})
	o, d, data := from.NewOutbox(), NewDestination(addrOf(to)), make([]byte, 1200)
	b.ReportAllocs()
	for b.Loop() {
		o.Add(d, data)
		o.Flush()
	}
}
