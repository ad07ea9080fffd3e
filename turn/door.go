package turn

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// helloTime is how long a connection may take to an allocation, or to be bound to a peer's.
	helloTime = 30 * time.Second
	// idleTime is how long one may be silent from then on: its client must refresh before, or has no allocation any more.
	idleTime = allocationLife + time.Minute
	// writeTime is how long a client may take to read. Nothing else waits for it.
	writeTime = 15 * time.Second
)

// A door is where clients connect.
type door struct {
	net.Listener
	relay *Relay

	mu      sync.Mutex
	open    map[*connection]struct{}
	clients map[netip.AddrPort]*connection // of open, by where they come from
	closed  bool
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if accepted := d.enter(c); accepted != nil {
			return accepted.way, nil
		}
		_ = c.Close()
	}
}

// enter takes a connection in, unless there are too many: each may have an allocation and be one to a peer.
func (d *door) enter(c net.Conn) *connection {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.open) >= 2*d.relay.options.Allocations {
		return nil
	}
	accepted := &connection{Conn: c, door: d, begun: time.Now()}
	accepted.from = addrPort(c.RemoteAddr())
	accepted.way = d.relay.way.stream(accepted)
	d.open[accepted], d.clients[accepted.from] = struct{}{}, accepted
	d.relay.ended.Add(1)
	return accepted
}

// of is what the client at an address is connected by; nil if it is not, or there is no door.
func (d *door) of(from netip.AddrPort) net.Conn {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.clients[from]; c != nil {
		return c.way
	}
	return nil
}

// Close implements net.Listener: it also ends the connections, which pion then lets go.
func (d *door) Close() error {
	d.mu.Lock()
	d.closed = true
	for c := range d.open {
		_ = c.Conn.Close()
	}
	d.mu.Unlock()
	return d.Listener.Close()
}

// A connection is a client's. It ends when the client takes too long to become one or to read.
type connection struct {
	net.Conn
	door    *door
	from    netip.AddrPort
	way     net.Conn // by which pion uses it
	begun   time.Time
	settled atomic.Bool // it has an allocation, or is bound to a peer's connection
	set     atomic.Int64
	scanner scanner
	once    sync.Once
}

// Read implements net.Conn. One goroutine reads.
func (c *connection) Read(b []byte) (int, error) {
	c.await()
	n, err := c.Conn.Read(b)
	if c.door.relay.keys.several() {
		c.scanner.scan(b[:n], func(message []byte) { c.door.relay.keys.learn(message, c.door.relay.clock()) })
	}
	return n, err
}

// await moves the time at which the connection is given up.
func (c *connection) await() {
	if !c.settled.Load() {
		_ = c.SetReadDeadline(c.begun.Add(c.door.relay.options.hello)) // fails on closed connections, like what follows
		return
	}
	at := time.Now()
	if last := c.set.Load(); at.UnixNano()-last > int64(time.Minute/2) && c.set.CompareAndSwap(last, at.UnixNano()) {
		_ = c.SetReadDeadline(at.Add(idleTime))
	}
}

// Types of responses (RFC 8656 §17, RFC 6062 §6).
const (
	allocateSuccess = 0x0103
	bindSuccess     = 0x010b
)

// Write implements net.Conn.
func (c *connection) Write(b []byte) (int, error) {
	if !c.settled.Load() && isSTUN(b) {
		if t := binary.BigEndian.Uint16(b); t == allocateSuccess || t == bindSuccess {
			c.settled.Store(true)
		}
	}
	if c.settled.Load() {
		c.await()
	}
	_ = c.SetWriteDeadline(time.Now().Add(writeTime))
	n, err := c.Conn.Write(b)
	if err != nil {
		_ = c.Conn.Close() // half a message may be on its way
	}
	return n, err
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.once.Do(func() {
		_ = c.Conn.Close()
		c.door.mu.Lock()
		delete(c.door.open, c)
		if c.door.clients[c.from] == c {
			delete(c.door.clients, c.from)
		}
		c.door.mu.Unlock()
		c.door.relay.ended.Done()
	})
	return nil
}

// A scanner finds the STUN messages in what a client sends over a connection, without holding it up.
type scanner struct {
	part []byte // of a message, or of the first bytes of anything
	skip int    // bytes of ChannelData to come
	over bool   // something else is sent
}

// maxMessage is the longest message that is looked at, in bytes: pion takes none that is longer.
const maxMessage = 1600

// scan calls found with each message that the bytes complete.
func (s *scanner) scan(b []byte, found func(message []byte)) {
	for len(b) > 0 && !s.over {
		if s.skip > 0 {
			n := min(s.skip, len(b))
			s.skip, b = s.skip-n, b[n:]
			continue
		}
		want := s.want()
		n := min(want-len(s.part), len(b))
		s.part, b = append(s.part, b[:n]...), b[n:]
		if len(s.part) < want || s.want() > want {
			continue
		}
		if s.skip == 0 && !s.over {
			found(s.part)
		}
		s.part = s.part[:0]
	}
}

// want is how long the part must become before more can be said. It notices what is not STUN.
func (s *scanner) want() int {
	const prefix = 4
	if len(s.part) < prefix {
		return prefix
	}
	length := int(binary.BigEndian.Uint16(s.part[2:]))
	switch s.part[0] >> 6 {
	case 0:
		if headerSize+length <= maxMessage {
			return headerSize + length
		}
	case 1: // ChannelData, padded (RFC 8656 §12.5)
		s.skip = (length + 3) &^ 3
		return prefix
	}
	s.over = true
	return prefix
}
