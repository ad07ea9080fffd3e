package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"callserver/sfu/udp"
)

// A load is one case.
type load struct {
	media       bool // into our media server, not to a peer
	down        bool
	size, burst int
	allocations int
	rate        int // packets/s
}

func (l load) String() string {
	return fmt.Sprintf("%s, %d B, %d allocations", l.kind(), l.size, l.allocations)
}

// kind is what loads have in common that differ in sizes and numbers.
func (l load) kind() string {
	to, direction, how := "peer", "up", "singles"
	if l.media {
		to = "sfu"
	}
	if l.down {
		direction = "down"
	}
	if l.burst > 1 {
		how = fmt.Sprintf("bursts of %d", l.burst)
	}
	return fmt.Sprintf("%s %s, %s", to, direction, how)
}

// A result is what a run of a load came to.
type result struct {
	perCPU float64 // packets per CPU-second of the server
	cores  float64
	p99    time.Duration
	loss   float64
	late   float64 // share of the packets that the generator was too late to send
	void   string  // why it does not count
}

// sampled is how rare the packets are whose age is looked at.
const sampled = 8

// samples are ages of packets.
type samples struct{ all []time.Duration }

func (s *samples) add(d time.Duration) {
	if s.all == nil {
		s.all = make([]time.Duration, 0, 1<<18)
	}
	if len(s.all) < cap(s.all) {
		s.all = append(s.all, d)
	}
}

func (s *samples) p99() time.Duration {
	if len(s.all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.all))
	return sorted[len(sorted)*99/100]
}

func (s *samples) reset() { s.all = s.all[:0] }

// A ground is the clients and the peer of one server.
type ground struct {
	server  *server
	clients []*client
	peer    *udp.Socket
	targets []*udp.Destination // relayed addresses
	poll    *udp.Poll[*udp.Socket]
	inbox   *udp.Inbox
	ready   []*udp.Socket
	box     *udp.Outbox
	buffers [][]byte

	received int
	ages     samples
}

func listenBare(host string, buffer int) (*udp.Socket, error) {
	all, err := udp.ListenBare(netip.AddrPortFrom(netip.MustParseAddr(host), 0), udp.Options{Buffer: buffer, Single: !segments})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// prepare opens so many allocations on a server, whose peer is the media server or a socket.
func prepare(s *server, media bool, allocations int) (*ground, error) {
	g := &ground{server: s, inbox: newInbox(), box: udp.NewOutbox()}
	var err error
	if g.poll, err = udp.NewPoll[*udp.Socket](); err != nil {
		return nil, err
	}
	if g.peer, err = listenBare("127.0.0.2", 4<<20); err != nil {
		return nil, err
	}
	if err := g.poll.Add(g.peer, g.peer); err != nil {
		return nil, err
	}
	user, password := credentials("bench")
	peer := addrOf(g.peer.LocalAddr())
	if media {
		peer = s.media
		if s.user != "" {
			user, password = s.user, s.password
		}
	}
	relayed, err := g.open(allocations, user, password, peer)
	if err != nil {
		return nil, err
	}
	if media {
		if _, err := s.child.ask(command{Attach: relayed}); err != nil {
			return nil, err
		}
	}
	for range 64 {
		g.buffers = append(g.buffers, make([]byte, 1600))
	}
	return g, nil
}

// open opens the clients' sockets and allocations. It returns the relayed addresses.
func (g *ground) open(allocations int, user, password string, peer netip.AddrPort) (relayed []netip.AddrPort, err error) {
	f := forwarding{Peer: peer}
	for i := range allocations {
		var c *client
		if g.server.name == bare {
			c, err = newClient(g.server.turn, user)
		} else if c, err = allocate(g.server.turn, user, password, peer); err == nil {
			relayed = append(relayed, c.relayed)
		}
		if err != nil {
			return nil, fmt.Errorf("allocation %d: %w", i+1, err)
		}
		if err := g.poll.Add(c.socket, c.socket); err != nil {
			return nil, err
		}
		g.clients = append(g.clients, c)
		f.Clients = append(f.Clients, addrOf(c.socket.LocalAddr()))
	}
	if g.server.name == bare {
		answer, err := g.server.child.ask(command{Forward: &f})
		if err != nil {
			return nil, err
		}
		relayed = answer.Relayed
	}
	for _, at := range relayed {
		g.targets = append(g.targets, udp.NewDestination(at))
	}
	return relayed, nil
}

func (g *ground) close() {
	for _, c := range g.clients {
		_ = c.socket.Close()
	}
	if g.peer != nil {
		_ = g.peer.Close()
	}
	_ = g.poll.Close()
}

// settle is how long packets may be under way after the last was sent.
const settle = 100 * time.Millisecond

// Shares of the time that make a run void.
const (
	lateness    = 0.03 // of packets that were not sent in time
	disturbance = 0.2  // of the time that others had, though only when nothing of ours would run
)

// attempts is how often a load is tried whose runs are void.
const attempts = 3

// measure puts a load on the server, again if that was void, and says how it went.
func (g *ground) measure(l load, for_ time.Duration) (r result, err error) {
	for range attempts {
		if r, err = g.run(l, for_); err != nil {
			return r, err
		}
		fmt.Fprintf(os.Stderr, "%s, %s: %.0fk packets/CPU-s, p99 %s, loss %.2f %% %s\n", g.server.name, l, r.perCPU/1000, r.p99, 100*r.loss, r.void)
		if r.void == "" {
			break
		}
	}
	return r, nil
}

// run puts a load on the server.
func (g *ground) run(l load, for_ time.Duration) (result, error) {
	if _, err := g.carry(l, 200*time.Millisecond); err != nil { // warm
		return result{}, err
	}
	if _, err := g.server.child.ask(command{Reset: true}); err != nil {
		return result{}, err
	}
	g.received = 0
	g.ages.reset()
	before, err := g.server.cpu()
	if err != nil {
		return result{}, err
	}
	rested, own, begin := idle(), self(), time.Now()
	sent, err := g.carry(l, for_)
	if err != nil {
		return result{}, err
	}
	took := time.Since(begin)
	after, err := g.server.cpu()
	if err != nil {
		return result{}, err
	}
	others := 2*took - (idle() - rested) - (self() - own) - (after - before)
	r := result{cores: (after - before).Seconds() / for_.Seconds(), p99: g.ages.p99()}
	got, wanted := g.received, float64(l.rate)*for_.Seconds()
	switch {
	case sent == 0 || after == before:
		return r, errors.New("nothing was sent")
	case l.media && l.down: // the media server sends, on the core that is measured: what it is too late for is lost
		sent = max(sent, int(wanted))
	case l.media:
		answer, err := g.server.child.ask(command{})
		if err != nil {
			return result{}, err
		}
		got, r.p99 = answer.Received, answer.P99
	}
	r.perCPU = float64(got) / (after - before).Seconds()
	r.loss = 1 - float64(got)/float64(sent)
	r.late = max(0, 1-float64(sent)/wanted)
	switch {
	case others.Seconds() > disturbance*took.Seconds():
		r.void = "others used the cores"
	case r.late > lateness:
		r.void = "the generator was late: a lower -rate helps"
	}
	return r, nil
}

// The generator does not make up for more than maxBehind, which would be a burst that nobody asked for, and looks for what has come at least after each spell.
const (
	maxBehind = time.Millisecond
	spell     = 16 // packets
)

// carry sends for a time, receives, and returns how many packets were sent.
func (g *ground) carry(l load, for_ time.Duration) (int, error) {
	if l.media && l.down {
		return g.await(l, for_)
	}
	sent, next, start := 0, 0, time.Now()
	for {
		now := time.Now()
		gone := now.Sub(start)
		if gone > for_ {
			break
		}
		if missed := gone - maxBehind - takes(sent, l.rate); missed > 0 {
			start, for_ = start.Add(missed), for_-missed
			gone -= missed
		}
		due := int(gone.Seconds() * float64(l.rate))
		for end := sent + spell; sent+l.burst <= min(due, end); next++ {
			g.send(l, next, time.Now())
			sent += l.burst
		}
		if err := g.receive(); err != nil {
			return sent, err
		}
	}
	for until := time.Now().Add(settle); time.Now().Before(until); {
		if err := g.receive(); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// takes is how long so many packets take at a rate.
func takes(n, rate int) time.Duration {
	return time.Duration(float64(n) / float64(rate) * float64(time.Second))
}

// await receives what the media server sends.
func (g *ground) await(l load, for_ time.Duration) (int, error) {
	type answer struct {
		r   reply
		err error
	}
	done := make(chan answer, 1)
	go func() {
		r, err := g.server.child.ask(command{Send: &sending{Size: l.size, Burst: l.burst, Addresses: l.allocations, Rate: l.rate, For: for_}})
		done <- answer{r, err}
	}()
	for {
		select {
		case a := <-done:
			for until := time.Now().Add(settle); time.Now().Before(until); {
				if err := g.receive(); err != nil {
					return 0, err
				}
			}
			return a.r.Sent, a.err
		default:
			if err := g.receive(); err != nil {
				return 0, err
			}
			runtime.Gosched()
		}
	}
}

// send sends one burst.
func (g *ground) send(l load, k int, now time.Time) {
	if l.down {
		g.box.Use(g.peer)
		for i := range l.burst {
			b := g.buffers[i][:l.size]
			stamp(b, now)
			g.box.Add(g.targets[k%l.allocations], b)
		}
		g.box.Flush()
		return
	}
	c := g.clients[k%l.allocations]
	g.box.Use(c.socket)
	for i := range l.burst {
		b := g.buffers[i][:4+l.size]
		binary.BigEndian.PutUint16(b, channel)
		binary.BigEndian.PutUint16(b[2:], uint16(l.size))
		stamp(b[4:], now)
		g.box.Add(c.server, b)
	}
	g.box.Flush()
}

// receive takes what is there.
func (g *ground) receive() error {
	var err error
	if g.ready, err = g.poll.Look(g.ready[:0]); err != nil {
		return err
	}
	for _, s := range g.ready {
		if s.Receive(g.inbox, nil) != nil {
			continue
		}
		n := g.inbox.Len()
		if n == udp.BatchSize {
			g.poll.Again(s)
		}
		var now time.Time
		for i := range n {
			b, _ := g.inbox.Datagram(i)
			if s != g.peer && len(b) > 4 {
				b = b[4:]
			}
			if len(b) < 20 || b[0] != 0x80 {
				continue
			}
			if g.received++; g.received%sampled == 0 {
				if now.IsZero() {
					now = time.Now()
				}
				if d, ok := age(b, now); ok {
					g.ages.add(d)
				}
			}
		}
	}
	return nil
}
