package main

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"callserver/sfu/rtc/port"
	"callserver/sfu/udp"
	"callserver/turn"
	"callserver/turn/path"

	"github.com/pion/logging"
	"golang.org/x/sys/unix"
)

// A command is what the generator asks of a process with media ports; it answers each with a reply, on one line.
type command struct {
	Attach  []netip.AddrPort `json:",omitempty"` // take media from there
	Send    *sending         `json:",omitempty"` // and answer when done
	Reset   bool             `json:",omitempty"` // count from here
	Forward *forwarding      `json:",omitempty"` // of the server without TURN
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
	Relayed     []netip.AddrPort // of the server without TURN, by client
}

// sink is the media server: it takes packets, and sends some, without looking into them.
type sink struct {
	ports     *port.Ports
	forwarder *forwarder // in place of ports
	routes    []*port.Route
	received  atomic.Int64
	ages      samples // of the one goroutine that receives
}

// Receive implements port.Receiver.
func (s *sink) Receive(b []byte, _ time.Time) {
	if k := s.received.Add(1); k%sampled == 0 {
		if d, ok := age(b, time.Now()); ok {
			s.ages.add(d)
		}
	}
}

// serve is a process with media ports, and a relay if it is ours; or one that only forwards.
func serve(mode string) error {
	out := json.NewEncoder(os.Stdout)
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	s := &sink{}
	var r reply
	var err error
	if mode == bare {
		s.forwarder, err = newForwarder(&r)
	} else {
		err = s.open(mode == "relay", &r)
	}
	if err != nil {
		return err
	}
	if err := out.Encode(r); err != nil {
		return err
	}
	for in.Scan() {
		var c command
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			return err
		}
		r, err := s.do(c)
		if err != nil {
			return err
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return in.Err()
}

// open opens the media ports, and the relay.
func (s *sink) open(withRelay bool, r *reply) (err error) {
	s.ports, err = port.Open(port.Options{TCP: -1, Listen: []netip.Addr{loopback}, Loopback: true, Log: logging.NewDefaultLoggerFactory()})
	if err != nil {
		return err
	}
	r.Media = netip.AddrPortFrom(loopback, uint16(s.ports.UDPPort))
	if withRelay {
		err = relay(s.ports, r)
	}
	return err
}

var loopback = netip.MustParseAddr("127.0.0.1")

// do obeys a command.
func (s *sink) do(c command) (r reply, err error) {
	for _, a := range c.Attach {
		route, err := s.ports.Attach(port.Link{Local: loopback, Remote: a}, true, s)
		if err != nil {
			return r, err
		}
		s.routes = append(s.routes, route)
	}
	if c.Send != nil {
		r.Sent = s.send(c.Send)
	}
	if c.Forward != nil {
		if r.Relayed, err = s.forwarder.open(c.Forward); err != nil {
			return r, err
		}
	}
	r.Received, r.P99 = int(s.received.Load()), s.ages.p99()
	if c.Reset {
		s.received.Store(0)
		s.ages.reset()
	}
	return r, nil
}

// sendStep is how long it is between two looks at what is due. Go's own timers would make it a millisecond or two, and a burst of hundreds; so the system's are
// used, and the scheduler is not told, which would wake its watchdog thread each time.
var sendStep = unix.NsecToTimespec(int64(250 * time.Microsecond))

// send sends at a rate, in steps.
func (s *sink) send(o *sending) int {
	boxes := map[*udp.Socket]*udp.Outbox{}
	buffers := make([][]byte, 4096)
	for i := range buffers {
		buffers[i] = make([]byte, o.Size)
	}
	sent, next, start := 0, 0, time.Now()
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&sendStep)), 0, 0) // or shorter, if interrupted
		now := time.Now()
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
}

// relay serves TURN on loopback.
func relay(ports *port.Ports, into *reply) error {
	media := into.Media
	way, err := path.New(path.Options{Media: func(to netip.AddrPort) path.Intake {
		if in := ports.Intake(to); in != nil {
			return in
		}
		return nil
	}})
	if err != nil {
		return err
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
		return err
	}
	into.TURN, err = r.ListenUDP(netip.AddrPortFrom(media.Addr(), 0))
	c := r.Credential("PA_bench", time.Now())
	into.User, into.Password = c.Username, c.Password
	return err
}
