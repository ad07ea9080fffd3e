package matrixrtc

import (
	"net/netip"
	"testing"
	"time"
)

func TestLimiterAddresses(t *testing.T) {
	now := time.Unix(0, 0)
	cases := []struct {
		name, first, second string
		shared              bool
	}{
		{"same v4", "8.8.8.8", "8.8.8.8", true},
		{"other v4", "8.8.8.8", "8.8.8.9", false},
		{"same /64", "2606:4700::1", "2606:4700::ffff:2", true},
		{"other /64", "2606:4700::1", "2606:4700:0:1::1", false},
		{"same link-local", "fe80::1%eth0", "fe80::2%eth1", true},
		{"loopback is the proxy", "127.0.0.1", "127.0.0.1", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := newLimiter()
			for range int(limitBurst) {
				if wait := l.take(netip.MustParseAddr(c.first), now); wait != 0 {
					t.Fatalf("told to wait %s within the burst", wait)
				}
			}
			if limited := l.take(netip.MustParseAddr(c.second), now) > 0; limited != c.shared {
				t.Errorf("after a burst from %s, %s is limited: %t, want %t", c.first, c.second, limited, c.shared)
			}
		})
	}
	if wait := newLimiter().take(netip.Addr{}, now); wait != 0 {
		t.Errorf("without an address: told to wait %s", wait)
	}
}

func TestLimiterIsBounded(t *testing.T) {
	l, now := newLimiter(), time.Unix(0, 0)
	addr := netip.MustParseAddr("8.0.0.0")
	for range 3 * limitAddrs {
		l.take(addr, now)
		addr = addr.Next()
	}
	if got := len(l.buckets); got > limitAddrs {
		t.Errorf("remembers %d addresses, at most %d", got, limitAddrs)
	}
	for i := range limitAddrs {
		l.take(addr, now.Add(time.Duration(i)*time.Second))
		addr = addr.Next()
	}
	if got := len(l.buckets); got > limitAddrs {
		t.Errorf("remembers %d addresses later, at most %d", got, limitAddrs)
	}
}

func BenchmarkLimiter(b *testing.B) {
	l, now, addr := newLimiter(), time.Unix(0, 0), netip.MustParseAddr("8.8.8.8")
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		l.take(addr, now)
	}
}
