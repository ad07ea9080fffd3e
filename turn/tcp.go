package turn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v5/reuseport"
	pion "github.com/pion/turn/v5"
)

// Relays over TCP (RFC 6062), for users of homeservers where Options.TCP says so.

var (
	errNoTCP    = errors.New("no relays over TCP here")
	errNotThere = errors.New("no such peer for this client")
	errTooMany  = errors.New("the allocation has too many connections")
)

const (
	// dialTime is how long a peer may take to accept (RFC 6062 §5.2: 30 s at least). Only its own client waits.
	dialTime = 30 * time.Second
	// maxConnections bounds those of one allocation.
	maxConnections = 16
	// retryTime is how long a connection waits that is over its bit rate.
	retryTime = 20 * time.Millisecond
)

// AllocateListener implements pion.RelayAddressGenerator.
func (l *listener) AllocateListener(c pion.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	if !l.relay.options.TCP || l.socket != nil || scopeOf(c.UserID) != homeservers { // RFC 6062 §5.1: over TCP only
		return nil, nil, errNoTCP
	}
	var peers net.Listener
	config := net.ListenConfig{Control: reuseport.Control} // connections to peers leave from the same port
	a, err := l.open(c, func(a *Allocation, at netip.AddrPort) (err error) {
		if peers, err = config.Listen(l.relay.context, c.Network, at.String()); err == nil {
			a.socket, a.local = peers, addrPort(peers.Addr())
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return &relayListener{peers, a}, net.TCPAddrFromAddrPort(a.public), nil
}

// A relayListener is the relay of an allocation where peers connect to it.
type relayListener struct {
	net.Listener
	allocation *Allocation
}

// Accept implements net.Listener. It waits for a peer that the client may hear. Whether it wants to is what pion asks next.
func (l *relayListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a := l.allocation
		name, ok := a.relay.hears(a.scope, addrPort(c.RemoteAddr()), true)
		if !ok {
			a.relay.counts.refuse(refusedSender)
		} else if peer := a.connect(c, name); peer != nil {
			return peer, nil
		}
		_ = c.Close()
	}
}

// Close implements net.Listener.
func (l *relayListener) Close() error {
	err := l.Listener.Close()
	l.allocation.relay.release(l.allocation)
	return err
}

// AllocateConn implements pion.RelayAddressGenerator: it connects an allocation to a peer.
func (l *listener) AllocateConn(c pion.AllocateConnConfig) (net.Conn, error) {
	r := l.relay
	a, peer := r.ledger.at(addrPort(c.LocalAddr), true), addrPort(c.RemoteAddr)
	if a == nil {
		return nil, net.ErrClosed
	}
	to, _, ok := r.reach(a.scope, peer, true)
	if !ok {
		r.counts.refuse(refusedPort)
		return nil, fmt.Errorf("%s: %w", peer, errNotThere)
	}
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(a.local), Timeout: dialTime, Control: reuseport.Control}
	conn, err := dialer.DialContext(r.context, c.Network, to.String())
	if err != nil {
		r.log.Debug("no connection to a peer", "error", err)
		return nil, err
	}
	if p := a.connect(conn, peer); p != nil {
		return p, nil
	}
	return nil, errors.Join(errTooMany, conn.Close())
}

// connect counts a connection to a peer, unless there are too many.
func (a *Allocation) connect(c net.Conn, name netip.AddrPort) *peerConn {
	if a.connections.Add(1) > maxConnections {
		a.connections.Add(-1)
		a.relay.counts.refuse(refusedSocket)
		return nil
	}
	return &peerConn{Conn: c, allocation: a, name: net.TCPAddrFromAddrPort(name)}
}

// A peerConn is a connection of an allocation to a peer. Who is over the bit rate waits.
type peerConn struct {
	net.Conn
	allocation *Allocation
	name       net.Addr
	closed     atomic.Bool
}

// RemoteAddr implements net.Conn.
func (p *peerConn) RemoteAddr() net.Addr { return p.name }

// Read implements net.Conn.
func (p *peerConn) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	p.pay(down, n)
	return n, err
}

// Write implements net.Conn.
func (p *peerConn) Write(b []byte) (int, error) {
	p.pay(up, len(b))
	return p.Conn.Write(b)
}

func (p *peerConn) pay(direction, bytes int) {
	for bytes > 0 && !p.allocation.pass(direction, 1, bytes, time.Now()) && !p.closed.Load() {
		time.Sleep(retryTime)
	}
}

// Close implements net.Conn. Pion closes connections more than once.
func (p *peerConn) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	p.allocation.connections.Add(-1)
	return p.Conn.Close()
}
