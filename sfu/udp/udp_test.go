package udp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func listen(t testing.TB, at netip.AddrPort, o Options) *Socket {
	t.Helper()
	all, err := Listen(at, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		t.Cleanup(func() { _ = s.Close() })
	}
	return all[0]
}

func addrOf(s *Socket) netip.AddrPort { return s.LocalAddr().(*net.UDPAddr).AddrPort() }

func newInbox() *Inbox {
	b := &Inbox{}
	for i := range b.Buffers {
		b.Buffers[i] = make([]byte, 1500)
	}
	return b
}

// plain hides that a connection is the system's.
type plain struct{ net.PacketConn }

// receive takes n datagrams.
func receive(t testing.TB, s *Socket, n int) (got [][]byte, from []netip.AddrPort) {
	t.Helper()
	b := newInbox()
	for len(got) < n {
		if err := s.Receive(b, nil); err != nil {
			t.Fatal(err)
		}
		for i := range b.Len() {
			d, a := b.Datagram(i)
			got, from = append(got, bytes.Clone(d)), append(from, a)
		}
	}
	return got, from
}

// datagrams are of the given sizes, each with its index in the first byte.
func datagrams(sizes ...int) [][]byte {
	var out [][]byte
	for i, n := range sizes {
		d := bytes.Repeat([]byte{byte(i)}, n)
		out = append(out, d)
	}
	return out
}

// TestSend sends to two receivers over every kind of socket: all of it arrives, in order, cut where it was.
func TestSend(t *testing.T) {
	sizes := []int{1200, 1200, 1200, 1100, 80, 80, 90, 1, 1200, 1200}
	six := netip.MustParseAddrPort("[::1]:0")
	for _, c := range []struct {
		name string
		at   netip.AddrPort
		wrap bool
	}{{"IPv4", loopback, false}, {"IPv6", six, false}, {"any connection", loopback, true}} {
		t.Run(c.name, func(t *testing.T) {
			probe, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(c.at))
			if err != nil {
				t.Skipf("no %s here: %v", c.name, err)
			}
			_ = probe.Close()
			open := func() *Socket {
				s := listen(t, c.at, Options{Buffer: 1 << 20})
				if c.wrap {
					s = Wrap(plain{s.conn}, Options{})
				}
				return s
			}
			from, one, two := open(), open(), open()
			to := []*Destination{NewDestination(addrOf(one)), NewDestination(addrOf(two))}
			want := datagrams(sizes...)
			o := from.NewOutbox()
			for _, d := range to {
				for _, b := range want {
					o.Add(d, b)
				}
			}
			o.Flush()
			for _, s := range []*Socket{one, two} {
				got, senders := receive(t, s, len(want))
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
				if senders[0] != unmap(addrOf(from)) {
					t.Errorf("from %s, want %s", senders[0], addrOf(from))
				}
			}
			stats := from.Stats()
			if stats.Sent != uint64(2*len(want)) || stats.Lost != 0 || stats.Unsegmented != 0 {
				t.Errorf("%+v", stats)
			}
			if from.Segments() && stats.Calls != 1 {
				t.Errorf("%d system calls, want 1", stats.Calls)
			}
			if n, err := from.WriteToAddrPort([]byte("single"), addrOf(one)); n != 6 || err != nil {
				t.Error(n, err)
			}
			receive(t, one, 1)
		})
	}
}

// TestMany sends more than one system call and more than one run hold.
func TestMany(t *testing.T) {
	from, to := listen(t, loopback, Options{Buffer: 4 << 20}), listen(t, loopback, Options{Buffer: 4 << 20})
	o := from.NewOutbox()
	d := NewDestination(addrOf(to))
	const n = 200
	for i := range n {
		o.Add(d, bytes.Repeat([]byte{byte(i)}, 100+i%2)) // a run of two each
	}
	o.Flush()
	got, _ := receive(t, to, n)
	for i := range n {
		if len(got[i]) != 100+i%2 || got[i][0] != byte(i) {
			t.Fatalf("datagram %d: %d bytes of %d", i, len(got[i]), got[i][0])
		}
	}
}

func TestTruncated(t *testing.T) {
	from, to := listen(t, loopback, Options{}), listen(t, loopback, Options{})
	if !to.fast.ready() {
		t.Skip("no batches on this system")
	}
	for _, n := range []int{2000, 10} {
		if _, err := from.WriteToAddrPort(make([]byte, n), addrOf(to)); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := receive(t, to, 2)
	if len(got[0]) != 0 || len(got[1]) != 10 {
		t.Errorf("%d and %d bytes, want none of the one that does not fit, and 10", len(got[0]), len(got[1]))
	}
}

// TestRuns checks what is put together.
func TestRuns(t *testing.T) {
	a, b := NewDestination(netip.MustParseAddrPort("192.0.2.1:1")), NewDestination(netip.MustParseAddrPort("192.0.2.2:1"))
	type datagram struct {
		to   *Destination
		size int
	}
	many := make([]datagram, maxSegments+2)
	large := make([]datagram, maxRun/1500+2)
	for i := range many {
		many[i] = datagram{a, 80}
	}
	for i := range large {
		large[i] = datagram{a, 1500}
	}
	alone := NewDestination(netip.MustParseAddrPort("192.0.2.3:1"))
	alone.single.Store(true)
	for _, c := range []struct {
		name string
		in   []datagram
		want []int
	}{
		{"equal", []datagram{{a, 5}, {a, 5}, {a, 5}}, []int{3}},
		{"a smaller one closes", []datagram{{a, 5}, {a, 5}, {a, 4}, {a, 4}}, []int{3, 1}},
		{"a larger one does not fit", []datagram{{a, 5}, {a, 6}}, []int{1, 1}},
		{"by destination", []datagram{{a, 5}, {b, 5}, {b, 5}, {a, 5}}, []int{1, 2, 1}},
		{"most segments", many, []int{maxSegments, 2}},
		{"most bytes", large, []int{maxRun / 1500, 2}},
		{"empty", []datagram{{a, 5}, {a, 0}}, []int{1, 1}},
		{"no runs to this one", []datagram{{alone, 5}, {alone, 5}}, []int{1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Socket{}
			s.fast.segments = true
			o := &Outbox{socket: s}
			for _, d := range c.in {
				o.Add(d.to, make([]byte, d.size))
			}
			var got []int
			for _, r := range o.runs {
				got = append(got, r.count)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("runs (-want +got):\n%s", d)
			}
		})
	}
}

func TestShare(t *testing.T) {
	all, err := Listen(loopback, Options{Share: 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		defer func() { _ = s.Close() }()
		if addrOf(s) != addrOf(all[0]) {
			t.Errorf("%s and %s", addrOf(s), addrOf(all[0]))
		}
	}
	if canShare && len(all) != 3 {
		t.Errorf("%d sockets, want 3", len(all))
	}
	if other, err := Listen(addrOf(all[0]), Options{Share: 2}); err == nil {
		t.Error("the port was shared with others")
		for _, s := range other {
			_ = s.Close()
		}
	}
}

// TestReceiveRuns receives what was sent as a run as one, where the system can, with where it is to be cut, and only as many as there are buffers.
func TestReceiveRuns(t *testing.T) {
	from, to := listen(t, loopback, Options{}), listen(t, loopback, Options{Runs: true, Buffer: 1 << 20})
	o, d := from.NewOutbox(), NewDestination(addrOf(to))
	want := datagrams(1200, 1200, 1200, 100, 80, 1200, 1200, 1200)
	for _, b := range want {
		o.Add(d, b)
	}
	o.Flush()
	inbox := &Inbox{}
	for i := range 2 {
		inbox.Buffers[i] = make([]byte, LargestRun)
	}
	var got [][]byte
	var batches [][]int
	for len(got) < len(want) {
		if err := to.Receive(inbox, nil); err != nil {
			t.Fatal(err)
		}
		var runs []int
		for i := range inbox.Len() {
			b, size, at := inbox.Run(i)
			if at != unmap(addrOf(from)) {
				t.Errorf("from %s", at)
			}
			runs = append(runs, 0)
			for ; len(b) > 0; runs[i]++ {
				n := min(size, len(b))
				got, b = append(got, bytes.Clone(b[:n])), b[n:]
			}
		}
		batches = append(batches, runs)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if !from.Segments() {
		t.Log("this system has no runs: datagrams came one by one")
		return
	}
	if d := cmp.Diff([][]int{{4, 1}, {3}}, batches); d != "" {
		t.Errorf("runs in batches (-want +got):\n%s", d)
	}
}

// TestIdle deals with what came before it waits, once, and not while there is more.
func TestIdle(t *testing.T) {
	from, to := listen(t, loopback, Options{}), listen(t, loopback, Options{})
	send := func() {
		if _, err := from.WriteToAddrPort([]byte("x"), addrOf(to)); err != nil {
			t.Error(err)
		}
	}
	calls := 0
	b := newInbox()
	receive := func() {
		t.Helper()
		if err := to.Receive(b, func() { calls++; send() }); err != nil || b.Len() != 1 {
			t.Errorf("%d datagrams, %v", b.Len(), err)
		}
	}
	receive() // what idle sends ends the wait
	if calls != 1 {
		t.Errorf("idle called %d times, want once", calls)
	}
	if !to.fast.ready() {
		return
	}
	send()
	receive()
	if calls != 1 {
		t.Error("idle called though there was something")
	}
}

func TestClosed(t *testing.T) {
	s := listen(t, loopback, Options{})
	failed := make(chan error)
	go func() { failed <- s.Receive(newInbox(), nil) }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
	o := s.NewOutbox()
	o.Add(NewDestination(netip.MustParseAddrPort("127.0.0.1:9")), []byte("late"))
	o.Flush()
	if lost := s.Stats().Lost; lost != 1 {
		t.Errorf("%d lost, want 1", lost)
	}
}
