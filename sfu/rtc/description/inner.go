package description

import (
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
)

// Pion is told a simplified form of every description. It negotiates codecs once per connection and by exact parameters,
// drops a whole description over one odd line, and takes several SSRCs in a section for Plan B; clients differ from
// section to section. So Pion sees each codec that we can forward under the client's payload type with parameters that
// it is certain to accept, and no streams: packets never reach it. What the client is told in return is written by Compose.

// innerAttributes are passed on as they are.
var innerAttributes = []string{
	"mid", "sendrecv", "sendonly", "recvonly", "inactive", "ice-ufrag", "ice-pwd", "ice-options", "fingerprint",
	"setup", "rtcp-mux", "bundle-only", "sctp-port", "max-message-size", "group", "extmap-allow-mixed",
}

// Offer returns an offer with all of its sections in the form that Pion is given.
func (d *Description) Offer() (string, error) { return d.simplify(nil) }

// Answer is the same for an answer to an offer of ours. Sections that the client rejected keep the codecs that we
// offered: Pion takes the first answer's codecs for those of the whole connection.
func (d *Description) Answer() (string, error) {
	return d.simplify(func(k Kind) []Codec {
		var out []Codec
		for i := range Formats {
			if f := &Formats[i]; f.Video() == (k == Video) {
				out = append(out, Codec{Format: f, Payload: f.Payload, RTX: f.RTX})
			}
		}
		return out
	})
}

// simplify does the work; fallback names the codecs of sections without any.
func (d *Description) simplify(fallback func(Kind) []Codec) (string, error) {
	out := *d.parsed
	out.Attributes = keep(d.parsed.Attributes)
	out.MediaDescriptions = nil
	for _, s := range d.Sections {
		out.MediaDescriptions = append(out.MediaDescriptions, s.inner(fallback))
	}
	text, err := out.Marshal()
	return string(text), err
}

// transportAttributes say how the transport is set up. Sections of a bundle may leave them to the first (RFC 8843 §7.1.3).
var transportAttributes = []string{"ice-ufrag", "ice-pwd", "ice-options", "fingerprint", "setup"}

// Carrier returns an offer as Pion is told it where it need not know the sections: one stands for all, since all have one transport and Pion moves no media.
// Offers that differ in nothing else have the same. It goes by the name of the first section, by which clients know the transport (RFC 8843 §7.2): Chromium ignores
// candidates that come under any other.
func (d *Description) Carrier() (string, error) {
	s := d.carrier()
	m, mid := s.inner(nil), d.tag()
	m.MediaName.Port.Value = 9 // a section that is only in a bundle has none
	m.Attributes = slices.DeleteFunc(undirected(named(m.Attributes, mid)), func(a sdp.Attribute) bool { return a.Key == "bundle-only" })
	if s.Kind != Application {
		m.WithPropertyAttribute("sendonly") // whatever it is by now: Pion would stop what is only on hold
	}
	out := *d.parsed
	out.Origin = sdp.Origin{Username: "-", NetworkType: "IN", AddressType: "IP4", UnicastAddress: "0.0.0.0"} // it counts offers
	out.Attributes = slices.DeleteFunc(undirected(keep(d.parsed.Attributes)), func(a sdp.Attribute) bool { return a.Key == "group" })
	out.WithValueAttribute("group", "BUNDLE "+mid)
	for _, key := range transportAttributes {
		if _, ok := m.Attribute(key); ok {
			continue
		}
		if value, ok := d.transport(key); ok {
			m.WithValueAttribute(key, value)
		}
	}
	out.MediaDescriptions = []*sdp.MediaDescription{m}
	text, err := out.Marshal()
	return string(text), err
}

// carrier is the section of the data channels, or else the first that takes part, if possible one with a codec that we know: others Pion rejects.
func (d *Description) carrier() (found *Section) {
	for _, s := range d.Sections {
		switch {
		case s.Rejected:
		case s.Kind == Application:
			return s
		case found == nil || len(found.codecs) == 0:
			found = s
		}
	}
	return found
}

// tag is the mid of the first section that takes part.
func (d *Description) tag() string {
	for _, s := range d.Sections {
		if !s.Rejected {
			return s.MID
		}
	}
	return ""
}

// transport is an attribute of the one transport: the session's, or else that of the first section which says it.
func (d *Description) transport(key string) (string, bool) {
	if v, ok := d.parsed.Attribute(key); ok {
		return v, true
	}
	for _, s := range d.Sections {
		if v, ok := s.media.Attribute(key); ok && !s.Rejected {
			return v, true
		}
	}
	return "", false
}

func keep(attributes []sdp.Attribute) []sdp.Attribute {
	var out []sdp.Attribute
	for _, a := range attributes {
		if slices.Contains(innerAttributes, a.Key) {
			out = append(out, a)
		}
	}
	return out
}

func (s *Section) inner(fallback func(Kind) []Codec) *sdp.MediaDescription {
	m := *s.media
	m.Attributes = keep(s.media.Attributes)
	if s.Kind == Application {
		return &m
	}
	m.MediaName.Formats = nil
	codecs := s.codecs
	if len(codecs) == 0 && fallback != nil {
		codecs = fallback(s.Kind)
	}
	for _, c := range codecs {
		m.WithCodec(c.Payload, c.Format.Name(), c.Format.Rate, c.Format.Channels, c.Format.FMTP)
		if c.RTX != 0 {
			m.WithCodec(c.RTX, "rtx", c.Format.Rate, 0, APT(c.Payload))
		}
	}
	if len(m.MediaName.Formats) == 0 {
		m.MediaName.Formats = []string{"0"} // nothing in common: Pion rejects it, and so does Compose
		m.WithValueAttribute("rtpmap", "0 none/8000")
	}
	return &m
}

// Streams returns the SSRCs that the section declares for its one stream: of several simulcast SSRCs the last, which by custom has the highest
// resolution, that of its retransmissions (RFC 4588 §8.8, 0 = not declared), and the others.
func (s *Section) Streams() (primary, repair uint32, others []uint32) {
	if len(s.SSRCs) == 0 {
		return 0, 0, nil
	}
	last := len(s.SSRCs) - 1
	primary = s.SSRCs[last]
	name := strconv.FormatUint(uint64(primary), 10)
	for _, a := range s.media.Attributes {
		fields := strings.Fields(a.Value)
		if a.Key == "ssrc-group" && len(fields) == 3 && fields[0] == "FID" && fields[1] == name {
			if n, err := strconv.ParseUint(fields[2], 10, 32); err == nil {
				repair = uint32(n)
			}
		}
	}
	return primary, repair, s.SSRCs[:last]
}
