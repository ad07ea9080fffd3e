package rtc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
)

// plan says how one media section of ours is to read. The transport lines come from Pion's own description.
type plan struct {
	direction string // ours: "sendonly", "recvonly", "inactive"
	codecs    []planCodec
	exts      []planExt
	rids      []string // simulcast streams that we receive
	send      *sending // what we send, nil = nothing yet
	rejected  bool
}

type planCodec struct {
	format   *format
	payload  uint8
	rtx      uint8
	fmtp     string
	feedback []string
}

type planExt struct {
	id        uint8
	uri       string
	direction string // ours, if restricted
}

// sending identifies a track that we send.
type sending struct {
	stream, track, cname string
	ssrc, rtx            uint32 // rtx 0 = none
}

// Feedback that we understand (RFC 4585, RFC 5104).
var (
	videoFeedback = []string{"ccm fir", "nack", "nack pli"}
	audioFeedback = []string{"nack"}
)

// compose writes the description that the client is told: the transport and the order of sections of Pion's
// description, with media sections as planned by mid. A section without a plan is rejected.
func compose(pion string, plans map[string]*plan, mixed bool) (string, error) {
	d := &sdp.SessionDescription{}
	if err := d.UnmarshalString(pion); err != nil {
		return "", fmt.Errorf("read our own description: %w", err)
	}
	var attributes []sdp.Attribute
	for _, a := range d.Attributes {
		switch a.Key {
		case "fingerprint":
			attributes = append(attributes, a)
		}
	}
	attributes = append(attributes, sdp.NewAttribute("ice-options", "trickle"))
	var bundle []string
	for _, m := range d.MediaDescriptions {
		mid, _ := m.Attribute("mid")
		if m.MediaName.Media == "application" {
			m.Attributes = transportLines(m)
			m.WithPropertyAttribute("sendrecv").WithValueAttribute("sctp-port", "5000").
				WithValueAttribute("max-message-size", strconv.Itoa(maxMessageSize))
		} else {
			plans[mid].write(m)
		}
		if m.MediaName.Port.Value != 0 {
			bundle = append(bundle, mid)
		}
	}
	d.Attributes = append(attributes, sdp.NewAttribute("msid-semantic", "WMS *"))
	if mixed {
		d.Attributes = append(d.Attributes, sdp.NewPropertyAttribute("extmap-allow-mixed"))
	}
	if len(bundle) > 0 {
		group := sdp.NewAttribute("group", "BUNDLE "+strings.Join(bundle, " "))
		d.Attributes = append([]sdp.Attribute{group}, d.Attributes...)
	}
	text, err := d.Marshal()
	return string(text), err
}

// transportLines keeps the lines of a section that belong to ICE, DTLS and bundling.
func transportLines(m *sdp.MediaDescription) []sdp.Attribute {
	var out []sdp.Attribute
	for _, a := range m.Attributes {
		switch a.Key {
		case "mid", "ice-ufrag", "ice-pwd", "setup":
			out = append(out, a)
		}
	}
	return out
}

// write replaces the media lines of m; a nil plan rejects the section.
func (p *plan) write(m *sdp.MediaDescription) {
	if p == nil || p.rejected || len(p.codecs) == 0 {
		mid, _ := m.Attribute("mid")
		m.MediaName.Port = sdp.RangedPort{}
		m.MediaName.Formats = []string{"0"}
		m.Attributes = []sdp.Attribute{sdp.NewAttribute("mid", mid), sdp.NewPropertyAttribute("inactive")}
		return
	}
	m.Attributes = transportLines(m)
	m.MediaName.Formats = nil
	m.WithPropertyAttribute("rtcp-mux").WithPropertyAttribute("rtcp-rsize")
	for _, c := range p.codecs {
		c.write(m)
	}
	for _, e := range p.exts {
		id := strconv.Itoa(int(e.id))
		if e.direction != "" {
			id += "/" + e.direction
		}
		m.WithValueAttribute("extmap", id+" "+e.uri)
	}
	for _, rid := range p.rids {
		m.WithValueAttribute("rid", rid+" recv")
	}
	if len(p.rids) > 0 {
		m.WithValueAttribute("simulcast", "recv "+strings.Join(p.rids, ";"))
	}
	m.WithPropertyAttribute(p.direction)
	if p.send != nil {
		p.send.write(m)
	}
}

func (c *planCodec) write(m *sdp.MediaDescription) {
	channels := c.format.channels
	if channels == 1 {
		channels = 0 // implied
	}
	m.WithCodec(c.payload, c.format.name(), c.format.rate, channels, c.fmtp)
	for _, fb := range c.feedback {
		m.WithValueAttribute("rtcp-fb", fmt.Sprintf("%d %s", c.payload, fb))
	}
	if c.rtx != 0 {
		m.WithCodec(c.rtx, "rtx", c.format.rate, 0, aptLine(c.payload))
	}
}

func (s *sending) write(m *sdp.MediaDescription) {
	msid := s.stream + " " + s.track
	m.WithValueAttribute("msid", msid)
	ssrcs := []uint32{s.ssrc}
	if s.rtx != 0 {
		m.WithValueAttribute("ssrc-group", fmt.Sprintf("FID %d %d", s.ssrc, s.rtx))
		ssrcs = append(ssrcs, s.rtx)
	}
	for _, ssrc := range ssrcs {
		m.WithValueAttribute("ssrc", fmt.Sprintf("%d cname:%s", ssrc, s.cname))
		m.WithValueAttribute("ssrc", fmt.Sprintf("%d msid:%s", ssrc, msid))
	}
}

// common keeps the feedback that both sides understand, in our order.
func common(ours, offered []string) []string {
	var out []string
	for _, fb := range ours {
		if slices.Contains(offered, fb) {
			out = append(out, fb)
		}
	}
	return out
}

// extensions picks the header extensions of uris that the section offers, in the direction that answers the client's.
func (s *section) extensions(uris ...string) []planExt {
	var out []planExt
	for _, uri := range uris {
		e := planExt{id: s.exts[uri], uri: uri}
		switch s.oneWay[uri] {
		case "sendonly":
			e.direction = "recvonly"
		case "recvonly":
			e.direction = "sendonly"
		case "inactive":
			continue
		}
		if e.id != 0 {
			out = append(out, e)
		}
	}
	return out
}
