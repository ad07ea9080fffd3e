// Hot path: see ARCHITECTURE.md#relay

package path

import (
	"net/netip"
	"time"

	"callserver/sfu/udp"
)

const (
	// spare is how many buffers a loop has for what peers send: so much waits for one flush.
	spare = 2 * udp.BatchSize
	// maxDatagram bounds what a client or peer sends, in bytes: an MTU, with room for larger ones of local networks.
	maxDatagram = 1664
)

// source is a socket that a loop reads: of a listener or of a relay.
type source struct {
	socket   *udp.Socket
	listener *Listener
	relay    *Relay
}

// A loop carries for the sockets of one core. One goroutine only.
type loop struct {
	path  *Path
	home  int
	poll  *udp.Poll[*source]
	ready []*source
	pace  pace

	clients udp.Inbox // what clients send
	routes  [udp.BatchSize]route
	peers   *udp.Outbox // to peers, of one relay after the other
	met     map[Intake]struct{}

	senders udp.Inbox // what peers send
	free    [][]byte  // buffers for senders
	used    [][]byte  // buffers that wait to be sent
	back    *udp.Outbox
}

// route is where a datagram of a client goes.
type route struct {
	to   *peer  // nil = nowhere
	data []byte // of the datagram
}

func newLoop(p *Path, home int) (*loop, error) {
	poll, err := udp.NewPoll[*source]()
	if err != nil {
		return nil, err
	}
	l := &loop{path: p, home: home, poll: poll, met: map[Intake]struct{}{}}
	l.peers, l.back = udp.NewOutbox(), udp.NewOutbox()
	return l, nil
}

// relayLoop carries until the Path is closed.
func (l *loop) relayLoop() {
	l.open()
	var err error
	for {
		l.ready, err = l.poll.Wait(l.ready[:0], nil)
		if err != nil {
			return
		}
		now := time.Now()
		for _, s := range l.ready {
			l.safely(s, now)
		}
		l.flush()
		for in := range l.met {
			in.Taken(l.home)
		}
		clear(l.met)
		l.poll.Rest(l.pace.rest(now))
	}
}

// open gets the buffers.
func (l *loop) open() {
	for i := range udp.BatchSize {
		l.clients.Buffers[i], l.senders.Buffers[i] = make([]byte, maxDatagram), make([]byte, maxDatagram)
	}
	for range spare {
		l.free = append(l.free, make([]byte, maxDatagram))
	}
}

// safely reads one socket. A panic costs the batch.
func (l *loop) safely(s *source, now time.Time) {
	defer func() {
		if l.path.options.Panicked == nil {
			return
		}
		if r := recover(); r != nil {
			l.path.options.Panicked(r)
		}
	}()
	if s.listener != nil {
		l.fromClients(s, now)
	} else {
		l.fromPeers(s)
	}
}

// fromClients carries a batch of what clients sent.
func (l *loop) fromClients(s *source, now time.Time) {
	if err := s.socket.Receive(&l.clients, nil); err != nil {
		return // empty, or closed
	}
	n := l.clients.Len()
	l.pace.came += n
	if n == udp.BatchSize {
		l.poll.Again(s)
	}
	l.lookUp(s.listener, n)
	for i := range n {
		if l.routes[i].to != nil {
			l.carry(i, n, now)
		}
	}
	l.peers.Flush()
}

// lookUp finds where the datagrams of a batch go, and gives the server what is for it.
func (l *loop) lookUp(from *Listener, n int) {
	l.path.mu.RLock()
	var client netip.AddrPort
	var r *Relay
	missed := 0
	for i := range n {
		b, at := l.clients.Datagram(i)
		l.routes[i] = route{}
		if len(b) == 0 {
			continue
		}
		if at != client {
			client, r = at, from.clients[at]
		}
		switch {
		case isChannelData(b):
			if number, data, ok := channelData(b); ok && r != nil {
				l.routes[i] = route{r.channels[number], data}
			}
			if l.routes[i].to == nil {
				l.path.counts.strangers.Add(1)
			}
		case r != nil && isSend(b):
			if name, data, ok := send(b); ok && r.permittedLocked(name.Addr()) {
				l.routes[i] = route{r.names[name], data}
			}
			if l.routes[i].to == nil {
				missed++
				l.routes[i].data = b // looked at again
			}
		default:
			from.pass(b, at, l.home)
		}
	}
	l.path.mu.RUnlock()
	if missed > 0 {
		l.meet(from, n)
	}
}

// meet looks at the Send indications that lead to nobody known: to a new peer, or to be answered by the server.
func (l *loop) meet(from *Listener, n int) {
	for i := range n {
		b := l.routes[i].data
		if l.routes[i].to != nil || b == nil {
			continue
		}
		l.routes[i] = route{}
		_, at := l.clients.Datagram(i)
		l.path.mu.RLock()
		r := from.clients[at]
		l.path.mu.RUnlock()
		if r == nil {
			l.path.counts.strangers.Add(1)
			continue
		}
		if name, data, ok := send(b); !ok {
			from.pass(b, at, l.home)
		} else if p := r.reach(name, false); p != nil {
			l.routes[i] = route{p, data}
		}
	}
}

// carry sends the i-th datagram and all that follow from the same client to the same peer: they form a run.
func (l *loop) carry(i, n int, now time.Time) {
	p := l.routes[i].to
	if p.intake == nil {
		l.peers.Use(p.relay.socket)
	}
	for k := i; k < n; {
		k = l.part(p, k, n, now)
	}
}

// part sends what the peer gets of the datagrams from k on, but no more than a quantum, and returns where the next part begins.
func (l *loop) part(p *peer, k, n int, now time.Time) int {
	packets, bytes, end := 0, 0, k
	for ; end < n && bytes < quantum; end++ {
		if l.routes[end].to == p {
			packets++
			bytes += len(l.routes[end].data)
		}
	}
	passes := packets > 0 && p.relay.guard.Up(packets, bytes, now)
	if !passes {
		l.path.counts.capped.Add(uint64(packets))
	}
	for ; packets > 0; k++ {
		if l.routes[k].to != p {
			continue
		}
		packets--
		switch {
		case !passes:
		case p.intake == nil:
			l.peers.Add(p.up, l.routes[k].data)
		default:
			p.intake.Take(l.routes[k].data, p.relay.public, now)
			l.met[p.intake] = struct{}{}
		}
		l.routes[k] = route{}
	}
	return end
}

// fromPeers carries a batch of what peers sent to a relay.
func (l *loop) fromPeers(s *source) {
	if len(l.free) < udp.BatchSize {
		l.flush()
	}
	if err := s.socket.Receive(&l.senders, nil); err != nil {
		return
	}
	n := l.senders.Len()
	l.pace.came += n
	if n == udp.BatchSize {
		l.poll.Again(s)
	}
	r := s.relay
	var p *peer
	var at netip.AddrPort
	for i := range n {
		b, from := l.senders.Datagram(i)
		if len(b) == 0 {
			continue
		}
		if from != at {
			p, at = l.sender(r, from), from
		}
		switch {
		case p == nil:
		case p.down == nil:
			p.write(b)
		default:
			l.keep(r, p, i, b)
		}
	}
}

// keep puts a datagram into the batch that goes back to clients.
func (l *loop) keep(r *Relay, p *peer, i int, b []byte) {
	l.back.Use(r.sockets[0])
	l.back.Add(p.down, b)
	last := len(l.free) - 1
	l.used = append(l.used, l.senders.Buffers[i])
	l.senders.Buffers[i], l.free = l.free[last], l.free[:last]
}

// sender finds who sent to a relay, nil if the client is not to hear of them.
func (l *loop) sender(r *Relay, from netip.AddrPort) *peer {
	l.path.mu.RLock()
	p := r.senders[from]
	l.path.mu.RUnlock()
	if p != nil {
		return p
	}
	name, ok := r.guard.From(from)
	if !ok {
		l.path.counts.forbidden.Add(1)
		return nil
	}
	return r.reach(name, false)
}

// flush sends what is for clients.
func (l *loop) flush() {
	l.back.Flush()
	l.free = append(l.free, l.used...)
	clear(l.used)
	l.used = l.used[:0]
}
