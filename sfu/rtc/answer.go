package rtc

import (
	"fmt"

	"github.com/pion/webrtc/v4"
)

// round is what the last exchange of descriptions left behind.
type round struct {
	slots    []*slot   // sections on which we may send
	answered int       // client offers answered
	offer    *ourOffer // outstanding, dual mode only
	nextID   uint32    // of our next offer
	restart  bool      // the next offer of ours restarts ICE
}

// slot is a media section on which we may send.
type slot struct {
	mid         string
	kind        kind
	transceiver *webrtc.RTPTransceiver
	downlink    *downlink // nil = free
	resting     bool      // freed, but the client has not been told yet (dual mode)
}

// release takes d off its section and reports whether the client must be told.
func (r *round) release(d *downlink) bool {
	for _, s := range r.slots {
		if s.downlink == d {
			s.downlink, s.resting = nil, true
			d.stop()
			return true
		}
	}
	return false
}

// Offer applies a client's offer for the connection that the client offers and returns the answer to send. Wants order
// codecs by what add_track asked. It refuses with ErrBadDescription.
func (p *Peer) Offer(id uint32, sdp string, wants []Want) (answer Answer, err error) {
	defer p.recover("offer")
	p.negotiation.Lock()
	defer p.negotiation.Unlock()
	err = ErrClosed // of a panic
	d, refusal := parseDescription(sdp)
	if refusal != nil {
		p.engine.counts.badDescriptions.Add(1)
		return Answer{}, refusal
	}
	p.client.hold()
	answer, err = p.answer(d, wants)
	if err != nil {
		p.engine.counts.badDescriptions.Add(1)
		return Answer{}, err
	}
	answer.ID = id
	p.client.release()
	p.round.answered++
	if p.options.Single {
		p.settled() // what we send was negotiated with it
	}
	return answer, nil
}

// answer does the work of Offer.
func (p *Peer) answer(d *description, wants []Want) (Answer, error) {
	c := p.client
	text, err := d.inner()
	if err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrBadDescription, err)
	}
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: text}); err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrBadDescription, err)
	}
	plans := map[string]*plan{}
	a := Answer{Tracks: map[string]string{}, Sections: p.receive(d, wants, plans)}
	if err := p.place(d, plans, a.Tracks); err != nil {
		return Answer{}, err
	}
	local, err := c.pc.CreateAnswer(nil)
	if err != nil {
		return Answer{}, fmt.Errorf("create answer: %w", err)
	}
	if err := c.pc.SetLocalDescription(local); err != nil {
		return Answer{}, fmt.Errorf("apply answer: %w", err)
	}
	if a.SDP, err = compose(local.SDP, plans, d.mixed); err != nil {
		return Answer{}, err
	}
	c.addRemotes(d)
	return a, nil
}

// receive plans every section that the client sends on, and brings the uplinks in line.
func (p *Peer) receive(d *description, wants []Want, plans map[string]*plan) []Section {
	current := *p.uplinks.Load()
	next := make(map[string]*uplink, len(current))
	var out []Section
	for _, s := range d.sections {
		if s.kind == application || s.rejected || !s.sends {
			continue
		}
		pl := s.receive(match(s, wants), p.engine.options.RED)
		plans[s.mid] = pl
		if len(pl.codecs) == 0 {
			continue
		}
		u := current[s.mid]
		if u == nil {
			u = newUplink(p, s.mid)
		}
		next[s.mid] = u
		out = append(out, u.describe(s, pl))
		if id := s.exts[uriTransportCC]; id != 0 && s.kind == video {
			p.client.tap.extension.Store(uint32(id))
		}
	}
	for mid, u := range current {
		if next[mid] == nil {
			u.feed(nil)
			ended := u.section
			ended.Active = false
			out = append(out, ended)
		}
	}
	p.uplinks.Store(&next)
	return out
}

// match finds what add_track asked for the section: by track id, or else, since some stacks rewrite ids, the only request
// of the kind.
func match(s *section, wants []Want) Want {
	var only []Want
	for _, w := range wants {
		if w.CID != "" && w.CID == s.cid {
			return w
		}
		if w.Video == (s.kind == video) {
			only = append(only, w)
		}
	}
	if len(only) == 1 {
		return only[0]
	}
	return Want{}
}

// place plans every section that the client does not send on. In single mode it gives waiting downlinks to free ones.
func (p *Peer) place(d *description, plans map[string]*plan, tracks map[string]string) error {
	transceivers := map[string]*webrtc.RTPTransceiver{}
	for _, t := range p.client.pc.GetTransceivers() {
		transceivers[t.Mid()] = t
	}
	slots := map[string]*slot{}
	if p.options.Single {
		p.freeVanished(d)
		for _, sl := range p.round.slots {
			slots[sl.mid] = sl
		}
	}
	for _, s := range d.sections {
		switch {
		case s.kind == application || s.sends:
			continue
		case s.rejected:
			plans[s.mid] = &plan{rejected: true}
			continue
		case !s.receives || !p.options.Single:
			plans[s.mid] = s.answerSending(nil)
			plans[s.mid].direction = "inactive"
			continue
		}
		sl := slots[s.mid]
		if sl == nil {
			sl = &slot{mid: s.mid, kind: s.kind, transceiver: transceivers[s.mid]}
			p.round.slots = append(p.round.slots, sl)
		}
		sl.resting = false
		if sl.downlink == nil {
			if err := p.fill(s, sl); err != nil {
				return err
			}
		}
		plans[s.mid] = s.answerSending(sl.downlink)
		if sl.downlink != nil {
			sl.downlink.negotiated(s.wire(sl.downlink))
			tracks[s.mid] = sl.downlink.options.TrackID
		}
	}
	p.refuse(d)
	return nil
}

// freeVanished takes downlinks off sections that the client no longer receives on; they are placed anew.
func (p *Peer) freeVanished(d *description) {
	var kept []*slot
	sections := map[string]*section{}
	for _, s := range d.sections {
		sections[s.mid] = s
	}
	for _, sl := range p.round.slots {
		switch s := sections[sl.mid]; {
		case s != nil && !s.rejected && !s.sends && s.receives:
			kept = append(kept, sl)
		case sl.downlink != nil:
			sl.downlink.stop()
		}
	}
	p.round.slots = kept
}

// fill gives the free section to the first waiting downlink that it suits.
func (p *Peer) fill(s *section, sl *slot) error {
	if sl.transceiver == nil {
		return nil
	}
	for _, d := range *p.downlinks.Load() {
		if d.placed() || d.kind != s.kind || s.codec(d.options.Mime) == nil {
			continue
		}
		sender, err := p.client.api.NewRTPSender(d, transportOf(p.client.pc))
		if err == nil {
			err = sl.transceiver.SetSender(sender, d)
		}
		if err != nil {
			return fmt.Errorf("send %s on section %q: %w", d.options.TrackID, s.mid, err)
		}
		sl.downlink = d
		d.place(p.client, sender, s.codec(d.options.Mime).rtx != 0)
		return nil
	}
	return nil
}

// refuse drops waiting downlinks whose codec no section of their kind offers.
func (p *Peer) refuse(d *description) {
	if !p.options.Single {
		return
	}
	for _, down := range *p.downlinks.Load() {
		if down.placed() {
			continue
		}
		offered, suits := false, false
		for _, s := range d.sections {
			if s.kind == down.kind && s.receives && !s.rejected {
				offered = true
				suits = suits || s.codec(down.options.Mime) != nil
			}
		}
		if offered && !suits {
			p.dropDownlink(down.options.TrackID)
			p.emit(DownlinkRefused{TrackID: down.options.TrackID})
		}
	}
}

// wire is how a downlink's packets look on this section.
func (s *section) wire(d *downlink) wire {
	w := wire{dependency: s.exts[uriDependency], captureTime: s.exts[uriCaptureTime]}
	if c := s.codec(d.options.Mime); c != nil {
		w.payload, w.rtx = c.payload, c.rtx
	}
	return w
}
