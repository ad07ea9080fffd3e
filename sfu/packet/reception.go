package packet

// Hot path: see ARCHITECTURE.md#packet

import "time"

const (
	maxCumulativeLost = 1<<23 - 1       // 24-bit signed field
	maxTransitJump    = 3 * time.Second // a longer one is a pause or a new clock, not jitter
)

// Report is a report block (RFC 3550 §6.4.1) without the SSRC.
type Report struct {
	FractionLost          uint8  // of 256, since the report before
	Lost                  uint32 // cumulative, 24 bits
	HighestSequenceNumber uint32 // with the cycles in the high half
	Jitter                uint32 // RTP units
	LastSenderReport      uint32 // middle bits of its NTP time
	Delay                 uint32 // since then, in 1/65536 s
}

// Reception keeps the statistics of one received stream for its reports (RFC 3550 §6.4.1, §A.3, §A.8). Not safe for concurrent use. Times
// are since any fixed origin.
type Reception struct {
	rate uint32 // Hz

	first, highest           uint64 // extended; first is 0 before any packet
	received                 uint64 // by themselves, not through a retransmission
	priorExpected, priorSeen uint64
	transit                  int64 // RTP units
	hasTransit               bool
	jitter                   int64 // RTP units, times 16

	reportNTP uint32 // middle bits of the last sender report
	reportAt  time.Duration
}

// NewReception returns the statistics of a stream with the given RTP clock, in Hz.
func NewReception(rate uint32) *Reception { return &Reception{rate: rate} }

// Restart forgets what came before: the sender began anew.
func (r *Reception) Restart() { *r = Reception{rate: r.rate} }

// Receive counts a packet that is not a duplicate. One that a retransmission brought stays counted as lost, as RFC 3550 means it:
// the report is about the path.
func (r *Reception) Receive(seq uint64, timestamp uint32, retransmitted bool, now time.Duration) {
	if r.first == 0 {
		r.first, r.highest = seq, seq
	}
	newest := seq >= r.highest
	r.first, r.highest = min(r.first, seq), max(r.highest, seq)
	if retransmitted {
		return
	}
	r.received++
	if newest {
		r.measure(timestamp, now)
	}
}

// measure is RFC 3550 §A.8.
func (r *Reception) measure(timestamp uint32, now time.Duration) {
	transit := Ticks(now, r.rate) - int64(timestamp)
	d := int64(int32(transit - r.transit)) // modulo 2^32, like the timestamp
	r.transit = transit
	if d < 0 {
		d = -d
	}
	if r.hasTransit && d < Ticks(maxTransitJump, r.rate) {
		r.jitter += d - (r.jitter+8)>>4
	}
	r.hasTransit = true
}

// SenderReport notes the sender's report, which the next reports answer.
func (r *Reception) SenderReport(ntp uint64, now time.Duration) {
	r.reportNTP, r.reportAt = uint32(ntp>>16), now
}

// Lost returns the cumulative number of packets lost; never negative.
func (r *Reception) Lost() int64 {
	if r.first == 0 {
		return 0
	}
	return max(int64(r.highest-r.first+1)-int64(r.received), 0)
}

// Jitter returns the interarrival jitter.
func (r *Reception) Jitter() time.Duration {
	if r.rate == 0 {
		return 0
	}
	return time.Duration(r.jitter>>4) * time.Second / time.Duration(r.rate)
}

// Report returns the report block and starts the next interval; false before the first packet.
func (r *Reception) Report(now time.Duration) (Report, bool) {
	if r.first == 0 {
		return Report{}, false
	}
	expected := r.highest - r.first + 1
	report := Report{
		HighestSequenceNumber: uint32(r.highest - 1<<16), // extended numbers start one cycle up
		Lost:                  uint32(min(r.Lost(), maxCumulativeLost)),
		Jitter:                uint32(r.jitter >> 4),
		LastSenderReport:      r.reportNTP,
	}
	interval, seen := int64(expected-r.priorExpected), int64(r.received-r.priorSeen)
	r.priorExpected, r.priorSeen = expected, r.received
	if lost := interval - seen; interval > 0 && lost > 0 {
		report.FractionLost = uint8(min(lost<<8/interval, 255))
	}
	if r.reportNTP != 0 {
		report.Delay = uint32(Ticks(now-r.reportAt, 1<<16))
	}
	return report, true
}

// Ticks converts a duration to units of a clock of the given rate, in Hz, without overflow.
func Ticks(d time.Duration, rate uint32) int64 {
	return int64(d/time.Second)*int64(rate) + int64(d%time.Second)*int64(rate)/int64(time.Second)
}
