package livekit

import (
	"context"
	"io"
	"sync"
)

// A frame is one whole message of the signalling connection.
type frame struct {
	text bool // JSON form of the message instead of protobuf
	data []byte
}

// A conn is the client's end of the connection to its session, wherever that session runs: whole frames, in
// order. On one node a *pipe implements it; between nodes a stream would. One goroutine may send while another
// receives; Close is safe anywhere.
type conn interface {
	// Send hands over one frame from the client and waits while the session is busy.
	Send(ctx context.Context, f frame) error
	// Receive waits for the next frame to the client; io.EOF when the session ended the connection and
	// everything that it said before has been received.
	Receive(ctx context.Context) (frame, error)
	// Close tells the session that the client is gone, after the frames already sent. Never concurrent with Send.
	Close()
}

const (
	// upQueue frames may wait for the session; when it is full Send waits, so that TCP slows the client down.
	upQueue = 16
	// downQueue frames may wait for the client; when it is full the connection is cut, because a client that
	// resumes is told everything again while a gap would leave it wrong for ever.
	downQueue = 1024
)

// A pipe is the connection of a client and a session in one process.
type pipe struct {
	up   chan frame    // closed by the client's end
	more chan struct{} // capacity 1: there is something to receive
	cut  chan struct{} // closed when the session gave up: nothing more will be sent or taken

	once sync.Once

	mu   sync.Mutex
	down []frame // to the client, oldest first; a channel would hold the memory of a full queue for everybody
}

func newPipe() *pipe {
	return &pipe{up: make(chan frame, upQueue), more: make(chan struct{}, 1), cut: make(chan struct{})}
}

func (p *pipe) Send(ctx context.Context, f frame) error {
	select {
	case p.up <- f:
		return nil
	case <-p.cut:
		return io.ErrClosedPipe
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pipe) Receive(ctx context.Context) (frame, error) {
	for {
		if f, ok := p.pop(); ok {
			return f, nil
		}
		select {
		case <-p.more:
		case <-p.cut:
			if f, ok := p.pop(); ok {
				return f, nil
			}
			return frame{}, io.EOF
		case <-ctx.Done():
			return frame{}, ctx.Err()
		}
	}
}

// pop takes the oldest frame to the client, if there is one.
func (p *pipe) pop() (frame, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.down) == 0 {
		return frame{}, false
	}
	f := p.down[0]
	p.down[0] = frame{} // its bytes are the reader's from here on
	if p.down = p.down[1:]; len(p.down) == 0 {
		p.down = nil
	}
	return f, true
}

func (p *pipe) Close() { close(p.up) }

// push queues a frame to the client; false means that the queue is full. Session's end only.
func (p *pipe) push(f frame) bool {
	p.mu.Lock()
	full := len(p.down) >= downQueue
	if !full {
		p.down = append(p.down, f)
	}
	p.mu.Unlock()
	if full {
		return false
	}
	select {
	case p.more <- struct{}{}:
	default:
	}
	return true
}

// finish ends the connection from the session's end once the client has received what was pushed.
func (p *pipe) finish() {
	p.once.Do(func() { close(p.cut) })
}
