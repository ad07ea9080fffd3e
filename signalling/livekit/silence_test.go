package livekit

import (
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/pion/webrtc/v4"

	"callserver/sfu"
	"callserver/signalling"
)

// A cable is a socket that can be cut: what is sent is lost then, and nothing comes.
type cable struct {
	net.PacketConn
	cut atomic.Bool
}

func (c *cable) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.cut.Load() {
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, to)
}

func (c *cable) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil || !c.cut.Load() {
			return n, from, err
		}
	}
}

// wired has the next client of the node use a cable for media.
func wired(t *testing.T, n *node) *cable {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{PacketConn: conn}
	mux := webrtc.NewICEUDPMux(nil, c)
	t.Cleanup(func() { _ = mux.Close() })
	n.settings = func(s *webrtc.SettingEngine) { s.SetICEUDPMux(mux) }
	return c
}

const (
	relayOverUDP = "turn:127.0.0.1:9?transport=udp"
	relayOverTCP = "turn:127.0.0.1:9?transport=tcp"
)

// watchful makes a node notice soon that media is silent, and late that it is dead.
func watchful(o *nodeOptions) {
	o.rtc.ICEKeepalive, o.rtc.ICEDisconnected, o.rtc.ICEFailed = 100*time.Millisecond, 500*time.Millisecond, time.Minute
	o.rtc.TCPPort = 0
	o.ice = func(sfu.SID) []signalling.ICEServer {
		return []signalling.ICEServer{{URLs: []string{relayOverUDP, relayOverTCP}}}
	}
}

func forced(m *livekit.ReconnectResponse) bool {
	return m.GetClientConfiguration().GetForceRelay() == livekit.ClientConfigSetting_ENABLED
}

// A client whose media goes silent while it is heard resumes at once, and over TCP, since UDP did not last; where that does not connect, by the relay
// alone, which it is told to reach without UDP, and where that does not either, as at first.
func TestSilence(t *testing.T) {
	n := newNode(t, watchful)
	c := wired(t, n)
	alice := n.join(t, "alice", true)
	alice.participant("alice", "active", func(p *livekit.ParticipantInfo) bool { return p.State == livekit.ParticipantInfo_ACTIVE })
	alice.say(&livekit.SignalRequest{Message: &livekit.SignalRequest_PingReq{PingReq: &livekit.Ping{}}})
	c.cut.Store(true)
	if leave := alice.leaves(); leave.Action != livekit.LeaveRequest_RESUME {
		t.Fatalf("told %v", leave)
	}

	if first := alice.resume().GetReconnect(); first == nil || forced(first) {
		t.Fatalf("first message %v", first)
	}
	alice.offer(true)
	alice.until("the last candidate", func() bool {
		for _, m := range alice.told {
			if m.GetTrickle().GetFinal() {
				return true
			}
		}
		return false
	})
	alice.mu.Lock()
	for _, m := range alice.told {
		if c := m.GetTrickle().GetCandidateInit(); strings.Contains(c, " udp ") {
			t.Errorf("told of %s", c)
		}
	}
	alice.mu.Unlock()

	for _, want := range []bool{true, false} { // it has no TCP, and no relay answers
		alice.drop()
		first := alice.resume().GetReconnect()
		if first == nil || forced(first) != want {
			t.Fatalf("first message %v, want the relay alone: %t", first, want)
		}
		if overUDP := slices.Contains(first.IceServers[0].Urls, relayOverUDP); overUDP == want {
			t.Errorf("relays %v, relay alone: %t", first.IceServers, want)
		}
	}
}
