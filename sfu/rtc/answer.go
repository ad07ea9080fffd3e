package rtc

import (
	"fmt"

	"callserver/sfu/ingress"
	"callserver/sfu/rtc/description"

	"github.com/pion/webrtc/v4"
)

// round is what the last exchange of descriptions left behind.
type round struct {
	slots    []*slot   // sections on which we may send
	answered int       // client offers answered
	offer    *ourOffer // outstanding, dual mode only
	nextID   uint32    // of our next offer
	restart  bool      // the next offer of ours restarts ICE
	carried  carried
	plain    plain
}

// carried is what Pion was told last of a client's offer, and what it answered.
type carried struct{ offer, answer string }

// slot is a media section on which we may send.
type slot struct {
	mid         string
	kind        description.Kind
	transceiver *webrtc.RTPTransceiver // dual mode only
	downlink    *downlink              // nil = free
	resting     bool                   // freed, but the client has not been told yet (dual mode)
	own         bool                   // we offered it, only to send on it (plain mode)
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
	if p.round.answered > 0 {
		defer p.engine.yield()()
	}
	err = ErrClosed // of a panic
	d, refusal := description.Parse(sdp)
	if refusal != nil {
		p.engine.counts.badDescriptions.Add(1)
		return Answer{}, refusal
	}
	p.client.hold()
	if p.options.Plain {
		if err = p.round.plain.offered(p, d); err != nil {
			return Answer{}, err
		}
	}
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
func (p *Peer) answer(d *description.Description, wants []Want) (Answer, error) {
	transport, err := p.carry(d)
	if err != nil {
		return Answer{}, err
	}
	plans := map[string]*description.Plan{}
	a := Answer{Tracks: map[string]string{}, Sections: p.receive(d, wants, plans)}
	if p.options.Plain {
		p.placeBoth(d, plans, a.Tracks)
		a.SDP, err = description.Compose(transport, plans, d.Mixed)
	} else {
		p.place(d, plans, a.Tracks)
		a.SDP, err = d.Reply(transport, uint64(p.round.answered), plans)
	}
	if err != nil {
		return Answer{}, err
	}
	p.client.addRemotes(d)
	return a, nil
}

// carry has Pion answer an offer, and returns the transport that it describes. An offer by which nothing changes for Pion is kept from it: of a client
// that stays on its connection that is every one but the first.
func (p *Peer) carry(d *description.Description) (string, error) {
	text, err := p.inner(d)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBadDescription, err)
	}
	last := &p.round.carried
	if !p.options.Plain && text == last.offer {
		return last.answer, nil
	}
	pc := p.client.pc
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: text}); err != nil {
		return "", fmt.Errorf("%w: %w", ErrBadDescription, err)
	}
	local, err := pc.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("create answer: %w", err)
	}
	if err := pc.SetLocalDescription(local); err != nil {
		return "", fmt.Errorf("apply answer: %w", err)
	}
	*last = carried{text, local.SDP}
	return local.SDP, nil
}

// receive plans every section that the client sends on, and brings the uplinks in line.
func (p *Peer) receive(d *description.Description, wants []Want, plans map[string]*description.Plan) []Section {
	current := *p.uplinks.Load()
	next := make([]*uplink, 0, len(current))
	var out []Section
	var table []*ingress.Terms
	for _, s := range d.Sections {
		if s.Kind == description.Application || s.Rejected || !s.Sends {
			continue
		}
		pl := s.Receive(match(s, wants), p.engine.options.RED)
		if s.Kind == description.Video {
			pl.Bandwidth = p.engine.options.VideoBitrate
		}
		plans[s.MID] = pl
		if len(pl.Codecs) == 0 {
			continue
		}
		u := uplinkOf(current, s.MID)
		if u == nil {
			u = newUplink(p, s.MID)
		}
		next = append(next, u)
		out = append(out, u.describe(s, pl))
		table = append(table, u.terms(s, pl))
	}
	for _, u := range current {
		if uplinkOf(next, u.mid) == nil {
			u.feed(nil)
			ended := u.section
			ended.Active = false
			out = append(out, ended)
		}
	}
	p.uplinks.Store(&next)
	p.client.inlet.SetTerms(table)
	return out
}

// match finds what add_track asked for the section: by track id, or else, since some stacks rewrite ids, the only request
// of the kind.
func match(s *description.Section, wants []Want) Want {
	var only []Want
	for _, w := range wants {
		if w.CID != "" && w.CID == s.CID {
			return w
		}
		if w.Video == (s.Kind == description.Video) {
			only = append(only, w)
		}
	}
	if len(only) == 1 {
		return only[0]
	}
	return Want{}
}

// place plans every section that the client does not send on. In single mode it gives waiting downlinks to free ones.
func (p *Peer) place(d *description.Description, plans map[string]*description.Plan, tracks map[string]string) {
	slots := map[string]*slot{}
	if p.options.Single {
		p.freeVanished(d)
		for _, sl := range p.round.slots {
			slots[sl.mid] = sl
		}
	}
	for _, s := range d.Sections {
		switch {
		case s.Kind == description.Application || s.Sends:
			continue
		case s.Rejected:
			plans[s.MID] = &description.Plan{Rejected: true}
			continue
		case !s.Receives || !p.options.Single:
			plans[s.MID] = s.Send("", false, nil)
			plans[s.MID].Direction = "inactive"
			continue
		}
		sl := slots[s.MID]
		if sl == nil {
			sl = &slot{mid: s.MID, kind: s.Kind}
			p.round.slots = append(p.round.slots, sl)
		}
		sl.resting = false
		p.fill(s, sl)
		plans[s.MID] = sl.plan(s)
		if sl.downlink != nil {
			sl.downlink.negotiated(wireOf(s, sl.downlink))
			tracks[s.MID] = sl.downlink.options.TrackID
		}
	}
	p.refuse(d)
}

// plan is how the section that the slot is on is answered.
func (s *slot) plan(on *description.Section) *description.Plan {
	if s.downlink == nil {
		return on.Send("", false, nil)
	}
	o := s.downlink.options
	return on.Send(o.Mime, o.Stereo, s.downlink.sending())
}

// freeVanished takes downlinks off sections that the client no longer receives on; they are placed anew.
func (p *Peer) freeVanished(d *description.Description) {
	var kept []*slot
	sections := map[string]*description.Section{}
	for _, s := range d.Sections {
		sections[s.MID] = s
	}
	for _, sl := range p.round.slots {
		switch s := sections[sl.mid]; {
		case s != nil && !s.Rejected && s.Receives && (p.options.Plain || !s.Sends):
			kept = append(kept, sl)
		case sl.downlink != nil:
			sl.downlink.stop()
		}
	}
	p.round.slots = kept
}

// fill gives a section of the client's, if it is free, to the first waiting downlink that it suits.
func (p *Peer) fill(s *description.Section, sl *slot) {
	if sl.downlink != nil || sl.own {
		return
	}
	for _, d := range *p.downlinks.Load() {
		if c := s.Codec(d.options.Mime); !d.placed() && !d.options.Own && d.kind == s.Kind && c != nil {
			sl.downlink = d
			d.place(p.client, nil, c.RTX != 0)
			return
		}
	}
}

// refuse drops waiting downlinks whose codec no section of their kind offers.
func (p *Peer) refuse(d *description.Description) {
	if !p.options.Single {
		return
	}
	for _, down := range *p.downlinks.Load() {
		if down.placed() {
			continue
		}
		offered, suits := false, false
		for _, s := range d.Sections {
			if s.Kind == down.kind && s.Receives && !s.Rejected {
				offered = true
				suits = suits || s.Codec(down.options.Mime) != nil
			}
		}
		if offered && !suits {
			p.dropDownlink(down.options.TrackID)
			p.emit(DownlinkRefused{TrackID: down.options.TrackID})
		}
	}
}

// wireOf is how a downlink's packets look on the section.
func wireOf(s *description.Section, d *downlink) wire {
	w := wire{dependency: s.Extension(description.URIDependency), captureTime: s.Extension(description.URICaptureTime)}
	if s.Kind == description.Video {
		w.transport = s.Extension(description.URITransportCC)
	}
	if c := s.Codec(d.options.Mime); c != nil {
		w.payload, w.rtx = c.Payload, c.RTX
	}
	return w
}
