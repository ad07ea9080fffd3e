package rtc

import (
	"slices"
	"strings"
)

// Header extensions that are answered. They are the same whichever side sends: a browser offers on later sections only
// what earlier answers of the kind kept, and Chrome then refuses its own simulcast offer for want of rids.
var (
	audioExtensions = []string{uriMID, uriAudioLevel, uriCaptureTime}
	videoExtensions = []string{uriMID, uriRID, uriRepairedRID, uriTransportCC, uriDependency, uriCaptureTime}
)

// receive plans the answer to a section that the client sends on: one codec, the wanted one if it is offered, else the
// first of our order, and its retransmissions.
func (s *section) receive(w Want, allowRED bool) *plan {
	p := &plan{direction: "recvonly"}
	if s.kind == audio {
		p.codecs = s.audioCodecs(w, allowRED)
		p.exts = s.extensions(audioExtensions...)
		return p
	}
	if c := s.pick(w.Mime); c != nil {
		p.codecs = []planCodec{{c.format, c.payload, c.rtx, c.fmtp,
			common(append([]string{"transport-cc"}, videoFeedback...), c.feedback)}}
	}
	p.exts = s.extensions(videoExtensions...)
	if s.exts[uriMID] != 0 && s.exts[uriRID] != 0 { // without them simulcast streams cannot be told apart
		p.rids = s.rids
	}
	return p
}

// audioCodecs answers Opus as add_track wants it, below RED where that is allowed.
func (s *section) audioCodecs(w Want, allowRED bool) []planCodec {
	c := s.pick(w.Mime)
	if c == nil || c.format.mime == "audio/red" {
		c = s.pick("audio/opus")
	}
	if c == nil {
		return nil
	}
	fmtp := c.format.fmtp
	if c.format.mime == "audio/opus" {
		if !w.DisableDTX {
			fmtp += ";usedtx=1"
		}
		if w.Stereo {
			fmtp += ";stereo=1;maxaveragebitrate=510000"
		}
	}
	out := []planCodec{{format: c.format, payload: c.payload, fmtp: fmtp, feedback: common(audioFeedback, c.feedback)}}
	if red := s.codec("audio/red"); red != nil && allowRED && !w.DisableRED && !w.Encrypted {
		out = append([]planCodec{{format: red.format, payload: red.payload, fmtp: red.fmtp}}, out...)
	}
	return out
}

// pick returns the wanted codec if offered, else the first of our order of preference that is, else nil.
func (s *section) pick(mime string) *offeredCodec {
	if c := s.codec(mime); c != nil {
		return c
	}
	for i := range formats {
		if formats[i].mime == "audio/red" {
			continue // never alone
		}
		if c := s.codec(formats[i].mime); c != nil {
			return c
		}
	}
	return nil
}

// codec returns the offered variant of a codec that the most receivers can decode, or nil.
func (s *section) codec(mime string) *offeredCodec {
	var best *offeredCodec
	for i := range s.codecs {
		c := &s.codecs[i]
		if strings.EqualFold(c.format.mime, mime) && (best == nil || c.rank() < best.rank()) {
			best = c
		}
	}
	return best
}

// rank orders the profiles of one codec, the most widely decodable first.
func (c *offeredCodec) rank() int {
	switch c.format.mime {
	case "video/H264":
		profiles := []string{"42e0", "4200", "4d00"} // constrained baseline, baseline, main
		rank := slices.IndexFunc(profiles, func(p string) bool {
			return strings.HasPrefix(strings.ToLower(fmtpValue(c.fmtp, "profile-level-id")), p)
		})
		if rank < 0 {
			rank = len(profiles)
		}
		if fmtpValue(c.fmtp, "packetization-mode") != "1" {
			rank += len(profiles) + 1
		}
		return rank
	case "video/VP9":
		if p := fmtpValue(c.fmtp, "profile-id"); p != "" && p != "0" {
			return 1
		}
	case "video/AV1":
		if p := fmtpValue(c.fmtp, "profile"); p != "" && p != "0" {
			return 1
		}
	}
	return 0
}

// answerSending plans the answer to a section on which we may send: with the codec of the downlink that uses it, or, as
// long as none does, with everything that both sides know.
func (s *section) answerSending(d *downlink) *plan {
	p := &plan{direction: "sendonly"}
	p.exts = s.extensions(audioExtensions...)
	if s.kind == video {
		p.exts = s.extensions(videoExtensions...)
	}
	if d == nil {
		for i := range s.codecs {
			p.codecs = append(p.codecs, s.codecs[i].sent(false))
		}
		return p
	}
	if c := s.codec(d.options.Mime); c != nil {
		p.codecs = []planCodec{c.sent(d.options.Stereo)}
	}
	p.send = d.sending()
	return p
}

// sent is the codec as we answer it for what we send.
func (c *offeredCodec) sent(stereo bool) planCodec {
	feedback := audioFeedback
	if c.format.video() {
		feedback = videoFeedback
	}
	fmtp := c.fmtp
	if c.format.mime == "audio/opus" {
		fmtp = c.format.fmtp
		if stereo {
			fmtp += ";sprop-stereo=1"
		}
	}
	return planCodec{c.format, c.payload, c.rtx, fmtp, common(feedback, c.feedback)}
}
