package rtc

import (
	"errors"
	"fmt"
	"time"

	"callserver/sfu/rtc/description"

	"github.com/pion/webrtc/v4"
)

// answerDeadline is how long an answer to our offer may take while the client is connected.
const answerDeadline = 15 * time.Second

// Header extension ids of our own offers.
const (
	ownCaptureTime = 1
	ownDependency  = 2
	ownTransportCC = 3
)

// ErrNoAnswer means that the client left an offer of ours unanswered for 15 s.
var ErrNoAnswer = errors.New("no answer to our offer")

// ourOffer is an offer of ours that waits for its answer.
type ourOffer struct {
	event OfferReady
	since time.Time
	slots []*slot // as offered
}

// Negotiate has a dual-mode client's subscriber connection offered anew as soon as no offer is outstanding, with new
// ICE credentials if asked; an outstanding offer is told again first, because the client may have lost it. A single-mode
// client is asked for sections if downlinks wait for some.
func (p *Peer) Negotiate(iceRestart bool) {
	if p.server != nil && iceRestart {
		p.negotiation.Lock()
		p.round.restart = true
		if o := p.round.offer; o != nil {
			o.since = time.Now()
			p.emit(o.event)
		}
		p.negotiation.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.schedule.now()
	p.wake()
}

// offer makes and queues an offer for the subscriber connection, unless one is outstanding.
func (p *Peer) offer() {
	p.negotiation.Lock()
	defer p.negotiation.Unlock()
	if p.round.offer != nil {
		return // Answer looks again
	}
	if err := p.createOffer(); err != nil && !p.isClosed() {
		p.fail(fmt.Errorf("offer subscriber connection: %w", err))
	}
}

func (p *Peer) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *Peer) createOffer() error {
	c := p.server
	if err := p.placeOwn(); err != nil {
		return err
	}
	restart := p.round.restart && c.pc.RemoteDescription() != nil
	c.hold()
	offer, err := c.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: restart})
	if err != nil {
		return err
	}
	o := &ourOffer{since: time.Now()}
	plans, tracks := map[string]*description.Plan{}, map[string]string{}
	for _, t := range c.pc.GetTransceivers() {
		sl := p.slotOf(t)
		if sl == nil {
			continue
		}
		sl.mid = t.Mid()
		plans[sl.mid] = sl.offered()
		if sl.downlink != nil {
			tracks[sl.mid] = sl.downlink.options.TrackID
		}
		o.slots = append(o.slots, &slot{mid: sl.mid, kind: sl.kind, downlink: sl.downlink})
	}
	if err := c.pc.SetLocalDescription(offer); err != nil {
		return err
	}
	text, err := description.Compose(offer.SDP, plans, true)
	if err != nil {
		return err
	}
	p.round.restart = false
	p.round.nextID++
	o.event = OfferReady{ID: p.round.nextID, SDP: text, Tracks: tracks}
	p.round.offer = o
	p.emit(o.event)
	c.release()
	return nil
}

// placeOwn gives every waiting downlink a section: a free one of its kind, or a new one.
func (p *Peer) placeOwn() error {
	for _, d := range *p.downlinks.Load() {
		if d.placed() {
			continue
		}
		sl := p.freeSlot(d.kind)
		var sender *webrtc.RTPSender
		var err error
		if sl != nil {
			if sender, err = p.server.api.NewRTPSender(d, transportOf(p.server.pc)); err == nil {
				err = sl.transceiver.SetSender(sender, d)
			}
		} else {
			var t *webrtc.RTPTransceiver
			t, err = p.server.pc.AddTransceiverFromTrack(d, webrtc.RTPTransceiverInit{
				Direction: webrtc.RTPTransceiverDirectionSendonly,
			})
			if err == nil {
				sender = t.Sender()
				sl = &slot{kind: d.kind, transceiver: t}
				p.round.slots = append(p.round.slots, sl)
			}
		}
		if err != nil {
			return fmt.Errorf("send %s: %w", d.options.TrackID, err)
		}
		sl.downlink = d
		d.place(p.server, sender, description.FindFormat(d.options.Mime).RTX != 0)
	}
	return nil
}

func (p *Peer) freeSlot(k description.Kind) *slot {
	for _, s := range p.round.slots {
		if s.kind == k && s.downlink == nil && !s.resting {
			return s
		}
	}
	return nil
}

func (p *Peer) slotOf(t *webrtc.RTPTransceiver) *slot {
	for _, s := range p.round.slots {
		if s.transceiver == t {
			return s
		}
	}
	return nil
}

// offered plans a section of our own offer.
func (s *slot) offered() *description.Plan {
	p := &description.Plan{Direction: "inactive"}
	format := description.FindFormat("audio/opus")
	feedback := description.AudioFeedback
	if s.kind == description.Video {
		format, feedback = description.FindFormat("video/VP8"), description.SentFeedback
		p.Extensions = []description.Extension{{ID: ownTransportCC, URI: description.URITransportCC}, {ID: ownDependency, URI: description.URIDependency}}
	}
	p.Extensions = append(p.Extensions, description.Extension{ID: ownCaptureTime, URI: description.URICaptureTime})
	stereo := ""
	if s.downlink != nil {
		p.Direction = "sendonly"
		p.Send = s.downlink.sending()
		format = description.FindFormat(s.downlink.options.Mime)
		if s.downlink.options.Stereo && format.Mime == "audio/opus" {
			stereo = ";sprop-stereo=1"
		}
	}
	p.Codecs = []description.Codec{format.Own(stereo, feedback)}
	if format.Mime == "audio/red" {
		p.Codecs = append(p.Codecs, description.FindFormat("audio/opus").Own(stereo, feedback))
	}
	return p
}

// Answer applies a dual-mode client's answer to our offer id; 0 stands for the outstanding one. ErrStale means that it
// answers another one and was ignored.
func (p *Peer) Answer(id uint32, sdp string) (err error) {
	defer p.recover("answer")
	p.negotiation.Lock()
	defer p.negotiation.Unlock()
	err = ErrClosed // of a panic
	o := p.round.offer
	if o == nil || id != 0 && id != o.event.ID {
		return fmt.Errorf("%w: id %d", ErrStale, id)
	}
	d, refusal := description.Parse(sdp)
	if refusal == nil {
		refusal = p.applyAnswer(d)
	}
	if refusal != nil {
		p.engine.counts.badDescriptions.Add(1)
		return refusal
	}
	p.round.offer = nil
	p.server.addRemotes(d)
	for _, sl := range o.slots {
		p.settle(sl, d.Find(sl.mid))
	}
	p.settled()
	return nil
}

func (p *Peer) applyAnswer(d *description.Description) error {
	text, err := d.Answer()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadDescription, err)
	}
	desc := webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: text}
	if err := p.server.pc.SetRemoteDescription(desc); err != nil {
		return fmt.Errorf("%w: %w", ErrBadDescription, err)
	}
	return nil
}

// settle takes what the client answered to one section as it was offered.
func (p *Peer) settle(offered *slot, s *description.Section) {
	var current *slot
	for _, sl := range p.round.slots {
		if sl.mid == offered.mid {
			current = sl
		}
	}
	if current == nil {
		return
	}
	d := offered.downlink
	switch {
	case d == nil:
		current.resting = false // the client knows that it is free
	case current.downlink != d: // removed meanwhile: the next offer says so
	case s == nil || s.Rejected || !s.Receives || s.Codec(d.options.Mime) == nil:
		p.dropDownlink(d.options.TrackID)
		p.round.release(d)
		p.emit(DownlinkRefused{TrackID: d.options.TrackID})
	default:
		w := wireOf(s, d)
		d.negotiated(w)
	}
}
