package path

import (
	"time"

	"callserver/sfu/udp"
)

// Where so many datagrams come, a loop rests between two turns: each turn costs about as much as five datagrams do once it has them.
const (
	restFrom = 30 // datagrams/ms
	restTime = 100 * time.Microsecond
)

// A pace is how busy a loop is. The zero value is that of a loop that is not.
type pace struct {
	came  int // datagrams in this turn
	since time.Time
	total int // datagrams since then, without this turn's
	busy  bool
}

// rest ends the turn that began now. It returns how long to wait before the next: not at all where so many came that more will be there.
func (p *pace) rest(now time.Time) time.Duration {
	came := p.came
	p.came = 0
	p.total += came
	if gone := now.Sub(p.since); gone >= time.Millisecond {
		p.busy = float64(p.total) >= restFrom*gone.Seconds()*1000
		p.since, p.total = now, 0
	}
	if !p.busy || came >= udp.BatchSize {
		return 0
	}
	return restTime
}
