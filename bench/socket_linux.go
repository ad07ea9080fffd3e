//go:build linux && (amd64 || arm64)

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveBuffer is what a socket is asked to hold, in bytes: the loop reads every few milliseconds only, because arrival
// times come from the kernel. Beyond it packets are lost, which the report shows.
const receiveBuffer = 1 << 20

// controlQueue bounds the packets that wait for Pion; the newest are dropped, and STUN and DTLS send them again.
const controlQueue = 64

// A socket is one participant's UDP socket. The loop that owns it reads it: media goes to the link, the rest (STUN, DTLS)
// waits for Pion, to which the socket is a net.PacketConn. Reading for Pion and writing are safe for concurrent use.
type socket struct {
	local   *net.UDPAddr
	link    *link // what media is for
	control chan controlPacket
	closed  chan struct{}
	once    sync.Once

	connected bool // to the server: its loop's goroutine only

	mu sync.RWMutex
	fd int // -1 once released
}

type controlPacket struct {
	b    []byte
	from *net.UDPAddr
}

func openSocket(ip netip.Addr) (*socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	s := &socket{fd: fd, control: make(chan controlPacket, controlQueue), closed: make(chan struct{})}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // as much as an ordinary user may have
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) // kernels before 5.0 split runs
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: ip.As4()}))
	name, err2 := unix.Getsockname(fd)
	in, ok := name.(*unix.SockaddrInet4)
	if err = errors.Join(err, err2); err != nil || !ok {
		return nil, errors.Join(fmt.Errorf("bind socket to %s: %w", ip, err), unix.Close(fd))
	}
	s.local = &net.UDPAddr{IP: net.IP(in.Addr[:]), Port: in.Port}
	return s, nil
}

// connect fixes where the socket sends to and what it hears of, so that the kernel looks up the way once. Called by the loop that owns the socket.
func (s *socket) connect(to *socketAddress) {
	s.connected = unix.Connect(s.fd, &unix.SockaddrInet4{Port: int(swap(to.Port)), Addr: to.Addr}) == nil
}

// ReadFrom implements net.PacketConn for Pion.
func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-s.control:
		if len(p.b) > len(b) {
			return 0, p.from, io.ErrShortBuffer
		}
		return copy(b, p.b), p.from, nil
	case <-s.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo implements net.PacketConn for Pion.
func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok || addr.IP.To4() == nil {
		return 0, fmt.Errorf("send to %v: %w", to, unix.EAFNOSUPPORT)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return 0, net.ErrClosed
	}
	if err := unix.Sendto(s.fd, b, 0, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}); err != nil {
		return 0, os.NewSyscallError("sendto", err)
	}
	return len(b), nil
}

// LocalAddr implements net.PacketConn.
func (s *socket) LocalAddr() net.Addr { return s.local }

// Close implements net.PacketConn: Pion's reads end. The descriptor stays until its loop releases it.
func (s *socket) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// release closes the descriptor; called by the loop that owns the socket.
func (s *socket) release() {
	_ = s.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}

// SetDeadline implements net.PacketConn; Pion's UDP mux sets none.
func (s *socket) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.PacketConn.
func (s *socket) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.PacketConn.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// batchSize is how many datagrams one system call sends at most.
const batchSize = 64

// runBatch is how many runs of datagrams one system call receives at most.
const runBatch = 16

// longestRun is how many datagrams the kernel is given to split at most: it takes 64 kB.
const longestRun = 32

// datagramSize is the room for one datagram, in bytes; runSize that for a run of them.
const (
	datagramSize = 2048
	runSize      = 1 << 16
)

// controlSize is the room for the arrival time of a run and the size of its datagrams.
const controlSize = 64

type mmsghdr struct {
	hdr  unix.Msghdr
	size uint32
	_    [4]byte
}

// An inbox receives datagrams with recvmmsg. What was sent as one run comes as one (UDP_GRO): on a loopback the kernel would else split it in the
// sender's time, which is the server's. Caller's goroutine only.
type inbox struct {
	messages [runBatch]mmsghdr
	vectors  [runBatch]unix.Iovec
	names    [runBatch]unix.RawSockaddrInet4
	controls [runBatch][controlSize]byte
	data     [runBatch][runSize]byte
}

func newInbox() *inbox {
	b := &inbox{}
	for i := range b.messages {
		b.vectors[i].Base = &b.data[i][0]
		b.vectors[i].SetLen(runSize)
		h := &b.messages[i].hdr
		h.Iov, h.Iovlen = &b.vectors[i], 1
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Control = &b.controls[i][0]
	}
	return b
}

// receive reads what waits, at most runBatch runs.
func (b *inbox) receive(s *socket) int {
	for i := range b.messages {
		h := &b.messages[i].hdr
		h.Namelen = unix.SizeofSockaddrInet4
		h.SetControllen(controlSize)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&b.messages[0])), runBatch, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// run is the i-th run received: its datagrams are of size bytes each, but for the last, which may be shorter. arrival is when the kernel took it in, in
// nanoseconds of the wall clock, 0 if it does not say.
func (b *inbox) run(i int) (data []byte, size int, arrival int64) {
	data = b.data[i][:b.messages[i].size]
	size = len(data)
	for rest := b.controls[i][:min(b.messages[i].hdr.Controllen, controlSize)]; len(rest) >= unix.SizeofCmsghdr; {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&rest[0]))
		if h.Len < unix.SizeofCmsghdr || h.Len > uint64(len(rest)) {
			break
		}
		value := rest[unix.SizeofCmsghdr:h.Len]
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(value) >= 16:
			t := (*unix.Timespec)(unsafe.Pointer(&value[0]))
			arrival = t.Nano()
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(value) >= 4:
			size = max(int(binary.NativeEndian.Uint32(value)), 1)
		}
		rest = rest[min(unix.CmsgSpace(len(value)), len(rest)):]
	}
	return data, size, arrival
}

// from is where the i-th run came from.
func (b *inbox) from(i int) *net.UDPAddr {
	a := &b.names[i]
	return &net.UDPAddr{IP: net.IPv4(a.Addr[0], a.Addr[1], a.Addr[2], a.Addr[3]), Port: int(swap(a.Port))}
}

// A batch sends datagrams with sendmmsg. Caller's goroutine only.
type batch struct {
	messages [batchSize]mmsghdr
	vectors  [batchSize]unix.Iovec
	names    [batchSize]unix.RawSockaddrInet4
	controls [batchSize][controlSize]byte
	data     [batchSize * datagramSize]byte
	n        int  // datagrams gathered to send
	single   bool // runs are not split below: a card cannot, or the kernel does not know how
}

func newBatch() *batch {
	b := &batch{}
	for i := range b.vectors {
		b.vectors[i].Base = &b.data[i*datagramSize]
	}
	return b
}

// slot is the room for the next datagram to send. The batch must not be full.
func (b *batch) slot() []byte { return b.data[b.n*datagramSize : (b.n+1)*datagramSize] }

// commit takes the first n bytes of the slot into the batch and reports whether there is room for another.
func (b *batch) commit(n int) bool {
	b.vectors[b.n].SetLen(n)
	b.n++
	return b.n < batchSize
}

// send sends what was gathered from s to one address. What is of one size goes through the kernel in one piece (UDP_SEGMENT): the server gets the same
// datagrams, and the generator has more of its core left. Datagrams that the kernel does not take are lost, as on a network.
func (b *batch) send(s *socket, to *socketAddress) (lost int) {
	for at := 0; at < b.n; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&b.messages[0])), uintptr(b.runs(at, s, to)), 0, 0, 0)
		if errno == 0 {
			for i := range n {
				at += int(b.messages[i].hdr.Iovlen)
			}
			continue
		}
		refused := int(b.messages[0].hdr.Iovlen)
		switch {
		case errno == unix.EINTR, errno == unix.ECONNREFUSED: // that is of what was sent before
		case refused > 1 && (errno == unix.EIO || errno == unix.EINVAL): // a card that cannot split runs
			b.single = true
		default:
			lost += refused
			at += refused
		}
	}
	b.n = 0
	return lost
}

// runs prepares a message for each run of datagrams of one size, from the one at on, and returns how many they are.
func (b *batch) runs(at int, s *socket, to *socketAddress) (n int) {
	for ; at < b.n; n++ {
		first := at
		for at++; at < b.n && at-first < longestRun && b.vectors[at].Len == b.vectors[first].Len && !b.single; at++ {
		}
		h := &b.messages[n].hdr
		h.Name, h.Namelen = nil, 0
		if !s.connected {
			b.names[n] = *to
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[n])), unix.SizeofSockaddrInet4
		}
		h.Iov = &b.vectors[first]
		h.SetIovlen(at - first)
		h.Control = nil
		h.SetControllen(0)
		if at-first > 1 {
			c := (*unix.Cmsghdr)(unsafe.Pointer(&b.controls[n]))
			c.Level, c.Type = unix.SOL_UDP, unix.UDP_SEGMENT
			c.SetLen(unix.CmsgLen(2))
			binary.NativeEndian.PutUint16(b.controls[n][unix.CmsgLen(0):], uint16(b.vectors[first].Len))
			h.Control = &b.controls[n][0]
			h.SetControllen(unix.CmsgSpace(2))
		}
	}
	return n
}

// socketAddress is an address as the kernel wants it.
type socketAddress = unix.RawSockaddrInet4

func newSocketAddress(a netip.AddrPort) socketAddress {
	return socketAddress{Family: unix.AF_INET, Port: swap(a.Port()), Addr: a.Addr().Unmap().As4()}
}

// swap turns a port between host and network order.
func swap(p uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], p)
	return binary.BigEndian.Uint16(b[:])
}

// A poller tells which sockets have something to read. One goroutine only.
type poller struct {
	fd     int
	events [256]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &poller{fd: fd}, nil
}

func (p *poller) add(s *socket) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.fd)}))
}

func (p *poller) remove(s *socket) { _ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, s.fd, nil) }

// ready calls f for the descriptor of every socket that has something to read, without waiting.
func (p *poller) ready(f func(fd int)) {
	for {
		n, err := unix.EpollWait(p.fd, p.events[:], 0)
		if err != nil {
			return
		}
		for _, e := range p.events[:n] {
			f(int(e.Fd))
		}
		if n < len(p.events) {
			return
		}
	}
}

func (p *poller) close() { _ = unix.Close(p.fd) }

// pause sleeps for less than a millisecond, which the runtime's timers do not do on one core. The scheduler is not told: it would look every 20 us whether it
// should give the loop's turn to somebody else.
func pause(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
}
