package rtc

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"callserver/sfu/rtc/description"

	"github.com/pion/webrtc/v4"
)

// ErrGlare means that the first offers of both sides crossed. Pion takes no offer back: the peer that is to answer is a new one.
var ErrGlare = errors.New("the first offers of both sides crossed")

// plain is what a plain peer keeps of its exchanges. Guarded by Peer.negotiation.
//
// A further offer of ours is kept from Pion until it is answered, because Pion takes none back: until then an offer of the client's
// can take its place (RFC 8829 §4.1.10.2).
type plain struct {
	plans    map[string]*description.Plan // by mid, as settled last
	ufrag    string                       // of the client
	proposal *proposal                    // outstanding
	version  uint64                       // how many offers we made
	sections int                          // how many we added
}

// proposal is an offer of ours that waits for its answer.
type proposal struct {
	first bool // Pion knows it
	text  string
	plans map[string]*description.Plan
	added []*slot // sections that are new
	taken []*slot // those, and free ones that got a downlink
}

// An Offered section is what a plain peer's description says it can carry.
type Offered struct {
	MID             string
	Video           bool
	Sends, Receives bool
	CID, StreamID   string
	Mimes           []string // in the order of preference
}

// Sections reads the media sections of a description that take part. It refuses with ErrBadDescription.
func Sections(sdp string) ([]Offered, error) {
	d, err := description.Parse(sdp)
	if err != nil {
		return nil, err
	}
	var out []Offered
	for _, s := range d.Sections {
		if s.Kind == description.Application || s.Rejected {
			continue
		}
		out = append(out, Offered{MID: s.MID, Video: s.Kind == description.Video, Sends: s.Sends, Receives: s.Receives,
			CID: s.CID, StreamID: s.StreamID, Mimes: s.Mimes()})
	}
	return out, nil
}

// inner is a client's offer in the form that Pion is given.
func (p *Peer) inner(d *description.Description) (string, error) {
	if p.options.Plain {
		return d.InnerBoth(false)
	}
	return d.Carrier()
}

// offered prepares for an offer of the client's: ours, if one is outstanding, is taken back.
func (pl *plain) offered(p *Peer, d *description.Description) error {
	if o := pl.proposal; o != nil {
		if o.first {
			return ErrGlare
		}
		p.withdraw()
	}
	pl.client(p, d)
	return nil
}

// client notes the client's credentials. With others Pion gathers candidates anew.
func (pl *plain) client(p *Peer, d *description.Description) {
	if pl.ufrag != "" && pl.ufrag != d.Ufrag() {
		p.client.regather()
	}
	pl.ufrag = d.Ufrag()
}

// withdraw takes our offer back: its downlinks wait again.
func (p *Peer) withdraw() {
	o := p.round.plain.proposal
	p.round.plain.proposal = nil
	for _, sl := range o.taken {
		if sl.downlink != nil {
			sl.downlink.stop()
			sl.downlink = nil
		}
	}
	var kept []*slot
	for _, sl := range p.round.slots {
		if !slices.Contains(o.added, sl) {
			kept = append(kept, sl)
		}
	}
	p.round.slots = kept
}

// placeBoth plans every section of a plain peer's offer for what we send, beside what it sends, and gives waiting downlinks to free
// ones.
func (p *Peer) placeBoth(d *description.Description, plans map[string]*description.Plan, tracks map[string]string) {
	p.freeVanished(d)
	for _, s := range d.Sections {
		switch {
		case s.Kind == description.Application:
			continue
		case s.Rejected:
			plans[s.MID] = &description.Plan{Rejected: true}
			continue
		}
		sl := p.slotAt(s.MID)
		if sl == nil && s.Receives {
			sl = &slot{mid: s.MID, kind: s.Kind}
			p.round.slots = append(p.round.slots, sl)
		}
		if sl != nil {
			sl.resting = false
			p.fill(s, sl)
		}
		plans[s.MID] = sl.both(s, plans[s.MID])
		if sl != nil && sl.downlink != nil {
			sl.downlink.negotiated(wireOf(s, sl.downlink))
			tracks[s.MID] = sl.downlink.options.TrackID
		}
	}
	p.refuse(d)
	p.round.plain.plans = maps.Clone(plans)
}

func (p *Peer) slotAt(mid string) *slot {
	for _, sl := range p.round.slots {
		if sl.mid == mid {
			return sl
		}
	}
	return nil
}

// both adds what we send on a section to the plan for what we receive there, nil for nothing. A nil slot sends nothing.
func (s *slot) both(on *description.Section, receiving *description.Plan) *description.Plan {
	sends := s != nil && s.downlink != nil
	switch {
	case receiving == nil && sends:
		return s.plan(on)
	case receiving == nil:
		pl := on.Send("", false, nil)
		pl.Direction = "inactive"
		return pl
	case !sends:
		return receiving
	}
	receiving.Direction = "sendrecv"
	receiving.Send = s.downlink.sending()
	if sending := s.plan(on); len(sending.Codecs) > 0 && len(receiving.Codecs) > 0 && sending.Codecs[0].Payload != receiving.Codecs[0].Payload {
		receiving.Codecs = append(receiving.Codecs[:1], sending.Codecs[0])
	}
	return receiving
}

// Propose makes an offer of a plain peer's: the first, with a section for each downlink, or a further one, that adds those of downlinks
// with sections of their own and takes away those that are free. It takes the place of one that is outstanding. SDP and Tracks of what it returns
// are set.
func (p *Peer) Propose() (offer Answer, err error) {
	defer p.recover("propose")
	p.negotiation.Lock()
	defer p.negotiation.Unlock()
	if p.isClosed() {
		return Answer{}, ErrClosed
	}
	pl := &p.round.plain
	if o := pl.proposal; o != nil && o.first {
		return Answer{SDP: o.text, Tracks: p.tracksOf(o)}, nil
	}
	if pl.proposal != nil {
		p.withdraw()
	}
	o := &proposal{first: p.client.pc.CurrentLocalDescription() == nil, plans: map[string]*description.Plan{}}
	pl.proposal = o
	for mid, settled := range pl.plans {
		o.plans[mid] = p.again(mid, settled)
	}
	for _, d := range *p.downlinks.Load() {
		if !d.placed() && (o.first || d.options.Own) {
			p.propose(o, d)
		}
	}
	if err = p.write(o); err != nil {
		p.withdraw()
		return Answer{}, fmt.Errorf("make an offer: %w", err)
	}
	return Answer{SDP: o.text, Tracks: p.tracksOf(o)}, nil
}

func (p *Peer) tracksOf(o *proposal) map[string]string {
	tracks := map[string]string{}
	for _, sl := range p.round.slots {
		if sl.downlink != nil && o.plans[sl.mid] != nil {
			tracks[sl.mid] = sl.downlink.options.TrackID
		}
	}
	return tracks
}

// again is how a section that was settled is offered once more.
func (p *Peer) again(mid string, settled *description.Plan) *description.Plan {
	next := *settled
	sl := p.slotAt(mid)
	next.Send, next.Direction = nil, "recvonly"
	switch {
	case sl != nil && sl.downlink != nil && sl.own:
		next.Send, next.Direction = sl.downlink.sending(), "sendonly"
	case sl != nil && sl.downlink != nil:
		next.Send, next.Direction = sl.downlink.sending(), "sendrecv"
	case sl != nil && sl.own:
		next.Direction = "inactive"
	}
	return &next
}

// propose gives a downlink a section of an offer of ours: a free one of ours, or a new one.
func (p *Peer) propose(o *proposal, d *downlink) {
	var sl *slot
	for _, free := range p.round.slots {
		if free.own && d.options.Own && free.downlink == nil && free.kind == d.kind && carries(o.plans[free.mid], d.options.Mime) {
			sl = free
		}
	}
	format := description.FindFormat(d.options.Mime)
	if sl == nil {
		sl = &slot{mid: "l" + strconv.Itoa(p.round.plain.sections), kind: d.kind, own: d.options.Own}
		p.round.plain.sections++
		o.plans[sl.mid] = newPlan(d.kind, format, o.plans)
		o.added = append(o.added, sl)
		p.round.slots = append(p.round.slots, sl)
	}
	o.taken = append(o.taken, sl)
	sl.downlink = d
	d.place(p.client, nil, format.RTX != 0)
	o.plans[sl.mid] = p.again(sl.mid, o.plans[sl.mid])
}

func carries(pl *description.Plan, mime string) bool {
	if pl != nil {
		for _, c := range pl.Codecs {
			if c.Format.Mime == mime {
				return true
			}
		}
	}
	return false
}

// write makes the text of an offer. Pion is told of the first at once, since only then it gathers candidates.
func (p *Peer) write(o *proposal) error {
	pc := p.client.pc
	var base string
	if o.first {
		if err := p.adopt(o); err != nil {
			return err
		}
		base = pc.LocalDescription().SDP
	} else {
		var more []description.NewSection
		for _, sl := range o.added {
			more = append(more, description.NewSection{MID: sl.mid, Kind: sl.kind})
		}
		p.round.plain.version++
		var err error
		if base, err = description.Extend(pc.CurrentLocalDescription().SDP, p.round.plain.version, more); err != nil {
			return err
		}
	}
	var err error
	o.text, err = description.Compose(base, o.plans, true)
	return err
}

// adopt tells Pion of an offer.
func (p *Peer) adopt(o *proposal) error {
	pc := p.client.pc
	for _, sl := range o.added {
		kind := webrtc.RTPCodecTypeAudio
		if sl.kind == description.Video {
			kind = webrtc.RTPCodecTypeVideo
		}
		t, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
		if err == nil {
			err = t.SetMid(sl.mid)
		}
		if err != nil {
			return err
		}
	}
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		return err
	}
	return pc.SetLocalDescription(offer)
}

// Accept applies the client's answer to what Propose returned last. Of what it returns Sections and Tracks are set. ErrStale means that no offer is
// outstanding; it refuses with ErrBadDescription.
func (p *Peer) Accept(sdp string, wants []Want) (agreed Answer, err error) {
	defer p.recover("accept")
	p.negotiation.Lock()
	defer p.negotiation.Unlock()
	err = ErrClosed // of a panic
	o := p.round.plain.proposal
	if o == nil {
		return Answer{}, ErrStale
	}
	d, refusal := description.Parse(sdp)
	if refusal == nil {
		refusal = p.acceptInner(o, d)
	}
	if refusal != nil {
		p.engine.counts.badDescriptions.Add(1)
		return Answer{}, refusal
	}
	p.round.plain.proposal = nil
	p.client.addRemotes(d)
	agreed.Sections = p.receive(d, wants, map[string]*description.Plan{})
	p.round.plain.plans = o.plans
	agreed.Tracks = map[string]string{}
	for mid := range o.plans {
		p.agree(mid, d.Find(mid), agreed.Tracks)
	}
	p.round.answered++
	p.settled()
	return agreed, nil
}

// acceptInner tells Pion of the answer, and of what it answers.
func (p *Peer) acceptInner(o *proposal, d *description.Description) error {
	text, err := d.InnerBoth(true)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadDescription, err)
	}
	if len(d.Sections) < len(o.plans) {
		return fmt.Errorf("%w: %d sections in answer to %d", ErrBadDescription, len(d.Sections), len(o.plans))
	}
	if !o.first {
		if err := p.adopt(o); err != nil {
			return fmt.Errorf("apply our offer: %w", err)
		}
	}
	p.round.plain.ufrag = d.Ufrag()
	if err := p.client.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: text}); err != nil {
		return fmt.Errorf("%w: %w", ErrBadDescription, err)
	}
	return nil
}

// agree takes what the client answered to one section.
func (p *Peer) agree(mid string, s *description.Section, tracks map[string]string) {
	if s == nil || s.Rejected {
		p.round.plain.plans[mid] = &description.Plan{Rejected: true}
	}
	sl := p.slotAt(mid)
	if sl == nil || sl.downlink == nil {
		return
	}
	d := sl.downlink
	if s == nil || s.Rejected || !s.Receives || s.Codec(d.options.Mime) == nil {
		p.dropDownlink(d.options.TrackID)
		p.round.release(d)
		sl.resting = false
		p.emit(DownlinkRefused{TrackID: d.options.TrackID})
		return
	}
	d.negotiated(wireOf(s, d))
	tracks[mid] = d.options.TrackID
}

// Header extension ids of sections that we offer a plain peer, unless it uses others already.
var ownExtensions = map[description.Kind][]description.Extension{
	description.Audio: {{ID: ownCaptureTime, URI: description.URICaptureTime}, {ID: 3, URI: description.URIMID}, {ID: 4, URI: description.URIAudioLevel}},
	description.Video: {{ID: ownCaptureTime, URI: description.URICaptureTime}, {ID: 3, URI: description.URIMID}, {ID: 5, URI: description.URITransportCC}},
}

// newPlan is a section as we offer it. In a bundle each number means one thing (RFC 8843 §9.1), so those of the others are kept to.
func newPlan(kind description.Kind, format *description.Format, others map[string]*description.Plan) *description.Plan {
	feedback := description.AudioFeedback
	if kind == description.Video {
		feedback = append([]string{"transport-cc"}, description.VideoFeedback...)
	}
	c := format.Own("", feedback)
	ids, payloads, taken := map[string]uint8{}, map[uint8]bool{}, map[uint8]bool{}
	known := false
	for _, pl := range others {
		for _, e := range pl.Extensions {
			ids[e.URI], taken[e.ID] = e.ID, true
		}
		for _, other := range pl.Codecs {
			payloads[other.Payload], payloads[other.RTX] = true, true
			if other.Format == format {
				c.Payload, c.RTX, c.FMTP, known = other.Payload, other.RTX, other.FMTP, true
			}
		}
	}
	if !known {
		c.Payload = unused(c.Payload, 96, payloads)
		payloads[c.Payload] = true
		if c.RTX != 0 {
			c.RTX = unused(c.RTX, 96, payloads)
		}
	}
	pl := &description.Plan{Codecs: []description.Codec{c}}
	for _, e := range ownExtensions[kind] {
		if id, ok := ids[e.URI]; ok {
			e.ID = id
		} else {
			e.ID = unused(e.ID, 1, taken)
			taken[e.ID] = true
		}
		pl.Extensions = append(pl.Extensions, e)
	}
	return pl
}

// unused is the number itself, or else the first from a start on that nobody uses.
func unused(n, from uint8, used map[uint8]bool) uint8 {
	if !used[n] {
		return n
	}
	for used[from] {
		from++
	}
	return from
}
