package turn

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// accept listens at an address and returns the listener and what it accepts next.
func accept(t *testing.T, host string) (net.Listener, <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l, accepted
}

// connectionID reads CONNECTION-ID.
func connectionID(t *testing.T, m *stun.Message) stun.Setter {
	t.Helper()
	id, err := m.Get(stun.AttrConnectionID)
	if err != nil {
		t.Fatalf("no connection id in %s: %v", m, err)
	}
	return attribute(stun.AttrConnectionID, id...)
}

// talk checks that two ends of a connection hear each other.
func talk(t *testing.T, one, other net.Conn) {
	t.Helper()
	for _, ends := range [][2]net.Conn{{one, other}, {other, one}} {
		if _, err := io.WriteString(ends[0], "hello"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		_ = ends[1].SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(ends[1], b); err != nil || string(b) != "hello" {
			t.Errorf("heard %q, %v", b, err)
		}
	}
}

// TestTCPRelay connects to a peer, and is connected to by one (RFC 6062).
func TestTCPRelay(t *testing.T) {
	w := start(t, host, Options{TCP: true, Peers: allowed})
	c := w.stream(shared("@alice:example.org", time.Now().Add(time.Hour)))
	relay, why := c.allocateBy(6)
	if why != 0 {
		t.Fatalf("allocation: %d", why)
	}
	l, accepted := accept(t, other)
	answer := c.ask(stun.MethodConnect, peerAddress(addrPort(l.Addr())))
	if code(answer) != 0 {
		t.Fatalf("connect: %d", code(answer))
	}
	data := w.stream(c.credential)
	if got := code(data.ask(stun.MethodConnectionBind, connectionID(t, answer))); got != 0 {
		t.Fatalf("connection bind: %d", got)
	}
	peer := <-accepted
	defer peer.Close()
	talk(t, data.conn, peer)

	if got := c.permit(addrPort(l.Addr()).Addr()); got != 0 {
		t.Fatalf("permission: %d", got)
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(other)}}
	in, err := dialer.Dial("tcp", relay.String())
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	attempt := &stun.Message{Raw: c.receive(patience)}
	if err := attempt.Decode(); err != nil || attempt.Type.Method != stun.MethodConnectionAttempt {
		t.Fatalf("told %s, %v", attempt, err)
	}
	data = w.stream(c.credential)
	if got := code(data.ask(stun.MethodConnectionBind, connectionID(t, attempt))); got != 0 {
		t.Fatalf("connection bind: %d", got)
	}
	talk(t, data.conn, in)
	if got := w.Stats().Kinds["homeserver"]; got.Up.Bytes != 10 || got.Down.Bytes != 10 {
		t.Errorf("carried %+v", got)
	}
}

// TestNoTCPRelay: where it is off, over UDP, and for clients of calls.
func TestNoTCPRelay(t *testing.T) {
	later := time.Now().Add(time.Hour)
	off, on := start(t, host, Options{}), start(t, host, Options{TCP: true})
	for name, c := range map[string]*caller{
		"off": off.stream(shared("@alice:example.org", later)), "over UDP": on.udp(shared("@alice:example.org", later)),
		"for a call": on.stream(on.Credential("PA_one", time.Now())),
	} {
		if _, got := c.allocateBy(6); got != stun.CodeInsufficientCapacity {
			t.Errorf("%s: %d, want %d", name, got, stun.CodeInsufficientCapacity)
		}
	}
}

// A pair of ports, as clients without rtcp-mux ask for.
func TestEvenPort(t *testing.T) {
	w := start(t, host, Options{})
	later := time.Now().Add(time.Hour)
	c := w.udp(shared("@alice:example.org", later))
	answer := c.ask(stun.MethodAllocate, transport(17), attribute(stun.AttrEvenPort, 0x80))
	var at stun.XORMappedAddress
	token, err := answer.Get(stun.AttrReservationToken)
	if code(answer) != 0 || err != nil || at.GetFromAs(answer, stun.AttrXORRelayedAddress) != nil || at.Port%2 != 0 {
		t.Fatalf("answered %s, %v", answer, err)
	}
	next, why := w.udp(c.credential).allocate(attribute(stun.AttrReservationToken, token...))
	if why != 0 || int(next.Port()) != at.Port+1 {
		t.Errorf("the next port: %s, %d, want %d", next, why, at.Port+1)
	}
	if got := w.Stats().Kinds["homeserver"]; got.Opened != 2 || got.Allocations != 2 {
		t.Errorf("%+v", got)
	}
}
