package description

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
)

// Pion is told a simplified form of every description. It negotiates codecs once per connection and by exact parameters,
// drops a whole description over one odd line, and takes several SSRCs in a section for Plan B; clients differ from
// section to section. So Pion sees each codec that we can forward under the client's payload type with parameters that
// it is certain to accept, the three header extensions that it demultiplexes by, and at most one SSRC per stream. What
// the client is told in return is written by Compose.

// innerAttributes are passed on as they are.
var innerAttributes = []string{
	"mid", "sendrecv", "sendonly", "recvonly", "inactive", "ice-ufrag", "ice-pwd", "ice-options", "fingerprint",
	"setup", "rtcp-mux", "bundle-only", "sctp-port", "max-message-size", "group", "extmap-allow-mixed",
}

// Offer returns an offer in the form that Pion is given.
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
	for _, uri := range []string{URIMID, URIRID, URIRepairedRID} {
		if id := s.exts[uri]; id != 0 {
			m.WithValueAttribute("extmap", fmt.Sprintf("%d %s", id, uri))
		}
	}
	if s.Sends {
		s.innerStreams(&m)
	}
	return &m
}

// innerStreams declares the section's streams: its rids, or else one SSRC with its retransmissions.
func (s *Section) innerStreams(m *sdp.MediaDescription) {
	stream, cid := s.StreamID, s.CID
	if stream == "" {
		stream = "-"
	}
	if cid == "" {
		cid = s.MID // Pion ignores streams of tracks without a name
	}
	m.WithValueAttribute("msid", stream+" "+cid)
	if len(s.RIDs) > 0 {
		for _, rid := range s.RIDs {
			m.WithValueAttribute("rid", rid+" send")
		}
		m.WithValueAttribute("simulcast", "send "+strings.Join(s.RIDs, ";"))
		return
	}
	if len(s.SSRCs) == 0 {
		return
	}
	primary := strconv.FormatUint(uint64(s.primary()), 10)
	for _, a := range s.media.Attributes {
		fields := strings.Fields(a.Value)
		if a.Key == "ssrc-group" && len(fields) == 3 && fields[0] == "FID" && fields[1] == primary {
			m.WithValueAttribute("ssrc-group", "FID "+primary+" "+fields[2])
			break
		}
	}
	m.WithValueAttribute("ssrc", primary+" cname:-")
}

// primary is the one SSRC that Pion is told of a section without rids: of several simulcast SSRCs the last, which by
// custom has the highest resolution.
func (s *Section) primary() uint32 { return s.SSRCs[len(s.SSRCs)-1] }
