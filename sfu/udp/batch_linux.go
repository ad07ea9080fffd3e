//go:build linux && (amd64 || arm64)

// Hot path: see ARCHITECTURE.md#packet

package udp

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const canShare = true

// listenShared opens one of several sockets that share a port (SO_REUSEPORT): the kernel gives each flow to one of them.
func listenShared(at netip.AddrPort) (*net.UDPConn, error) {
	l := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		if err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}); err != nil {
			return err
		}
		return os.NewSyscallError("setsockopt", failed)
	}}
	c, err := l.ListenPacket(context.Background(), "udp", at.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// fast is what batches need of a socket.
type fast struct {
	raw      syscall.RawConn // nil = no batches
	six      bool            // the socket is of IPv6: addresses are told in its form
	segments bool            // UDP_SEGMENT is known
	sendmmsg func(fd uintptr, messages []message) (int, unix.Errno)
}

// open prepares batches, and asks the kernel (4.18 and later) whether it splits runs.
func (f *fast) open(c syscall.Conn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	if err := raw.Control(func(fd uintptr) {
		domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		f.six = domain == unix.AF_INET6
		if err == nil {
			_, err = unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
			f.segments = err == nil
		}
	}); err == nil {
		f.raw, f.sendmmsg = raw, sendmmsg
	}
}

func (f *fast) ready() bool { return f.raw != nil }

// takeRuns asks the kernel (5.0 and later) not to split runs. One that cannot delivers datagrams.
func (f *fast) takeRuns() {
	if f.raw != nil {
		_ = f.raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) })
	}
}

const (
	memInfoWords   = 9 // SK_MEMINFO_VARS
	memInfoDropped = 8 // SK_MEMINFO_DROPS
)

// dropped is Socket.Dropped. It asks SO_MEMINFO: with SO_RXQ_OVFL every datagram would tell it.
func (f *fast) dropped() uint32 {
	if f.raw == nil {
		return 0
	}
	var words [memInfoWords]uint32
	size := uint32(unsafe.Sizeof(words))
	if err := f.raw.Control(func(fd uintptr) {
		_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&words)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 || size < uint32(unsafe.Sizeof(words)) { // before Linux 4.12
			words[memInfoDropped] = 0
		}
	}); err != nil {
		return 0
	}
	return words[memInfoDropped]
}

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	size   uint32
	_      [4]byte
}

// name is an address as the kernel wants it, in both forms.
type name struct {
	four unix.RawSockaddrInet4
	six  unix.RawSockaddrInet6
}

func (n *name) set(a netip.AddrPort) {
	port := networkOrder(a.Port())
	n.six = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: a.Addr().As16()}
	if a.Addr().Is4() {
		n.four = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: a.Addr().As4()}
	}
}

// networkOrder turns a port between host and network order.
func networkOrder(p uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], p)
	return binary.NativeEndian.Uint16(b[:])
}

// inbox is what recvmmsg needs.
type inbox struct {
	messages [BatchSize]message
	vectors  [BatchSize]unix.Iovec
	names    [BatchSize]unix.RawSockaddrInet6
	controls [BatchSize][controlSize]byte
	room     int // how many buffers there are
	errno    unix.Errno
	read     func(fd uintptr) bool // made once: a closure for every call would be allocated
	idle     func()                // nil = called
	got      int
	stale    int // so many messages are to be prepared anew
}

// receive asks the kernel for datagrams. It does not wait, so the scheduler is not told, which would wake its watchdog thread each time that there was
// nothing to do before: that looks every 50 us what there is to take back. A goroutine that goes on and on is to yield by itself.
func (f *inbox) receive(fd uintptr) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&f.messages[0])), uintptr(f.room), unix.MSG_DONTWAIT, 0, 0)
	f.got, f.errno = int(n), errno
}

func (s *Socket) receiveBatch(b *Inbox, idle func()) error {
	f := &b.fast
	if f.read == nil {
		for f.room < BatchSize && b.Buffers[f.room] != nil {
			f.room++
		}
		f.stale = f.room
		f.read = func(fd uintptr) bool {
			f.receive(fd)
			if f.errno == unix.EAGAIN && f.idle != nil {
				call := f.idle
				f.idle = nil
				call()
				f.receive(fd) // what arrived meanwhile: waiting for it costs more than asking
			}
			return f.errno != unix.EAGAIN && f.errno != unix.EINTR
		}
	}
	for i := range f.stale {
		f.vectors[i].Base = unsafe.SliceData(b.Buffers[i])
		f.vectors[i].SetLen(len(b.Buffers[i]))
		h := &f.messages[i].header
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&f.names[i])), unix.SizeofSockaddrInet6
		h.Iov, h.Flags = &f.vectors[i], 0
		h.SetIovlen(1)
		h.Control = &f.controls[i][0]
		h.SetControllen(controlSize)
	}
	b.n, f.stale, f.idle = 0, 1, idle
	if err := s.fast.raw.Read(f.read); err != nil {
		return err
	}
	switch f.errno {
	case 0:
	case unix.EAGAIN, unix.EINTR: // of a bare socket, which does not wait
		return ErrEmpty
	default:
		return os.NewSyscallError("recvmmsg", f.errno)
	}
	b.n, f.stale = f.got, f.got
	for i := range b.n {
		b.sizes[i], b.from[i] = int(f.messages[i].size), f.from(i)
		if f.messages[i].header.Flags&unix.MSG_TRUNC != 0 {
			b.sizes[i] = 0
		}
		b.parts[i] = f.part(i, b.sizes[i])
	}
	return nil
}

// full reports whether there may be more than the last Receive had room for.
func (b *Inbox) full() bool { return b.n == b.fast.room }

// part is the size of the datagrams in the i-th run, which has so many bytes.
func (f *inbox) part(i, size int) int {
	h := &f.messages[i].header
	m := (*unix.Cmsghdr)(unsafe.Pointer(&f.controls[i]))
	if h.Controllen < uint64(unix.CmsgLen(4)) || m.Level != unix.SOL_UDP || m.Type != unix.UDP_GRO {
		return size
	}
	return int(binary.NativeEndian.Uint32(f.controls[i][unix.SizeofCmsghdr:]))
}

// from is where the i-th datagram came from.
func (f *inbox) from(i int) netip.AddrPort {
	a := &f.names[i]
	if a.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), networkOrder(four.Port))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), networkOrder(a.Port))
}

// sendto sends one datagram and does not wait. The scheduler is not told here either.
func sendto(fd uintptr, b []byte, to *name, six bool) unix.Errno {
	at, size := unsafe.Pointer(&to.four), unix.SizeofSockaddrInet4
	if six {
		at, size = unsafe.Pointer(&to.six), unix.SizeofSockaddrInet6
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT, uintptr(at), uintptr(size))
	return errno
}

// single is what sending one datagram needs.
type single struct {
	name  name
	six   bool
	b     []byte
	errno unix.Errno
	write func(fd uintptr) bool
}

var singles = sync.Pool{New: func() any {
	o := &single{}
	o.write = func(fd uintptr) bool {
		o.errno = sendto(fd, o.b, &o.name, o.six)
		return o.errno != unix.EAGAIN
	}
	return o
}}

// writeOne sends one datagram to an address without a zone.
func (s *Socket) writeOne(b []byte, to netip.AddrPort) error {
	o := singles.Get().(*single)
	defer singles.Put(o)
	o.name, o.six, o.b = name{}, s.fast.six, b
	o.name.set(to)
	err := s.fast.raw.Write(o.write)
	o.b = nil
	if err == nil && o.errno != 0 {
		err = os.NewSyscallError("sendto", o.errno)
	}
	return err
}

// controlSize is the room for one control message that holds a segment size, of two bytes on the way out and four on the way in.
const controlSize = 24 // CMSG_SPACE(4)

// outbox is what sendmmsg needs.
type outbox struct {
	messages [BatchSize]message
	controls [BatchSize][controlSize]byte
	vectors  []unix.Iovec
	pending  []message // of messages: not yet sent
	sent     int
	errno    unix.Errno
	write    func(fd uintptr) bool
	one      func(fd uintptr) bool // for a single datagram there is less to copy by sendto
}

func (f *outbox) open(o *Outbox) {
	f.write = func(fd uintptr) bool {
		f.sent, f.errno = o.socket.fast.sendmmsg(fd, f.pending)
		return f.errno != unix.EAGAIN
	}
	f.one = func(fd uintptr) bool {
		f.errno = sendto(fd, o.datagrams[0].body, &o.runs[0].to.name, o.socket.fast.six)
		return f.errno != unix.EAGAIN
	}
}

// flushOne sends the only datagram.
func (o *Outbox) flushOne() {
	s := o.socket
	err := s.fast.raw.Write(o.fast.one)
	s.counter.calls.Add(1)
	if err != nil || o.fast.errno != 0 {
		s.counter.lost.Add(1)
		return
	}
	s.counter.sent.Add(1)
}

// sendmmsg does not wait either.
func sendmmsg(fd uintptr, messages []message) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func (o *Outbox) flushBatch() {
	f := &o.fast
	if len(o.datagrams) == 1 && o.datagrams[0].before == 0 && o.datagrams[0].after == 0 {
		o.flushOne()
		return
	}
	f.vectors = f.vectors[:0]
	for i := range o.runs {
		r := &o.runs[i]
		r.vector = len(f.vectors)
		for k := r.first; k < r.first+r.count; k++ {
			f.gather(o, &o.datagrams[k])
		}
		r.vectors = len(f.vectors) - r.vector
	}
	for at := 0; at < len(o.runs); at += BatchSize {
		runs := o.runs[at:min(at+BatchSize, len(o.runs))]
		for i := range runs {
			o.prepare(i, &runs[i])
		}
		o.send(runs)
	}
	clear(f.vectors) // hold nobody's memory
}

// gather appends the parts of a datagram.
func (f *outbox) gather(o *Outbox, d *datagram) {
	if d.before == 0 && d.after == 0 {
		f.vectors = append(f.vectors, vector(d.body))
		return
	}
	head := &o.heads[d.head]
	f.vectors = append(f.vectors, vector(head[:d.before]), vector(d.body))
	if d.after > 0 {
		f.vectors = append(f.vectors, vector(head[MaxHead:MaxHead+d.after]))
	}
}

func vector(b []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(b)}
	v.SetLen(len(b))
	return v
}

// prepare fills in the i-th message.
func (o *Outbox) prepare(i int, r *run) {
	f := &o.fast
	h := &f.messages[i].header
	if o.socket.fast.six {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&r.to.name.six)), unix.SizeofSockaddrInet6
	} else {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&r.to.name.four)), unix.SizeofSockaddrInet4
	}
	h.Iov = &f.vectors[r.vector]
	h.SetIovlen(r.vectors)
	h.Control, h.Flags = nil, 0
	h.SetControllen(0)
	if r.count == 1 {
		return
	}
	c := &f.controls[i]
	m := (*unix.Cmsghdr)(unsafe.Pointer(c))
	m.Level, m.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	m.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(c[unix.SizeofCmsghdr:], uint16(r.size))
	h.Control = &c[0]
	h.SetControllen(controlSize)
}

// send sends the prepared messages, one for each run.
func (o *Outbox) send(runs []run) {
	f, s := &o.fast, o.socket
	for at := 0; at < len(runs); {
		f.pending, f.errno = f.messages[at:len(runs)], 0
		err := s.fast.raw.Write(f.write)
		s.counter.calls.Add(1)
		r := &runs[at]
		switch {
		case err != nil: // closed, or full for too long
			for _, r := range runs[at:] {
				s.counter.lost.Add(uint64(r.count))
			}
			return
		case f.errno == unix.EINTR:
		case f.errno == 0:
			for _, r := range runs[at : at+f.sent] {
				s.counter.sent.Add(uint64(r.count))
			}
			at += f.sent
		case r.count > 1 && unsegmentable(f.errno):
			// A card that claims to split runs and cannot, or a path whose MTU is smaller than the datagrams.
			if !r.to.single.Swap(true) {
				s.counter.unsegmented.Add(1)
			}
			o.sendEach(r)
			at++
		default:
			s.counter.lost.Add(uint64(r.count))
			at++
		}
	}
}

// unsegmentable reports whether an error may be about the splitting, not the datagrams.
func unsegmentable(e unix.Errno) bool {
	return e == unix.EIO || e == unix.EINVAL || e == unix.EMSGSIZE || e == unix.EOPNOTSUPP
}
