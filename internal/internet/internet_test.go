package internet

import (
	"net/netip"
	"testing"
)

func TestPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"1.1.1.1": true, "9.255.255.255": true, "100.63.255.255": true, "100.128.0.0": true, "172.32.0.1": true, "192.0.1.1": true, "223.255.255.255": true,
		"2001:4860:4860::8888": true, "2600::1": true,

		"0.0.0.0": false, "10.0.0.1": false, "100.64.0.1": false, "127.0.0.1": false, "169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false,
		"192.0.0.192": false, "192.0.2.1": false, "192.88.99.1": false, "192.168.1.1": false, "198.18.0.1": false, "198.51.100.1": false, "203.0.113.1": false,
		"224.0.0.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::7f00:1": false, "::ffff:1.1.1.1": false, "64:ff9b::101:101": false, "64:ff9b:1::1": false, "100::1": false,
		"2001::1": false, "2001:db8::1": false, "2002:101:101::1": false, "3fff::1": false, "5f00::1": false,
		"fc00::1": false, "fd00:ec2::254": false, "fe80::1": false, "2600::1%eth0": false, "fec0::1": false, "ff02::1": false,
	} {
		if got := Public(netip.MustParseAddr(text)); got != want {
			t.Errorf("Public(%s) = %t, want %t", text, got, want)
		}
	}
	if Public(netip.Addr{}) {
		t.Error("the zero address is public")
	}
}

func TestEmbedded(t *testing.T) {
	for text, want := range map[string]string{
		"1.1.1.1": "1.1.1.1", "::ffff:10.0.0.1": "10.0.0.1", "64:ff9b::a00:1": "10.0.0.1", "64:ff9b:1::a00:1": "64:ff9b:1::a00:1", "2002:a00:1::": "2002:a00:1::",
	} {
		if got := Embedded(netip.MustParseAddr(text)); got != netip.MustParseAddr(want) {
			t.Errorf("Embedded(%s) = %s, want %s", text, got, want)
		}
	}
}
