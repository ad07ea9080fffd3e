package turn

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// An Allocation is a relay that a client has asked for, with what it may do. Safe for concurrent use.
type Allocation struct {
	relay  *Relay
	user   string // kind and name, without the time
	scope  scope
	begun  time.Time
	local  netip.AddrPort // of its socket
	public netip.AddrPort // that the client is told
	meters [2]meter
	usage  usage

	connections atomic.Int32 // to peers, over TCP
	socket      interface{ Close() error }
	carrier     carrier // the socket, if it is one of UDP

	// The ledger's, under its lock.
	client   client       // zero until pion has told
	charge   netip.Prefix // what counts for the client's address; zero likewise
	released bool

	mu    sync.Mutex
	names map[netip.AddrPort]netip.AddrPort // sockets of ours by their address, with the name that the client knows
}

// usage counts what an allocation carried, by direction.
type usage struct{ packets, bytes [2]atomic.Uint64 }

// Directions.
const (
	up   = iota // from the client to peers
	down        // from peers to the client
)

// Local is the address of its socket.
func (a *Allocation) Local() netip.AddrPort { return a.local }

// To is where a peer is that the client names: the address on this host where that is one of our own, and not ok where the client may send nothing.
// Of several names of one of our sockets, an allocation uses the first that it sends to: answers could not be told apart.
func (a *Allocation) To(peer netip.AddrPort) (netip.AddrPort, bool) {
	to, ours, ok := a.relay.reach(a.scope, peer, false)
	if ok && ours {
		ok = a.name(to, peer)
	}
	if !ok {
		a.relay.counts.refuse(refusedPort)
	}
	return to, ok
}

// From is the name under which the client knows who sends, and not ok where the client may hear nothing from there.
func (a *Allocation) From(sender netip.AddrPort) (netip.AddrPort, bool) {
	a.mu.Lock()
	name, ok := a.names[sender]
	a.mu.Unlock()
	if ok {
		return name, true
	}
	name, ok = a.relay.hears(a.scope, sender, false)
	if !ok {
		a.relay.counts.refuse(refusedSender)
	}
	return name, ok
}

// maxNames bounds the sockets of ours that one allocation sends to.
const maxNames = 64

// name notes how the client names a socket of ours, unless it has another name already.
func (a *Allocation) name(ours, name netip.AddrPort) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.names[ours]; ok {
		return known == name
	}
	if len(a.names) >= maxNames {
		return false
	}
	if a.names == nil {
		a.names = map[netip.AddrPort]netip.AddrPort{}
	}
	a.names[ours] = name
	return true
}

// Up reports whether so many bytes, in so many packets, may go from the client to a peer, and counts them if so.
func (a *Allocation) Up(packets, bytes int, now time.Time) bool {
	return a.pass(up, packets, bytes, now)
}

// Down counts what has gone to the client from peers, and reports whether more may. With nothing it counts a packet as refused if none may.
func (a *Allocation) Down(packets, bytes int, now time.Time) bool {
	own, all := a.meters[down].spend(bytes, now), a.relay.meters[down].spend(bytes, now)
	if packets > 0 {
		a.count(down, packets, bytes)
	} else if !own || !all {
		a.relay.counts.refuse(refusedBitrate)
	}
	return own && all
}

// pass reports whether packets may pass in a direction, and counts them if so.
func (a *Allocation) pass(direction, packets, bytes int, now time.Time) bool {
	if !a.meters[direction].pass(bytes, now) || !a.relay.meters[direction].pass(bytes, now) {
		a.relay.counts.refused[refusedBitrate].Add(uint64(packets))
		return false
	}
	a.count(direction, packets, bytes)
	return true
}

func (a *Allocation) count(direction, packets, bytes int) {
	for _, u := range []*usage{&a.usage, &a.relay.counts.carried[a.scope]} {
		u.packets[direction].Add(uint64(packets))
		u.bytes[direction].Add(uint64(bytes))
	}
}

// end closes the socket below pion, which then ends the allocation.
func (a *Allocation) end() {
	_ = a.socket.Close() // or it is gone already
}

// A relaySocket is what pion holds of an allocation: closing it returns what the allocation took.
type relaySocket struct {
	net.PacketConn
	allocation *Allocation
}

// Close implements net.PacketConn.
func (s *relaySocket) Close() error {
	err := s.PacketConn.Close()
	s.allocation.relay.release(s.allocation)
	if errors.Is(err, net.ErrClosed) {
		return nil // it was ended from below
	}
	return err
}
