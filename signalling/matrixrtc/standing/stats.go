package standing

import "sync/atomic"

// Stats are the counts since the start, and what is there now.
type Stats struct {
	Evicted   uint64 // participants removed because their user left the room
	Questions uint64 // asked in rounds
	Polls     int64  // rooms that are followed by a poll now
}

type counters struct {
	evicted, questions atomic.Uint64
	polls              atomic.Int64
}

// Stats returns the counts. Safe for concurrent use.
func (m *Members) Stats() Stats {
	return Stats{Evicted: m.counters.evicted.Load(), Questions: m.counters.questions.Load(), Polls: m.counters.polls.Load()}
}
