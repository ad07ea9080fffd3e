package forward

import (
	"time"

	"callserver/sfu/packet"

	"github.com/pion/rtcp"
)

// reports is what one receiver was told and told us (RFC 3550 §6.4).
type reports struct {
	stream int8   // the stream forwarded last; its clock is the receiver's, shifted
	epoch  uint32 // of that stream; 0 before any
	sent   [4]sentReport
	next   int
	rtt    time.Duration
	least  time.Duration // round trip, forgotten slowly: the way without a queue
}

// forgetLeast is the part of a longer round trip that is taken for a longer way, with each report.
const forgetLeast = 16

// answerTime is how long a receiver goes on asking for a packet after it was sent again, if that waits so long before its line. Round trips vary.
func (r *reports) answerTime(waits time.Duration) time.Duration {
	rtt := r.rtt
	if waits > 0 {
		rtt = r.least // the other has a queue in it already
	}
	if rtt == 0 {
		rtt = defaultRTT
	}
	return min(rtt*3/4, maxResendGap) + waits
}

// sentReport is one of our latest sender reports: the middle bits of its NTP time, by which the receiver refers to it.
type sentReport struct {
	ntp uint32
	at  time.Duration
}

// SenderReport returns the report to send to the receiver now (the writer fills in the SSRC), false while there is nothing to say:
// nothing is being forwarded, or the publisher has sent no report. It is on the publisher's wall clock, so that the publisher's
// tracks stay in sync with each other.
func (k *Sink) SenderReport(now time.Time) (sr rtcp.SenderReport, ok bool) {
	at := k.source.since(now)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.choice.stream < 0 || k.counts.Packets == 0 {
		return sr, false
	}
	c := k.source.streams[k.choice.stream].clock.Load()
	if c == nil {
		return sr, false
	}
	passed := max(at-c.at, 0)
	sr = rtcp.SenderReport{
		NTPTime:     c.ntp + ntpDuration(passed),
		RTPTime:     c.rtp + uint32(ticks(passed, k.source.options.ClockRate)) - k.splice.shift,
		PacketCount: uint32(k.counts.Packets),
		OctetCount:  uint32(k.counts.Bytes),
	}
	if !k.rtx { // then what was sent again counts for the same stream
		sr.PacketCount += uint32(k.counts.Retransmitted)
		sr.OctetCount += uint32(k.counts.Repeated)
	}
	k.reports.sent[k.reports.next] = sentReport{ntp: uint32(sr.NTPTime >> 16), at: at}
	k.reports.next = (k.reports.next + 1) % len(k.reports.sent)
	return sr, true
}

// ReceptionReport takes the receiver's report block.
func (k *Sink) ReceptionReport(r rtcp.ReceptionReport, now time.Time) {
	at := k.source.since(now)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counts.FractionLost = float64(r.FractionLost) / 256
	k.counts.Lost = int64(int32(r.TotalLost<<8) >> 8) // 24 bits, signed
	if rate := k.source.options.ClockRate; rate > 0 {
		k.counts.Jitter = time.Duration(r.Jitter) * time.Second / time.Duration(rate)
	}
	for _, s := range k.reports.sent {
		if s.at == 0 || s.ntp != r.LastSenderReport {
			continue
		}
		if rtt := at - s.at - time.Duration(r.Delay)*time.Second>>16; rtt >= 0 {
			k.reports.measured(max(rtt, time.Millisecond))
		}
	}
}

// measured notes a round trip.
func (r *reports) measured(rtt time.Duration) {
	if r.rtt = rtt; rtt < r.least || r.least == 0 {
		r.least = rtt
	}
	r.least += (rtt - r.least) / forgetLeast
}

// ticks converts a duration to units of the RTP clock.
func ticks(d time.Duration, rate uint32) int64 { return packet.Ticks(d, rate) }

// ntpDuration converts a duration to NTP's 32.32 fixed point seconds.
func ntpDuration(d time.Duration) uint64 {
	return uint64(d/time.Second)<<32 | uint64(d%time.Second)<<32/uint64(time.Second)
}

// ntpTicks converts a difference of NTP times, which may be negative, to units of the RTP clock, modulo 2^32.
func ntpTicks(difference uint64, rate uint32) int64 {
	d := int64(difference)
	return d>>32*int64(rate) + int64(uint64(uint32(d))*uint64(rate)>>32)
}
