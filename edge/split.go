package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// helloTimeout bounds how long a connection may take until it is clear what it speaks: the PROXY header, the TLS handshake and the first
	// byte of the client together.
	helloTimeout = 10 * time.Second
	// maxHellos bounds the connections that are at it. More are closed at once, so that who opens connections and says nothing costs memory
	// for as many only.
	maxHellos = 4096
	// acceptPause is how long no connection is accepted where the process has too many open files.
	acceptPause = 50 * time.Millisecond
)

// Protocols of ALPN. RFC 7443 names TURN, which browsers do not.
const (
	alpnHTTP2 = "h2"
	alpnHTTP  = "http/1.1"
	alpnTURN  = "stun.turn"
	alpnSTUN  = "stun.nat-discovery"
)

// splitter accepts connections and finds out who they are from and what they speak.
type splitter struct {
	socket  net.Listener
	tls     *tls.Config    // nil = none
	proxies []netip.Prefix // whose connections begin with a PROXY header
	log     *slog.Logger
	timeout time.Duration // helloTimeout

	turnOnly bool // nothing else is spoken here

	http, turn, ice *lane

	hellos  sync.WaitGroup
	refused atomic.Uint64 // connections that ended before it was clear what they speak

	mu     sync.Mutex
	open   map[net.Conn]struct{} // at it
	closed bool
}

func newSplitter(socket net.Listener, o Options) *splitter {
	s := &splitter{socket: socket, proxies: o.ProxyProtocol, log: o.Logger, timeout: helloTimeout, open: map[net.Conn]struct{}{}}
	if o.Certificates != nil {
		s.tls = o.Certificates.Config(alpnTURN, alpnSTUN, alpnHTTP2, alpnHTTP) // coturn's client says HTTP as well
	}
	s.http, s.turn, s.ice = newLane(socket.Addr()), newLane(socket.Addr()), newLane(socket.Addr())
	return s
}

// acceptLoop runs until the socket is closed.
func (s *splitter) acceptLoop() error {
	defer s.hellos.Wait()
	for {
		c, err := s.socket.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) {
				time.Sleep(acceptPause) // connections that end give descriptors back
				continue
			}
			return err
		}
		if !s.enter(c) {
			s.refused.Add(1)
			_ = c.Close()
			continue
		}
		s.hellos.Go(func() { s.hello(c) })
	}
}

// enter counts a connection in, unless there are too many or it is too late.
func (s *splitter) enter(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.open) >= maxHellos {
		return false
	}
	s.open[c] = struct{}{}
	return true
}

func (s *splitter) leave(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// hello finds out what a connection speaks and hands it over.
func (s *splitter) hello(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(s.timeout))
	to, conn, err := s.sort(c)
	s.leave(c) // from here on it is whoever accepts it that closes it
	if err != nil {
		s.refused.Add(1)
		s.log.Debug("connection closed before its first request", "remote", c.RemoteAddr().String(), "error", err)
		_ = c.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	if !to.hand(conn) {
		_ = conn.Close()
	}
}

// sort returns what takes the connection, and the connection as that will see it.
func (s *splitter) sort(c net.Conn) (*lane, net.Conn, error) {
	if s.fromProxy(c.RemoteAddr()) {
		client, err := readProxyHeader(c)
		if err != nil {
			s.log.Warn("http.proxy_protocol: a connection of the proxy without a header that can be read", "proxy", c.RemoteAddr().String(), "error", err)
			return nil, nil, err
		}
		if client.IsValid() {
			c = &proxied{c, net.TCPAddrFromAddrPort(client)}
		}
	}
	if s.turnOnly {
		return s.sortTURN(c)
	}
	first, conn, err := peek(c)
	switch {
	case err != nil:
		return nil, nil, err
	case first <= 1 && s.ice.wanted.Load(): // RFC 4571: the length of a STUN request, below 512
		return s.ice, conn, nil
	case s.tls == nil:
		return s.http, conn, nil
	}
	return s.secure(tls.Server(conn, s.tls))
}

// secure goes on inside TLS. What says by ALPN that it is HTTP stays as it is, since net/http speaks HTTP/2 on *tls.Conn only.
func (s *splitter) secure(c *tls.Conn) (*lane, net.Conn, error) {
	if err := c.HandshakeContext(context.Background()); err != nil {
		return nil, nil, err
	}
	state := c.ConnectionState()
	switch state.NegotiatedProtocol {
	case alpnHTTP2, alpnHTTP:
		return s.http, c, nil
	case alpnTURN, alpnSTUN:
		return s.toTURN(c)
	}
	first, conn, err := peek(c)
	if err != nil {
		return nil, nil, err
	}
	if isTURN(first) {
		return s.toTURN(conn)
	}
	return s.http, conn, nil
}

// sortTURN takes a connection where only TURN is spoken.
func (s *splitter) sortTURN(c net.Conn) (*lane, net.Conn, error) {
	if s.tls == nil {
		return s.toTURN(c)
	}
	secured := tls.Server(c, s.tls)
	if err := secured.HandshakeContext(context.Background()); err != nil {
		return nil, nil, err
	}
	return s.toTURN(secured)
}

func (s *splitter) toTURN(c net.Conn) (*lane, net.Conn, error) {
	if !s.turn.wanted.Load() {
		return nil, nil, errors.New("TURN, which nobody serves here")
	}
	return s.turn, c, nil
}

// isTURN tells by the first byte: a client of TURN begins with a STUN message, and those with 0 to 3 (RFC 8656 §12). ChannelData, which begins
// like some methods of HTTP, comes later.
func isTURN(first byte) bool { return first <= 3 }

func (s *splitter) fromProxy(a net.Addr) bool {
	addr, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := addr.AddrPort().Addr().Unmap()
	for _, p := range s.proxies {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// close stops accepting and ends the connections that have said nothing yet.
func (s *splitter) close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	err := s.socket.Close()
	for _, l := range []*lane{s.http, s.turn, s.ice} {
		_ = l.Close()
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// lane is a net.Listener of the connections that speak one protocol. A connection waits for Accept; nothing is queued.
type lane struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	wanted atomic.Bool // somebody accepts
}

func newLane(a net.Addr) *lane {
	return &lane{addr: a, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// use is the listener, which connections go to from now on.
func (l *lane) use() net.Listener {
	l.wanted.Store(true)
	return l
}

// hand waits until the connection is accepted. It reports whether it was.
func (l *lane) hand(c net.Conn) bool {
	select {
	case l.conns <- c:
		return true
	case <-l.closed:
		return false
	}
}

// Accept implements net.Listener.
func (l *lane) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, fmt.Errorf("accept on %s: %w", l.addr, net.ErrClosed)
	}
}

// Addr implements net.Listener.
func (l *lane) Addr() net.Addr { return l.addr }

// Close implements net.Listener: no more connections come. Closing twice is fine.
func (l *lane) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// peeked is a connection whose first byte was read already.
type peeked struct {
	net.Conn
	first byte
	read  bool // the first byte was handed out
}

// peek waits for the first byte of a connection.
func peek(c net.Conn) (byte, net.Conn, error) {
	var b [1]byte
	for {
		n, err := c.Read(b[:])
		if n == 1 {
			return b[0], &peeked{Conn: c, first: b[0]}, nil
		}
		if err != nil {
			return 0, nil, err
		}
	}
}

// Read implements net.Conn. One goroutine reads.
func (p *peeked) Read(b []byte) (int, error) {
	if p.read || len(b) == 0 {
		return p.Conn.Read(b)
	}
	b[0], p.read = p.first, true
	return 1, nil
}
