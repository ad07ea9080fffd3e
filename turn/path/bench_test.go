package path

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"callserver/sfu/udp"
)

// void is a media port that forgets.
type void struct{ got int }

func (v *void) Take([]byte, netip.AddrPort, time.Time)                               { v.got++ }
func (v *void) Taken(int)                                                            {}
func (v *void) Meet(netip.AddrPort, []*udp.Socket, *udp.Destination, func(b []byte)) {}
func (v *void) Part(netip.AddrPort)                                                  {}

// all lets everything pass.
type all struct{}

func (all) To(a netip.AddrPort) (netip.AddrPort, bool)   { return a, true }
func (all) From(a netip.AddrPort) (netip.AddrPort, bool) { return a, true }
func (all) Up(int, int, time.Time) bool                  { return true }
func (all) Down(int, int, time.Time) bool                { return true }

// bed is one loop without a goroutine, with one relay whose client and peer are sockets of the test.
type bed struct {
	loop         *loop
	client, peer *udp.Socket
	up, down     *udp.Outbox
	server, at   *udp.Destination // the listener, the relay
	relay        *Relay
	inbox        udp.Inbox
	media        *void
}

func newBed(t testing.TB, media bool) *bed {
	t.Helper()
	b := &bed{media: &void{}}
	p := &Path{options: Options{RelayBuffer: 1 << 20, Media: func(netip.AddrPort) Intake {
		if media {
			return b.media
		}
		return nil
	}}}
	var err error
	if b.loop, err = newLoop(p, 0); err != nil {
		t.Skipf("no batches on this system: %v", err)
	}
	t.Cleanup(func() { _ = b.loop.poll.Close() })
	p.loops = []*loop{b.loop}
	b.loop.open()
	listener, err := p.Listen(loopback)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	if b.relay, err = p.Relay(loopback, all{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.relay.Close() })
	b.client, b.peer = bare(t), bare(t)
	b.up, b.down = b.client.NewOutbox(), b.peer.NewOutbox()
	b.server, b.at = udp.NewDestination(addrPort(listener.LocalAddr())), udp.NewDestination(addrPort(b.relay.LocalAddr()))
	if err := b.relay.Serve(listener, addrPort(b.client.LocalAddr()), b.at.Addr()); err != nil {
		t.Fatal(err)
	}
	b.relay.Permit(addrPort(b.peer.LocalAddr()).Addr())
	b.relay.Bind(0x4000, addrPort(b.peer.LocalAddr()))
	for i := range b.inbox.Buffers {
		b.inbox.Buffers[i] = make([]byte, 1700)
	}
	return b
}

func bare(t testing.TB) *udp.Socket {
	t.Helper()
	s, err := udp.ListenBare(loopback, udp.Options{Buffer: 1 << 20, Single: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s[0].Close() })
	return s[0]
}

// once has the loop carry what is there, and counts what arrives at a socket.
func (b *bed) once(t testing.TB, at *udp.Socket) int {
	var err error
	if b.loop.ready, err = b.loop.poll.Look(b.loop.ready[:0]); err != nil {
		t.Fatal(err)
	}
	for _, s := range b.loop.ready {
		b.loop.safely(s, time.Time{})
	}
	b.loop.flush()
	clear(b.loop.met)
	if at.Receive(&b.inbox, nil) != nil {
		return 0
	}
	return b.inbox.Len()
}

// ways are what is carried, each with a datagram as it is sent.
func (b *bed) way(t testing.TB, name string, size int) (o *udp.Outbox, to *udp.Destination, datagram []byte, at *udp.Socket) {
	data := make([]byte, size)
	switch name {
	case "up, channel", "into media, channel":
		d := make([]byte, channelSize+size)
		binary.BigEndian.PutUint16(d, 0x4000)
		binary.BigEndian.PutUint16(d[2:], uint16(size))
		return b.up, b.server, d, b.peer
	case "up, indication", "into media, indication":
		return b.up, b.server, indication(t, addrPort(b.peer.LocalAddr()), data), b.peer
	case "down, indication":
		b.relay.Unbind(0x4000)
	}
	return b.down, b.at, data, b.client
}

var ways = []string{"up, channel", "up, indication", "down, channel", "down, indication", "into media, channel", "into media, indication"}

// TestAllocations allocates nothing for a packet.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget")
	}
	for _, name := range ways {
		t.Run(name, func(t *testing.T) {
			media := name[0] == 'i'
			b := newBed(t, media)
			o, to, d, at := b.way(t, name, 1200)
			const burst = 8
			arrived := 0
			carry := func() {
				for range burst {
					o.Add(to, d)
				}
				o.Flush()
				arrived += b.once(t, at)
			}
			for range 10 {
				carry()
			}
			arrived, b.media.got = 0, 0
			allocations := testing.AllocsPerRun(100, carry)
			if media {
				arrived = b.media.got
			}
			if allocations != 0 || arrived != 101*burst {
				t.Errorf("%v allocations for %d packets; %d arrived of %d", allocations, burst, arrived, 101*burst)
			}
		})
	}
}

// BenchmarkCarry is a packet's whole way on one core: sent, carried and received. What the relay itself costs is in testbed/turnbench.
func BenchmarkCarry(b *testing.B) {
	for _, name := range ways {
		for _, size := range []int{160, 1200} {
			b.Run(fmt.Sprintf("%s/%d bytes", name, size), func(b *testing.B) {
				bed := newBed(b, name[0] == 'i')
				o, to, d, at := bed.way(b, name, size)
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					o.Add(to, d)
					if n++; n%4 == 0 {
						o.Flush()
						bed.once(b, at)
					}
				}
			})
		}
	}
}
