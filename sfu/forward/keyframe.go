package forward

import "time"

const (
	minKeyFrameRetry   = 200 * time.Millisecond
	maxKeyFrameRetry   = time.Second
	keyFrameWindow     = time.Second // at most two requests in one
	keyFrameSpacing    = keyFrameWindow / 2
	maxKeyFrameRetries = 10 // to a stream that sends nothing at all
	defaultRTT         = 70 * time.Millisecond
)

// keyRequests coalesces the requests for key frames of one stream: the first goes out at once, or when the least patient of those who wait wants it,
// whoever comes while it is under way shares it, and it is repeated every two round trips until a key frame arrives. Of the two requests that a
// second holds the second waits for half of it: in a burst of joiners everybody then waits half a second at most, where two at once would have all
// who follow wait a whole one. Guarded by the stream's lock. Times are since the Source's origin.
type keyRequests struct {
	waiting      bool          // somebody needs a key frame that has not come
	answered     bool          // a key frame came after the last request
	tries        int           // since any packet came
	hold         time.Duration // while waiting: not before
	last, before time.Duration // the two latest requests, 0 if none
}

// due reports whether to send a request now, and takes it as sent.
func (q *keyRequests) due(at, rtt time.Duration) bool {
	if rtt == 0 {
		rtt = defaultRTT
	}
	retry := min(max(2*rtt, minKeyFrameRetry), maxKeyFrameRetry)
	switch {
	case !q.waiting, at < q.hold, q.tries >= maxKeyFrameRetries:
		return false
	case q.last != 0 && !q.answered && at-q.last < retry:
		return false
	case q.answered && at-q.last < keyFrameSpacing: // so never before the first: answered needs one
		return false
	case q.before != 0 && at-q.before < keyFrameWindow:
		return false
	}
	q.before, q.last, q.answered = q.last, at, false
	q.tries++
	return true
}

// need notes that a receiver waits, which would have others share the request that come until patience later.
func (q *keyRequests) need(at, patience time.Duration) {
	if hold := at + patience; !q.waiting || hold < q.hold {
		q.hold = hold
	}
	q.waiting = true
}

// answer notes that a key frame came.
func (q *keyRequests) answer() { q.waiting, q.answered, q.tries = false, true, 0 }

// needKeyFrame asks the publisher for a key frame of one stream, now or when patience and the throttle allow.
func (s *Source) needKeyFrame(index int8, at, patience time.Duration) {
	st := s.stream(index)
	if st == nil {
		return
	}
	st.mu.Lock()
	st.keys.need(at, patience)
	st.waitLocked()
	st.keys.tries = 0
	st.mu.Unlock()
	s.await()
	s.requestDue(index, at)
}

// missKeyFrame notes that a packet came of which a receiver can make nothing for want of a key frame before it.
func (s *Source) missKeyFrame(index int8, at time.Duration) {
	st := s.streams[index]
	st.mu.Lock()
	if !st.keys.waiting {
		st.keys.need(at, 0)
		st.waitLocked()
	}
	st.mu.Unlock()
	s.await()
	s.requestDue(index, at)
}

// await tells that a key frame is outstanding.
func (s *Source) await() {
	if u := s.upstream.Load(); u != nil {
		(*u).Await()
	}
}

// requestDue sends the request that is due, if any.
func (s *Source) requestDue(index int8, at time.Duration) {
	u := s.upstream.Load()
	if u == nil || s.origin.Load() == nil { // nobody to ask, or nothing ever came: the first packet will be a key frame's
		return
	}
	if live := s.live(at); live != 0 && live&(1<<index) == 0 { // it will begin with one, and publishers asked for one stream send key frames of all
		return
	}
	st := s.stream(index)
	st.mu.Lock()
	due := st.keys.due(at, time.Duration(s.rtt.Load()))
	if due {
		st.counts.Requests++
	}
	st.mu.Unlock()
	if due {
		(*u).RequestKeyFrame(index)
	}
}
