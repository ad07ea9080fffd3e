package description

import (
	"fmt"
	"strings"
	"testing"
)

// crowded is an offer of a client that receives n audio tracks, and sends one.
func crowded(n int) string {
	var b strings.Builder
	b.WriteString("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE")
	for i := range n + 2 {
		fmt.Fprintf(&b, " %d", i)
	}
	b.WriteString("\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS *\r\n")
	transport := "c=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=ice-options:trickle\r\na=fingerprint:sha-256 " +
		strings.TrimSuffix(strings.Repeat("AB:", 32), ":") + "\r\na=setup:actpass\r\n"
	fmt.Fprintf(&b, "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n%sa=mid:0\r\na=sctp-port:5000\r\na=max-message-size:65536\r\n", transport)
	for i := range n + 1 {
		direction := "recvonly"
		if i == n {
			direction = "sendonly\r\na=msid:s t\r\na=ssrc:1 cname:c"
		}
		fmt.Fprintf(&b, "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n%sa=mid:%d\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n"+
			"a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=%s\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:111 opus/48000/2\r\n"+
			"a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtcp-fb:111 transport-cc\r\na=rtcp-fb:111 nack\r\n", transport, i+1, direction)
	}
	return b.String()
}

// BenchmarkReply is an offer read and answered, in a call of fifty.
func BenchmarkReply(b *testing.B) {
	offer := crowded(49)
	d, err := Parse(offer)
	if err != nil {
		b.Fatal(err)
	}
	carrier, err := d.Carrier()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		d, err := Parse(offer)
		if err != nil {
			b.Fatal(err)
		}
		if again, err := d.Carrier(); err != nil || again != carrier {
			b.Fatal(again, err)
		}
		plans := map[string]*Plan{}
		for _, s := range d.Sections[1:] {
			if s.Sends {
				plans[s.MID] = s.Receive(Want{}, false)
				continue
			}
			plans[s.MID] = s.Send("audio/opus", false, &Sending{StreamID: "PA_abcdefghijkl|TR_abcdefghijkl", TrackID: "TR_abcdefghijkl", CNAME: "PA_abcdefghijkl", SSRC: 12345678})
		}
		if _, err := d.Reply(carrier, 1, plans); err != nil {
			b.Fatal(err)
		}
	}
}
