package rtc

import (
	"context"
	"fmt"
	"slices"
	"time"

	"callserver/sfu/rtc/description"

	"github.com/pion/webrtc/v4"
)

// gatherTime bounds how long a description waits for our candidates. They are those of sockets that are open already.
const gatherTime = 3 * time.Second

// gathering is our candidates, for descriptions that are complete with them. Guarded by its connection's lock.
type gathering struct {
	lines []string      // values of a=candidate
	done  chan struct{} // closed when there are no more
}

func newGathering() *gathering { return &gathering{done: make(chan struct{})} }

// take notes a candidate of Pion's, nil for the end.
func (g *gathering) take(candidate *webrtc.ICECandidate, e *Engine) {
	if candidate == nil {
		select {
		case <-g.done:
		default:
			close(g.done)
		}
		return
	}
	for _, told := range e.advertised(*candidate) {
		const prefix = "candidate:"
		line := told.ToJSON().Candidate[len(prefix):]
		if !slices.Contains(g.lines, line) {
			g.lines = append(g.lines, line)
		}
	}
}

// regather forgets the candidates: those of other credentials follow.
func (c *connection) regather() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gathering = newGathering()
}

// Complete returns a description of a plain peer with all of our candidates, once they are known.
func (p *Peer) Complete(ctx context.Context, sdp string) (string, error) {
	c := p.client
	c.mu.Lock()
	g := c.gathering
	c.mu.Unlock()
	late := time.NewTimer(gatherTime)
	defer late.Stop()
	select {
	case <-g.done:
	case <-ctx.Done():
		return "", fmt.Errorf("wait for our candidates: %w", ctx.Err())
	case <-late.C:
		return "", fmt.Errorf("our candidates are not known after %v: is any network address usable?", gatherTime)
	}
	c.mu.Lock()
	lines := slices.Clone(g.lines)
	c.mu.Unlock()
	return description.WithCandidates(sdp, lines)
}
