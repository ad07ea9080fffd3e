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
		out, in := newBatch(), newInbox()
		out.single = single
		for i, n := range sizes {
			out.slot()[0] = byte(i)
			out.commit(n)
		}
		want := 5
		if single {
			want = len(sizes)
		}
		if runs := out.runs(0, from, new(socketAddress)); runs != want {
			t.Errorf("single %t: %d messages, want %d", single, runs, want)
		}
		address := newSocketAddress(to.local.AddrPort())
		if single {
			from.connect(&address)
		}
		if lost := out.send(from, &address); lost > 0 {
			t.Errorf("single %t: %d refused", single, lost)
		}
		var got []int
		runs := 0
		for end := time.Now().Add(5 * time.Second); len(got) < len(sizes) && time.Now().Before(end); {
			for i := range in.receive(to) {
				run, size, arrival := in.run(i)
				runs++
				if age := time.Since(time.Unix(0, arrival)); age < 0 || age > 5*time.Second {
					t.Errorf("single %t: a run came %v ago", single, age)
				}
				for ; len(run) > 0; run = run[min(size, len(run)):] {
					if int(run[0]) != len(got) {
						t.Errorf("single %t: datagram %d came as number %d", single, run[0], len(got))
					}
					got = append(got, min(size, len(run)))
				}
			}
		}
		if d := cmp.Diff(sizes, got); d != "" {
			t.Errorf("single %t: sizes (-want +got):\n%s", single, d)
		}
		if runs != want { // a kernel of 5.0 or later
			t.Errorf("single %t: %d runs came, want %d", single, runs, want)
		}
		if out.n != 0 {
			t.Errorf("single %t: %d datagrams are left", single, out.n)
		}
	}
}

// TestRefused: what a port without a socket has refused counts for the next that is sent, which is sent all the same.
func TestRefused(t *testing.T) {
	from, to := socketForTest(t), socketForTest(t)
	address := newSocketAddress(to.local.AddrPort())
	from.connect(&address)
	if !from.connected {
		t.Fatal("not connected")
	}
	to.release()
	out := newBatch()
	for range 3 {
		out.commit(100)
		if lost := out.send(from, &address); lost > 0 {
			t.Errorf("%d lost", lost)
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
