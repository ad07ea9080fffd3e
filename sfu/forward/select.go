package forward

// Hot path: see ARCHITECTURE.md#packet

// rank orders the simulcast streams by how well they serve a receiver that wants target: that one, then those below it from the top,
// then those above it from the bottom. Lower is better.
func rank(index, target int8) int8 {
	if index <= target {
		return target - index
	}
	return maxStreams + index - target
}

// best returns the stream to forward to a receiver that wants target, while live says which are arriving (a bit each). Without any it is
// the target itself.
func best(target int8, live uint8, streams int8) int8 {
	target = min(target, streams-1)
	choice := int8(-1)
	for i := range streams {
		if live&(1<<i) != 0 && (choice < 0 || rank(i, target) < rank(choice, target)) {
			choice = i
		}
	}
	if choice < 0 {
		return target
	}
	return choice
}

// selection is which layers one receiver gets.
type selection struct {
	target Layer
	paused bool
	stream int8 // simulcast stream being forwarded, -1 for none
	epoch  uint32
	limit  Layer // highest layers within the stream that are forwarded

	// The latest limits of this run, oldest first, for packets that come late: a frame is forwarded as a whole or not at all.
	limits []limitFrom
}

type limitFrom struct {
	timestamp uint32 // input
	limit     Layer
}

const maxLimits = 16

// begin starts a run with the key frame in, or an audio packet.
func (s *selection) begin(in *inbound) {
	s.stream, s.epoch, s.limits = in.stream, in.epoch, s.limits[:0]
	s.setLimit(s.target, in)
}

// takes reports whether to switch to the stream of a key frame.
func (s *selection) takes(index int8, live uint8, streams int8) bool {
	target := min(s.target.Spatial, streams-1)
	if s.stream < 0 || live&(1<<s.stream) == 0 {
		return index <= target || index == best(target, live, streams)
	}
	return rank(index, target) < rank(s.stream, target)
}

// follow adjusts the limit of the layers within the stream with the newest packet: down between frames, up where a decoder can join.
func (s *selection) follow(in *inbound, newFrame bool) {
	limit := s.limit
	switch {
	case in.frame.KeyFrame:
		limit = s.target
	case newFrame:
		limit.Temporal = min(limit.Temporal, s.target.Temporal)
		limit.Spatial = min(limit.Spatial, s.target.Spatial)
	}
	if in.frame.Joins != 0 && in.frame.Start && in.frame.Spatial == 0 && in.frame.Temporal <= limit.Temporal+1 {
		for t := limit.Temporal + 1; t <= min(s.target.Temporal, maxTemporal); t++ {
			if in.frame.Joins&(1<<t) != 0 {
				limit.Temporal = t
			}
		}
	}
	if limit != s.limit {
		s.setLimit(limit, in)
	}
}

func (s *selection) setLimit(limit Layer, in *inbound) {
	s.limit = limit
	if len(s.limits) == maxLimits {
		s.limits = s.limits[:copy(s.limits, s.limits[1:])]
	}
	s.limits = append(s.limits, limitFrom{timestamp: in.packet.Timestamp, limit: limit})
}

// within reports whether the packet belongs to the layers that are forwarded, or were in its time.
func (s *selection) within(in *inbound, svc bool) bool {
	limit := s.limit
	if !in.newest {
		limit = NoLayer
		for i := len(s.limits) - 1; i >= 0 && limit == NoLayer; i-- {
			if int32(in.packet.Timestamp-s.limits[i].timestamp) >= 0 {
				limit = s.limits[i].limit
			}
		}
	}
	return in.frame.Temporal <= limit.Temporal && (!svc || in.frame.Spatial <= limit.Spatial)
}
