//go:build linux && (amd64 || arm64)

// Hot path: see ARCHITECTURE.md#packet

package udp

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Poll is bare sockets that one goroutine waits for together: one system call tells which of thousands have something, and a socket costs neither
// a goroutine nor a switch to one. T is what the owner knows a socket as. Wait, Again and Rest belong to one goroutine; the rest is safe for concurrent use.
type Poll[T any] struct {
	// Go's poller waits for file, an epoll instance of the sockets' and a timer, so that waiting holds no thread. While the Poll rests it holds the timer only.
	file    *os.File
	raw     syscall.RawConn
	sockets int // an epoll instance, in use while file is open, and so below
	timer   int
	deaf    bool // file does not hold the sockets
	rest    time.Duration
	until   time.Time // of the rest that began last

	events [BatchSize]unix.EpollEvent
	n      int
	idle   func()
	look   func(fd uintptr) bool // made once, and the next: a closure for every call would be allocated
	glance func(fd uintptr)
	again  []T // to be told once more, whatever the system says

	mu    sync.Mutex
	known map[int32]T // sockets, by descriptor
}

// NewPoll returns a Poll without sockets, or errors.ErrUnsupported where the system has none. The caller closes it.
func NewPoll[T any]() (*Poll[T], error) {
	p := &Poll[T]{known: map[int32]T{}, sockets: -1, timer: -1}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	_ = unix.SetNonblock(fd, true) // else os.NewFile leaves it out of Go's poller; it does not fail
	p.file = os.NewFile(uintptr(fd), "epoll")
	if err = p.open(fd); err == nil {
		p.raw, err = p.file.SyscallConn()
	}
	if err != nil {
		_ = p.Close()
		return nil, err
	}
	p.glance = func(uintptr) { p.n = epollNow(p.sockets, &p.events) }
	p.look = func(fd uintptr) bool {
		if p.rest > 0 && len(p.again) == 0 {
			p.sleep(fd)
			return false
		}
		if p.deaf && len(p.again) == 0 && time.Now().Before(p.until) {
			return false // the runtime was late to tell of what came before the rest
		}
		p.glance(fd)
		if p.n > 0 || len(p.again) > 0 {
			return true
		}
		if p.deaf {
			p.listen(fd, unix.EPOLLIN) // what came meanwhile ends the wait
		}
		if p.idle != nil {
			call := p.idle
			p.idle = nil
			call() // likewise
		}
		return len(p.again) > 0
	}
	return p, nil
}

// open opens what file holds.
func (p *Poll[T]) open(file int) (err error) {
	if p.sockets, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if p.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return os.NewSyscallError("timerfd_create", err)
	}
	err = errors.Join(unix.EpollCtl(file, unix.EPOLL_CTL_ADD, p.sockets, &unix.EpollEvent{Events: unix.EPOLLIN}),
		unix.EpollCtl(file, unix.EPOLL_CTL_ADD, p.timer, &unix.EpollEvent{Events: unix.EPOLLIN}))
	return os.NewSyscallError("epoll_ctl", err)
}

// listen has file hold the sockets, or not with no events.
func (p *Poll[T]) listen(file uintptr, events uint32) {
	if unix.EpollCtl(int(file), unix.EPOLL_CTL_MOD, p.sockets, &unix.EpollEvent{Events: events}) == nil {
		p.deaf = events == 0
	}
}

// sleep has nothing but the timer end the next wait.
func (p *Poll[T]) sleep(file uintptr) {
	if !p.deaf {
		p.listen(file, 0)
	}
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(p.rest))}
	p.until, p.rest = time.Now().Add(p.rest), 0
	_, _, _ = unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(p.timer), 0, uintptr(unsafe.Pointer(&at)), 0, 0, 0) // fails for wrong arguments only
}

// epollNow asks what is ready, and does not wait.
func epollNow(fd int, events *[BatchSize]unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(events)), BatchSize, 0, 0, 0)
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
	p.known[fd] = t
	p.mu.Unlock()
	b.forget = func() {
		p.mu.Lock()
		delete(p.known, fd)
		p.mu.Unlock()
	}
	var failed error
	err := p.raw.Control(func(uintptr) {
		failed = unix.EpollCtl(p.sockets, unix.EPOLL_CTL_ADD, b.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET&0xffffffff, Fd: fd})
	})
	if err == nil {
		err = os.NewSyscallError("epoll_ctl", failed)
	}
	return err
}

// Again has the next Wait tell of t without waiting: there is more than was taken.
func (p *Poll[T]) Again(t T) { p.again = append(p.again, t) }

// Rest has the next Wait look only when so long has gone by, unless there is more than was taken: where many datagrams come a moment later there are several to
// receive with one call and one wake-up.
func (p *Poll[T]) Rest(d time.Duration) { p.rest = d }

// Wait waits until sockets have something to receive, and appends to ready what they were added as. It tells of a socket once for all that has come: the owner
// receives until less than a whole batch is there, or calls Again. If there is nothing yet Wait calls idle first; nil does nothing. It returns
// net.ErrClosed once p is closed.
func (p *Poll[T]) Wait(ready []T, idle func()) ([]T, error) {
	if len(p.again) > 0 {
		runtime.Gosched() // the others, where there is one core: it might go on like this
	}
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
	p.rest = 0
	ready = append(ready, p.again...)
	clear(p.again)
	p.again = p.again[:0]
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.n {
		if t, ok := p.known[p.events[i].Fd]; ok { // else closed meanwhile
			ready = append(ready, t)
		}
	}
	return ready
}

// Close ends Wait. The sockets stay open. Closing twice is an error.
func (p *Poll[T]) Close() error {
	if err := p.file.Close(); err != nil {
		return err
	}
	// Nobody is inside Wait, Look or Add any more, or gets there.
	for _, fd := range []int{p.sockets, p.timer} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	return nil
}
