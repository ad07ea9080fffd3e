package port

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// acceptPause is how long no connection is accepted after one could not be.
const acceptPause = 50 * time.Millisecond

// gate is a net.Listener of the connections that several accept: the one of the TCP port, and those that others share with ICE. Connections to a local
// address that is not in use are closed.
type gate struct {
	own       net.Listener
	addresses func() []netip.Addr
	conns     chan net.Conn // nothing is queued
	closed    chan struct{}
	once      sync.Once
	loops     sync.WaitGroup

	mu     sync.Mutex
	others []net.Listener
}

// newGate accepts from own. Close ends it.
func newGate(own net.Listener, addresses func() []netip.Addr) *gate {
	g := &gate{own: own, addresses: addresses, conns: make(chan net.Conn), closed: make(chan struct{})}
	g.loops.Go(func() { g.acceptLoop(own, false) })
	return g
}

// share accepts from l too, until the gate or l is closed.
func (g *gate) share(l net.Listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.closed:
		_ = l.Close()
		return
	default:
	}
	g.others = append(g.others, l)
	g.loops.Go(func() { g.acceptLoop(l, true) })
}

func (g *gate) acceptLoop(l net.Listener, shared bool) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptPause) // the connection is gone, or descriptors are short
			continue
		}
		if c = g.admit(c, shared); c == nil {
			continue
		}
		select {
		case g.conns <- c:
		case <-g.closed:
			_ = c.Close()
			return
		}
	}
}

// admit returns the connection if it is to an address in use. A shared listener may stand behind a proxy and have addresses of its own: the
// connection then counts as one to an address of the client's family.
func (g *gate) admit(c net.Conn, shared bool) net.Conn {
	addresses := g.addresses()
	local, ok := addrOf(c.LocalAddr())
	if ok && slices.Contains(addresses, local) {
		return c
	}
	if remote, known := addrOf(c.RemoteAddr()); shared && ok && known {
		for _, a := range addresses {
			if a.Is4() == remote.Is4() {
				return &relocated{c, &net.TCPAddr{IP: a.AsSlice(), Port: c.LocalAddr().(*net.TCPAddr).Port}} //nolint:forcetypeassert // addrOf has looked
			}
		}
	}
	_ = c.Close() // nothing was promised on that address
	return nil
}

func addrOf(a net.Addr) (netip.Addr, bool) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	return t.AddrPort().Addr().Unmap(), true
}

// relocated is a connection that counts as one to another local address.
type relocated struct {
	net.Conn
	local net.Addr
}

// LocalAddr implements net.Conn.
func (r *relocated) LocalAddr() net.Addr { return r.local }

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case c := <-g.conns:
		return c, nil
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (g *gate) Addr() net.Addr { return g.own.Addr() }

// Close implements net.Listener: it closes all that it accepts from, and returns when nothing is accepted any more.
func (g *gate) Close() error {
	var err error
	g.once.Do(func() {
		g.mu.Lock()
		close(g.closed)
		err = g.own.Close()
		for _, l := range g.others {
			_ = l.Close()
		}
		g.mu.Unlock()
	})
	g.loops.Wait()
	return err
}
