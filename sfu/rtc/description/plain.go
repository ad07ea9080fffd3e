package description

import (
	"fmt"
	"strings"

	"github.com/pion/sdp/v3"
)

// What peers without the client protocol need: descriptions complete with candidates, and further offers of ours on a connection
// that they may have offered.

// InnerBoth returns a description in the form that Pion is given, whatever the directions of its sections: Pion moves no media, and
// would stop what is only on hold.
func (d *Description) InnerBoth(answer bool) (string, error) {
	inner := d.Offer
	if answer {
		inner = d.Answer
	}
	text, err := inner()
	if err != nil {
		return "", err
	}
	out := &sdp.SessionDescription{}
	if err := out.UnmarshalString(text); err != nil {
		return "", err
	}
	out.Attributes = undirected(out.Attributes)
	for _, m := range out.MediaDescriptions {
		if m.MediaName.Media != "application" {
			m.Attributes = append(undirected(m.Attributes), sdp.NewPropertyAttribute("sendonly"))
		}
	}
	simple, err := out.Marshal()
	return string(simple), err
}

func undirected(attributes []sdp.Attribute) []sdp.Attribute {
	var out []sdp.Attribute
	for _, a := range attributes {
		switch a.Key {
		case "sendrecv", "sendonly", "recvonly", "inactive":
		default:
			out = append(out, a)
		}
	}
	return out
}

// WithCandidates returns a description of ours that says all candidates, in its first section, which the others are bundled with.
func WithCandidates(text string, candidates []string) (string, error) {
	d := &sdp.SessionDescription{}
	if err := d.UnmarshalString(text); err != nil {
		return "", fmt.Errorf("read our own description: %w", err)
	}
	for _, m := range d.MediaDescriptions {
		if m.MediaName.Port.Value == 0 {
			continue
		}
		for _, line := range candidates {
			m.WithValueAttribute("candidate", line)
		}
		m.WithPropertyAttribute("end-of-candidates")
		break
	}
	out, err := d.Marshal()
	return string(out), err
}

// NewSection is a section to be added to what has been described.
type NewSection struct {
	MID  string
	Kind Kind
}

// Extend returns Pion's description of a connection as one to compose a further offer from: with more sections, both DTLS roles open
// (RFC 8842 §5.2), and a version above the former.
func Extend(pion string, version uint64, more []NewSection) (string, error) {
	d := &sdp.SessionDescription{}
	if err := d.UnmarshalString(pion); err != nil {
		return "", fmt.Errorf("read our own description: %w", err)
	}
	d.Origin.SessionVersion += version
	var transport []sdp.Attribute
	for _, m := range d.MediaDescriptions {
		for i := range m.Attributes {
			if m.Attributes[i].Key == "setup" {
				m.Attributes[i].Value = "actpass"
			}
		}
		if _, ok := m.Attribute("ice-ufrag"); ok && transport == nil {
			transport = transportLines(m)
		}
	}
	if transport == nil {
		return "", fmt.Errorf("our own description has no transport")
	}
	for _, s := range more {
		m := &sdp.MediaDescription{MediaName: sdp.MediaName{
			Media: map[Kind]string{Audio: "audio", Video: "video"}[s.Kind], Port: sdp.RangedPort{Value: 9},
			Protos: strings.Split("UDP/TLS/RTP/SAVPF", "/"),
		}, ConnectionInformation: &sdp.ConnectionInformation{NetworkType: "IN", AddressType: "IP4", Address: &sdp.Address{Address: "0.0.0.0"}}}
		m.Attributes = named(transport, s.MID)
		d.MediaDescriptions = append(d.MediaDescriptions, m)
	}
	out, err := d.Marshal()
	return string(out), err
}

// Mimes lists the codecs that the section offers, in its order.
func (s *Section) Mimes() []string {
	var out []string
	for i := range s.codecs {
		out = append(out, s.codecs[i].Format.Mime)
	}
	return out
}

// Ufrag tells one set of ICE credentials from another.
func (d *Description) Ufrag() string { return d.ufrag }
