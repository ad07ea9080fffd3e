package egress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"callserver/sfu/bandwidth"
	"callserver/sfu/codec"
	"callserver/sfu/forward"
	"callserver/sfu/packet"
	"callserver/sfu/srtp"
	"callserver/sfu/udp"

	pion "github.com/pion/srtp/v3"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Unix(1700000000, 0)

func newPool(t testing.TB, n int) *Pool {
	t.Helper()
	p := NewPool(n, func(value any) { t.Errorf("panic: %v", value) })
	t.Cleanup(p.Close)
	return p
}

// keys are those of a leg and of the client at its other end.
func keys(t testing.TB) (*srtp.Sealer, *pion.Context) {
	t.Helper()
	material := bytes.Repeat([]byte{1, 2, 3, 5, 7, 11, 13}, srtp.GCM128.Material()/7)
	sealer, _, err := srtp.Server(srtp.GCM128, material)
	if err != nil {
		t.Fatal(err)
	}
	client, err := pion.CreateContext(material[16:32], material[44:], pion.ProtectionProfileAeadAes128Gcm)
	if err != nil {
		t.Fatal(err)
	}
	return sealer, client
}

// client is the other end of a leg, and a forward.Writer in front of it.
type client struct {
	*Leg
	media   Stream
	counted *bandwidth.Sent // nil: packets carry no transport-wide numbers
	context *pion.Context

	mu   sync.Mutex
	got  [][]byte // opened RTP
	rtcp [][]byte
}

// newClient returns one that datagrams reach through a function.
func newClient(t testing.TB, w *Worker, ssrc uint32) *client {
	sealer, context := keys(t)
	c := &client{Leg: w.NewLeg(), media: Stream{SSRC: ssrc}, context: context}
	c.SetSealer(sealer)
	c.SetPath(&Path{Write: func(b []byte) { c.take(t, b) }})
	return c
}

func (c *client) take(t testing.TB, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b[1] >= 192 && b[1] <= 223 {
		plain, err := c.context.DecryptRTCP(nil, b, nil)
		if err != nil {
			t.Error(err)
		}
		c.rtcp = append(c.rtcp, plain)
		return
	}
	plain, err := c.context.DecryptRTP(nil, b, nil)
	if err != nil {
		t.Error(err)
	}
	c.got = append(c.got, plain)
}

// receive takes n packets from a socket.
func (c *client) receive(t *testing.T, s *udp.Socket, n int) {
	t.Helper()
	inbox := &udp.Inbox{}
	for i := range inbox.Buffers {
		inbox.Buffers[i] = make([]byte, 1500)
	}
	for len(c.got)+len(c.rtcp) < n {
		if err := s.Receive(inbox, nil); err != nil {
			t.Fatal(err)
		}
		for i := range inbox.Len() {
			b, _ := inbox.Datagram(i)
			c.take(t, b)
		}
	}
}

// listen returns a socket.
func listen(t *testing.T) *udp.Socket {
	t.Helper()
	s, err := udp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s[0].Close() })
	return s[0]
}

// WriteRTP implements forward.Writer with a bare header.
func (c *client) WriteRTP(o *forward.Outgoing) error {
	h := c.Header()
	if h == nil {
		return nil
	}
	h = append(h, 0x80, 96)
	h = binary.BigEndian.AppendUint16(h, o.SequenceNumber)
	h = binary.BigEndian.AppendUint32(h, o.Timestamp)
	h = binary.BigEndian.AppendUint32(h, c.media.SSRC)
	p := Packet{Head: o.Head, Payload: o.Payload, Fill: o.Fill, Again: o.Retransmission}
	if c.counted != nil {
		h[0] |= 0x10
		h = append(h, 0xbe, 0xde, 0, 1, 0x31, 0, 0, 0)
		p.Number = 17
	}
	p.Header = h
	return c.Send(&c.media, &p)
}

// audio returns a packet of a publisher.
func audio(t testing.TB, seq uint16, payload []byte) *packet.Packet {
	t.Helper()
	p := packet.Get(packet.Capacity)
	b := p.Buffer()
	copy(b, []byte{0x80, 111})
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], uint32(seq)*960)
	binary.BigEndian.PutUint32(b[8:], 1)
	n := 12 + copy(b[12:], payload)
	if err := p.Parse(n, packet.Extensions{}); err != nil {
		t.Fatal(err)
	}
	return p
}

// wait has the workers empty their queues.
func wait(clients ...*client) {
	for _, c := range clients {
		done := make(chan struct{})
		c.Do(func() { close(done) })
		<-done
		c.Turn(func() {}) // the run that it was part of has ended
	}
}

// TestFanOut sends a publisher's packets to clients of two workers: each gets all of them, in order, on its own keys.
func TestFanOut(t *testing.T) {
	pool := newPool(t, 2)
	source := forward.NewSource(forward.SourceOptions{Codec: codec.Opus})
	var clients []*client
	for i := range 6 {
		c := newClient(t, pool.Assign(), uint32(100+i))
		source.Attach(c, forward.SinkOptions{})
		clients = append(clients, c)
	}
	const packets = 2000 // more than the slots hold
	for n := range uint16(packets) {
		source.Push(forward.Layer{}, audio(t, n, []byte{byte(n), byte(n >> 8), 7}), start.Add(time.Duration(n)*20*time.Millisecond))
		if n%50 == 49 {
			pool.Run(0)
		}
	}
	wait(clients...)
	for i, c := range clients {
		if len(c.got) != packets {
			t.Fatalf("client %d got %d packets", i, len(c.got))
		}
		for n, b := range c.got {
			if int(b[12])|int(b[13])<<8 != n {
				t.Fatalf("client %d: packet %d is number %d", i, n, int(b[12])|int(b[13])<<8)
			}
		}
	}
	if s := pool.Stats(); s.Packets != packets*uint64(len(clients)) || s.Overflows != 0 || s.Refused != 0 {
		t.Errorf("%+v", s)
	}
}

// TestFanOutTime has each client take its time: the last wait for all before them, and it counts for each of the packets.
func TestFanOutTime(t *testing.T) {
	const clients, each = 5, 2 * time.Millisecond
	pool := newPool(t, 1)
	source := forward.NewSource(forward.SourceOptions{Codec: codec.Opus})
	var last *client
	for i := range uint32(clients) {
		last = newClient(t, pool.Assign(), 100+i)
		last.SetPath(&Path{Write: func([]byte) {
			for begin := time.Now(); time.Since(begin) < each; {
				runtime.Gosched()
			}
		}})
		source.Attach(last, forward.SinkOptions{})
	}
	source.Push(forward.Layer{}, audio(t, 1, []byte{7}), start)
	begin := time.Now()
	pool.Run(0)
	wait(last)
	took := time.Since(begin)
	s := pool.Stats()
	if mean := time.Duration(s.FanOut/max(s.Packets, 1)) * time.Microsecond; s.Packets != clients || mean < clients*each-time.Microsecond || mean > took {
		t.Errorf("%d packets, %v on average, of %v", s.Packets, mean, took)
	}
}

// TestSockets sends over sockets: runs of equal packets, padded where that is allowed, and RTCP between them.
func TestSockets(t *testing.T) {
	pool := newPool(t, 1)
	from, to := listen(t), listen(t)
	c := newClient(t, pool.Assign(), 5)
	c.media.Once = true
	c.SetPath(&Path{Sockets: []*udp.Socket{from}, To: udp.NewDestination(to.LocalAddr().(*net.UDPAddr).AddrPort())})
	sizes := []int{1000, 1000, 990, 999, 700, 1000}
	fill := []uint8{5, 5, 15, 6, 0, 5} // up to 1005, which is to follow
	report := []byte{0x80, 201, 0, 1, 0, 0, 0, 9}
	c.RTCP(report)
	c.Turn(func() {
		for i, n := range sizes {
			if err := c.WriteRTP(&forward.Outgoing{SequenceNumber: uint16(i), Payload: bytes.Repeat([]byte{byte(i)}, n), Fill: fill[i]}); err != nil {
				t.Error(err)
			}
		}
	})
	wait(c)
	c.receive(t, to, len(sizes)+1)
	padded := map[int]int{}
	for i, b := range c.got {
		padding := 0
		if b[0]&0x20 != 0 {
			padding = int(b[len(b)-1])
		}
		if payload := b[12 : len(b)-padding]; len(payload) != sizes[i] || payload[0] != byte(i) {
			t.Errorf("packet %d: %d bytes of %d, want %d", i, len(payload), payload[0], sizes[i])
		}
		padded[i] = padding
	}
	if from.Segments() {
		if padded[0] != 5 || padded[1] != 5 || padded[2] != 15 || padded[3] != 6 || padded[4] != 0 || padded[5] != 5 {
			t.Errorf("padding %v: all but 4, which is too short, are to have 1005 bytes", padded)
		}
		if calls := from.Stats().Calls; calls != 2 {
			t.Errorf("%d system calls, want one for the report and one for the rest", calls)
		}
	}
	if len(c.rtcp) != 1 || !bytes.Equal(c.rtcp[0], report) {
		t.Errorf("got %x, want %x", c.rtcp, report)
	}
}

// TestPaddedAgain: packets that may be asked for again under their numbers are padded, too, and are the same to the byte when they are sent again.
func TestPaddedAgain(t *testing.T) {
	pool := newPool(t, 1)
	from, to := listen(t), listen(t)
	c := newClient(t, pool.Assign(), 5)
	c.SetPath(&Path{Sockets: []*udp.Socket{from}, To: udp.NewDestination(to.LocalAddr().(*net.UDPAddr).AddrPort())})
	sizes := []int{100, 99, 92, 84, 100}
	for _, again := range []bool{false, true} {
		c.Turn(func() {
			for i, n := range sizes {
				if err := c.WriteRTP(&forward.Outgoing{SequenceNumber: uint16(i), Payload: bytes.Repeat([]byte{byte(i)}, n), Retransmission: again}); err != nil {
					t.Errorf("packet %d, again: %t: %v", i, again, err)
				}
			}
		})
	}
	c.receive(t, to, 2*len(sizes))
	for i, b := range c.got[:len(sizes)] {
		if from.Segments() && len(b) != 12+100 {
			t.Errorf("packet %d has %d bytes", i, len(b))
		}
		if !bytes.Equal(b, c.got[len(sizes)+i]) {
			t.Errorf("packet %d is sent again as %x, was %x", i, c.got[len(sizes)+i], b)
		}
	}
	if calls := from.Stats().Calls; from.Segments() && calls != 2 {
		t.Errorf("%d system calls, want 2", calls)
	}
}

// TestOneNumberOnePacket writes as clients ask for it, late, repeated and again: what leaves never has one number for two packets.
func TestOneNumberOnePacket(t *testing.T) {
	pool := newPool(t, 1)
	c := newClient(t, pool.Assign(), 5)
	sealed := map[string]string{}
	c.SetPath(&Path{Write: func(b []byte) {
		key := string(b[2:4]) + string(b[8:12])
		if before, ok := sealed[key]; ok && before != string(b) {
			t.Errorf("number %x: two packets", b[2:4])
		}
		sealed[key] = string(b)
	}})
	refused := 0
	c.Turn(func() {
		for i, o := range []forward.Outgoing{
			{SequenceNumber: 1, Payload: []byte("one")},
			{SequenceNumber: 4, Payload: []byte("four")},
			{SequenceNumber: 2, Payload: []byte("late")},
			{SequenceNumber: 2, Payload: []byte("again, not marked as such")},
			{SequenceNumber: 2, Payload: []byte("late"), Retransmission: true},
			{SequenceNumber: 2, Payload: []byte("other"), Retransmission: true},
			{SequenceNumber: 3, Payload: []byte("never sent"), Retransmission: true},
		} {
			if err := c.WriteRTP(&o); errors.Is(err, srtp.ErrReuse) {
				refused++
			} else if err != nil {
				t.Errorf("packet %d: %v", i, err)
			}
		}
	})
	if refused != 3 || len(sealed) != 3 {
		t.Errorf("%d refused, %d numbers used", refused, len(sealed))
	}
}

// TestGate holds video back to the rate of a line, in order and with numbers in the order of sending; sound passes by.
func TestGate(t *testing.T) {
	pool := newPool(t, 1)
	c := newClient(t, pool.Assign(), 5)
	c.media.Video = true
	sound := Stream{SSRC: 6}
	var counted bandwidth.Sent
	at := func(d time.Duration, f func()) {
		c.Turn(func() { c.worker.now = d; f() })
	}
	video := func(n int) {
		h := append(c.Header(), 0x90, 96, byte(n>>8), byte(n), 0, 0, 0, 0, 0, 0, 0, 5, 0xbe, 0xde, 0, 1, 0x31, 0, 0, 0)
		if err := c.Send(&c.media, &Packet{Header: h, Payload: make([]byte, 1000), Number: 17}); err != nil {
			t.Error(err)
		}
	}
	at(time.Second, func() {
		c.Count(&counted)
		c.Limit(800_000) // 100 bytes a millisecond
	})
	at(1020*time.Millisecond, func() {
		for n := range 20 {
			video(n)
		}
		h := append(c.Header(), 0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 6)
		if err := c.Send(&sound, &Packet{Header: h, Payload: []byte("voice")}); err != nil {
			t.Error(err)
		}
	})
	if len(c.got) != 3 || c.got[2][1] != 111 { // 20 ms of credit are two packets
		t.Fatalf("%d packets left at once", len(c.got))
	}
	for ms := 1030; ms < 1120; ms += 10 {
		at(time.Duration(ms)*time.Millisecond, c.Release)
	}
	if n := len(c.got); n < 10 || n > 13 {
		t.Errorf("%d packets after 100 ms, want about 12", n)
	}
	at(1120*time.Millisecond, func() {
		if c.Repair(30_000) || !c.Repair(2_000) || c.Repair(2_000) {
			t.Error("a quarter of what may leave is for what is sent again")
		}
		for n := range maxHeld {
			video(20 + n)
		}
		if c.Waiting() != maxHeld {
			t.Errorf("%d packets wait", c.Waiting())
		}
		c.Limit(0)
		if c.Waiting() != 0 || !c.Repair(1e9) {
			t.Error("a limit is left")
		}
	})
	wait(c)
	n := 0
	for _, b := range c.got {
		if b[1] != 96 {
			continue
		}
		if seq, number := int(binary.BigEndian.Uint16(b[2:])), int(binary.BigEndian.Uint16(b[17:])); number != n || seq != n {
			t.Fatalf("packet %d has number %d, %d", n, seq, number)
		}
		n++
	}
	if n <= maxHeld || int(counted.Next()) != n {
		t.Errorf("%d packets, %d counted", n, counted.Next())
	}
}

// TestNowhere loses what has no keys or no path, and what is too large.
func TestNowhere(t *testing.T) {
	pool := newPool(t, 1)
	c := newClient(t, pool.Assign(), 5)
	large := &forward.Outgoing{Payload: make([]byte, slotSize)}
	c.Turn(func() {
		if err := c.WriteRTP(large); !errors.Is(err, errTooLarge) {
			t.Errorf("too large: %v", err)
		}
	})
	c.SetPath(nil)
	bare := pool.Assign().NewLeg()
	for name, l := range map[string]*Leg{"no path": c.Leg, "no keys": bare} {
		l.Turn(func() {
			if l.Header() != nil {
				t.Errorf("%s: something can be sent", name)
			}
		})
		l.RTCP([]byte{0x80, 201, 0, 1, 0, 0, 0, 9})
	}
	wait(c)
	if len(c.got)+len(c.rtcp) != 0 {
		t.Errorf("got %d and %d packets", len(c.got), len(c.rtcp))
	}
}

// TestOverflow drops packets rather than let a worker that stands still hold all memory; its own goroutine goes on with the rest.
func TestOverflow(t *testing.T) {
	pool := newPool(t, 1)
	source := forward.NewSource(forward.SourceOptions{Codec: codec.Opus})
	c := newClient(t, pool.Assign(), 5)
	source.Attach(c, forward.SinkOptions{})
	c.Turn(func() {
		for n := range uint16(maxQueued + 10) {
			source.Push(forward.Layer{}, audio(t, n, []byte{1}), start.Add(time.Duration(n)*time.Millisecond))
		}
		pool.Run(0) // the turn is taken
	})
	wait(c)
	if s := pool.Stats(); s.Overflows != 10 || len(c.got) != maxQueued {
		t.Errorf("%d dropped, %d sent", s.Overflows, len(c.got))
	}
}

// TestPanic goes on after a panic.
func TestPanic(t *testing.T) {
	var panics atomic.Int32
	pool := NewPool(1, func(any) { panics.Add(1) })
	defer pool.Close()
	c := newClient(t, pool.Assign(), 5)
	c.Do(func() { panic("bad packet") })
	wait(c)
	if n := panics.Load(); n != 1 {
		t.Errorf("%d panics told", n)
	}
}

func TestClosed(t *testing.T) {
	pool := NewPool(2, func(value any) { t.Error(value) })
	source := forward.NewSource(forward.SourceOptions{Codec: codec.Opus})
	c := newClient(t, pool.Assign(), 5)
	source.Attach(c, forward.SinkOptions{})
	pool.Close()
	source.Push(forward.Layer{}, audio(t, 1, []byte{1}), start)
	c.Do(func() { t.Error("called") })
	pool.Run(0)
	if len(c.got) != 0 {
		t.Error("sent after the end")
	}
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	pool := newPool(t, 1)
	source := forward.NewSource(forward.SourceOptions{Codec: codec.Opus})
	for i := range 10 {
		c := newClient(t, pool.Assign(), uint32(i+1))
		c.SetPath(&Path{Write: func([]byte) {}})
		source.Attach(c, forward.SinkOptions{})
	}
	payload := make([]byte, 80)
	n, now := uint16(0), start
	step := func() {
		for range 5 {
			n++
			now = now.Add(20 * time.Millisecond)
			source.Push(forward.Layer{}, audio(t, n, payload), now)
		}
		pool.Run(0)
	}
	for range 200 {
		step()
	}
	runtime.GC()
	if got := testing.AllocsPerRun(200, step); got >= 1 {
		t.Errorf("%v allocations for 50 packets", got)
	}
}
