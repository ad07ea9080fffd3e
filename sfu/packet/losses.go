package packet

// Hot path: see ARCHITECTURE.md#packet

import (
	"slices"
	"time"
)

const (
	maxOutstanding     = 100 // a longer gap is an outage: a key frame repairs it better
	maxTries           = 5
	defaultNackSpacing = 70 * time.Millisecond
	minNackSpacing     = 20 * time.Millisecond
	maxNackSpacing     = 400 * time.Millisecond
)

// Losses decides which missing packets of one stream to ask for, and when (RFC 4585 §6.2.1): at once, then after a round trip time that grows
// by a quarter with each of at most five tries. The zero value is ready; not safe for concurrent use. Times are since any fixed origin.
type Losses struct {
	missing []loss // by rising seq, at most maxOutstanding
	spacing time.Duration
}

type loss struct {
	seq     uint64
	tries   int
	next    time.Duration
	spacing time.Duration // to the try after next
}

// SetRTT sets the time to wait for an answer.
func (l *Losses) SetRTT(rtt time.Duration) {
	l.spacing = min(max(rtt, minNackSpacing), maxNackSpacing)
}

// Add notes that n packets before the extended sequence number end are missing. If they are too many, nothing outstanding is asked for any more.
func (l *Losses) Add(end, n uint64, now time.Duration) {
	if n > maxOutstanding {
		l.missing = l.missing[:0]
		return
	}
	if over := len(l.missing) + int(n) - maxOutstanding; over > 0 {
		l.missing = slices.Delete(l.missing, 0, over)
	}
	spacing := l.spacing
	if spacing == 0 {
		spacing = defaultNackSpacing
	}
	for seq := end - n; seq < end; seq++ {
		l.missing = append(l.missing, loss{seq: seq, next: now, spacing: spacing})
	}
}

// Found notes that a packet arrived after all and returns how often it was asked for.
func (l *Losses) Found(seq uint64) (tries int) {
	for i := range l.missing {
		if l.missing[i].seq == seq {
			tries = l.missing[i].tries
			l.missing = slices.Delete(l.missing, i, i+1)
			return tries
		}
	}
	return 0
}

// Outstanding returns how many packets are still being waited for.
func (l *Losses) Outstanding() int { return len(l.missing) }

// Due appends to seqs what to ask for now, and gives up on what was asked for often enough.
func (l *Losses) Due(now time.Duration, seqs []uint16) []uint16 {
	kept := l.missing[:0]
	for _, m := range l.missing {
		if now >= m.next {
			if m.tries == maxTries {
				continue
			}
			m.tries++
			m.next = now + m.spacing
			m.spacing = min(m.spacing+m.spacing/4, maxNackSpacing)
			seqs = append(seqs, uint16(m.seq))
		}
		kept = append(kept, m)
	}
	l.missing = kept
	return seqs
}

// Clear gives up on everything.
func (l *Losses) Clear() { l.missing = l.missing[:0] }
