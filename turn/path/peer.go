// Hot path: see ARCHITECTURE.md#relay

package path

import (
	"net/netip"
	"sync/atomic"
	"time"

	"callserver/sfu/udp"
)

// quantum is how many bytes of a peer's pass between two looks at the clock and the guard: metering each datagram by itself costs about as much as all that is done
// about it besides system calls.
const quantum = 4096

// A peer is one that an allocation's client exchanges data with.
type peer struct {
	relay  *Relay
	name   netip.AddrPort // as the client names it
	at     netip.AddrPort // where it is
	intake Intake         // nil = behind the relay's socket
	up     *udp.Destination
	down   *udp.Destination // the client, framed; nil over a stream

	channel atomic.Uint32 // 0 = none: data is in indications
	gone    atomic.Bool   // neither channel nor permission

	// What has gone to the client, and the guard does not know yet.
	packets, bytes atomic.Int32
	blocked        atomic.Bool // no more may go: the guard is asked about each
}

// Frame implements udp.Framer: it frames what the peer sends for the client.
func (p *peer) Frame(head *[udp.MaxHead]byte, size int) (before, after int, ok bool) {
	if p.gone.Load() || !p.passes(size) {
		return 0, 0, false
	}
	if number := p.channel.Load(); number != 0 {
		return frameChannel(head, uint16(number), size), 0, true
	}
	before, after = frameData(head, p.name, size)
	return before, after, true
}

// passes reports whether a datagram may go to the client, and counts it.
func (p *peer) passes(size int) bool {
	if p.blocked.Load() {
		if !p.relay.guard.Down(0, 0, time.Now()) {
			p.relay.path.counts.capped.Add(1)
			return false
		}
		p.blocked.Store(false)
	}
	p.packets.Add(1)
	if p.bytes.Add(int32(size)) >= quantum {
		p.blocked.Store(!p.settle(time.Now()))
	}
	return true
}

// settle tells the guard what has gone to the client. It reports whether more may.
func (p *peer) settle(now time.Time) bool {
	packets, bytes := p.packets.Swap(0), p.bytes.Swap(0)
	return packets == 0 || p.relay.guard.Down(int(packets), int(bytes), now)
}
