package main

import (
	"net/netip"
	"os"

	"callserver/sfu/udp"
)

// forwarding is who sends to whom without TURN: each client has a socket that the peer hears of it from.
type forwarding struct {
	Peer    netip.AddrPort
	Clients []netip.AddrPort
}

// A forwarder is a relay without TURN: it receives and sends in batches as ours does, and looks at nothing but where a datagram came from. So it shows what
// system calls alone cost on this machine.
type forwarder struct {
	poll    *udp.Poll[*outlet]
	clients *outlet
	peer    *udp.Destination
	byPort  [1 << 16]*outlet // by the client's port

	sent udp.Inbox // by clients
	up   *udp.Outbox

	heard      udp.Inbox // of peers
	rooms      [udp.BatchSize][]byte
	down       *udp.Outbox
	free, used [][]byte // as rooms are: for a header, and what a peer sends
}

// An outlet is a socket of the forwarder's.
type outlet struct {
	socket *udp.Socket
	client *udp.Destination // whose it is; nil = it is the one that clients send to
}

// head is the header of a channel, in bytes, which the generator's clients write and look past.
const head = 4

func newForwarder(r *reply) (*forwarder, error) {
	f := &forwarder{up: udp.NewOutbox(), down: udp.NewOutbox()}
	var err error
	if f.poll, err = udp.NewPoll[*outlet](); err != nil {
		return nil, err
	}
	if f.clients, err = f.listen(4<<20, nil); err != nil {
		return nil, err
	}
	for i := range udp.BatchSize {
		f.sent.Buffers[i] = make([]byte, 1600)
		f.free = append(f.free, make([]byte, 1600), make([]byte, 1600))
		f.room(i, make([]byte, 1600))
	}
	r.TURN = addrOf(f.clients.socket.LocalAddr())
	go f.forwardLoop()
	return f, nil
}

// listen opens a socket.
func (f *forwarder) listen(buffer int, client *udp.Destination) (*outlet, error) {
	all, err := udp.ListenBare(netip.AddrPortFrom(loopback, 0), udp.Options{Buffer: buffer})
	if err != nil {
		return nil, err
	}
	o := &outlet{all[0], client}
	return o, f.poll.Add(o.socket, o)
}

// open makes clients known, before any of them sends. It returns the addresses that the peer sends to.
func (f *forwarder) open(who *forwarding) (relayed []netip.AddrPort, err error) {
	f.peer = udp.NewDestination(who.Peer)
	for _, c := range who.Clients {
		o, err := f.listen(256<<10, udp.NewDestination(c))
		if err != nil {
			return nil, err
		}
		f.byPort[c.Port()] = o
		relayed = append(relayed, addrOf(o.socket.LocalAddr()))
	}
	return relayed, nil
}

// room has the i-th datagram of a peer be received into b, after room for the header of a channel.
func (f *forwarder) room(i int, b []byte) { f.rooms[i], f.heard.Buffers[i] = b, b[head:] }

// forwardLoop forwards until the process ends.
func (f *forwarder) forwardLoop() {
	var ready []*outlet
	var err error
	for {
		if ready, err = f.poll.Wait(ready[:0], nil); err != nil {
			os.Exit(1)
		}
		for _, o := range ready {
			if o.client == nil {
				f.toPeer(o)
			} else {
				f.toClient(o)
			}
		}
		f.flush()
	}
}

// receive takes a batch. It returns how many there are.
func (f *forwarder) receive(o *outlet, into *udp.Inbox) int {
	if o.socket.Receive(into, nil) != nil {
		return 0
	}
	if into.Len() == udp.BatchSize {
		f.poll.Again(o)
	}
	return into.Len()
}

func (f *forwarder) toPeer(o *outlet) {
	for i := range f.receive(o, &f.sent) {
		b, from := f.sent.Datagram(i)
		if relay := f.byPort[from.Port()]; relay != nil && len(b) > head {
			f.up.Use(relay.socket)
			f.up.Add(f.peer, b[head:])
		}
	}
	f.up.Flush()
}

func (f *forwarder) toClient(o *outlet) {
	if len(f.free) < udp.BatchSize {
		f.flush()
	}
	f.down.Use(f.clients.socket)
	for i := range f.receive(o, &f.heard) {
		b, _ := f.heard.Datagram(i)
		f.down.Add(o.client, f.rooms[i][:head+len(b)])
		f.used = append(f.used, f.rooms[i])
		last := len(f.free) - 1
		f.room(i, f.free[last])
		f.free = f.free[:last]
	}
}

// flush sends what is for clients.
func (f *forwarder) flush() {
	f.down.Flush()
	f.free = append(f.free, f.used...)
	f.used = f.used[:0]
}
