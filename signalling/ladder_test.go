package signalling

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"callserver/sfu/rtc"
)

func TestLadder(t *testing.T) {
	began := time.Unix(1000, 0)
	after := func(d time.Duration) time.Time { return began.Add(d) }
	who, other := stay{"room", "alice"}, stay{"room", "bob"}
	lost := func(d time.Duration, w rtc.Way) func(*ladder) {
		return func(l *ladder) { l.lost(who, w, began, after(d)) }
	}
	asked := func(d time.Duration) func(*ladder) { return func(l *ladder) { l.next(who, after(d)) } }
	up := func(d time.Duration) func(*ladder) { return func(l *ladder) { l.connected(who, after(d)) } }
	const sec = time.Second
	onTCP := []func(*ladder){lost(30*sec, rtc.UDP), asked(31 * sec), up(32 * sec)}
	for _, tc := range []struct {
		name            string
		story           []func(*ladder)
		at              time.Duration
		want, withRelay step
	}{
		{"nothing happened", nil, time.Minute, allWays, allWays},
		{"UDP ended soon", []func(*ladder){lost(30*sec, rtc.UDP)}, time.Minute, tcpAlone, tcpAlone},
		{"UDP lasted", []func(*ladder){lost(91*sec, rtc.UDP)}, 2 * time.Minute, allWays, allWays},
		{"TCP ended, where UDP was not there", []func(*ladder){lost(30*sec, rtc.TCP)}, time.Minute, allWays, allWays},
		{"never connected", []func(*ladder){lost(30*sec, rtc.NoWay)}, time.Minute, allWays, allWays},
		{"TCP connected", onTCP, time.Minute, tcpAlone, tcpAlone},
		{"TCP did not connect", onTCP[:2], time.Minute, allWays, relayAlone},
		{"TCP ended soon", append(onTCP[:3:3], lost(60*sec, rtc.TCP)), time.Minute, tcpAlone, relayAlone},
		{"the relay connected", append(onTCP[:2:2], asked(40*sec), up(41*sec)), time.Minute, allWays, relayAlone},
		{"the relay did not connect", append(onTCP[:2:2], asked(40*sec)), time.Minute, allWays, allWays},
		{"long ago", onTCP, 30*sec + ladderMemory, allWays, allWays},
		{"not for longer because it connected", []func(*ladder){lost(0, rtc.UDP), asked(9 * time.Minute), up(9 * time.Minute)}, ladderMemory, allWays, allWays},
		{"again", append(onTCP[:3:3], asked(50*sec), asked(65*sec), asked(66*sec), lost(80*sec, rtc.UDP)), 81 * sec, tcpAlone, tcpAlone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for relay, want := range map[bool]step{false: tc.want, true: tc.withRelay} {
				l := newLadder(relay)
				for _, do := range tc.story {
					do(l)
				}
				if got := l.next(who, after(tc.at)); got != want {
					t.Errorf("with a relay %t: %v, want %v", relay, got, want)
				}
				if got := l.next(other, after(tc.at)); got != allWays {
					t.Errorf("with a relay %t: somebody else gets %v", relay, got)
				}
			}
		})
	}
}

func TestWithoutUDP(t *testing.T) {
	server := func(urls ...string) ICEServer { return ICEServer{URLs: urls, Username: "user", Credential: "secret"} }
	udp, udp6, implied := "turn:192.0.2.1:3478?transport=udp", "turn:[2001:db8::1]:3478?transport=udp", "turn:192.0.2.1"
	tcp, tls := "turn:192.0.2.1:3478?transport=tcp", "turns:call.example:443?transport=tcp"
	for _, tc := range []struct {
		name     string
		in, want []ICEServer
	}{
		{"no relay", nil, nil},
		{"all ways", []ICEServer{server(udp, tcp, udp6, tls)}, []ICEServer{server(tcp, tls)}},
		{"TLS by default", []ICEServer{server(implied, "turns:call.example")}, []ICEServer{server("turns:call.example")}},
		{"one server with UDP alone", []ICEServer{server(udp), server(udp, tls)}, []ICEServer{server(tls)}},
		{"UDP alone", []ICEServer{server(udp), server(implied)}, []ICEServer{server(udp), server(implied)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, withoutUDP(tc.in)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
