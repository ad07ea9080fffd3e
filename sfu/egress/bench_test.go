package egress

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"callserver/sfu/bandwidth"
	"callserver/sfu/codec"
	"callserver/sfu/forward"
	"callserver/sfu/prefetch"
	"callserver/sfu/udp"
)

// BenchmarkFanOut is the whole way of a packet to each of 300 receivers from where it is parsed: selection, header, protection, batch. Without
// sockets; then with one, to which nobody listens. ns/op is per packet and receiver.
func BenchmarkFanOut(b *testing.B) {
	for _, workers := range []int{1, 2} {
		for _, socket := range []bool{false, true} {
			b.Run(fmt.Sprintf("workers=%d/socket=%v", workers, socket), func(b *testing.B) {
				pool := newPool(b, workers)
				source := forward.NewSource(forward.SourceOptions{Codec: codec.H264, Video: true})
				var sockets []*udp.Socket
				var to *udp.Destination
				if socket {
					for range 2 {
						s, err := udp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udp.Options{})
						if err != nil {
							b.Fatal(err)
						}
						defer func() { _ = s[0].Close() }()
						sockets, to = s, udp.NewDestination(s[0].LocalAddr().(*net.UDPAddr).AddrPort())
					}
				}
				const receivers, frame = 300, 7
				var clients []*client
				for i := range receivers {
					c := newClient(b, pool.Assign(), uint32(i+1))
					c.SetPath(&Path{Write: func([]byte) {}})
					if socket {
						c.SetPath(&Path{Sockets: sockets, To: udp.NewDestination(to.Addr())})
					}
					c.media.Once, c.media.Video, c.counted = true, true, &bandwidth.Sent{}
					c.Turn(func() { c.Count(c.counted) })
					source.Attach(c, forward.SinkOptions{Target: forward.MaxTemporal(0)})
					clients = append(clients, c)
				}
				key := append([]byte{0x65}, make([]byte, 1099)...) // an IDR picture: everybody joins
				n, now := uint16(0), start
				behind := make(chan struct{}, 4) // so many frames another worker may be behind: nobody waits for it after each, as on a server
				b.ReportAllocs()
				for range b.N / (receivers * frame) {
					now = now.Add(33 * time.Millisecond)
					for range frame {
						n++
						source.Push(forward.Layer{}, audio(b, n, key), now)
					}
					for _, w := range pool.workers[1:] {
						behind <- struct{}{}
						w.Do(func() { <-behind })
					}
					pool.Run(0)
				}
				wait(clients[:workers]...)
			})
		}
	}
}

// speaker is one of several streams on a leg.
type speaker struct {
	*Leg
	media Stream
}

// WriteRTP implements forward.Writer with a bare header.
func (s *speaker) WriteRTP(o *forward.Outgoing) error {
	h := append(s.Header(), 0x80, 111)
	h = binary.BigEndian.AppendUint16(h, o.SequenceNumber)
	h = binary.BigEndian.AppendUint32(h, o.Timestamp)
	h = binary.BigEndian.AppendUint32(h, s.media.SSRC)
	return s.Send(&s.media, &Packet{Header: h, Head: o.Head, Payload: o.Payload, Fill: o.Fill, Again: o.Retransmission})
}

// Fetch has what WriteRTP needs fetched.
func (s *speaker) Fetch(step int) {
	if step == 0 {
		prefetch.Lines(unsafe.Pointer(s), 2)
		return
	}
	s.Leg.Fetch(step)
}

// BenchmarkCrowd is people who hear each other: 2,450 or 39,800 streams of small packets, so that what belongs to a stream is seldom at hand when its
// packet comes. Without sockets. ns/op is per packet and receiver.
func BenchmarkCrowd(b *testing.B) {
	for _, people := range []int{50, 200} {
		b.Run(fmt.Sprintf("people=%d", people), func(b *testing.B) { crowd(b, people) })
	}
}

func crowd(b *testing.B, people int) {
	pool := newPool(b, 1)
	var sources []*forward.Source
	var clients []*client
	for i := range people {
		sources = append(sources, forward.NewSource(forward.SourceOptions{Codec: codec.Opus}))
		c := newClient(b, pool.Assign(), uint32(i+1))
		c.SetPath(&Path{Write: func([]byte) {}})
		clients = append(clients, c)
	}
	for i, source := range sources {
		for j, c := range clients {
			if i != j {
				source.Attach(&speaker{Leg: c.Leg, media: Stream{SSRC: uint32(i*people + j + 1)}}, forward.SinkOptions{})
			}
		}
	}
	frame := make([]byte, 80)
	n, now := uint16(0), start
	b.ReportAllocs()
	for range b.N / (people * (people - 1)) {
		n++
		for _, source := range sources {
			now = now.Add(20 * time.Millisecond / time.Duration(people))
			source.Push(forward.Layer{}, audio(b, n, frame), now)
			pool.Run(0)
		}
	}
	wait(clients[0])
}
