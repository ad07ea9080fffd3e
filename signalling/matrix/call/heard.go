package call

import (
	"maps"
	"time"
)

// Heard takes an event of this call. It reports whether the event means anything in this state: what does not, because it
// is repeated, of another party, or out of turn, changes nothing.
func (c *Call) Heard(m Message, now time.Time) bool {
	if c.state == Ended || m.Call != c.o.ID || m.Sender != c.o.Peer && m.Sender != c.o.Self || m.Event != "" && c.repeated(m.Event) {
		return false
	}
	if m.Sender == c.o.Self {
		return m.Party != c.o.Party && c.heardSelf(m)
	}
	switch m.Type {
	case TypeAnswer:
		return c.heardAnswer(m, now)
	case TypeCandidates:
		return c.heardCandidates(m)
	case TypeReject:
		if c.state != Ringing {
			return false
		}
		c.over(Rejected, false)
		return true
	case TypeHangup:
		return c.heardHangup(m)
	case TypeSelect:
		return c.heardSelect(m)
	case TypeNegotiate:
		return c.heardNegotiate(m)
	case TypeStreams:
		if !c.talking() && c.state != Invited && c.state != Answering || !c.from(m) || m.Streams == nil {
			return false
		}
		c.heardStreams(m.Streams)
		return true
	}
	return false // m.call.replaces and m.call.asserted_identity: we offered neither
}

// from reports whether a message is of the party at the other end.
func (c *Call) from(m Message) bool {
	return c.chosen && (c.version == 0 || m.Party == c.party)
}

// heardSelf takes an event of another client of the user for whom we speak.
func (c *Call) heardSelf(m Message) bool {
	if c.state != Invited {
		return false // who answered as well is told by the caller whom it selected
	}
	switch m.Type {
	case TypeAnswer:
		c.over(AnsweredElsewhere, false)
	case TypeReject, TypeHangup:
		c.over(RejectedElsewhere, false)
	default:
		return false
	}
	return true
}

// heardAnswer chooses the first party that answers, and tells all of them.
func (c *Call) heardAnswer(m Message, now time.Time) bool {
	if c.state != Ringing {
		return false
	}
	c.flush()
	c.party, c.chosen, c.version = m.Party, true, m.Version
	c.connecting(now)
	if c.version > 0 {
		c.send(TypeSelect, Select{c.head(), m.Party})
	}
	c.heardStreams(m.Streams)
	c.effects = append(c.effects, TakeAnswer{m.Description.SDP})
	c.takeCandidates(c.buffered[m.Party])
	c.buffered = nil
	return true
}

// heardCandidates hands candidates over, or keeps them until their description is.
func (c *Call) heardCandidates(m Message) bool {
	switch {
	case c.state == Ringing:
		if _, known := c.buffered[m.Party]; !known && len(c.buffered) == maxParties {
			return false
		}
		c.buffered[m.Party] = bounded(c.buffered[m.Party], m.Candidates)
	case !c.from(m):
		return false
	case c.state == Invited:
		c.waiting = bounded(c.waiting, m.Candidates)
	default:
		c.takeCandidates(m.Candidates)
	}
	return true
}

// bounded appends what there is room for.
func bounded(all, more []Candidate) []Candidate {
	return append(all, more[:min(len(more), maxCandidates-len(all))]...)
}

func (c *Call) takeCandidates(all []Candidate) {
	if len(all) > 0 {
		c.effects = append(c.effects, TakeCandidates{all})
	}
}

// heardHangup obeys the party at the other end, and while it rings, whichever client of the other user speaks.
func (c *Call) heardHangup(m Message) bool {
	if c.state != Ringing && !c.from(m) {
		return false
	}
	why := m.Reason
	if why == "" {
		why = UserHangup
	}
	c.over(why, false)
	return true
}

// heardSelect learns whose answer the caller took.
func (c *Call) heardSelect(m Message) bool {
	if c.outgoing || !c.from(m) || c.selected {
		return false
	}
	if m.Selected != c.o.Party {
		c.over(AnsweredElsewhere, false)
		return true
	}
	if !c.talking() {
		return false
	}
	c.selected, c.choose = true, time.Time{}
	return true
}

// heardNegotiate takes a new description of the other side. Where two offers cross, that of the caller counts.
func (c *Call) heardNegotiate(m Message) bool {
	switch {
	case !c.talking() || !c.from(m) || c.version == 0 || m.Lifetime > 0 && m.Age > m.Lifetime:
		return false
	case m.Description.Type == "answer":
		if !c.offering {
			return false
		}
		c.offering, c.renew = false, time.Time{}
		c.heardStreams(m.Streams)
		c.effects = append(c.effects, TakeAnswer{m.Description.SDP})
		return true
	case c.offering && c.outgoing:
		return false
	case c.offering:
		c.offering, c.renew = false, time.Time{}
		c.effects = append(c.effects, Rollback{})
	}
	c.heardStreams(m.Streams)
	if c.answering {
		c.next = m.Description.SDP // the latest counts
		return true
	}
	c.takeOffer(m.Description.SDP)
	return true
}

func (c *Call) takeOffer(sdp string) {
	c.answering = true
	c.effects = append(c.effects, TakeOffer{SDP: sdp, Again: true})
}

// heardStreams remembers what the other side says of its streams; nil says nothing.
func (c *Call) heardStreams(s Streams) {
	if s != nil {
		c.theirs = maps.Clone(s)
		c.effects = append(c.effects, TakeStreams{maps.Clone(s)})
	}
}
