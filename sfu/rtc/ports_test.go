package rtc_test

import (
	"encoding/json"
	"net/netip"
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
	send, source := alice.publish("mic", "audio/opus")
	bob.negotiate(false)
	bob.subscribe("TR_A", source, "audio/opus")
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

// TestAdvertise tells clients the addresses of the configuration, not those that are listened on.
func TestAdvertise(t *testing.T) {
	public := netip.MustParseAddr("203.0.113.5")
	for _, c := range []struct {
		name string
		list []netip.Addr
		want []string
	}{
		{"as they are", nil, []string{"10.0.0.1"}},
		{"public", []netip.Addr{public}, []string{"203.0.113.5"}},
		{"both", []netip.Addr{netip.MustParseAddr("10.0.0.1"), public}, []string{"10.0.0.1", "203.0.113.5"}},
		{"other family", []netip.Addr{netip.MustParseAddr("2001:db8::1")}, nil},
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
							var init struct{ Candidate string }
							if err := json.Unmarshal([]byte(e.Init), &init); err != nil {
								t.Fatal(err)
							}
							got = append(got, strings.Fields(init.Candidate)[4])
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
