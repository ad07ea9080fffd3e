package turn

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"callserver/internal/internet"

	"github.com/pion/stun/v4"
)

// A wire is a listening socket whose clients are the test: what it writes comes back one by one.
type wire struct {
	in     chan datagram
	out    chan datagram
	closed chan struct{}
}

type datagram struct {
	b  []byte
	at net.Addr
}

func newWire() *wire {
	return &wire{in: make(chan datagram), out: make(chan datagram, 64), closed: make(chan struct{})}
}

func (w *wire) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-w.in:
		return copy(b, d.b), d.at, nil
	case <-w.closed:
		return 0, nil, net.ErrClosed
	}
}

func (w *wire) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case w.out <- datagram{bytes.Clone(b), to}:
		return len(b), nil
	case <-w.closed:
		return 0, net.ErrClosed
	}
}

func (w *wire) Close() error                     { close(w.closed); return nil }
func (w *wire) LocalAddr() net.Addr              { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 3478} }
func (w *wire) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (w *wire) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (w *wire) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// exchange sends a datagram and returns all answers to it. A binding request, which is always answered, says when they are over.
func (w *wire) exchange(t *testing.T, b []byte, from net.Addr) (answers [][]byte) {
	probe := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
	for _, d := range [][]byte{b, probe.Raw} {
		w.in <- datagram{d, from}
	}
	for {
		d := <-w.out
		if len(d.b) >= headerSize && bytes.Equal(d.b[8:headerSize], probe.TransactionID[:]) {
			return answers
		}
		if d.at.String() != from.String() {
			t.Errorf("%s asked, and %s is answered", from, d.at)
		}
		answers = append(answers, d.b)
	}
}

// onWire has the relay listen on a wire, and keeps what is relayed from leaving.
type onWire struct {
	plain
	wire    *wire
	reached chan netip.AddrPort
}

func (p onWire) listen(netip.AddrPort) (net.PacketConn, error) { return p.wire, nil }

func (p onWire) relay(a *Allocation, at netip.AddrPort) (carrier, error) {
	c, err := p.plain.relay(a, at)
	if err != nil {
		return nil, err
	}
	return kept{c.(*relay), p.reached}, nil
}

// kept is the socket of an allocation that tells where it would send to, and sends nothing.
type kept struct {
	*relay
	reached chan netip.AddrPort
}

func (k kept) WriteTo(b []byte, to net.Addr) (int, error) {
	if peer, ok := k.allocation.To(addrPort(to)); ok {
		k.reached <- peer
	}
	return len(b), nil
}

// FuzzUDP: whatever strangers and clients send, the relay goes on, reaches nobody that it may not, and gives strangers at most five bytes for one.
func FuzzUDP(f *testing.F) {
	seed := func(method stun.Method, class stun.MessageClass, attributes ...stun.Setter) {
		f.Add(stun.MustBuild(append([]stun.Setter{stun.TransactionID, stun.NewType(method, class)}, attributes...)...).Raw)
	}
	peer := peerAddress(netip.MustParseAddrPort("127.0.0.1:9"))
	seed(stun.MethodBinding, stun.ClassRequest)
	seed(stun.MethodAllocate, stun.ClassRequest, transport(17), lifetime(time.Second), family(1))
	seed(stun.MethodAllocate, stun.ClassRequest, transport(6), attribute(stun.AttrEvenPort, 0x80), attribute(stun.AttrReservationToken, make([]byte, 8)...))
	seed(stun.MethodRefresh, stun.ClassRequest, lifetime(0))
	seed(stun.MethodCreatePermission, stun.ClassRequest, peer, peer)
	for _, nobody := range []string{"10.0.0.1:9999", "9.9.9.9:53", "127.0.0.1:22"} {
		at := peerAddress(netip.MustParseAddrPort(nobody))
		seed(stun.MethodCreatePermission, stun.ClassRequest, at)
		seed(stun.MethodSend, stun.ClassIndication, at, attribute(stun.AttrData, 'x'))
	}
	seed(stun.MethodChannelBind, stun.ClassRequest, peer, attribute(stun.AttrChannelNumber, 0x40, 0, 0, 0))
	seed(stun.MethodSend, stun.ClassIndication, peer, attribute(stun.AttrData, 'x'))
	seed(stun.MethodConnect, stun.ClassRequest, peer)
	seed(stun.MethodConnectionBind, stun.ClassRequest, attribute(stun.AttrConnectionID, 1, 2, 3, 4))
	seed(stun.MethodBinding, stun.ClassRequest, attribute(0x0777, 1), attribute(stun.AttrMessageIntegrity, make([]byte, 20)...), attribute(stun.AttrFingerprint, 1, 2, 3, 4))
	f.Add([]byte("\x40\x00\x00\x05hello\x00\x00\x00"))
	f.Add([]byte{0})

	line, media := newWire(), netip.MustParseAddrPort("127.0.0.1:7")
	w, err := New(Options{
		Places:  func() []Place { return []Place{{media, media}} },
		Secrets: []string{secret, "another"}, UserAllocations: 1 << 20, AddressAllocations: 1 << 20,
	})
	if err != nil {
		f.Fatal(err)
	}
	reached := make(chan netip.AddrPort, 16)
	w.way = onWire{wire: line, reached: reached}
	f.Cleanup(func() { _ = w.Close() })
	if _, err := w.ListenUDP(netip.AddrPort{}); err != nil {
		f.Fatal(err)
	}
	last := uint32(8 << 24)
	newcomer := func() *net.UDPAddr { // has not asked before, or would not always be answered
		last++
		return &net.UDPAddr{IP: binary.BigEndian.AppendUint32(nil, last), Port: 4000}
	}
	known := newcomer()
	c := caller{credential: shared("@alice:example.org", time.Now().Add(24*time.Hour))}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxMessage-100 {
			return
		}
		c.t = t
		at := newcomer()
		sent := 0
		for _, answer := range line.exchange(t, b, at) {
			sent += len(answer)
		}
		if sent > 5*len(b) {
			t.Errorf("%d bytes for %d", sent, len(b))
		}
		if w.ledger.of(client{w.listeners[0], addrPort(known)}) == nil { // it has given its allocation back
			known, c.nonce = newcomer(), ""
			challenge := &stun.Message{Raw: line.exchange(t, c.request(stun.MethodAllocate).Raw, known)[0]}
			var nonce stun.Nonce
			if challenge.Decode() != nil || nonce.GetFrom(challenge) != nil {
				t.Fatal("no challenge")
			}
			c.nonce, c.told = nonce.String(), realm
			line.exchange(t, c.request(stun.MethodAllocate, transport(17)).Raw, known)
		}
		if m := (&stun.Message{Raw: bytes.Clone(b)}); m.Decode() == nil && len(m.Attributes) < 20 {
			signed := []stun.Setter{}
			for _, a := range m.Attributes {
				if a.Type != stun.AttrMessageIntegrity && a.Type != stun.AttrFingerprint {
					signed = append(signed, attribute(a.Type, a.Value...))
				}
			}
			line.exchange(t, c.request(m.Type.Method, signed...).Raw, known)
		}
		line.exchange(t, b, known)
		for len(reached) > 0 {
			// Users of homeservers have peers in the public internet; of this host there is our media, and relays.
			peer := <-reached
			if peer != media && w.ledger.behind(peer, false) == nil && (!internet.Public(peer.Addr()) || peer.Port() < leastPort) {
				t.Errorf("a packet went to %v", peer)
			}
		}
	})
}

// FuzzScanner: whatever a stream says in whatever pieces, it is taken apart the same way.
func FuzzScanner(f *testing.F) {
	binding := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewSoftware("test")).Raw
	f.Add(append([]byte("\x40\x00\x00\x05hello\x00\x00\x00"), binding...), 3)
	f.Add(binding, 1)
	f.Add([]byte("\x80\x00\x00\x00"), 4)
	f.Fuzz(func(t *testing.T, stream []byte, piece int) {
		messages := func(piece int) (all [][]byte) {
			var s scanner
			for rest := stream; len(rest) > 0; {
				n := min(max(piece, 1), len(rest))
				s.scan(rest[:n], func(m []byte) { all = append(all, bytes.Clone(m)) })
				rest = rest[n:]
			}
			return all
		}
		one, other := messages(piece), messages(len(stream))
		if !bytes.Equal(bytes.Join(one, []byte{0}), bytes.Join(other, []byte{0})) {
			t.Errorf("in pieces %d messages, at once %d", len(one), len(other))
		}
	})
}
