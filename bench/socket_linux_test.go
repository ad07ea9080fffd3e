//go:build linux && (amd64 || arm64)

package bench

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestBatch: what is sent arrives datagram by datagram and in order, in runs or not.
func TestBatch(t *testing.T) {
	sizes := []int{1000, 1000, 1000, 1001, 1001, 80, 1001, 900, 900}
	for _, single := range []bool{false, true} {
		from, to := socketForTest(t), socketForTest(t)
		out, in := newBatch(), newBatch()
		out.single = single
		for i, n := range sizes {
			out.slot()[0] = byte(i)
			out.commit(n)
		}
		if runs := out.runs(0, new(socketAddress)); !single && runs != 5 || single && runs != len(sizes) {
			t.Errorf("single %t: %d messages", single, runs)
		}
		address := newSocketAddress(to.local.AddrPort())
		if lost := out.send(from, &address); lost > 0 {
			t.Errorf("single %t: %d refused", single, lost)
		}
		var got []int
		for end := time.Now().Add(5 * time.Second); len(got) < len(sizes) && time.Now().Before(end); {
			for i := range in.receive(to) {
				if b := in.packet(i); int(b[0]) != len(got) {
					t.Errorf("single %t: datagram %d came as number %d", single, b[0], len(got))
				}
				got = append(got, len(in.packet(i)))
			}
		}
		if d := cmp.Diff(sizes, got); d != "" {
			t.Errorf("single %t: sizes (-want +got):\n%s", single, d)
		}
		if out.n != 0 {
			t.Errorf("single %t: %d datagrams are left", single, out.n)
		}
	}
}

func socketForTest(t *testing.T) *socket {
	t.Helper()
	s, err := openSocket(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.release)
	return s
}
