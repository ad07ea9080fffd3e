//go:build !linux || !(amd64 || arm64)

package bench

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// Elsewhere there are no batched system calls: newPoller refuses, so nothing below is ever reached.
type (
	socketAddress = netip.AddrPort

	socket struct {
		net.PacketConn
		fd      int
		link    *link
		control chan controlPacket
	}
	controlPacket struct {
		b    []byte
		from *net.UDPAddr
	}
	inbox  struct{}
	batch  struct{ n int }
	poller struct{}
)

const (
	batchSize = 1
	runBatch  = 1
)

var errPlatform = errors.New("the load generator runs on Linux on amd64 and arm64 only")

func newPoller() (*poller, error)                     { return nil, errPlatform }
func (p *poller) add(*socket) error                   { return errPlatform }
func (p *poller) remove(*socket)                      {}
func (p *poller) ready(func(int))                     {}
func (p *poller) close()                              {}
func openSocket(netip.Addr) (*socket, error)          { return nil, errPlatform }
func (s *socket) release()                            {}
func (s *socket) connect(*socketAddress)              {}
func newInbox() *inbox                                { return &inbox{} }
func newBatch() *batch                                { return &batch{} }
func (b *inbox) receive(*socket) int                  { return 0 }
func (b *inbox) run(int) ([]byte, int, int64)         { return nil, 0, 0 }
func (b *inbox) from(int) *net.UDPAddr                { return nil }
func (b *batch) slot() []byte                         { return nil }
func (b *batch) commit(int) bool                      { return false }
func (b *batch) send(*socket, *socketAddress) int     { return 0 }
func newSocketAddress(a netip.AddrPort) socketAddress { return a }
func pause(time.Duration)                             {}
