package rtc

import (
	"time"

	"github.com/pion/rtcp"
)

// Intervals of what a peer sends about media (RFC 3550 §6.2, RFC 4585), in ticks.
const (
	lossTicks     = 1  // 20 ms: ask for lost packets
	feedbackTicks = 5  // 100 ms: transport-wide feedback
	expiryTicks   = 10 // 200 ms: forget packets that nobody will ask for again
	reportTicks   = 50 // 1 s: reception and sender reports
)

// maxReports is how many report blocks a packet holds (RFC 3550 §6.4.1).
const maxReports = 31

// tick does what is due now. The engine's tick loop calls it, one peer after the other. Behind means that it had to wait for others' work.
func (p *Peer) tick(now time.Time, behind bool) {
	defer p.recover("timer")
	p.negotiate(now, behind)
	p.ticks++
	turn := p.ticks
	if c := p.sender(); c != nil {
		c.congestion.repeatDue(now)
	}
	if p.client.up() {
		var packets []rtcp.Packet
		if turn%lossTicks == 0 {
			for _, u := range *p.uplinks.Load() {
				packets = append(packets, u.losses(now)...)
			}
		}
		packets = append(packets, p.relieve(now)...)
		if turn%feedbackTicks == 0 {
			packets = append(packets, p.client.inlet.Arrivals.Feedback()...)
		}
		if turn%reportTicks == 0 {
			packets = append(packets, p.receptionReports(now)...)
			if len(packets) > 0 {
				p.client.measure()
			}
		}
		p.client.send(packets)
	}
	if turn%expiryTicks == 0 {
		for _, u := range *p.uplinks.Load() {
			if s := u.source.Load(); s != nil {
				s.Expire(now)
			}
		}
	}
	if turn%reportTicks == 0 {
		p.senderReports(now)
		p.overdue(now)
	}
}

// receptionReports are the reports on everything that the client sends.
func (p *Peer) receptionReports(now time.Time) []rtcp.Packet {
	var blocks []rtcp.ReceptionReport
	rtt := p.client.rtt()
	for _, u := range *p.uplinks.Load() {
		blocks = u.report(blocks, rtt, now)
	}
	var out []rtcp.Packet
	for len(blocks) > 0 {
		n := min(len(blocks), maxReports)
		out = append(out, &rtcp.ReceiverReport{SSRC: p.client.ssrc, Reports: blocks[:n]})
		blocks = blocks[n:]
	}
	return out
}

// senderReports sends the reports on everything that the client receives.
func (p *Peer) senderReports(now time.Time) {
	c := p.sender()
	if c == nil || !c.up() {
		return
	}
	var packets []rtcp.Packet
	for _, d := range *p.downlinks.Load() {
		packets = append(packets, d.report(now)...)
	}
	c.send(packets)
	if len(packets) > 0 {
		c.measure()
	}
	c.congestion.watch()
}
