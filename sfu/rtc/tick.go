package rtc

import (
	"time"

	"github.com/pion/rtcp"
)

const (
	reportRoutines  = 10 // a peer's routines in a second: of reception and sender reports (RFC 3550 §6.2), and of what needs no haste
	measureRoutines = 20 // once it is known the round trip time is asked for as often as ICE measures it
)

// maxReports is how many report blocks a packet holds (RFC 3550 §6.4.1).
const maxReports = 31

// wake has the peer attended to with the next tick. Safe for concurrent use, under any lock.
func (p *Peer) wake() { p.engine.wheel.wake(p) }

// attend does what cannot wait, of a peer that was woken, and has it woken again if there is more to come. The tick loop calls it. Behind means that it had to wait for others' work.
func (p *Peer) attend(now time.Time, behind bool) {
	defer p.recover("timer")
	p.awake.Store(false)
	later := p.negotiate(now, behind)
	if c := p.sender(); c != nil {
		c.congestion.repeatDue(now)
	}
	var packets []rtcp.Packet
	up := p.client.up()
	for _, u := range *p.uplinks.Load() {
		if up {
			packets = u.losses(packets, now)
		}
		later = later || u.waits()
	}
	if up {
		p.client.send(append(packets, p.relieve(now)...))
	}
	if later || p.relief.pending() {
		p.wake()
	}
}

// routine does what a peer does regularly: transport-wide feedback each time (every 100 ms), everything else once a second. The tick loop calls it.
func (p *Peer) routine(now time.Time) {
	defer p.recover("timer")
	if p.client.up() {
		for report := p.client.inlet.Arrivals.Feedback(); report != nil; report = p.client.inlet.Arrivals.Feedback() {
			p.client.leg.RTCP(report)
		}
	}
	if p.routines++; p.routines%reportRoutines > 0 {
		return
	}
	p.report(now)
	for _, u := range *p.uplinks.Load() {
		if s := u.source.Load(); s != nil {
			s.Expire(now)
		}
	}
	p.overdue(now)
}

// report sends the reports on everything that the client sends and receives, in one packet if there is one connection for both.
func (p *Peer) report(now time.Time) {
	var received, sent []rtcp.Packet
	if p.client.up() {
		received = p.receptionReports(now)
	}
	c := p.sender()
	if c != nil && c.up() {
		sent = p.senderReports(now)
		c.congestion.watch()
	}
	again := p.routines%measureRoutines == 0
	if c == p.client {
		received, sent = append(received, sent...), nil
	}
	p.client.report(received, again)
	if c != nil {
		c.report(sent, again)
	}
}

// report sends reports, if there are any, and measures the round trip time, which the next are to be about, if it is not known or is to be measured again.
func (c *connection) report(packets []rtcp.Packet, again bool) {
	if len(packets) == 0 {
		return
	}
	c.send(packets)
	if again || c.rtt() == 0 {
		c.measure()
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

// senderReports are the reports on everything that the client receives.
func (p *Peer) senderReports(now time.Time) []rtcp.Packet {
	var out []rtcp.Packet
	for _, d := range *p.downlinks.Load() {
		out = append(out, d.report(now)...)
	}
	return out
}
