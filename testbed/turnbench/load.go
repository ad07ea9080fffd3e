package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
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
}

func (l load) String() string {
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
	return fmt.Sprintf("%s %s, %d B, %d allocations, %s", to, direction, l.size, l.allocations, how)
}

// A result is what a run of a load came to.
type result struct {
	perCPU float64 // packets per CPU-second of the server
	cores  float64
	p99    time.Duration
	loss   float64
	void   string // why it does not count
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
	var relayed []netip.AddrPort
	for i := range allocations {
		c, err := allocate(s.turn, user, password, peer)
		if err != nil {
			return nil, fmt.Errorf("allocation %d: %w", i+1, err)
		}
		if err := g.poll.Add(c.socket, c.socket); err != nil {
			return nil, err
		}
		g.clients = append(g.clients, c)
		g.targets = append(g.targets, udp.NewDestination(c.relayed))
		relayed = append(relayed, c.relayed)
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

// run puts a load on the server.
func (g *ground) run(l load, rate int, time_ time.Duration) (result, error) {
	if _, err := g.carry(l, rate, 200*time.Millisecond); err != nil { // warm
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
	busy, own, begin := cores(), self(), time.Now()
	sent, err := g.carry(l, rate, time_)
	if err != nil {
		return result{}, err
	}
	took := time.Since(begin)
	after, err := g.server.cpu()
	if err != nil {
		return result{}, err
	}
	others := cores() - busy - (self() - own) - (after - before)
	r := result{cores: (after - before).Seconds() / took.Seconds(), p99: g.ages.p99()}
	got := g.received
	if l.media && !l.down {
		answer, err := g.server.child.ask(command{})
		if err != nil {
			return result{}, err
		}
		got, r.p99 = answer.Received, answer.P99
	}
	if sent == 0 || after == before {
		return r, errors.New("nothing was sent")
	}
	r.perCPU = float64(got) / (after - before).Seconds()
	r.loss = 1 - float64(got)/float64(sent)
	switch {
	case others > took/10:
		r.void = "others used the cores"
	case float64(sent) < 0.97*float64(rate)*time_.Seconds():
		r.void = "the generator could not keep up: a lower -rate helps"
	}
	return r, nil
}

// carry sends for a time, receives, and returns how many packets were sent.
func (g *ground) carry(l load, rate int, for_ time.Duration) (int, error) {
	if l.media && l.down {
		return g.await(l, rate, for_)
	}
	sent, next, start := 0, 0, time.Now()
	for {
		now := time.Now()
		gone := now.Sub(start)
		if gone > for_ {
			break
		}
		if due := int(gone.Seconds() * float64(rate)); sent+l.burst <= due {
			g.send(l, next, now)
			next++
			sent += l.burst
			continue
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

// await receives what the media server sends.
func (g *ground) await(l load, rate int, for_ time.Duration) (int, error) {
	type answer struct {
		r   reply
		err error
	}
	done := make(chan answer, 1)
	go func() {
		r, err := g.server.child.ask(command{Send: &sending{Size: l.size, Burst: l.burst, Addresses: l.allocations, Rate: rate, For: for_}})
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
			time.Sleep(20 * time.Microsecond)
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

// median of what f makes of the results, of which there is at least one.
func median(results []result, f func(result) float64) float64 {
	var all []float64
	for _, r := range results {
		all = append(all, f(r))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
