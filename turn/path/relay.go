package path

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"callserver/sfu/udp"
)

// A Relay is the relayed address of one allocation: a net.PacketConn of which the server needs nothing but Close. What is for a media port of this process is
// handed over in memory; the rest takes its socket. Safe for concurrent use.
type Relay struct {
	path   *Path
	guard  Guard
	socket *udp.Socket
	closed chan struct{}
	once   sync.Once

	// Guarded by Path.mu.
	over     bool
	public   netip.AddrPort // as the client is told
	listener *Listener      // nil = it has no client yet, or one over a stream
	client   netip.AddrPort
	to       *udp.Destination // the client
	sockets  []*udp.Socket    // that lead there
	stream   *Stream
	channels map[uint16]*peer
	names    map[netip.AddrPort]*peer // by the name that the client has for them
	senders  map[netip.AddrPort]*peer // by where they are
	allowed  map[netip.Addr]struct{}  // permissions
}

// Relay opens the socket of an allocation. The server closes it.
func (p *Path) Relay(at netip.AddrPort, g Guard) (*Relay, error) {
	sockets, err := udp.ListenBare(at, udp.Options{Buffer: p.options.RelayBuffer})
	if err != nil {
		return nil, err
	}
	return &Relay{path: p, guard: g, socket: sockets[0], closed: make(chan struct{})}, nil
}

// Serve carries for a client that sends to a listener, from the goroutine that reads it. public is the relay's address as clients are told it.
func (r *Relay) Serve(l *Listener, client, public netip.AddrPort) error {
	home := int(l.home.Load())
	r.path.mu.Lock()
	r.public, r.listener, r.client = unmapped(public), l, unmapped(client)
	r.to = udp.NewDestination(client)
	r.sockets = []*udp.Socket{l.sockets[home]} // which the client's datagrams come by: both ways belong to one loop
	if !r.over {
		l.clients[r.client] = r
	}
	r.path.mu.Unlock()
	return r.path.loops[home].poll.Add(r.socket, &source{socket: r.socket, relay: r})
}

// ServeStream carries for a client that is connected.
func (r *Relay) ServeStream(s *Stream, public netip.AddrPort) error {
	r.path.mu.Lock()
	r.public, r.stream = unmapped(public), s
	if !r.over {
		s.relay.Store(r)
	}
	r.path.mu.Unlock()
	home := int(r.path.next.Add(1)-1) % len(r.path.loops)
	return r.path.loops[home].poll.Add(r.socket, &source{socket: r.socket, relay: r})
}

// Bind has a channel lead to a peer.
func (r *Relay) Bind(channel uint16, name netip.AddrPort) {
	p := r.reach(unmapped(name), true)
	if p == nil {
		return // forbidden: what comes on the channel is dropped
	}
	r.path.mu.Lock()
	defer r.path.mu.Unlock()
	if r.over {
		return
	}
	if r.channels == nil {
		r.channels = map[uint16]*peer{}
	}
	p.channel.Store(uint32(channel))
	r.channels[channel] = p
}

// Unbind ends a channel.
func (r *Relay) Unbind(channel uint16) {
	r.path.mu.Lock()
	defer r.path.mu.Unlock()
	if p := r.channels[channel]; p != nil {
		delete(r.channels, channel)
		p.channel.Store(0)
		r.dropLocked(p)
	}
}

// Permit lets data without a channel pass between the client and an address.
func (r *Relay) Permit(a netip.Addr) {
	r.path.mu.Lock()
	defer r.path.mu.Unlock()
	if r.allowed == nil {
		r.allowed = map[netip.Addr]struct{}{}
	}
	r.allowed[a.Unmap()] = struct{}{}
}

// Forbid ends that.
func (r *Relay) Forbid(a netip.Addr) {
	r.path.mu.Lock()
	defer r.path.mu.Unlock()
	delete(r.allowed, a.Unmap())
	for _, p := range r.names {
		if p.name.Addr() == a.Unmap() {
			r.dropLocked(p)
		}
	}
}

// permittedLocked reports whether data without a channel may pass.
func (r *Relay) permittedLocked(a netip.Addr) bool {
	_, ok := r.allowed[a]
	return ok
}

// reach returns the peer that the client has a name for, or nil if it may not send there: that takes the server's word, and unless it has a channel a permission.
func (r *Relay) reach(name netip.AddrPort, channel bool) *peer {
	mu := &r.path.mu
	mu.RLock()
	p, may := r.names[name], channel || r.permittedLocked(name.Addr())
	mu.RUnlock()
	switch {
	case !may:
		r.path.counts.unbound.Add(1)
		return nil
	case p != nil:
		return p
	}
	at, ok := r.guard.To(name)
	if !ok {
		r.path.counts.forbidden.Add(1)
		return nil
	}
	at = unmapped(at)
	in := r.path.options.Media(at)
	mu.Lock()
	defer mu.Unlock()
	if p = r.names[name]; p != nil || r.over {
		return p
	}
	return r.enterLocked(&peer{relay: r, name: name, at: at, intake: in})
}

// enterLocked makes a peer known.
func (r *Relay) enterLocked(p *peer) *peer {
	if r.names == nil {
		r.names, r.senders = map[netip.AddrPort]*peer{}, map[netip.AddrPort]*peer{}
	}
	if len(r.names)-len(r.channels) >= maxPeers {
		for _, old := range r.names {
			if old.channel.Load() == 0 {
				r.forgetLocked(old)
			}
		}
	}
	if p.intake == nil {
		p.up = udp.NewDestination(p.at)
	}
	if r.to != nil {
		p.down = r.to.Framed(p)
	}
	r.names[p.name], r.senders[p.at] = p, p
	switch {
	case p.intake == nil:
	case r.stream != nil:
		p.intake.Meet(r.public, nil, nil, p.write)
	default:
		p.intake.Meet(r.public, r.sockets, p.down, nil)
	}
	return p
}

// dropLocked forgets a peer that has neither channel nor permission.
func (r *Relay) dropLocked(p *peer) {
	if p.channel.Load() == 0 && !r.permittedLocked(p.name.Addr()) {
		r.forgetLocked(p)
	}
}

func (r *Relay) forgetLocked(p *peer) {
	p.gone.Store(true)
	delete(r.names, p.name)
	delete(r.senders, p.at)
	if p.intake != nil {
		p.intake.Part(r.public)
	}
	p.settle(time.Now())
}

// Settle tells the guard all that has gone to the client.
func (r *Relay) Settle() {
	now := time.Now()
	r.path.mu.RLock()
	defer r.path.mu.RUnlock()
	for _, p := range r.names {
		p.settle(now)
	}
}

// ReadFrom implements net.PacketConn: nothing comes to the server.
func (r *Relay) ReadFrom([]byte) (int, net.Addr, error) {
	<-r.closed
	return 0, nil, net.ErrClosed
}

// WriteTo implements net.PacketConn, for what is left to the server because there is more in it than data and a peer. The server has seen that there is a permission.
func (r *Relay) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("send to %v: no UDP address", to)
	}
	if p := r.reach(unmapped(a.AddrPort()), true); p != nil && p.sendUp(b, time.Now()) {
		p.intake.Taken(-1)
	}
	return len(b), nil // what is forbidden is dropped (RFC 8656 §11.2)
}

// LocalAddr implements net.PacketConn.
func (r *Relay) LocalAddr() net.Addr { return r.socket.LocalAddr() }

// Close implements net.PacketConn. Nothing is carried any more. Closing twice is fine.
func (r *Relay) Close() error {
	var err error
	r.once.Do(func() {
		r.path.mu.Lock()
		r.over = true
		if r.listener != nil && r.listener.clients[r.client] == r {
			delete(r.listener.clients, r.client)
		}
		if r.stream != nil {
			r.stream.relay.CompareAndSwap(r, nil)
		}
		for _, p := range r.names {
			r.forgetLocked(p)
		}
		r.channels, r.allowed = nil, nil
		r.path.mu.Unlock()
		err = r.socket.Close()
		close(r.closed)
	})
	return err
}

// SetDeadline implements net.PacketConn. A relay has no deadlines.
func (r *Relay) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.PacketConn.
func (r *Relay) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.PacketConn.
func (r *Relay) SetWriteDeadline(time.Time) error { return nil }
