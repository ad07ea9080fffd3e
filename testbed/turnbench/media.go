package main

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"callserver/sfu/packet"
	"callserver/sfu/rtc/port"
	"callserver/sfu/udp"
	"callserver/turn"
	"callserver/turn/path"

	"github.com/pion/logging"
)

// A command is what the generator asks of a process with media ports; it answers each with a reply, on one line.
type command struct {
	Attach []netip.AddrPort `json:",omitempty"` // take media from there
	Send   *sending         `json:",omitempty"` // and answer when done
	Reset  bool             `json:",omitempty"` // count from here
}

// sending is packets to so many of the attached addresses.
type sending struct {
	Size, Burst, Addresses int
	Rate                   int // packets/s
	For                    time.Duration
}

type reply struct {
	TURN, Media netip.AddrPort // at the start, like the credential for media
	User        string
	Password    string
	Sent        int
	Received    int
	P99         time.Duration
	Drops       path.Stats
}

// sink is the media server: it takes packets, and sends some, without looking into them.
type sink struct {
	ports    *port.Ports
	routes   []*port.Route
	received atomic.Int64
	ages     samples // of the one goroutine that receives
}

// Receive implements port.Receiver.
func (s *sink) Receive(p *packet.Packet, n int, now time.Time) {
	if k := s.received.Add(1); k%sampled == 0 {
		if d, ok := age(p.Buffer()[:n], now); ok {
			s.ages.add(d)
		}
	}
	p.Release()
}

// serve is a process with media ports, and a relay if it is ours.
func serve(withRelay bool) error {
	s := &sink{}
	loopback := netip.MustParseAddr("127.0.0.1")
	var err error
	s.ports, err = port.Open(port.Options{TCP: -1, Listen: []netip.Addr{loopback}, Loopback: true, Log: logging.NewDefaultLoggerFactory()})
	if err != nil {
		return err
	}
	r := reply{Media: netip.AddrPortFrom(loopback, uint16(s.ports.UDPPort))}
	var way *path.Path
	if withRelay {
		if way, err = relay(s.ports, &r); err != nil {
			return err
		}
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(r); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var c command
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			return err
		}
		r := reply{}
		for _, a := range c.Attach {
			route, err := s.ports.Attach(port.Link{Local: loopback, Remote: a}, true, s)
			if err != nil {
				return err
			}
			s.routes = append(s.routes, route)
		}
		if c.Send != nil {
			r.Sent = s.send(c.Send)
		}
		r.Received, r.P99 = int(s.received.Load()), s.ages.p99()
		if way != nil {
			r.Drops = way.Stats()
		}
		if c.Reset {
			s.received.Store(0)
			s.ages.reset()
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return in.Err()
}

// send sends at a rate, in steps of a millisecond.
func (s *sink) send(o *sending) int {
	boxes := map[*udp.Socket]*udp.Outbox{}
	buffers := make([][]byte, 4096)
	for i := range buffers {
		buffers[i] = make([]byte, o.Size)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	sent, next, start := 0, 0, time.Now()
	for now := range tick.C {
		if now.Sub(start) > o.For {
			return sent
		}
		due := int(now.Sub(start).Seconds() * float64(o.Rate))
		for used := 0; sent < due && used+o.Burst <= len(buffers); {
			route := s.routes[next%o.Addresses]
			next++
			box := boxes[route.Sockets[0]]
			if box == nil {
				box = route.Sockets[0].NewOutbox()
				boxes[route.Sockets[0]] = box
			}
			for range o.Burst {
				stamp(buffers[used], now)
				box.Add(route.To, buffers[used])
				used++
				sent++
			}
		}
		for _, box := range boxes {
			box.Flush()
		}
	}
	return sent
}

// relay serves TURN on loopback.
func relay(ports *port.Ports, into *reply) (*path.Path, error) {
	media := into.Media
	way, err := path.New(path.Options{Media: func(to netip.AddrPort) path.Intake {
		if in := ports.Intake(to); in != nil {
			return in
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	r, err := turn.New(turn.Options{
		Places:  func() []turn.Place { return []turn.Place{{Public: media, Local: media}} },
		Secrets: []string{secret}, Peers: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Addresses: func() ([]netip.Addr, error) { return nil, nil }, // else peers on this host are none
		FirstPort: 20000, LastPort: 32000,
		UserAllocations: 1 << 20, AddressAllocations: 1 << 20, AllocationBitrate: 100_000_000_000,
		Path: way,
	})
	if err != nil {
		return nil, err
	}
	into.TURN, err = r.ListenUDP(netip.AddrPortFrom(media.Addr(), 0))
	c := r.Credential("PA_bench", time.Now())
	into.User, into.Password = c.Username, c.Password
	return way, err
}
