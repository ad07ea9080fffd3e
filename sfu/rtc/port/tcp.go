package port

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/ice/v4"
)

// maxRemotes is how many remote addresses of one connection are kept in mind; a client has one or two.
const maxRemotes = 16

// tcpMux is Pion's multiplexer of ICE-TCP, with the media taken off.
type tcpMux struct {
	*ice.TCPMuxDefault
	after func(home int)

	mu    sync.Mutex
	conns map[*tcpConn]struct{}
}

// GetConnByUfrag implements ice.TCPMux.
func (m *tcpMux) GetConnByUfrag(ufrag string, isIPv6 bool, local net.IP) (net.PacketConn, error) {
	c, err := m.TCPMuxDefault.GetConnByUfrag(ufrag, isIPv6, local)
	if err != nil {
		return nil, err
	}
	t := &tcpConn{PacketConn: c, mux: m, remotes: map[netip.AddrPort]*remote{}}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns[t] = struct{}{}
	return t, nil
}

// find returns the connection on which something came from an address, and whether there is one.
func (m *tcpMux) find(from netip.AddrPort) (*tcpConn, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.conns {
		if c.knows(from) {
			return c, true
		}
	}
	return nil, false
}

// tcpConn is what one client sends over TCP. Pion reads it and gets what is no media.
type tcpConn struct {
	net.PacketConn
	mux *tcpMux

	mu      sync.Mutex
	remotes map[netip.AddrPort]*remote
}

// remote is where a client sends from.
type remote struct {
	addr net.Addr
	to   Receiver // nil = nobody takes its media
}

// ReadFrom implements net.PacketConn.
func (c *tcpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil {
			return n, from, err
		}
		to := c.note(from)
		if !isMedia(b[:n]) {
			return n, from, nil
		}
		if to != nil {
			to.Receive(b[:n], time.Now())
			c.mux.after(-1)
		}
	}
}

// note remembers a remote address and returns who takes its media.
func (c *tcpConn) note(from net.Addr) Receiver {
	a, ok := from.(*net.TCPAddr)
	if !ok {
		return nil
	}
	key := unmapped(a.AddrPort())
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.remotes[key]
	if r == nil {
		if len(c.remotes) >= maxRemotes {
			return nil
		}
		r = &remote{addr: from}
		c.remotes[key] = r
	}
	return r.to
}

func (c *tcpConn) knows(from netip.AddrPort) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.remotes[from] != nil
}

// route has the media from a known address go to r, and returns where to write to.
func (c *tcpConn) route(from netip.AddrPort, r Receiver) net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.remotes[from] // addresses are never forgotten
	known.to = r
	return known.addr
}

// unroute ends that.
func (c *tcpConn) unroute(from netip.AddrPort, r Receiver) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.remotes[from]; known != nil && known.to == r {
		known.to = nil
	}
}

// Close implements net.PacketConn.
func (c *tcpConn) Close() error {
	c.mux.mu.Lock()
	delete(c.mux.conns, c)
	c.mux.mu.Unlock()
	return c.PacketConn.Close()
}
