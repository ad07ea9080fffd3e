package description

import (
	"slices"
	"strings"
)

// Header extensions that are answered. They are the same whichever side sends: a browser offers on later sections only
// what earlier answers of the kind kept, and Chrome then refuses its own simulcast offer for want of rids.
var (
	audioExtensions = []string{URIMID, URIAudioLevel, URICaptureTime}
	videoExtensions = []string{URIMID, URIRID, URIRepairedRID, URITransportCC, URISendTime, URIDependency, URICaptureTime}
)

// Want is what the client asked for in add_track; codecs are ordered by it.
type Want struct {
	CID        string // client's track id, the second word of a=msid
	Video      bool
	Mime       string // wanted codec, empty = our preference
	DisableRED bool
	DisableDTX bool
	Stereo     bool
	Encrypted  bool // end-to-end encrypted: nothing may be transcoded or added
}

// Receive plans the answer to a section that the client sends on: one codec, the wanted one if it is offered, else the
// first of our order, and its retransmissions.
func (s *Section) Receive(w Want, allowRED bool) *Plan {
	p := &Plan{Direction: "recvonly"}
	if s.Kind == Audio {
		p.Codecs = s.audioCodecs(w, allowRED)
		p.Extensions = s.extensions(audioExtensions...)
		return p
	}
	if c := s.pick(w.Mime); c != nil {
		p.Codecs = []Codec{{c.Format, c.Payload, c.RTX, c.FMTP,
			common(append([]string{"transport-cc", "goog-remb"}, VideoFeedback...), c.Feedback)}}
	}
	p.Extensions = s.extensions(videoExtensions...)
	if s.exts[URIMID] != 0 && s.exts[URIRID] != 0 { // without them simulcast streams cannot be told apart
		p.RIDs = s.RIDs
	}
	return p
}

// audioCodecs answers Opus as add_track wants it, below RED where that is allowed.
func (s *Section) audioCodecs(w Want, allowRED bool) []Codec {
	c := s.pick(w.Mime)
	if c == nil || c.Format.Mime == "audio/red" {
		c = s.pick("audio/opus")
	}
	if c == nil {
		return nil
	}
	fmtp := c.Format.FMTP
	if c.Format.Mime == "audio/opus" {
		if !w.DisableDTX {
			fmtp += ";usedtx=1"
		}
		if w.Stereo {
			fmtp += ";stereo=1;maxaveragebitrate=510000"
		}
	}
	out := []Codec{{Format: c.Format, Payload: c.Payload, FMTP: fmtp, Feedback: c.feedback()}}
	if red := s.Codec("audio/red"); red != nil && allowRED && !w.DisableRED && !w.Encrypted {
		out = append([]Codec{{Format: red.Format, Payload: red.Payload, FMTP: red.FMTP}}, out...)
	}
	return out
}

// pick returns the wanted codec if offered, else the first of our order of preference that is, else nil.
func (s *Section) pick(mime string) *Codec {
	if c := s.Codec(mime); c != nil {
		return c
	}
	for i := range Formats {
		if Formats[i].Mime == "audio/red" {
			continue // never alone
		}
		if c := s.Codec(Formats[i].Mime); c != nil {
			return c
		}
	}
	return nil
}

// Codec returns the offered variant of a codec that the most receivers can decode, or nil.
func (s *Section) Codec(mime string) *Codec {
	var best *Codec
	for i := range s.codecs {
		c := &s.codecs[i]
		if strings.EqualFold(c.Format.Mime, mime) && (best == nil || c.rank() < best.rank()) {
			best = c
		}
	}
	return best
}

// rank orders the profiles of one codec, the most widely decodable first.
func (c *Codec) rank() int {
	switch c.Format.Mime {
	case "video/H264":
		profiles := []string{"42e0", "4200", "4d00"} // constrained baseline, baseline, main
		rank := slices.IndexFunc(profiles, func(p string) bool {
			return strings.HasPrefix(strings.ToLower(fmtpValue(c.FMTP, "profile-level-id")), p)
		})
		if rank < 0 {
			rank = len(profiles)
		}
		if fmtpValue(c.FMTP, "packetization-mode") != "1" {
			rank += len(profiles) + 1
		}
		return rank
	case "video/VP9":
		if p := fmtpValue(c.FMTP, "profile-id"); p != "" && p != "0" {
			return 1
		}
	case "video/AV1":
		if p := fmtpValue(c.FMTP, "profile"); p != "" && p != "0" {
			return 1
		}
	}
	return 0
}

// Send plans the answer to a section on which we may send: with the codec of the track that uses it, or, as long as none
// does, with everything that both sides know. Stereo asks for it where the codec is Opus.
func (s *Section) Send(mime string, stereo bool, send *Sending) *Plan {
	p := &Plan{Direction: "sendonly", Send: send}
	p.Extensions = s.extensions(audioExtensions...)
	if s.Kind == Video {
		p.Extensions = s.extensions(videoExtensions...)
	}
	if send == nil {
		for i := range s.codecs {
			p.Codecs = append(p.Codecs, s.codecs[i].sent(false))
		}
		return p
	}
	if c := s.Codec(mime); c != nil {
		p.Codecs = []Codec{c.sent(stereo)}
	}
	return p
}

// sent is the codec as we answer it for what we send.
func (c *Codec) sent(stereo bool) Codec {
	fmtp := c.FMTP
	if c.Format.Mime == "audio/opus" {
		fmtp = c.Format.FMTP
		if stereo {
			fmtp += ";sprop-stereo=1"
		}
	}
	return Codec{c.Format, c.Payload, c.RTX, fmtp, c.feedback()}
}

// feedback is what we answer: what the client offered and we understand. Opus may be asked for again even if that was not offered:
// Chromium never does, but it obeys an answer that says so, and without it every packet lost is sound lost. livekit-server answers so
// too; clients that do not know it ignore it.
func (c *Codec) feedback() []string {
	switch {
	case c.Format.Video():
		all := common(SentFeedback, c.Feedback)
		if slices.Contains(all, "transport-cc") {
			all = slices.DeleteFunc(all, func(f string) bool { return f == "goog-remb" })
		}
		return all
	case c.Format.Mime == "audio/opus":
		return AudioFeedback
	}
	return common(AudioFeedback, c.Feedback)
}
