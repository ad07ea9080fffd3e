package description

import (
	"fmt"
	"strings"
	"testing"
)

// offerWith is an offer of sections, each "kind port attributes..."; the first says the transport, as in a bundle it may be the only one to.
func offerWith(version int, ufrag string, sections ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "v=0\r\no=- 1 %d IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE", version)
	for i := range sections {
		fmt.Fprintf(&b, " %d", i)
	}
	b.WriteString("\r\n")
	for i, s := range sections {
		kind, rest, _ := strings.Cut(s, " ")
		port, lines, _ := strings.Cut(rest, " ")
		format := "UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2"
		if kind == "application" {
			format = "UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000"
		}
		fmt.Fprintf(&b, "m=%s %s %s\r\na=mid:%d\r\n", kind, port, format, i)
		if i == 0 {
			fmt.Fprintf(&b, "a=ice-ufrag:%s\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AB\r\na=setup:actpass\r\n", ufrag)
		}
		for line := range strings.FieldsSeq(lines) {
			b.WriteString("a=" + line + "\r\n")
		}
	}
	return b.String()
}

// TestCarrier says what Pion is told of an offer: one section, and nothing new unless the transport changes.
func TestCarrier(t *testing.T) {
	carrier := func(offer string) string {
		t.Helper()
		d, err := Parse(offer)
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Carrier()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const audio, video, data = "audio 9 recvonly", "audio 0 bundle-only sendonly", "application 0 bundle-only"
	first := carrier(offerWith(1, "one", audio, data))
	for _, want := range []string{"m=application 9 ", "a=mid:0\r\n", "a=group:BUNDLE 0\r\n", "a=ice-ufrag:one\r\n", "a=ice-pwd:", "a=fingerprint:", "a=setup:actpass\r\n"} {
		if !strings.Contains(first, want) {
			t.Errorf("the section of the data channels lacks %q:\n%s", want, first)
		}
	}
	if strings.Contains(first, "m=audio") || strings.Contains(first, "bundle-only") {
		t.Errorf("Pion is told more than the section of the data channels:\n%s", first)
	}
	for _, c := range []struct {
		name, offer string
		same        bool
	}{
		{"more sections", offerWith(2, "one", audio, data, audio, video), true},
		{"another direction", offerWith(3, "one", "audio 9 inactive", data), true},
		{"new credentials", offerWith(4, "two", audio, data), false},
		{"no data channels any more", offerWith(5, "one", audio, "application 0"), false},
	} {
		if got := carrier(c.offer); (got == first) != c.same {
			t.Errorf("%s: the same for Pion: %t, want %t:\n%s", c.name, got == first, c.same, got)
		}
	}
	for _, direction := range []string{"sendonly", "inactive"} { // on hold
		if got := carrier(offerWith(1, "one", "audio 9 "+direction, audio)); !strings.Contains(got, "a=mid:0\r\n") || !strings.Contains(got, "a=sendonly\r\n") ||
			strings.Contains(got, "a=inactive") {
			t.Errorf("without data channels the first section that takes part, %s, is not told as one that sends:\n%s", direction, got)
		}
	}
}
