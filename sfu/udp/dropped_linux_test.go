//go:build linux && (amd64 || arm64)

package udp

import (
	"testing"
)

// TestDropped sends more than fits into a socket that nobody reads: what it dropped and what is left in it are all of it.
func TestDropped(t *testing.T) {
	for _, c := range []struct {
		name string
		open func(t *testing.T) *Socket
	}{
		{"ordinary", func(t *testing.T) *Socket { return listen(t, loopback, Options{Buffer: 1}) }},
		{"bare", func(t *testing.T) *Socket {
			all, err := ListenBare(loopback, Options{Buffer: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = all[0].Close() })
			return all[0]
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := listen(t, loopback, Options{}), c.open(t)
			const fits, sent = 1, 100
			for i := range sent {
				if _, err := from.WriteToAddrPort(make([]byte, 1000), addrOf(to)); err != nil {
					t.Fatal(err)
				}
				if i == 0 && to.Dropped() != 0 {
					t.Fatalf("%d dropped with room for them", to.Dropped())
				}
			}
			dropped := to.Dropped()
			if dropped == 0 || dropped > sent-fits {
				t.Fatalf("%d of %d dropped", dropped, sent)
			}
			b := newInbox()
			if err := to.Receive(b, nil); err != nil || uint32(b.Len())+dropped != sent {
				t.Errorf("%d dropped and %d received (%v), want %d together", dropped, b.Len(), err, sent)
			}
			if again := to.Dropped(); again != dropped {
				t.Errorf("%d dropped, then %d", dropped, again)
			}
			_ = to.Close()
			if after := to.Dropped(); after != 0 {
				t.Errorf("%d dropped by a closed socket", after)
			}
		})
	}
	if s := Wrap(plain{listen(t, loopback, Options{}).conn}, Options{}); s.Dropped() != 0 {
		t.Error("a connection of any kind drops")
	}
}
