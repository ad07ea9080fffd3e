//go:build linux && (amd64 || arm64)

// Hot path: see ARCHITECTURE.md#packet

package udp

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Poll is bare sockets that one goroutine waits for together: one system call tells which of thousands have something, and a socket costs neither
// a goroutine nor a switch to one. T is what the owner knows a socket as. Wait and Again belong to one goroutine; the rest is safe for concurrent use.
type Poll[T any] struct {
	file   *os.File // the epoll instance, in Go's own poller: waiting for it holds no thread
	raw    syscall.RawConn
	events [BatchSize]unix.EpollEvent
	n      int
	idle   func()
	look   func(fd uintptr) bool // made once, and the next: a closure for every call would be allocated
	glance func(fd uintptr)
	again  []T // to be told once more, whatever the system says

	mu      sync.Mutex
	sockets map[int32]T // by descriptor
}

// NewPoll returns a Poll without sockets, or errors.ErrUnsupported where the system has none. The caller closes it.
func NewPoll[T any]() (*Poll[T], error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // else os.NewFile leaves it out of Go's poller
	}
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	p := &Poll[T]{file: os.NewFile(uintptr(fd), "epoll"), sockets: map[int32]T{}}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, err
	}
	p.glance = func(fd uintptr) { p.n = epollNow(fd, &p.events) }
	p.look = func(fd uintptr) bool {
		p.glance(fd)
		if p.n == 0 && p.idle != nil && len(p.again) == 0 {
			call := p.idle
			p.idle = nil
			call() // what comes meanwhile ends the wait
		}
		return p.n > 0 || len(p.again) > 0
	}
	return p, nil
}

// epollNow asks what is ready, and does not wait.
func epollNow(fd uintptr, events *[BatchSize]unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(events)), BatchSize, 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// Add has Wait tell of a bare socket, as t, when datagrams come. Closing the socket ends it.
func (p *Poll[T]) Add(s *Socket, t T) error {
	b, ok := s.conn.(*bare)
	if !ok {
		return errors.ErrUnsupported
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fd < 0 {
		return net.ErrClosed
	}
	fd := int32(b.fd)
	p.mu.Lock()
	p.sockets[fd] = t
	p.mu.Unlock()
	b.forget = func() {
		p.mu.Lock()
		delete(p.sockets, fd)
		p.mu.Unlock()
	}
	var failed error
	err := p.raw.Control(func(epoll uintptr) {
		failed = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, b.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET&0xffffffff, Fd: fd})
	})
	if err == nil {
		err = os.NewSyscallError("epoll_ctl", failed)
	}
	return err
}

// Again has the next Wait tell of t without waiting: there is more than was taken.
func (p *Poll[T]) Again(t T) { p.again = append(p.again, t) }

// Wait waits until sockets have something to receive, and appends to ready what they were added as. It tells of a socket once for all that has come: the owner
// receives until less than a whole batch is there, or calls Again. If there is nothing yet Wait calls idle first; nil does nothing. It returns
// net.ErrClosed once p is closed.
func (p *Poll[T]) Wait(ready []T, idle func()) ([]T, error) {
	p.idle = idle
	if err := p.raw.Read(p.look); err != nil {
		return ready, net.ErrClosed
	}
	return p.take(ready), nil
}

// Look is Wait without waiting.
func (p *Poll[T]) Look(ready []T) ([]T, error) {
	p.idle = nil
	if err := p.raw.Control(p.glance); err != nil {
		return ready, net.ErrClosed
	}
	return p.take(ready), nil
}

// take appends what the last look found.
func (p *Poll[T]) take(ready []T) []T {
	ready = append(ready, p.again...)
	clear(p.again)
	p.again = p.again[:0]
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.n {
		if t, ok := p.sockets[p.events[i].Fd]; ok { // else closed meanwhile
			ready = append(ready, t)
		}
	}
	return ready
}

// Close ends Wait. The sockets stay open.
func (p *Poll[T]) Close() error { return p.file.Close() }
