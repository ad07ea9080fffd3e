//go:build !linux || !(amd64 || arm64)

package udp

import (
	"errors"
	"net"
	"net/netip"
)

const canShare = false

func listenShared(netip.AddrPort) (*net.UDPConn, error) { return nil, errors.ErrUnsupported }

// fast is empty: there are no batches here.
type fast struct{ segments bool }

func (f *fast) open(*net.UDPConn) {}
func (f *fast) ready() bool       { return false }

type name struct{}

func (n *name) set(netip.AddrPort) {}

type inbox struct{}

func (s *Socket) receiveBatch(*Inbox, func()) error { return errors.ErrUnsupported }

type outbox struct{}

func (f *outbox) open(*Outbox) {}

func (o *Outbox) flushBatch() { o.flushEach() }

func (s *Socket) writeOne([]byte, netip.AddrPort) error { return errors.ErrUnsupported }
