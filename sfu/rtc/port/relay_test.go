package port

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"callserver/sfu/udp"
)

// TestRelay takes what a relay hands over, and sends by the relay what is for its address: media, and what is Pion's.
func TestRelay(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	p, _ := open(t, make(chan int, 100))
	p.UDPPort = p.intakes[loopback].LocalAddr().(*net.UDPAddr).Port
	at := netip.AddrPortFrom(loopback, uint16(p.UDPPort))
	if p.Intake(at) != nil {
		t.Error("taken without UDP")
	}
	p.UDP = &udpMux{ports: p}
	for _, other := range []netip.AddrPort{netip.AddrPortFrom(loopback, at.Port()+1), netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), at.Port())} {
		if p.Intake(other) != nil {
			t.Errorf("%s is one of ours", other)
		}
	}
	in := p.Intake(at)
	if in == nil {
		t.Fatalf("%s is none of ours", at)
	}
	relayed := netip.MustParseAddrPort("192.0.2.7:50000") // no datagram gets there
	sockets, err := udp.Listen(netip.AddrPortFrom(loopback, 0), udp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sockets[0].Close() }()
	var written []string
	for _, write := range []func(b []byte){nil, func(b []byte) { written = append(written, string(b)) }} {
		in.Meet(relayed, sockets, udp.NewDestination(at), write) // the client is our own socket: what comes back is seen
		media := make(taker, 10)
		take := func(text string) { in.Take([]byte(text), relayed, time.Now()) }
		take("\x80media of nobody yet")
		route, err := p.Attach(Link{Local: loopback, Remote: relayed}, true, media)
		if err != nil {
			t.Fatal(err)
		}
		if write == nil && (len(route.Sockets) != 1 || route.Sockets[0] != sockets[0]) || (route.Write == nil) != (write == nil) {
			t.Errorf("route %+v", route)
		}
		take("\x80media")
		if got := <-media; got != "\x80media" || len(media) != 0 {
			t.Errorf("got %q", got)
		}
		take("\x00control")
		b := make([]byte, 100)
		if n, from, err := in.ReadFromAddrPort(b); err != nil || from != relayed || string(b[:n]) != "\x00control" {
			t.Errorf("%q from %s, %v", b[:n], from, err)
		}
		if _, err := in.WriteToAddrPort([]byte("\x01answer"), relayed); err != nil {
			t.Error(err)
		}
		if write == nil {
			if n, _, err := in.ReadFromAddrPort(b); err != nil || string(b[:n]) != "\x01answer" {
				t.Errorf("the client got %q, %v", b[:n], err)
			}
		} else if len(written) != 1 || written[0] != "\x01answer" {
			t.Errorf("the client got %q", written)
		}
		route.Detach()
		in.Part(relayed)
		if _, ok := in.relay(relayed); ok {
			t.Error("the relay is still there")
		}
	}
}
