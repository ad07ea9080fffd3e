package port

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
)

func listenOnLoopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// through connects to l and returns where the accepted connection says that it is, "" if it was closed.
func through(t *testing.T, g *gate, l net.Listener) string {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	gone := make(chan struct{})
	go func() { _, _ = c.Read(make([]byte, 1)); close(gone) }()
	select {
	case accepted := <-g.conns:
		defer accepted.Close()
		return accepted.LocalAddr().(*net.TCPAddr).IP.String()
	case <-gone:
		return ""
	}
}

func TestGate(t *testing.T) {
	for _, tc := range []struct {
		name             string
		addresses        []string
		ownWant, another string // as which local address a connection through each counts
	}{
		{"in use", []string{"127.0.0.1"}, "127.0.0.1", "127.0.0.1"},
		{"others in use", []string{"2001:db8::1", "192.0.2.1"}, "", "192.0.2.1"},
		{"none of the family", []string{"2001:db8::1"}, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			own, shared := listenOnLoopback(t), listenOnLoopback(t)
			g := newGate(own, func() (out []netip.Addr) {
				for _, a := range tc.addresses {
					out = append(out, netip.MustParseAddr(a))
				}
				return out
			})
			g.share(shared)
			if got := through(t, g, own); got != tc.ownWant {
				t.Errorf("through the own listener: %q, want %q", got, tc.ownWant)
			}
			if got := through(t, g, shared); got != tc.another {
				t.Errorf("through the shared listener: %q, want %q", got, tc.another)
			}
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			if _, err := g.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("accept after close: %v", err)
			}
			late := listenOnLoopback(t)
			g.share(late)
			if _, err := late.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a listener shared after close stays open: %v", err)
			}
		})
	}
}

// TestGateClosesWhatWaits does not hand over a connection that nobody accepted in time.
func TestGateClosesWhatWaits(t *testing.T) {
	own := listenOnLoopback(t)
	g := newGate(own, func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} })
	c, err := net.Dial("tcp", own.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.ErrNoProgress) {
		t.Errorf("the connection stays open: %v", err)
	}
}
