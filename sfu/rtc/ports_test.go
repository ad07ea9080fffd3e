package rtc_test

import (
	"encoding/json"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"callserver/sfu/rtc"
)

// TestTCP calls over real sockets with a client that has nothing but TCP.
func TestTCP(t *testing.T) {
	engine, err := rtc.New(rtc.Options{UDPPort: -1, Loopback: true, Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}()
	if engine.UDPPort() != 0 || engine.TCPPort() == 0 {
		t.Errorf("ports %d and %d", engine.UDPPort(), engine.TCPPort())
	}
	w := &world{t: t, engine: engine, tcp: true}
	alice, bob := w.join(true, 17), w.join(false, 17)
	defer bob.leave()
	defer alice.leave()
	send, _ := alice.talkTo(bob)
	w.until("media over TCP", func() bool {
		if alice.connected() {
			send(0, false)
		}
		return bob.received("TR_A") != nil
	})
	if p := bob.peer.Stats(); p.Protocol != "tcp" || p.State != rtc.Connected || p.Downlinks != 1 {
		t.Errorf("got %+v", p)
	}
}

// fieldsOf are the fields of a candidate: the protocol is the third, address and port are the fifth and the sixth (RFC 8839 §5.1).
func fieldsOf(t *testing.T, e rtc.CandidateGathered) []string {
	t.Helper()
	var init struct{ Candidate string }
	if err := json.Unmarshal([]byte(e.Init), &init); err != nil {
		t.Fatal(err)
	}
	return strings.Fields(init.Candidate)
}

// TestAvoidUDP tells a client of TCP alone, and of all ways again.
func TestAvoidUDP(t *testing.T) {
	engine, err := rtc.New(rtc.Options{Loopback: true, Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	w := &world{t: t, engine: engine}
	for _, c := range []struct {
		name         string
		joined, then bool
		want         string
	}{
		{"all ways", false, false, "tcp udp"},
		{"from the start", true, true, "tcp"},
		{"from then on", false, true, "tcp"},
		{"no more", true, false, "tcp udp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := engine.NewPeer(rtc.PeerOptions{Single: true, Protocol: 17, Subscribes: true, AvoidUDP: c.joined})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			p.AvoidUDP(c.then)
			if _, err := p.Offer(1, offerOf(t, "chromium-join"), nil); err != nil {
				t.Fatal(err)
			}
			told, final := map[string]bool{}, false
			w.until("candidates", func() bool {
				for _, e := range p.Events() {
					if e, ok := e.(rtc.CandidateGathered); ok {
						told[fieldsOf(t, e)[2]], final = true, final || e.Final
					}
				}
				return final
			})
			if got := strings.Join(slices.Sorted(maps.Keys(told)), " "); got != c.want {
				t.Errorf("told of %q, want %q", got, c.want)
			}
		})
	}
}

// TestHiddenAddresses connects clients that hide their addresses behind mDNS names, as browsers do: their checks show where they are.
func TestHiddenAddresses(t *testing.T) {
	for _, single := range []bool{true, false} {
		bubble(t, func(w *world) {
			w.hidden = true
			alice := w.join(single, 17)
			defer alice.leave()
			alice.negotiate(false)
			w.until("a connection", alice.peer.Connected)
		})
	}
}

// TestAdvertise tells clients the addresses of the configuration, not those that are listened on.
func TestAdvertise(t *testing.T) {
	public := netip.MustParseAddr("203.0.113.5")
	for _, c := range []struct {
		name string
		list []rtc.Advertised
		want []string
	}{
		{"as they are", nil, []string{"10.0.0.1"}},
		{"public", []rtc.Advertised{{Addr: public}}, []string{"203.0.113.5"}},
		{"both", []rtc.Advertised{{Addr: netip.MustParseAddr("10.0.0.1")}, {Addr: public}}, []string{"10.0.0.1", "203.0.113.5"}},
		{"other family", []rtc.Advertised{{Addr: netip.MustParseAddr("2001:db8::1")}}, nil},
		{"port mapped", []rtc.Advertised{{Addr: public, UDP: 40000, TCP: 443}}, []string{"203.0.113.5:40000"}},
		{"not over udp", []rtc.Advertised{{Addr: public, UDP: -1}}, nil},
		{"behind this one", []rtc.Advertised{{Addr: public, Local: netip.MustParseAddr("10.0.0.1")}}, []string{"203.0.113.5"}},
		{"behind another", []rtc.Advertised{{Addr: public, Local: netip.MustParseAddr("10.0.0.2")}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubbleWith(t, rtc.Options{Advertise: c.list}, func(w *world) {
				p, err := w.engine.NewPeer(rtc.PeerOptions{Single: true, Protocol: 17, Subscribes: true})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := p.Offer(1, offerOf(t, "chromium-join"), nil); err != nil {
					t.Fatal(err)
				}
				var got []string
				final := 0
				w.until("candidates", func() bool {
					for _, e := range p.Events() {
						if e, ok := e.(rtc.CandidateGathered); ok {
							f := fieldsOf(t, e)
							if f[5] != strconv.Itoa(w.engine.UDPPort()) {
								f[4] += ":" + f[5]
							}
							got = append(got, f[4])
							if e.Final {
								final++
							}
						}
					}
					return len(got) >= len(c.want)
				})
				if strings.Join(got, " ") != strings.Join(c.want, " ") || final != min(len(c.want), 1) {
					t.Errorf("got %q, %d of them final; want %q", got, final, c.want)
				}
			})
		})
	}
}

// TestListenRefused says what is wrong with a configuration that cannot work.
func TestListenRefused(t *testing.T) {
	_, err := rtc.New(rtc.Options{Listen: []netip.Addr{netip.MustParseAddr("192.0.2.77")}})
	if err == nil || !strings.Contains(err.Error(), "no local address") {
		t.Errorf("got %v", err)
	}
	first, err := rtc.New(rtc.Options{Loopback: true, TCPPort: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := rtc.New(rtc.Options{Loopback: true, UDPPort: first.UDPPort(), TCPPort: -1}); err == nil ||
		!strings.Contains(err.Error(), "media.udp_port") {
		t.Errorf("got %v for a port in use", err)
	}
	if _, err := first.NewPeer(rtc.PeerOptions{Subscribes: true}); err != nil {
		t.Error(err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := first.NewPeer(rtc.PeerOptions{}); err == nil {
		t.Error("a closed engine creates peers")
	}
}

// TestLite lets clients do the checks. Over two connections Pion, which the clients of this test are, wants to be the DTLS server towards a lite
// agent, as browsers do not; and that we always are.
func TestLite(t *testing.T) {
	bubbleWith(t, rtc.Options{Lite: true}, func(w *world) {
		alice, bob := w.join(true, 17), w.join(true, 17)
		defer bob.leave()
		defer alice.leave()
		send, _ := alice.talkTo(bob)
		w.until("media", func() bool {
			if alice.connected() {
				send(0, false)
			}
			return bob.received("TR_A") != nil
		})
		answer := alice.negotiate(true)
		if !strings.Contains(answer.SDP, "a=ice-lite\r\n") {
			t.Errorf("the answer does not say ice-lite:\n%s", answer.SDP)
		}
	})
}

// TestSharedTCP tells clients the port that ICE shares with others, too.
func TestSharedTCP(t *testing.T) {
	engine, err := rtc.New(rtc.Options{
		UDPPort: -1, Loopback: true, Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		Advertise: []rtc.Advertised{{Addr: netip.MustParseAddr("203.0.113.5"), TCP: 4443}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	shared, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	engine.AcceptTCP(shared, 443)
	p, err := engine.NewPeer(rtc.PeerOptions{Single: true, Protocol: 17, Subscribes: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Offer(1, offerOf(t, "chromium-join"), nil); err != nil {
		t.Fatal(err)
	}
	var ports []string
	(&world{t: t, engine: engine}).until("candidates", func() bool {
		for _, e := range p.Events() {
			if e, ok := e.(rtc.CandidateGathered); ok {
				ports = append(ports, strings.Join(fieldsOf(t, e)[4:6], ":"))
			}
		}
		return len(ports) >= 2
	})
	if got := strings.Join(ports, " "); got != "203.0.113.5:4443 203.0.113.5:443" {
		t.Errorf("told %s", got)
	}
	if err := engine.Close(); err != nil {
		t.Error(err)
	}
	if _, err := shared.Accept(); err == nil {
		t.Error("the shared listener outlives the engine")
	}
	without, err := rtc.New(rtc.Options{Loopback: true, TCPPort: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer without.Close()
	if shared, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	without.AcceptTCP(shared, 443)
	if _, err := shared.Accept(); err == nil {
		t.Error("a listener that nobody is told of stays open")
	}
}
