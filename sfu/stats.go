package sfu

// Stats is a snapshot of all rooms.
type Stats struct {
	Rooms, Participants, Tracks, Subscriptions int
	Withheld                                   int // participants of whom nothing is forwarded
	Narrow                                     int // participants that are sent less than they want, for want of bandwidth to them
	Limited                                    int // tracks of which layers are withheld for a limit of media, or the load
	// Since the start.
	RoomsCreated, RoomsClosed, Joins, Leaves uint64
	Overflows                                uint64 // participants closed because nobody read their events
}

// Stats returns a snapshot. It locks one room at a time.
func (r *Rooms) Stats() Stats {
	s := Stats{
		RoomsCreated: r.counters.created.Load(), RoomsClosed: r.counters.closed.Load(),
		Joins: r.counters.joins.Load(), Leaves: r.counters.leaves.Load(), Overflows: r.counters.overflows.Load(),
	}
	for _, rm := range r.all() {
		rm.mu.Lock()
		if !rm.closed {
			s.Rooms++
		}
		s.Participants += len(rm.members)
		s.Withheld += rm.withheldLocked()
		s.Tracks += len(rm.tracks)
		s.Limited += rm.limitedLocked()
		s.Narrow += rm.narrowLocked()
		for _, t := range rm.tracks {
			s.Subscriptions += len(t.streams)
		}
		rm.mu.Unlock()
	}
	return s
}
