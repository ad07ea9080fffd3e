package rtc

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
// the client is told in return is written by compose.

// innerAttributes are passed on as they are.
var innerAttributes = []string{
	"mid", "sendrecv", "sendonly", "recvonly", "inactive", "ice-ufrag", "ice-pwd", "ice-options", "fingerprint",
	"setup", "rtcp-mux", "bundle-only", "sctp-port", "max-message-size", "group", "extmap-allow-mixed",
}

// inner returns the description in the form that Pion is given.
func (d *description) inner() (string, error) {
	out := *d.parsed
	out.Attributes = keep(d.parsed.Attributes)
	out.MediaDescriptions = nil
	for _, s := range d.sections {
		out.MediaDescriptions = append(out.MediaDescriptions, s.inner())
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

func (s *section) inner() *sdp.MediaDescription {
	m := *s.media
	m.Attributes = keep(s.media.Attributes)
	if s.kind == application {
		return &m
	}
	m.MediaName.Formats = nil
	for _, c := range s.codecs {
		m.WithCodec(c.payload, c.format.name(), c.format.rate, c.format.channels, c.format.fmtp)
		if c.rtx != 0 {
			m.WithCodec(c.rtx, "rtx", c.format.rate, 0, aptLine(c.payload))
		}
	}
	if len(m.MediaName.Formats) == 0 {
		m.MediaName.Formats = []string{"0"} // nothing in common: Pion rejects it, and so does compose
		m.WithValueAttribute("rtpmap", "0 none/8000")
	}
	for _, uri := range []string{uriMID, uriRID, uriRepairedRID} {
		if id := s.exts[uri]; id != 0 {
			m.WithValueAttribute("extmap", fmt.Sprintf("%d %s", id, uri))
		}
	}
	if s.sends {
		s.innerStreams(&m)
	}
	return &m
}

// innerStreams declares the section's streams: its rids, or else one SSRC with its retransmissions.
func (s *section) innerStreams(m *sdp.MediaDescription) {
	stream, cid := s.stream, s.cid
	if stream == "" {
		stream = "-"
	}
	if cid == "" {
		cid = s.mid // Pion ignores streams of tracks without a name
	}
	m.WithValueAttribute("msid", stream+" "+cid)
	if len(s.rids) > 0 {
		for _, rid := range s.rids {
			m.WithValueAttribute("rid", rid+" send")
		}
		m.WithValueAttribute("simulcast", "send "+strings.Join(s.rids, ";"))
		return
	}
	if len(s.ssrcs) == 0 {
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
func (s *section) primary() uint32 { return s.ssrcs[len(s.ssrcs)-1] }
