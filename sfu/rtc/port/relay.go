// Hot path: see ARCHITECTURE.md#packet

package port

import (
	"net/netip"
	"time"

	"callserver/sfu/udp"
)

// relay is how a client is reached that has a relayed address in this process: over UDP by one of the sockets, over a stream by write.
type relay struct {
	sockets []*udp.Socket
	to      *udp.Destination
	write   func(b []byte)
}

// send sends one datagram.
func (r *relay) send(b []byte) {
	if r.write != nil {
		r.write(b)
	} else {
		r.sockets[0].Send(r.to, b)
	}
}

// Intake returns the sockets at a local address and port, through which relays in this process hand over what their clients send; nil if there are none.
func (p *Ports) Intake(at netip.AddrPort) *Intake {
	if p.UDP == nil || int(at.Port()) != p.UDPPort {
		return nil
	}
	return p.intake(at.Addr().Unmap())
}

// Take takes a datagram as if it had come to a socket. It may write to b, and has it only until it returns.
func (in *Intake) Take(b []byte, from netip.AddrPort, now time.Time) {
	in.give(b, from, in.receiver(from), now)
}

// Taken has what was taken dealt with, by the caller if home is the index of a core that it works for; -1 if not.
func (in *Intake) Taken(home int) { in.after(home) }

// Meet has what is sent to a relayed address go straight to the client of the relay: over UDP by one of the sockets, over a stream by write,
// which must not wait.
func (in *Intake) Meet(relayed netip.AddrPort, sockets []*udp.Socket, to *udp.Destination, write func(b []byte)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.relays[relayed] = relay{sockets, to, write}
	in.relayed.Store(true)
}

// Part ends that.
func (in *Intake) Part(relayed netip.AddrPort) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.relays, relayed)
	in.relayed.Store(len(in.relays) > 0)
}

// relay finds the relay of an address.
func (in *Intake) relay(at netip.AddrPort) (relay, bool) {
	if !in.relayed.Load() {
		return relay{}, false
	}
	in.mu.RLock()
	defer in.mu.RUnlock()
	r, ok := in.relays[at]
	return r, ok
}
