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
	maxNackPatience    = 40 * time.Millisecond
	maxNackAge         = 2 * time.Second // after that nobody waits for it any more
	maxAhead           = 16              // packets that are asked for, more than arrive
)

// Losses decides which missing packets of one stream to ask for, and when (RFC 4585 §6.2.1): at once where packets keep their order, else as
// late as they lately came on their own; then twice after a round trip and a quarter, which grows by a quarter with each further one of at most five tries. No more is asked for
// than arrives, but for a burst: where a queue overflows, what is sent again stands in that queue, and takes the place of what is new. The zero
// value is ready; not safe for concurrent use. Times are since any fixed origin.
type Losses struct {
	missing  []loss // by rising seq, at most maxOutstanding
	spacing  time.Duration
	patience time.Duration // before a packet is asked for at all
	ahead    int           // packets asked for, less those that arrived since
	givenUp  uint64        // the newest that Due gave up since GivenUp told
}

type loss struct {
	seq     uint64
	tries   int
	missed  time.Duration // when a later one came
	asked   time.Duration // when it was asked for first, if tries > 0
	next    time.Duration
	spacing time.Duration // to the try after next
}

// SetRTT sets the time to wait for an answer: some more than a round trip, since Chromium does not answer what it is asked again within that, and the next
// chance comes only after as long again.
func (l *Losses) SetRTT(rtt time.Duration) {
	l.spacing = min(max(rtt+rtt/4, minNackSpacing), maxNackSpacing)
}

// Arrived notes that the stream goes on: a packet newer than all before. It may have been taken for missing before anything newer showed that.
func (l *Losses) Arrived(seq uint64) {
	if last := len(l.missing) - 1; last >= 0 && l.missing[last].seq == seq {
		l.missing = l.missing[:last]
		return
	}
	l.ahead = max(l.ahead-1, 0)
}

// Add notes that n packets before the extended sequence number end are missing. If they are too many, nothing outstanding is asked for any more.
func (l *Losses) Add(end, n uint64, now time.Duration) {
	if last := len(l.missing) - 1; last >= 0 {
		n = min(n, end-1-l.missing[last].seq) // what is known already is asked for as before
	}
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
		l.missing = append(l.missing, loss{seq: seq, missed: now, next: now + l.patience, spacing: spacing})
	}
	l.patience -= l.patience / 16 // where packets get lost and never overtake each other it ends soon
}

// Found notes that a packet arrived after all and returns how often it was asked for, 0 if it came on its own: before an answer could. Again says that it is
// known to be sent again; browsers do that unasked, too, when feedback tells them of a loss.
func (l *Losses) Found(seq uint64, again bool, now time.Duration) (tries int) {
	i := slices.IndexFunc(l.missing, func(m loss) bool { return m.seq == seq })
	if i < 0 {
		return 0
	}
	m := l.missing[i]
	l.missing = slices.Delete(l.missing, i, i+1)
	if again || m.tries > 0 && now-m.asked >= l.spacing/2 {
		return m.tries
	}
	l.patience = min(max(l.patience, now-m.missed), maxNackPatience)
	return 0
}

// Outstanding returns how many packets are still being waited for.
func (l *Losses) Outstanding() int { return len(l.missing) }

// Due appends to seqs what to ask for now, and gives up on what was asked for often enough.
func (l *Losses) Due(now time.Duration, seqs []uint16) []uint16 {
	kept := l.missing[:0]
	for _, m := range l.missing {
		if now >= m.next {
			if m.tries == maxTries || now-m.missed > maxNackAge {
				l.givenUp = max(l.givenUp, m.seq)
				continue
			}
			if l.ahead >= maxAhead {
				kept = append(kept, m)
				continue
			}
			l.ahead++
			m.next = now + m.spacing
			if m.tries++; m.tries == 1 {
				m.asked = now
			} else {
				m.spacing = min(m.spacing+m.spacing/4, maxNackSpacing)
			}
			seqs = append(seqs, uint16(m.seq))
		}
		kept = append(kept, m)
	}
	l.missing = kept
	return seqs
}

// GivenUp returns the newest packet that Due gave up since it was called last, 0 if there is none.
func (l *Losses) GivenUp() (seq uint64) {
	seq, l.givenUp = l.givenUp, 0
	return seq
}

// Clear gives up on everything, of which GivenUp does not tell.
func (l *Losses) Clear() { l.missing, l.givenUp = l.missing[:0], 0 }
