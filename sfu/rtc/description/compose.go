package description

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
)

// Plan says how one media section of ours is to read. The transport lines come from Pion's own description.
type Plan struct {
	Direction  string // ours: "sendonly", "recvonly", "inactive"
	Codecs     []Codec
	Extensions []Extension
	RIDs       []string // simulcast streams that we receive
	Send       *Sending // what we send, nil = nothing yet
	Rejected   bool
	Bandwidth  int64 // bits/s that we want to receive at most, 0 = no limit
}

// Extension is a header extension of a section (RFC 8285).
type Extension struct {
	ID        uint8
	URI       string
	Direction string // ours, if restricted
}

// Sending identifies a track that we send.
type Sending struct {
	StreamID, TrackID, CNAME string
	SSRC, RTX                uint32 // RTX 0 = none
}

// Feedback that we understand (RFC 4585, RFC 5104).
var (
	VideoFeedback = []string{"ccm fir", "nack", "nack pli"}
	AudioFeedback = []string{"nack"}
	// SentFeedback is that on video that we send: reports on each packet, or else an estimate.
	SentFeedback = append([]string{"transport-cc", "goog-remb"}, VideoFeedback...)
)

// Compose writes the description that the client is told: the transport and the order of sections of Pion's
// description, with media sections as planned by mid. A section without a plan is rejected.
func Compose(pion string, plans map[string]*Plan, mixed bool) (string, error) {
	d := &sdp.SessionDescription{}
	if err := d.UnmarshalString(pion); err != nil {
		return "", fmt.Errorf("read our own description: %w", err)
	}
	return compose(d, plans, mixed)
}

// Reply writes the answer that the client is told to the offer d: the transport of Pion's answer to the offer's carrier, and a section for each of the
// offer's, as planned by mid. A media section without a plan is rejected. Later answers on a transport have higher versions.
func (d *Description) Reply(pion string, version uint64, plans map[string]*Plan) (string, error) {
	out := &sdp.SessionDescription{}
	if err := out.UnmarshalString(pion); err != nil {
		return "", fmt.Errorf("read our own description: %w", err)
	}
	if len(out.MediaDescriptions) != 1 {
		return "", fmt.Errorf("our own description has %d sections, not the carrier's alone", len(out.MediaDescriptions))
	}
	carrier := out.MediaDescriptions[0]
	transport := transportLines(carrier)
	out.Origin.SessionVersion += version
	out.MediaDescriptions = make([]*sdp.MediaDescription, 0, len(d.Sections))
	for _, s := range d.Sections {
		m := &sdp.MediaDescription{MediaName: s.media.MediaName, ConnectionInformation: carrier.ConnectionInformation}
		if m.MediaName.Port = carrier.MediaName.Port; s.Rejected {
			m.MediaName.Port = sdp.RangedPort{}
		}
		m.Attributes = named(transport, s.MID)
		out.MediaDescriptions = append(out.MediaDescriptions, m)
	}
	return compose(out, plans, d.Mixed)
}

// compose writes the sections of d as planned.
func compose(d *sdp.SessionDescription, plans map[string]*Plan, mixed bool) (string, error) {
	var attributes []sdp.Attribute
	for _, a := range d.Attributes {
		switch a.Key {
		case "fingerprint", "ice-lite":
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
				WithValueAttribute("max-message-size", strconv.Itoa(MaxMessageSize))
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

// usualLines is how many lines most sections have room enough with.
const usualLines = 24

// transportLines keeps the lines of a section that belong to ICE, DTLS and bundling.
func transportLines(m *sdp.MediaDescription) []sdp.Attribute {
	out := make([]sdp.Attribute, 0, 4)
	for _, a := range m.Attributes {
		switch a.Key {
		case "mid", "ice-ufrag", "ice-pwd", "setup":
			out = append(out, a)
		}
	}
	return out
}

// named returns the lines of a section as those of the section mid.
func named(lines []sdp.Attribute, mid string) []sdp.Attribute {
	out := slices.Clone(lines)
	for i := range out {
		if out[i].Key == "mid" {
			out[i].Value = mid
		}
	}
	return out
}

// bandwidth says what may be sent to us, in both ways that clients read (RFC 8866 §5.8, RFC 3890).
func (p *Plan) bandwidth() []sdp.Bandwidth {
	if p.Bandwidth <= 0 {
		return nil
	}
	return []sdp.Bandwidth{
		{Type: "AS", Bandwidth: uint64(max(p.Bandwidth/1000, 1))},
		{Type: "TIAS", Bandwidth: uint64(p.Bandwidth)},
	}
}

// write replaces the media lines of m; a nil plan rejects the section.
func (p *Plan) write(m *sdp.MediaDescription) {
	if p == nil || p.Rejected || len(p.Codecs) == 0 {
		mid, _ := m.Attribute("mid")
		m.MediaName.Port = sdp.RangedPort{}
		m.MediaName.Formats = []string{"0"}
		m.Attributes = []sdp.Attribute{sdp.NewAttribute("mid", mid), sdp.NewPropertyAttribute("inactive")}
		return
	}
	m.Attributes = append(make([]sdp.Attribute, 0, usualLines), transportLines(m)...)
	m.Bandwidth = p.bandwidth()
	m.MediaName.Formats = nil
	m.WithPropertyAttribute("rtcp-mux").WithPropertyAttribute("rtcp-rsize")
	for _, c := range p.Codecs {
		c.write(m)
	}
	for _, e := range p.Extensions {
		id := strconv.Itoa(int(e.ID))
		if e.Direction != "" {
			id += "/" + e.Direction
		}
		m.WithValueAttribute("extmap", id+" "+e.URI)
	}
	for _, rid := range p.RIDs {
		m.WithValueAttribute("rid", rid+" recv")
	}
	if len(p.RIDs) > 0 {
		m.WithValueAttribute("simulcast", "recv "+strings.Join(p.RIDs, ";"))
	}
	m.WithPropertyAttribute(p.Direction)
	if p.Send != nil {
		p.Send.write(m)
	}
}

func (c *Codec) write(m *sdp.MediaDescription) {
	channels := c.Format.Channels
	if channels == 1 {
		channels = 0 // implied
	}
	m.WithCodec(c.Payload, c.Format.Name(), c.Format.Rate, channels, c.FMTP)
	for _, fb := range c.Feedback {
		m.WithValueAttribute("rtcp-fb", fmt.Sprintf("%d %s", c.Payload, fb))
	}
	if c.RTX != 0 {
		m.WithCodec(c.RTX, "rtx", c.Format.Rate, 0, APT(c.Payload))
	}
}

func (s *Sending) write(m *sdp.MediaDescription) {
	msid := s.StreamID + " " + s.TrackID
	m.WithValueAttribute("msid", msid)
	ssrcs := []uint32{s.SSRC}
	if s.RTX != 0 {
		m.WithValueAttribute("ssrc-group", fmt.Sprintf("FID %d %d", s.SSRC, s.RTX))
		ssrcs = append(ssrcs, s.RTX)
	}
	for _, ssrc := range ssrcs {
		m.WithValueAttribute("ssrc", fmt.Sprintf("%d cname:%s", ssrc, s.CNAME))
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
func (s *Section) extensions(uris ...string) []Extension {
	var out []Extension
	for _, uri := range uris {
		e := Extension{ID: s.exts[uri], URI: uri}
		switch s.oneWay[uri] {
		case "sendonly":
			e.Direction = "recvonly"
		case "recvonly":
			e.Direction = "sendonly"
		case "inactive":
			continue
		}
		if e.ID != 0 {
			out = append(out, e)
		}
	}
	return out
}
