package path

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"callserver/sfu/udp"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	user, password, realm = "user", "password", "test"
	patience              = 5 * time.Second
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// guard allows what a test says, and counts.
type guard struct {
	mu       sync.Mutex
	refuse   map[netip.AddrPort]bool
	deaf     bool // nothing may pass
	up, down [2]int
}

func (g *guard) To(a netip.AddrPort) (netip.AddrPort, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return a, !g.refuse[a]
}

func (g *guard) From(a netip.AddrPort) (netip.AddrPort, bool) { return g.To(a) }

func (g *guard) Up(packets, bytes int, _ time.Time) bool   { return g.count(&g.up, packets, bytes) }
func (g *guard) Down(packets, bytes int, _ time.Time) bool { return g.count(&g.down, packets, bytes) }

func (g *guard) count(of *[2]int, packets, bytes int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.deaf {
		of[0] += packets
		of[1] += bytes
	}
	return !g.deaf
}

// world is a TURN server of pion's above a Path.
type world struct {
	t        testing.TB
	path     *Path
	listener *Listener
	tcp      net.Listener
	guard    *guard

	mu      sync.Mutex
	relays  map[string]*Relay
	streams map[string]*Stream
	opened  []*Relay
}

func newWorld(t testing.TB, o Options) *world {
	w := &world{t: t, guard: &guard{refuse: map[netip.AddrPort]bool{}}, relays: map[string]*Relay{}, streams: map[string]*Stream{}}
	var err error
	if w.path, err = New(o); err != nil {
		t.Skipf("no batches on this system: %v", err)
	}
	if w.listener, err = w.path.Listen(loopback); err != nil {
		t.Fatal(err)
	}
	if w.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	server, err := turn.NewServer(turn.ServerConfig{
		Realm: realm,
		AuthHandler: func(a *turn.RequestAttributes) (string, []byte, bool) {
			return a.Username, turn.GenerateAuthKey(a.Username, realm, password), true
		},
		PacketConnConfigs: []turn.PacketConnConfig{{PacketConn: w.listener, RelayAddressGenerator: w}},
		ListenerConfigs:   []turn.ListenerConfig{{Listener: accepting{w.tcp, w}, RelayAddressGenerator: w}},
		EventHandler:      w.events(),
		LoggerFactory:     quiet{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		w.mu.Lock()
		streams, opened := w.streams, w.opened
		w.mu.Unlock()
		for _, s := range streams {
			_ = s.Close()
		}
		for _, r := range opened {
			<-r.closed // pion closes them
		}
		if err := w.path.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) events() turn.EventHandler {
	return turn.EventHandler{
		OnAllocationCreated: func(src, _ net.Addr, _, _, _ string, relayed net.Addr, _ int) {
			r := w.of(relayed)
			if s := w.streams[src.String()]; s != nil {
				if err := r.ServeStream(s, addrPort(relayed)); err != nil {
					w.t.Error(err)
				}
			} else if err := r.Serve(w.listener, addrPort(src), addrPort(relayed)); err != nil {
				w.t.Error(err)
			}
		},
		OnPermissionCreated: func(_, _ net.Addr, _, _, _ string, relayed net.Addr, peer net.IP) {
			a, _ := netip.AddrFromSlice(peer)
			w.of(relayed).Permit(a)
		},
		OnPermissionDeleted: func(_, _ net.Addr, _, _, _ string, relayed net.Addr, peer net.IP) {
			a, _ := netip.AddrFromSlice(peer)
			w.of(relayed).Forbid(a)
		},
		OnChannelCreated: func(_, _ net.Addr, _, _, _ string, relayed, peer net.Addr, number uint16) {
			w.of(relayed).Bind(number, addrPort(peer))
		},
		OnChannelDeleted: func(_, _ net.Addr, _, _, _ string, relayed, _ net.Addr, number uint16) {
			w.of(relayed).Unbind(number)
		},
	}
}

func (w *world) of(relayed net.Addr) *Relay {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.relays[relayed.String()]
}

// accepting gives a listener's connections to the path.
type accepting struct {
	net.Listener
	w *world
}

func (a accepting) Accept() (net.Conn, error) {
	c, err := a.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s := a.w.path.Stream(c)
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.w.streams[c.RemoteAddr().String()] = s
	return s, nil
}

func (w *world) Validate() error { return nil }

func (w *world) AllocatePacketConn(turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	r, err := w.path.Relay(loopback, w.guard)
	if err != nil {
		return nil, nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.relays[r.LocalAddr().String()] = r
	w.opened = append(w.opened, r)
	return r, r.LocalAddr(), nil
}

func (w *world) AllocateListener(turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	return nil, nil, errors.ErrUnsupported
}

func (w *world) AllocateConn(turn.AllocateConnConfig) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

// quiet logs nothing.
type quiet struct{}

func (quiet) NewLogger(string) logging.LeveledLogger {
	l := logging.NewDefaultLeveledLoggerForScope("", logging.LogLevelDisabled, nil)
	return l
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return unmapped(a.AddrPort())
	case *net.TCPAddr:
		return unmapped(a.AddrPort())
	}
	return netip.AddrPort{}
}

// client allocates by pion's client, over UDP or TCP, and returns the relayed connection.
func (w *world) client(network string) (*turn.Client, net.PacketConn) {
	w.t.Helper()
	var conn net.PacketConn
	server := w.listener.LocalAddr().String()
	if network == "tcp" {
		c, err := net.Dial("tcp", w.tcp.Addr().String())
		if err != nil {
			w.t.Fatal(err)
		}
		conn, server = turn.NewSTUNConn(c), w.tcp.Addr().String()
	} else {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		conn = c
	}
	c, err := turn.NewClient(&turn.ClientConfig{STUNServerAddr: server, TURNServerAddr: server, Conn: conn, Username: user, Password: password, Realm: realm, LoggerFactory: quiet{}})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.Listen(); err != nil {
		w.t.Fatal(err)
	}
	relayed, err := c.Allocate()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = relayed.Close()
		c.Close()
		_ = conn.Close()
	})
	return c, relayed
}

// exchange sends from one to the other until it is there.
func exchange(t testing.TB, from, to net.PacketConn, at net.Addr, data string) net.Addr {
	t.Helper()
	b := make([]byte, 2000)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := from.WriteTo([]byte(data), at); err != nil {
			t.Fatal(err)
		}
		_ = to.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		for {
			n, addr, err := to.ReadFrom(b)
			if err != nil {
				break
			}
			if string(b[:n]) == data {
				return addr
			}
		}
	}
	t.Fatalf("%q did not arrive", data)
	return nil
}

// TestPeer relays between a client and a socket, both ways, first in indications, then on a channel, which pion's client binds by itself.
func TestPeer(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			w := newWorld(t, Options{Loops: 2})
			_, relayed := w.client(network)
			peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			bound := func() bool {
				w.path.mu.RLock()
				defer w.path.mu.RUnlock()
				return len(w.of(relayed.LocalAddr()).channels) > 0
			}
			for _, data := range []string{"odd", "four", string(bytes.Repeat([]byte("x"), 1200))} {
				if at := exchange(t, relayed, peer, peer.LocalAddr(), data); at.String() != relayed.LocalAddr().String() {
					t.Errorf("came from %s, want the relayed address %s", at, relayed.LocalAddr())
				}
				if at := exchange(t, peer, relayed, relayed.LocalAddr(), "answer to "+data); at.String() != peer.LocalAddr().String() {
					t.Errorf("came from %s, want the peer's %s", at, peer.LocalAddr())
				}
			}
			for deadline := time.Now().Add(patience); !bound(); {
				exchange(t, relayed, peer, peer.LocalAddr(), "until there is a channel")
				if time.Now().After(deadline) {
					t.Fatal("no channel")
				}
			}
			exchange(t, relayed, peer, peer.LocalAddr(), "on the channel")
			exchange(t, peer, relayed, relayed.LocalAddr(), "on the channel, back")
			w.guard.mu.Lock()
			if w.guard.up[0] == 0 || w.guard.up[1] == 0 {
				t.Error("nothing was counted")
			}
			w.guard.mu.Unlock()
			_ = relayed.Close()
			r := w.of(relayed.LocalAddr())
			select {
			case <-r.closed:
			case <-time.After(patience):
				t.Fatal("the relay lives on")
			}
			if len(r.names)+len(r.senders)+len(r.channels)+len(w.listener.clients) != 0 {
				t.Error("something is still in the table")
			}
		})
	}
}

// intake is a media port that sends back what it gets.
type intake struct {
	mu    sync.Mutex
	got   []string
	from  []netip.AddrPort
	taken int
	ways  map[netip.AddrPort]func(b []byte)
}

func (in *intake) Take(b []byte, from netip.AddrPort, _ time.Time) {
	in.mu.Lock()
	in.got, in.from = append(in.got, string(b)), append(in.from, from)
	way := in.ways[from]
	in.mu.Unlock()
	if way != nil {
		way(append([]byte("back: "), b...))
	}
}

func (in *intake) Taken(int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.taken++
}

func (in *intake) Meet(at netip.AddrPort, sockets []*udp.Socket, to *udp.Destination, write func([]byte)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if write == nil {
		write = func(b []byte) {
			o := sockets[0].NewOutbox()
			for range 3 {
				o.Add(to, b)
			}
			o.Flush()
		}
	}
	in.ways[at] = write
}

func (in *intake) Part(at netip.AddrPort) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.ways, at)
}

// TestMedia hands over to a media port without a socket, and takes what that sends.
func TestMedia(t *testing.T) {
	media := netip.MustParseAddrPort("192.0.2.1:7882") // nobody reaches it by a socket
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			in := &intake{ways: map[netip.AddrPort]func([]byte){}}
			w := newWorld(t, Options{Loops: 1, Media: func(a netip.AddrPort) Intake {
				if a == media {
					return in
				}
				return nil
			}})
			_, relayed := w.client(network)
			for _, data := range []string{"odd", "four", string(bytes.Repeat([]byte("x"), 1200))} {
				b := make([]byte, 2000)
				for arrived := false; !arrived; {
					if _, err := relayed.WriteTo([]byte(data), net.UDPAddrFromAddrPort(media)); err != nil {
						t.Fatal(err)
					}
					_ = relayed.SetReadDeadline(time.Now().Add(patience))
					n, at, err := relayed.ReadFrom(b)
					if err != nil {
						t.Fatal(err)
					}
					arrived = string(b[:n]) == "back: "+data
					if at.String() != media.String() {
						t.Errorf("came from %s, want %s", at, media)
					}
				}
			}
			_ = relayed.Close()
			<-w.of(relayed.LocalAddr()).closed
			in.mu.Lock()
			defer in.mu.Unlock()
			if in.from[0] != addrPort(relayed.LocalAddr()) || in.taken == 0 || len(in.ways) != 0 {
				t.Errorf("from %s, taken %d times, %d ways left", in.from[0], in.taken, len(in.ways))
			}
		})
	}
}

// TestForbidden drops what the server does not allow, in either direction.
func TestForbidden(t *testing.T) {
	w := newWorld(t, Options{Loops: 1})
	_, relayed := w.client("udp")
	open, shut := listen(t), listen(t)
	w.guard.mu.Lock()
	w.guard.refuse[addrPort(shut.LocalAddr())] = true
	w.guard.mu.Unlock()
	if _, err := relayed.WriteTo([]byte("no"), shut.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	exchange(t, relayed, open, open.LocalAddr(), "yes")
	if _, err := shut.WriteTo([]byte("no"), relayed.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	exchange(t, open, relayed, relayed.LocalAddr(), "yes")
	if n := pending(t, shut); n != 0 {
		t.Errorf("%d datagrams came where none may", n)
	}
	if s := w.path.Stats(); s.Forbidden < 2 {
		t.Errorf("%+v, want one refused in each direction", s)
	}
	w.guard.mu.Lock()
	w.guard.deaf = true
	w.guard.mu.Unlock()
	if _, err := relayed.WriteTo([]byte("too much"), open.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); w.path.Stats().Capped == 0; {
		if time.Now().After(deadline) {
			t.Fatal("not capped")
		}
		_, _ = open.WriteTo(make([]byte, quantum), relayed.LocalAddr())
		time.Sleep(time.Millisecond)
	}
}

func listen(t testing.TB) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// pending counts what waits to be read.
func pending(t testing.TB, c net.PacketConn) (n int) {
	t.Helper()
	b := make([]byte, 2000)
	for {
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, _, err := c.ReadFrom(b); err != nil {
			return n
		}
		n++
	}
}

// TestUnbound lets nothing in from whom there is no permission for, and nothing out once a permission or a channel is gone.
func TestUnbound(t *testing.T) {
	w := newWorld(t, Options{Loops: 1})
	_, relayed := w.client("udp")
	peer := listen(t)
	if _, err := peer.WriteTo([]byte("stranger"), relayed.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); w.path.Stats().Unbound == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not noticed")
		}
	}
	exchange(t, relayed, peer, peer.LocalAddr(), "hello")
	r, at := w.of(relayed.LocalAddr()), addrPort(peer.LocalAddr())
	r.Bind(0x4abc, at)
	r.Forbid(at.Addr())
	w.path.mu.RLock()
	if r.names[at] == nil {
		t.Error("a channel ends with its permission")
	}
	w.path.mu.RUnlock()
	r.Unbind(0x4abc)
	w.path.mu.RLock()
	if len(r.names)+len(r.senders) != 0 {
		t.Error("a peer without channel and permission is kept")
	}
	w.path.mu.RUnlock()
}

// TestStrangers answers requests of those without an allocation, and drops their data.
func TestStrangers(t *testing.T) {
	w := newWorld(t, Options{Loops: 1})
	c := listen(t)
	for _, b := range [][]byte{[]byte("\x40\x00\x00\x01x"), indication(t, peer4, []byte("x")), []byte("\x40\x00\xff\xffx"), {0}, {}} {
		if _, err := c.WriteTo(b, w.listener.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(patience); w.path.Stats().Strangers < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", w.path.Stats())
		}
	}
	if n := pending(t, c); n != 0 {
		t.Errorf("%d answers", n)
	}
}
