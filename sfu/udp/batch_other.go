//go:build !linux || !(amd64 || arm64)

package udp

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const canShare = false

func listenShared(netip.AddrPort) (*net.UDPConn, error) { return nil, errors.ErrUnsupported }

// fast is empty: there are no batches here.
type fast struct{ segments bool }

func (f *fast) open(syscall.Conn) {}
func (f *fast) ready() bool       { return false }
func (f *fast) dropped() uint32   { return 0 }
func (f *fast) takeRuns()         {}

type name struct{}

func (n *name) set(netip.AddrPort) {}

type inbox struct{}

func (b *Inbox) full() bool { return false }

func (s *Socket) receiveBatch(*Inbox, func()) error { return errors.ErrUnsupported }

type outbox struct{}

func (f *outbox) open(*Outbox) {}

func (o *Outbox) flushBatch() { o.flushEach() }

func (s *Socket) writeOne([]byte, netip.AddrPort) error { return errors.ErrUnsupported }

// Poll is not to be had here.
type Poll[T any] struct{}

// NewPoll returns errors.ErrUnsupported.
func NewPoll[T any]() (*Poll[T], error) { return nil, errors.ErrUnsupported }

// Add returns errors.ErrUnsupported.
func (p *Poll[T]) Add(*Socket, T) error { return errors.ErrUnsupported }

// Again does nothing.
func (p *Poll[T]) Again(T) {}

// Rest does nothing.
func (p *Poll[T]) Rest(time.Duration) {}

// Wait returns net.ErrClosed.
func (p *Poll[T]) Wait(ready []T, _ func()) ([]T, error) { return ready, net.ErrClosed }

// Look returns net.ErrClosed.
func (p *Poll[T]) Look(ready []T) ([]T, error) { return ready, net.ErrClosed }

// Close does nothing.
func (p *Poll[T]) Close() error { return nil }

// ListenBare returns errors.ErrUnsupported.
func ListenBare(netip.AddrPort, Options) ([]*Socket, error) { return nil, errors.ErrUnsupported }
