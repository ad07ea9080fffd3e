package port

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"callserver/sfu/udp"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// taker keeps what it receives.
type taker chan string

func (c taker) Receive(b []byte, _ time.Time) { c <- string(b) }

// open returns ports with one address and a client's socket.
func open(t *testing.T, batches chan int) (*Ports, *net.UDPConn) {
	t.Helper()
	sockets, err := udp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udp.Options{Share: 2, Runs: true})
	if err != nil {
		t.Fatal(err)
	}
	in := newIntake(sockets, func(home int) { batches <- home })
	t.Cleanup(func() { _ = in.Close() })
	server, ok := in.LocalAddr().(*net.UDPAddr)
	if !ok {
		t.Fatal("no address")
	}
	client, err := net.DialUDP("udp", nil, server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return &Ports{intakes: map[netip.Addr]*Intake{netip.MustParseAddr("127.0.0.1"): in}}, client
}

// TestRun takes the datagrams of a run one by one: media and what may be between them.
func TestRun(t *testing.T) {
	batches := make(chan int, 100)
	p, client := open(t, batches)
	in := p.intakes[netip.MustParseAddr("127.0.0.1")]
	media := make(taker, 10)
	if _, err := p.Attach(Link{Local: netip.MustParseAddr("127.0.0.1"), Remote: client.LocalAddr().(*net.UDPAddr).AddrPort()}, true, media); err != nil {
		t.Fatal(err)
	}
	sender := udp.Wrap(client, udp.Options{})
	o := sender.NewOutbox()
	at := udp.NewDestination(in.LocalAddr().(*net.UDPAddr).AddrPort())
	for _, b := range []string{"\x80first", "\x80other", "\x00stun!", "\x80last"} {
		o.Add(at, []byte(b))
	}
	o.Flush()
	for _, want := range []string{"\x80first", "\x80other", "\x80last"} {
		if got := <-media; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	b := make([]byte, 100)
	if n, _, err := in.ReadFromAddrPort(b); err != nil || string(b[:n]) != "\x00stun!" {
		t.Errorf("%q, %v", b[:n], err)
	}
}

// TestIntake tells media from the rest, and clients from each other.
func TestIntake(t *testing.T) {
	batches := make(chan int, 100)
	p, client := open(t, batches)
	in := p.intakes[netip.MustParseAddr("127.0.0.1")]
	send := func(text string) {
		t.Helper()
		if _, err := client.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		<-batches
	}
	link := Link{Local: netip.MustParseAddr("127.0.0.1"), Remote: client.LocalAddr().(*net.UDPAddr).AddrPort()}
	b := make([]byte, 100)
	control := func(want string) {
		t.Helper()
		n, from, err := in.ReadFrom(b)
		if err != nil || string(b[:n]) != want || from.String() != client.LocalAddr().String() {
			t.Errorf("got %q of %v, %v; want %q", b[:n], from, err, want)
		}
	}
	media := func(c taker, want string) {
		t.Helper()
		select {
		case got := <-c:
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		default:
			t.Errorf("%q did not arrive", want)
		}
	}

	send("\x80 of nobody")
	send("\x01 a check")
	control("\x01 a check")

	one, two := make(taker, 10), make(taker, 10)
	first, err := p.Attach(link, false, one)
	if err != nil {
		t.Fatal(err)
	}
	send("\x80 one")
	media(one, "\x80 one")
	send("\x16 a handshake")
	control("\x16 a handshake")

	if _, err := p.Attach(link, false, two); !errors.Is(err, ErrTaken) {
		t.Errorf("an address was taken from another client: %v", err)
	}
	second, err := p.Attach(link, true, two)
	if err != nil {
		t.Fatal(err)
	}
	first.Detach() // somebody else has it by now
	send("\xbf two")
	media(two, "\xbf two")
	second.Detach()
	second.Detach()
	send("\x80 of nobody again")
	if len(one)+len(two) != 0 {
		t.Error("media without a route")
	}

	link.Local = netip.MustParseAddr("192.0.2.1")
	if _, err := p.Attach(link, true, one); err == nil {
		t.Error("a route to an address that is not ours")
	}
	link.TCP = true
	if _, err := p.Attach(link, true, one); err == nil {
		t.Error("a route over TCP without a port")
	}
}

// TestIntakeWrites answers from the port that was asked.
func TestIntakeWrites(t *testing.T) {
	p, client := open(t, make(chan int, 100))
	in := p.intakes[netip.MustParseAddr("127.0.0.1")]
	if _, err := in.WriteTo([]byte("answer"), client.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := client.Read(b); err != nil || string(b[:n]) != "answer" { // it takes packets of its peer only
		t.Errorf("got %q, %v", b[:n], err)
	}
	if _, err := in.WriteTo(nil, &net.TCPAddr{}); err == nil {
		t.Error("wrote to a TCP address")
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := in.ReadFrom(b); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}
