//go:build linux && (amd64 || arm64)

package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A bare socket that takes no more is waited for so often, for so many milliseconds; then what was to be sent is lost.
const (
	fullWaits = 4
	fullWait  = 5
)

var errFull = errors.New("the socket's buffer is full")

// bare is a socket that Go's poller does not know: datagrams wake nobody but a Poll. Receiving does not wait, and sending only for so long.
type bare struct {
	local *net.UDPAddr
	six   bool

	mu     sync.RWMutex // held for reading while the descriptor is in use: once closed, its number may be somebody else's
	fd     int          // -1 = closed
	forget func()       // tells the Poll; nil = it is in none
}

// ListenBare opens sockets for a Poll, as Listen does. Receive does not wait on them: it returns ErrEmpty. It returns errors.ErrUnsupported where the
// system has no Poll.
func ListenBare(at netip.AddrPort, o Options) ([]*Socket, error) {
	var all []*Socket
	for range max(o.Share, 1) {
		b, err := openBare(at, o.Share > 1)
		if err != nil {
			for _, s := range all {
				_ = s.Close()
			}
			return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(at), Err: err}
		}
		at = netip.AddrPortFrom(at.Addr(), uint16(b.local.Port))
		all = append(all, newSocket(b, o))
	}
	return all, nil
}

func openBare(at netip.AddrPort, share bool) (*bare, error) {
	at = unmap(at)
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	b := &bare{fd: fd, six: at.Addr().Is6()}
	if err := b.bind(at, share); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return b, nil
}

func (b *bare) bind(at netip.AddrPort, share bool) error {
	var name unix.Sockaddr
	if b.six {
		if err := unix.SetsockoptInt(b.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		zone, err := zoneIndex(at.Addr().Zone())
		if err != nil {
			return err
		}
		name = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16(), ZoneId: zone}
	} else {
		name = &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	if share {
		if err := unix.SetsockoptInt(b.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Bind(b.fd, name); err != nil {
		return os.NewSyscallError("bind", err)
	}
	got, err := unix.Getsockname(b.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	port := at.Port()
	switch got := got.(type) {
	case *unix.SockaddrInet4:
		port = uint16(got.Port)
	case *unix.SockaddrInet6:
		port = uint16(got.Port)
	}
	b.local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), port))
	return nil
}

func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %s: %w", zone, err)
	}
	return uint32(i.Index), nil
}

// SyscallConn implements syscall.Conn.
func (b *bare) SyscallConn() (syscall.RawConn, error) { return b, nil }

// Control implements syscall.RawConn.
func (b *bare) Control(f func(fd uintptr)) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.fd < 0 {
		return net.ErrClosed
	}
	f(uintptr(b.fd))
	return nil
}

// Read implements syscall.RawConn, but for the waiting.
func (b *bare) Read(f func(fd uintptr) bool) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.fd < 0 {
		return net.ErrClosed
	}
	f(uintptr(b.fd))
	return nil
}

// Write implements syscall.RawConn, but that it does not wait for ever.
func (b *bare) Write(f func(fd uintptr) bool) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.fd < 0 {
		return net.ErrClosed
	}
	for range fullWaits {
		if f(uintptr(b.fd)) {
			return nil
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(b.fd), Events: unix.POLLOUT}}, fullWait)
	}
	return errFull
}

// WriteToAddrPort sends one datagram.
func (b *bare) WriteToAddrPort(data []byte, to netip.AddrPort) (int, error) {
	var n name
	n.set(unmap(to))
	at, size := unsafe.Pointer(&n.four), uintptr(unix.SizeofSockaddrInet4)
	if b.six {
		at, size = unsafe.Pointer(&n.six), unix.SizeofSockaddrInet6
	} else if !to.Addr().Unmap().Is4() {
		return 0, &net.OpError{Op: "write", Net: "udp", Source: b.local, Addr: net.UDPAddrFromAddrPort(to), Err: unix.EAFNOSUPPORT}
	}
	var errno unix.Errno
	err := b.Write(func(fd uintptr) bool {
		_, _, errno = unix.Syscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)), unix.MSG_DONTWAIT, uintptr(at), size)
		return errno != unix.EAGAIN && errno != unix.EINTR
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("sendto", errno)
	}
	if err != nil {
		return 0, &net.OpError{Op: "write", Net: "udp", Source: b.local, Addr: net.UDPAddrFromAddrPort(to), Err: err}
	}
	return len(data), nil
}

// WriteTo implements net.PacketConn.
func (b *bare) WriteTo(data []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("send to %v: no UDP address", to)
	}
	return b.WriteToAddrPort(data, a.AddrPort())
}

// ReadFrom implements net.PacketConn. A bare socket is received from in batches.
func (b *bare) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, errors.ErrUnsupported }

// LocalAddr implements net.PacketConn.
func (b *bare) LocalAddr() net.Addr { return b.local }

// SetReadBuffer asks the kernel for so many bytes.
func (b *bare) SetReadBuffer(bytes int) error { return b.option(unix.SO_RCVBUF, bytes) }

// SetWriteBuffer asks the kernel for so many bytes.
func (b *bare) SetWriteBuffer(bytes int) error { return b.option(unix.SO_SNDBUF, bytes) }

func (b *bare) option(name, value int) error {
	var failed error
	if err := b.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, name, value) }); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", failed)
}

// Close implements net.PacketConn.
func (b *bare) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fd < 0 {
		return net.ErrClosed
	}
	if b.forget != nil {
		b.forget() // before its number is free
	}
	err := unix.Close(b.fd)
	b.fd = -1
	return os.NewSyscallError("close", err)
}

// SetDeadline implements net.PacketConn. Nothing waits: there are none.
func (b *bare) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.PacketConn.
func (b *bare) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.PacketConn.
func (b *bare) SetWriteDeadline(time.Time) error { return nil }
