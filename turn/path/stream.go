package path

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/udp"
)

const (
	// streamBuffer holds what was read of a connection: larger messages end it, as they do at the server.
	streamBuffer = 4096 // bytes
	// maxStreamQueue bounds what waits for a client that reads slowly; more is dropped.
	maxStreamQueue = 256 << 10 // bytes

	connectionBindSuccess = 0x010B // RFC 6062 §6.3
)

var errTooLarge = errors.New("message larger than a datagram may be")

// A Stream is a client's connection, TCP or TLS. It keeps data from the server, as a Listener does. One goroutine reads; the rest is safe for concurrent use.
type Stream struct {
	net.Conn
	path  *Path
	relay atomic.Pointer[Relay]
	raw   atomic.Bool // it carries a peer's connection (RFC 6062) from now on

	buffer     []byte // the reader's, and so below
	start, end int    // of what was read and not used
	met        map[Intake]struct{}

	writing sync.Mutex // held while whole messages are written
	wake    chan struct{}
	closed  chan struct{}
	once    sync.Once
	ended   sync.WaitGroup

	mu    sync.Mutex
	queue []byte // whole messages
}

// Stream takes a client's connection, which the server uses by the Stream from then on. The connection bounds how long a write may take. Closing the Stream ends the goroutine
// that writes to the client.
func (p *Path) Stream(c net.Conn) *Stream {
	s := &Stream{Conn: c, path: p, buffer: make([]byte, streamBuffer), met: map[Intake]struct{}{}, wake: make(chan struct{}, 1), closed: make(chan struct{})}
	s.ended.Go(s.writeLoop)
	return s
}

// Read implements net.Conn: the next message for the server.
func (s *Stream) Read(b []byte) (int, error) {
	for {
		if s.raw.Load() {
			if s.start < s.end {
				n := copy(b, s.buffer[s.start:s.end])
				s.start += n
				return n, nil
			}
			return s.Conn.Read(b)
		}
		n, err := messageSize(s.buffer[s.start:s.end])
		if err != nil || n > len(s.buffer) {
			return 0, errors.Join(err, errTooLarge)
		}
		if n > 0 && n <= s.end-s.start {
			m := s.buffer[s.start : s.start+n]
			s.start += n
			if !s.carry(m) {
				if n > len(b) {
					return 0, errTooLarge
				}
				return copy(b, m), nil
			}
			continue
		}
		if err := s.more(); err != nil {
			return 0, err
		}
	}
}

// more reads from the connection.
func (s *Stream) more() error {
	for in := range s.met {
		in.Taken(-1)
	}
	clear(s.met)
	s.end = copy(s.buffer, s.buffer[s.start:s.end])
	s.start = 0
	n, err := s.Conn.Read(s.buffer[s.end:])
	s.end += n
	if n > 0 {
		return nil
	}
	return err
}

// errNoMessage means that what a client sends is not TURN.
var errNoMessage = errors.New("neither STUN nor ChannelData")

// messageSize is how long the message is that b begins with, with its padding (RFC 8656 §12.5); 0 if b is too short to tell.
func messageSize(b []byte) (int, error) {
	if len(b) < channelSize {
		return 0, nil
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case isChannelData(b):
		return channelSize + (n+3)&^3, nil
	case b[0] < 4 && n%4 == 0:
		return headerSize + n, nil
	}
	return 0, errNoMessage
}

// carry carries a message if it is data. It reports whether it was.
func (s *Stream) carry(m []byte) bool {
	r := s.relay.Load()
	var to *peer
	var data []byte
	switch {
	case isChannelData(m):
		number, content, ok := channelData(m)
		if ok && r != nil {
			data = content
			s.path.mu.RLock()
			to = r.channels[number]
			s.path.mu.RUnlock()
		}
		if to == nil {
			s.path.counts.strangers.Add(1)
			return true
		}
	case r != nil && isSend(m):
		name, content, ok := send(m)
		if !ok {
			return false
		}
		if to = r.reach(name, false); to == nil {
			return true
		}
		data = content
	default:
		return false
	}
	s.sendUp(to, data)
	return true
}

func (s *Stream) sendUp(p *peer, data []byte) {
	if p.sendUp(data, time.Now()) {
		s.met[p.intake] = struct{}{}
	}
}

// write frames what a peer sent and queues it for the client.
func (p *peer) write(b []byte) {
	s := p.relay.stream
	if s == nil {
		return
	}
	var head [udp.MaxHead]byte
	before, after, ok := p.Frame(&head, len(b))
	if ok {
		if p.channel.Load() != 0 {
			after = -len(b) & 3 // over a stream it is padded
		}
		s.enqueue(head[:before], b, after)
	}
}

// enqueue queues a message, or drops it if the client is too slow.
func (s *Stream) enqueue(head, b []byte, after int) {
	s.mu.Lock()
	fits := len(s.queue)+len(head)+len(b)+after <= maxStreamQueue
	if fits {
		s.queue = append(append(append(s.queue, head...), b...), make([]byte, after)...)
	}
	s.mu.Unlock()
	if !fits {
		s.path.counts.slow.Add(1)
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// writeLoop writes what is queued.
func (s *Stream) writeLoop() {
	var b []byte
	for {
		select {
		case <-s.wake:
		case <-s.closed:
			return
		}
		s.mu.Lock()
		b, s.queue = s.queue, b[:0]
		s.mu.Unlock()
		if err := s.writeEach(b); err != nil {
			_ = s.Conn.Close() // the reader sees it
			return
		}
	}
}

// writeEach writes messages of ours one by one: there are clients that take a TLS record for one message, and lose what else is in it (coturn's).
func (s *Stream) writeEach(messages []byte) error {
	for len(messages) > 0 {
		n, err := messageSize(messages)
		if err == nil {
			_, err = s.writeNow(messages[:n])
		}
		if err != nil {
			return err
		}
		messages = messages[n:]
	}
	return nil
}

// Write implements net.Conn.
func (s *Stream) Write(b []byte) (int, error) {
	if len(b) >= headerSize && binary.BigEndian.Uint16(b) == connectionBindSuccess && binary.BigEndian.Uint32(b[4:]) == cookie {
		s.raw.Store(true)
	}
	return s.writeNow(b)
}

func (s *Stream) writeNow(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.Conn.Write(b)
}

// Close implements net.Conn, and waits for the goroutine that writes. Closing twice is fine.
func (s *Stream) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closed)
		err = s.Conn.Close()
	})
	s.ended.Wait()
	return err
}

// sendUp sends one datagram to the peer. It reports whether a media port of this process took it, which is to be told when that is all.
func (p *peer) sendUp(b []byte, now time.Time) (taken bool) {
	switch {
	case p.gone.Load():
	case !p.relay.guard.Up(1, len(b), now):
		p.relay.path.counts.capped.Add(1)
	case p.intake == nil:
		_, _ = p.relay.socket.WriteToAddrPort(b, p.at) // lost, as on any network
	default:
		p.intake.Take(b, p.relay.public, now)
		return true
	}
	return false
}
