package bench

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstPause = 300 * time.Millisecond // between the attempts of a client that lost its server
	lastPause  = 3 * time.Second
)

// Comebacks are how participants returned who lost the server: from the loss to the first packet of somebody else.
type Comebacks struct {
	Lost int `json:"lost"` // participants who lost it
	Times
}

// comeBack joins again, as clients do whose server is gone: with the same token, at once and then with growing pauses, until
// that works or ctx ends. Whatever the participant was is left behind, but not what its tracks have counted.
func (p *participant) comeBack(ctx context.Context) {
	p.lostAt = p.run.clock.now()
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, lastPause) {
		p.upAt, p.again, p.received = 0, false, answer{}
		_ = p.stay(ctx, func(error) { pause = firstPause / 2 }) // why it failed shows in who is missing at the end
		if sleep(ctx, pause/2+rand.N(pause)) != nil {
			return
		}
	}
}

// addComeback counts a participant that lost the server.
func (r *Report) addComeback(p *participant, h *histogram) {
	if p.lostAt == 0 {
		return
	}
	r.Comebacks.Lost++
	first := time.Duration(0)
	for _, f := range p.link.flows {
		if f.firstAt > 0 && (first == 0 || f.firstAt < first) {
			first = f.firstAt
		}
	}
	if first > p.lostAt {
		h.add(first - p.lostAt)
	}
}
