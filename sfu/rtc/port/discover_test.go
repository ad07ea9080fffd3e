package port

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// serveSTUN answers questions by answer until the test ends; nil is no answer.
func serveSTUN(t *testing.T, answer func(question *stun.Message, n int) []byte) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for n := 1; ; n++ {
			size, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			question := &stun.Message{Raw: append([]byte(nil), b[:size]...)}
			if question.Decode() != nil {
				t.Error("a question that is no STUN")
			}
			if a := answer(question, n); a != nil {
				_, _ = c.WriteTo(a, from)
			}
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-done })
	return c.LocalAddr().String()
}

func seenAs(t *testing.T, question *stun.Message, ip string) []byte {
	t.Helper()
	m, err := stun.Build(stun.NewTransactionIDSetter(question.TransactionID), stun.BindingSuccess, &stun.XORMappedAddress{IP: net.ParseIP(ip), Port: 9})
	if err != nil {
		t.Error(err)
	}
	return m.Raw
}

func TestDiscover(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	good := serveSTUN(t, func(q *stun.Message, _ int) []byte { return seenAs(t, q, "203.0.113.5") })
	lossy := serveSTUN(t, func(q *stun.Message, n int) []byte {
		if n < 3 {
			return nil
		}
		return seenAs(t, q, "203.0.113.6")
	})
	forged := serveSTUN(t, func(_ *stun.Message, n int) []byte {
		return seenAs(t, stun.MustBuild(stun.TransactionID), "198.51.100.1")
	})
	for _, tc := range []struct {
		name    string
		servers []string
		want    string // an address, or part of an error
	}{
		{"answers", []string{good}, "203.0.113.5"},
		{"the third time", []string{lossy}, "203.0.113.6"},
		{"the second server", []string{"name.invalid:3478", good}, "203.0.113.5"},
		{"another's answer", []string{forged}, "no answer"},
		{"no such server", []string{"name.invalid:3478"}, "ask name.invalid:3478 from 127.0.0.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := Discover(t.Context(), tc.servers, local)
			if err != nil && !strings.Contains(err.Error(), tc.want) || err == nil && got.String() != tc.want {
				t.Errorf("got %v, %v; want %s", got, err, tc.want)
			}
		})
	}
}

// TestDiscoverEnds with its context.
func TestDiscoverEnds(t *testing.T) {
	silent := serveSTUN(t, func(*stun.Message, int) []byte { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := Discover(ctx, []string{silent, silent, silent}, netip.MustParseAddr("127.0.0.1")); err == nil || time.Since(begun) > serverTime {
		t.Errorf("got %v after %v", err, time.Since(begun))
	}
}

func TestMatching(t *testing.T) {
	for _, tc := range []struct {
		globs []string
		name  string
		want  bool
	}{
		{nil, "eth0", true}, {nil, "enp3s0", true}, {nil, "wg0", true}, {nil, "lo", true}, {nil, "bond0", true}, {nil, "br0", true},
		{nil, "docker0", false}, {nil, "br-5f1c", false}, {nil, "veth12ab", false}, {nil, "virbr0", false}, {nil, "cali123", false}, {nil, "lxdbr0", false},
		{[]string{"docker*"}, "docker0", true}, {[]string{"docker*"}, "eth0", false}, {[]string{"wlan0", "eth?"}, "eth1", true},
	} {
		if got := Matching(tc.globs)(tc.name); got != tc.want {
			t.Errorf("%v: %s is %v, want %v", tc.globs, tc.name, got, tc.want)
		}
	}
}
