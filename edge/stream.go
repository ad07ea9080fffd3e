package edge

import (
	"fmt"
	"log/slog"
	"net"
)

// A Stream accepts connections that speak TURN and nothing else, inside TLS where there are certificates. Safe for concurrent use.
type Stream struct{ split *splitter }

// ListenTURN binds an address for TURN. Of the options it takes Listen, Certificates, ProxyProtocol and Logger. Connections are accepted once Run runs.
func ListenTURN(o Options) (*Stream, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	socket, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, err
	}
	s := newSplitter(socket, o)
	s.turnOnly = true
	if o.Certificates != nil {
		s.tls = o.Certificates.Config(alpnTURN, alpnSTUN)
	}
	return &Stream{s}, nil
}

// Addr is the bound address.
func (s *Stream) Addr() net.Addr { return s.split.socket.Addr() }

// TURN are the connections. Unless this is called before Run, they are closed.
func (s *Stream) TURN() net.Listener { return s.split.turn.use() }

// Run accepts until Close. It returns nil after an orderly close.
func (s *Stream) Run() error {
	if err := s.split.acceptLoop(); err != nil {
		return fmt.Errorf("accept TURN on %s: %w", s.Addr(), err)
	}
	return nil
}

// Close stops accepting. Connections that were handed over are closed by whoever accepted them. Closing twice is fine.
func (s *Stream) Close() error { return s.split.close() }
