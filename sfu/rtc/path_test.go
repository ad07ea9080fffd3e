package rtc

import (
	"net/netip"
	"testing"
	"time"

	"callserver/sfu/rtc/port"
)

// TestMoved follows a client that has left the chosen pair, and nobody else.
func TestMoved(t *testing.T) {
	local := netip.MustParseAddr("203.0.113.1")
	chosen := port.Link{Local: local, Remote: netip.MustParseAddrPort("10.0.0.2:4000")}
	seen := port.Link{Local: local, Remote: netip.MustParseAddrPort("198.51.100.7:5000")}
	start := time.Unix(1000, 0)
	for _, tc := range []struct {
		name   string
		chosen port.Link
		on     check
		after  time.Duration // since the last check of the chosen pair
		want   bool
	}{
		{"moved", chosen, check{seen, true, true}, 2 * time.Second, true},
		{"nothing is chosen yet", port.Link{}, check{seen, true, true}, 2 * time.Second, false},
		{"the chosen pair itself", chosen, check{chosen, true, true}, 2 * time.Second, false},
		{"the chosen pair is in use", chosen, check{seen, true, true}, 900 * time.Millisecond, false},
		{"the client does not want it", chosen, check{seen, false, true}, 2 * time.Second, false},
		{"the address may be made up", chosen, check{seen, true, false}, 2 * time.Second, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &paths{chosen: tc.chosen, heard: start}
			if got := p.movedLocked(tc.on, start.Add(tc.after)); got != tc.want {
				t.Errorf("moved: %t, want %t", got, tc.want)
			}
		})
	}
	p := &paths{chosen: chosen, heard: start}
	p.movedLocked(check{chosen, true, true}, start.Add(5*time.Second))
	if p.movedLocked(check{seen, true, true}, start.Add(5500*time.Millisecond)) {
		t.Error("moved away from a pair that was checked just before")
	}
}
