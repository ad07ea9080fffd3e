package signalling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"callserver/sfu"
	"callserver/sfu/codec"
	"callserver/sfu/rtc"
)

// legVideo are the codecs in which pictures are passed between a leg and the room, in the order of preference. All clients have the first.
var legVideo = []codec.Codec{codec.VP8, codec.H264, codec.VP9}

// Answer answers an offer of the remote's: the first, one that adds or drops something, or an ICE restart. An offer of ours that is
// outstanding is taken back, and wanted again. A refusal is an *Error.
func (l *Leg) Answer(ctx context.Context, offer string) (LegDescription, error) {
	l.exchange.Lock()
	defer l.exchange.Unlock()
	sections, err := rtc.Sections(offer)
	if err != nil {
		return LegDescription{}, refused("offer", err)
	}
	l.mu.Lock()
	wants, err := l.makePlacesLocked(sections)
	l.mu.Unlock()
	if err != nil {
		return LegDescription{}, Wrong(err)
	}
	a, err := l.sess.peer.Offer(0, offer, wants)
	if err != nil {
		return LegDescription{}, refused("offer", err)
	}
	l.agreed(sections, a)
	return l.complete(ctx, a)
}

// Offer makes an offer. While one is outstanding it takes that one's place.
func (l *Leg) Offer(ctx context.Context) (LegDescription, error) {
	l.exchange.Lock()
	defer l.exchange.Unlock()
	l.mu.Lock()
	err := l.proposePlacesLocked()
	l.mu.Unlock()
	if err != nil {
		return LegDescription{}, Wrong(err)
	}
	a, err := l.sess.peer.Propose()
	if err != nil {
		return LegDescription{}, Wrong(err)
	}
	return l.complete(ctx, a)
}

// Accept takes the answer to our offer. One that is not outstanding any more is left out.
func (l *Leg) Accept(answer string) error {
	l.exchange.Lock()
	defer l.exchange.Unlock()
	sections, err := rtc.Sections(answer)
	if err != nil {
		return refused("answer", err)
	}
	l.mu.Lock()
	wants := l.wantsLocked(sections)
	l.mu.Unlock()
	a, err := l.sess.peer.Accept(answer, wants)
	switch {
	case errors.Is(err, rtc.ErrStale):
		return nil
	case err != nil:
		return refused("answer", err)
	}
	l.agreed(sections, a)
	return nil
}

func refused(what string, err error) error {
	return &Error{Code: Invalid, Text: what + " refused", Err: fmt.Errorf("%s of a leg's remote: %w", what, err)}
}

// makePlacesLocked makes room for what the remote can receive, and returns in which codecs it is to send.
func (l *Leg) makePlacesLocked(sections []rtc.Offered) ([]rtc.Want, error) {
	for _, s := range sections {
		place, mime := hearing, codec.Opus.Mime()
		if s.Video {
			place, mime = seeing, l.pictureLocked(s.Mimes)
		}
		if l.outgoing[place] != nil || !slices.Contains(s.Mimes, mime) {
			continue
		}
		if err := l.openLocked(place, mime); err != nil {
			return nil, err
		}
	}
	return l.wantsLocked(sections), nil
}

// proposePlacesLocked makes room for what the first offer proposes.
func (l *Leg) proposePlacesLocked() error {
	if l.described {
		return nil
	}
	for place, mime := range map[int]string{hearing: codec.Opus.Mime(), seeing: l.pictureLocked(nil)} {
		if l.outgoing[place] == nil && (place == hearing || l.options.Video) {
			if err := l.openLocked(place, mime); err != nil {
				return err
			}
		}
	}
	return nil
}

// pictureLocked is the codec of pictures: of those offered (nil: all) the one that cameras in the room have, or else the first that we know.
func (l *Leg) pictureLocked(offered []string) string {
	if o := l.outgoing[seeing]; o != nil {
		return o.stage.Source().Codec().Mime()
	}
	var known []string
	for _, c := range legVideo {
		if offered == nil || slices.Contains(offered, c.Mime()) {
			known = append(known, c.Mime())
		}
	}
	for _, other := range l.others {
		for _, t := range other.Tracks {
			if t.Source == sfu.Camera && slices.Contains(known, t.Mime) {
				return t.Mime
			}
		}
	}
	if len(known) == 0 {
		return ""
	}
	return known[0]
}

// wantsLocked is in which codecs the remote is to send.
func (l *Leg) wantsLocked(sections []rtc.Offered) []rtc.Want {
	wants := make([]rtc.Want, 0, len(sections))
	for _, s := range sections {
		w := rtc.Want{CID: s.CID, Video: s.Video, Mime: codec.Opus.Mime(), DisableRED: true, Encrypted: l.options.Encrypted}
		if s.Video {
			w.Mime = l.pictureLocked(s.Mimes)
		}
		wants = append(wants, w)
	}
	return wants
}

// agreed follows an exchange of descriptions.
func (l *Leg) agreed(sections []rtc.Offered, a rtc.Answer) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.described {
		l.described = true
		l.sess.part.SetState(sfu.Joined, now)
	}
	present, held := map[string]bool{}, true
	for _, s := range sections {
		present[s.MID] = true
		held = held && !s.Receives
	}
	l.receiveLocked(a.Sections, present, now)
	if held != l.held {
		l.held = held
		l.tellLocked(Held{On: held})
	}
	if o := l.outgoing[watching]; o != nil && !l.placedLocked(o, a) {
		l.tellLocked(OfferWanted{})
	}
	l.castLocked(now)
}

// placedLocked reports whether a stream has its section.
func (l *Leg) placedLocked(o *outgoing, a rtc.Answer) bool {
	for _, track := range a.Tracks {
		if track == o.id {
			return true
		}
	}
	return false
}

// complete makes a description of ours out of an exchange.
func (l *Leg) complete(ctx context.Context, a rtc.Answer) (LegDescription, error) {
	text, err := l.sess.peer.Complete(ctx, a.SDP)
	if err != nil {
		return LegDescription{}, Wrong(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	d := LegDescription{SDP: text, Streams: map[string]LegStream{}}
	for _, o := range l.outgoing {
		if o == nil || !l.placedLocked(o, a) {
			continue
		}
		s, known := d.Streams[o.stream]
		if !known {
			s = LegStream{Screen: o.place == watching, AudioMuted: true, VideoMuted: true}
		}
		dark := o.shown.Identity == "" || o.shown.Muted
		if o.place == hearing {
			s.AudioMuted = dark
		} else {
			s.VideoMuted = dark
		}
		d.Streams[o.stream] = s
	}
	return d, nil
}
