package turn

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"
)

// callerRate and callerBurst bound the requests, over UDP, of an address (IPv6: one /64) that has no allocation: answers go to whoever the source
// says that it is, so this is what one who is lied about gets. An office of 300 behind one address asks 40 times a second while everybody joins
// within a minute.
const (
	callerRate  = 100 // a second
	callerBurst = 10 * time.Second
	callerLife  = time.Minute
	maxCallers  = 65_536
)

// A guard stands before pion's reading of a UDP socket. It lets pass what a client of TURN may say.
type guard struct {
	net.PacketConn
	relay    *Relay
	listener *listener
}

// ReadFrom implements net.PacketConn.
func (g *guard) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := g.PacketConn.ReadFrom(b)
		if err != nil {
			return 0, nil, err
		}
		if g.passes(b[:n], addrPort(from)) {
			return n, from, nil
		}
	}
}

func (g *guard) passes(b []byte, from netip.AddrPort) bool {
	if !isSTUN(b) || from.Port() == 0 {
		return len(b) > 0 && b[0]>>6 == 1 // ChannelData: pion looks whose it is, and answers nothing
	}
	if !isRequest(b) {
		return true
	}
	at := g.relay.clock()
	if g.relay.ledger.of(client{g.listener, from}) == nil && !g.relay.called(from.Addr(), at) {
		g.relay.counts.refuse(refusedCaller)
		return false
	}
	if g.relay.keys.several() {
		g.relay.keys.learn(b, at)
	}
	return true
}

// called reports whether a stranger may have an answer.
func (r *Relay) called(from netip.Addr, now time.Time) bool {
	by := charged(from)
	m, ok := r.callers.Get(by, now)
	if !ok {
		m = &meter{}
		m.set(callerRate, callerBurst)
		m = r.callers.First(by, m, now, now.Add(callerLife))
	}
	return m.pass(1, now)
}

// headerSize is that of STUN messages; cookie is in each (RFC 8489 §5).
const (
	headerSize = 20
	cookie     = 0x2112a442
)

func isSTUN(b []byte) bool {
	return len(b) >= headerSize && b[0]>>6 == 0 && binary.BigEndian.Uint32(b[4:]) == cookie
}

// isRequest reports whether a STUN message is one (RFC 8489 §5: class 00).
func isRequest(b []byte) bool { return b[0]&1 == 0 && b[1]&0x10 == 0 }
