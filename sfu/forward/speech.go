package forward

// Hot path: see ARCHITECTURE.md#packet

import (
	"math"
	"sync"
	"time"
)

const (
	speechWindow   = 400 * time.Millisecond
	speechStale    = 2 * speechWindow
	activeLevel    = 35  // -dBov; quieter is silence
	activeShare    = 0.4 // of a window
	speechSmooth   = 2.0 / (2 + 1)
	defaultFrame   = 20 * time.Millisecond
	longestFrame   = 120 * time.Millisecond // RFC 6716 §2.1.4; longer is a pause
	silentLoudness = 1e-4
)

// speech measures from the level each packet carries (RFC 6464) how loud a track is, in windows of 400 ms.
type speech struct {
	mu        sync.Mutex
	timestamp uint32
	began     time.Duration // of the window; 0 if none is open
	spoken    time.Duration // in this window
	loudest   uint8         // -dBov, of what was spoken
	loudness  float64
}

// observe notes one packet.
func (s *speech) observe(level uint8, timestamp, rate uint32, at time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	length := defaultFrame
	if rate > 0 {
		if d := time.Duration(timestamp-s.timestamp) * time.Second / time.Duration(rate); d > 0 && d <= longestFrame {
			length = d
		}
	}
	s.timestamp = timestamp
	if s.began == 0 {
		s.began = at
	}
	s.advance(at)
	if level > activeLevel {
		return
	}
	if s.spoken == 0 || level < s.loudest {
		s.loudest = level
	}
	s.spoken += length
}

// advance ends the window that is over.
func (s *speech) advance(at time.Duration) {
	window := at - s.began
	if window < speechWindow {
		return
	}
	if window > speechStale {
		s.loudness = 0
	}
	var loudness float64
	if share := min(float64(s.spoken)/float64(window), 1); share >= activeShare {
		loudness = toLoudness(float64(s.loudest) - 20*math.Log10(share))
	}
	s.loudness += (loudness - s.loudness) * speechSmooth
	if s.loudness < silentLoudness {
		s.loudness = 0
	}
	s.began, s.spoken = at, 0
}

// level returns the smoothed loudness, 0 if nothing was heard lately, and whether that is speech.
func (s *speech) level(at time.Duration) (loudness float64, active bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began == 0 {
		return 0, false
	}
	s.advance(at)
	return s.loudness, s.loudness >= toLoudness(activeLevel)
}

// toLoudness converts -dBov to a linear scale from 0 to 1.
func toLoudness(level float64) float64 { return math.Pow(10, -level/20) }
