package livekit

import (
	"context"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
	"go.uber.org/goleak"

	"callserver/sfu"
	"callserver/sfu/rtc"
	"callserver/signalling"
	"callserver/signalling/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testKey    = "key"
	testSecret = "a secret of more than thirty-two bytes"
)

var testKeys = token.Keys{testKey: testSecret}

// A node is a whole call server without its command: HTTP on loopback, media on loopback.
type node struct {
	*httptest.Server
	edge  *Edge
	rooms *sfu.Rooms
	calls *signalling.Server
	stop  func()

	settings func(*webrtc.SettingEngine) // changes those of the fakes' connections, nil = nothing
}

type nodeOptions struct {
	rooms sfu.Options
	rtc   rtc.Options

	revocations *token.Revocations
	ice         func(sfu.SID) []signalling.ICEServer
}

// newNode starts a node that creates rooms by itself; change alters its options.
func newNode(t testing.TB, change ...func(*nodeOptions)) *node {
	t.Helper()
	o := nodeOptions{
		rooms: sfu.Options{AutoCreate: true},
		rtc:   rtc.Options{TCPPort: -1, Loopback: true, Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}},
	}
	for _, f := range change {
		f(&o)
	}
	engine, err := rtc.New(o.rtc)
	if err != nil {
		t.Fatal(err)
	}
	rooms := sfu.New(o.rooms)
	server := signalling.New(signalling.Options{Rooms: rooms, Engine: engine, Revocations: o.revocations, ICEServers: o.ice})
	edge := New(Options{Server: server, Keys: testKeys})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- server.Run(ctx) }()
	n := &node{Server: httptest.NewServer(edge), edge: edge, rooms: rooms, calls: server}
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		drained, done := context.WithTimeout(context.Background(), 20*time.Second)
		defer done()
		if err := edge.Close(drained); err != nil {
			t.Error(err)
		}
		n.Close()
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(n.stop)
	return n
}

// ws is the websocket URL of a path.
func (n *node) ws(path string) string { return "ws" + strings.TrimPrefix(n.URL, "http") + path }

// grant is what an ordinary participant may do in the test room.
func grant(identity string) token.Grant { return token.Join("room", identity) }

func mint(t testing.TB, g token.Grant) string {
	t.Helper()
	raw, err := testKeys.Mint(testKey, g, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
