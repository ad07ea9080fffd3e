// Package description is what a session description says to an SFU: which sections there are and what they can carry.
// It owns reading a client's SDP, choosing codecs and header extensions from it, the simplified form that Pion is given and
// the text that the client is told.
// It never holds state, opens a connection or knows Pion's peer connection.
package description

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
)

// MaxLayers is how many simulcast streams of a section are taken; more are ignored.
const MaxLayers = 3

// ErrBad wraps every refusal; its text says what is wrong.
var ErrBad = errors.New("unusable session description")

// Bounds on what a client may describe.
const (
	maxDescription = 1 << 20 // bytes
	maxSections    = 2048    // two for each of a thousand participants
	maxToken       = 256     // bytes of a mid, rid or track id
)

// Description is a client's SDP, reduced to what matters to an SFU (RFC 8866, RFC 8829). It is parsed once; Pion is
// given only the simplified form of Carrier, Offer and Answer.
type Description struct {
	parsed   *sdp.SessionDescription
	Sections []*Section
	ufrag    string
	bundle   []string // mids of the BUNDLE group
	Mixed    bool     // a=extmap-allow-mixed
}

// Kind is what a media section carries.
type Kind uint8

// The kinds of sections.

const (
	Application Kind = iota
	Audio
	Video
)

// Section is one media section of a description, from the client's point of view.
type Section struct {
	MID      string
	Kind     Kind
	Rejected bool // port 0: takes no part
	Sends    bool
	Receives bool
	CID      string   // msid track id
	StreamID string   // msid stream id
	RIDs     []string // simulcast streams, lowest resolution first
	SSRCs    []uint32 // primaries in order of appearance

	media  *sdp.MediaDescription
	codecs []Codec
	exts   map[string]uint8  // header extension uri -> id
	oneWay map[string]string // header extension uri -> direction, where the client restricts it
}

// Codec is a codec that can be forwarded, as one section names it.
type Codec struct {
	Format   *Format
	Payload  uint8    // payload type
	RTX      uint8    // payload type of its retransmissions, 0 = none
	FMTP     string   // format parameters
	Feedback []string // rtcp-fb values
}

// Parse reads a client's SDP and refuses what cannot be served.
func Parse(text string) (*Description, error) {
	if len(text) > maxDescription {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrBad, len(text), maxDescription)
	}
	d := &Description{parsed: &sdp.SessionDescription{}}
	if err := d.parsed.UnmarshalString(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBad, err)
	}
	if n := len(d.parsed.MediaDescriptions); n == 0 || n > maxSections {
		return nil, fmt.Errorf("%w: %d media sections", ErrBad, n)
	}
	_, d.Mixed = d.parsed.Attribute("extmap-allow-mixed")
	if group, ok := d.parsed.Attribute("group"); ok {
		if fields := strings.Fields(group); len(fields) > 0 && fields[0] == "BUNDLE" {
			d.bundle = fields[1:]
		}
	}
	seen := map[string]bool{}
	for _, m := range d.parsed.MediaDescriptions {
		if _, ok := m.Attribute("extmap-allow-mixed"); ok { // Firefox says it in every section
			d.Mixed = true
		}
		s, err := d.section(m)
		if err != nil {
			return nil, fmt.Errorf("%w: section %q: %w", ErrBad, s.MID, err)
		}
		if seen[s.MID] {
			return nil, fmt.Errorf("%w: mid %q is used twice", ErrBad, s.MID)
		}
		seen[s.MID] = true
		d.Sections = append(d.Sections, s)
	}
	return d, d.checkTransport()
}

// section reads one media section.
func (d *Description) section(m *sdp.MediaDescription) (*Section, error) {
	s := &Section{media: m, exts: map[string]uint8{}, oneWay: map[string]string{}}
	s.MID, _ = m.Attribute("mid")
	if s.MID == "" || len(s.MID) > maxToken {
		return s, fmt.Errorf("no usable a=mid")
	}
	_, bundleOnly := m.Attribute("bundle-only")
	s.Rejected = m.MediaName.Port.Value == 0 && !bundleOnly
	switch m.MediaName.Media {
	case "audio":
		s.Kind = Audio
	case "video":
		s.Kind = Video
	case "application":
		return s, nil
	default:
		return s, fmt.Errorf("media %q is not served", m.MediaName.Media)
	}
	s.Sends, s.Receives = d.direction(m)
	s.readCodecs()
	s.readStreams()
	for _, a := range m.Attributes {
		if a.Key == "extmap" {
			if id, direction, uri, ok := parseExtmap(a.Value); ok {
				s.exts[uri] = id
				s.oneWay[uri] = direction
			}
		}
	}
	return s, nil
}

// direction is the section's, or else the session's; sendrecv when neither says (RFC 8866 §6.7).
func (d *Description) direction(m *sdp.MediaDescription) (sends, receives bool) {
	for _, attributes := range [][]sdp.Attribute{m.Attributes, d.parsed.Attributes} {
		for _, a := range attributes {
			switch a.Key {
			case "sendrecv":
				return true, true
			case "sendonly":
				return true, false
			case "recvonly":
				return false, true
			case "inactive":
				return false, false
			}
		}
	}
	return true, true
}

// parseExtmap reads `id[/direction] uri [attributes]` (RFC 8285 §8).
func parseExtmap(value string) (id uint8, direction, uri string, ok bool) {
	fields := strings.Fields(value)
	if len(fields) < 2 {
		return 0, "", "", false
	}
	number, direction, _ := strings.Cut(fields[0], "/")
	n, err := strconv.ParseUint(number, 10, 8)
	if err != nil || n == 0 || n == 15 {
		return 0, "", "", false
	}
	return uint8(n), direction, fields[1], true
}

// readCodecs keeps the codecs that can be forwarded, in the order offered.
func (s *Section) readCodecs() {
	maps, fmtps, feedback := map[uint8]string{}, map[uint8]string{}, map[uint8][]string{}
	var everyone []string // rtcp-fb:*
	for _, a := range s.media.Attributes {
		if a.Key != "rtpmap" && a.Key != "fmtp" && a.Key != "rtcp-fb" {
			continue
		}
		first, rest, _ := strings.Cut(a.Value, " ")
		pt, err := strconv.ParseUint(first, 10, 7)
		switch {
		case a.Key == "rtcp-fb" && first == "*":
			everyone = append(everyone, rest)
		case err != nil:
		case a.Key == "rtpmap":
			maps[uint8(pt)] = rest
		case a.Key == "fmtp":
			fmtps[uint8(pt)] = rest
		case a.Key == "rtcp-fb":
			feedback[uint8(pt)] = append(feedback[uint8(pt)], rest)
		}
	}
	prefix := "audio/"
	if s.Kind == Video {
		prefix = "video/"
	}
	rtx := map[uint8]uint8{}
	for pt, encoding := range maps {
		if name, _, _ := strings.Cut(encoding, "/"); strings.EqualFold(name, "rtx") {
			if apt, err := strconv.ParseUint(fmtpValue(fmtps[pt], "apt"), 10, 7); err == nil {
				rtx[uint8(apt)] = pt
			}
		}
	}
	static := map[uint8]string{0: "PCMU/8000", 8: "PCMA/8000"} // RFC 3551 §6
	for _, f := range s.media.MediaName.Formats {
		n, err := strconv.ParseUint(f, 10, 7)
		if err != nil {
			continue
		}
		pt := uint8(n)
		encoding := maps[pt]
		if encoding == "" && s.Kind == Audio {
			encoding = static[pt]
		}
		name, _, _ := strings.Cut(encoding, "/")
		known := FindFormat(prefix + name)
		if known == nil || slices.ContainsFunc(s.codecs, func(c Codec) bool { return c.Payload == pt }) {
			continue
		}
		s.codecs = append(s.codecs, Codec{Format: known, Payload: pt, RTX: rtx[pt], FMTP: fmtps[pt],
			Feedback: append(feedback[pt], everyone...)})
	}
}

// readStreams reads what the client sends on the section: its track id, simulcast streams and SSRCs.
func (s *Section) readStreams() {
	repairs := map[string]bool{}
	var ssrcs []string
	for _, a := range s.media.Attributes {
		switch a.Key {
		case "msid", "rid", "ssrc-group", "ssrc":
		default:
			continue
		}
		fields := strings.Fields(a.Value)
		switch {
		case len(fields) == 0:
		case a.Key == "msid" && len(fields) > 1:
			s.StreamID, s.CID = fields[0], fields[1]
		case a.Key == "rid" && len(fields) > 1 && fields[1] == "send" && len(fields[0]) <= maxToken:
			s.RIDs = append(s.RIDs, fields[0])
		case a.Key == "ssrc-group" && len(fields) == 3 && (fields[0] == "FID" || fields[0] == "FEC-FR"):
			repairs[fields[2]] = true
		case a.Key == "ssrc":
			ssrcs = append(ssrcs, fields[0])
			// Plan B style, still the only place where some stacks name the track.
			if s.CID == "" && len(fields) == 3 && strings.HasPrefix(fields[1], "msid:") {
				s.StreamID, s.CID = strings.TrimPrefix(fields[1], "msid:"), fields[2]
			}
		}
	}
	if len(s.CID) > maxToken || len(s.StreamID) > maxToken {
		s.CID, s.StreamID = "", ""
	}
	for _, text := range ssrcs {
		n, err := strconv.ParseUint(text, 10, 32)
		if err == nil && n != 0 && !repairs[text] && !slices.Contains(s.SSRCs, uint32(n)) {
			s.SSRCs = append(s.SSRCs, uint32(n))
		}
	}
	s.RIDs = orderRIDs(s.RIDs)
}

// orderRIDs puts simulcast streams in order, lowest resolution first, and keeps the first few. Two naming habits tell
// the resolution by name; any other names are taken in the order offered.
func orderRIDs(rids []string) []string {
	for _, names := range []string{"qhf", "210"} {
		rank := func(rid string) int { return strings.Index(names, rid) }
		if !slices.ContainsFunc(rids, func(r string) bool { return len(r) != 1 || rank(r) < 0 }) {
			slices.SortFunc(rids, func(a, b string) int { return rank(a) - rank(b) })
		}
	}
	rids = slices.Compact(rids)
	return rids[:min(len(rids), MaxLayers)]
}

// checkTransport refuses what one ICE and DTLS transport under our roles cannot serve.
func (d *Description) checkTransport() error {
	setup, _ := d.parsed.Attribute("setup")
	d.ufrag, _ = d.parsed.Attribute("ice-ufrag")
	live := 0
	for _, s := range d.Sections {
		if s.Rejected {
			continue
		}
		live++
		if v, ok := s.media.Attribute("ice-ufrag"); ok && d.ufrag == "" {
			d.ufrag = v
		}
		role := setup
		if v, ok := s.media.Attribute("setup"); ok {
			role = v
		}
		if role == "passive" || role == "holdconn" {
			return fmt.Errorf("%w: a=setup:%s: this server is always the DTLS server, offer actpass or active",
				ErrBad, role)
		}
		if len(d.Sections) > 1 && !slices.Contains(d.bundle, s.MID) {
			return fmt.Errorf("%w: section %q is outside the BUNDLE group; all media share one transport here",
				ErrBad, s.MID)
		}
	}
	if live == 0 {
		return fmt.Errorf("%w: every media section is rejected", ErrBad)
	}
	if d.ufrag == "" {
		return fmt.Errorf("%w: no a=ice-ufrag", ErrBad)
	}
	return nil
}

// Find returns the section with the mid, or nil.
func (d *Description) Find(mid string) *Section {
	for _, s := range d.Sections {
		if s.MID == mid {
			return s
		}
	}
	return nil
}

// Candidates lists the a=candidate values of all sections, each once, to be trickled to Pion one by one: it refuses a whole
// description for one that it does not understand.
func (d *Description) Candidates() []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range d.Sections {
		for _, a := range s.media.Attributes {
			if a.Key == "candidate" && !seen[a.Value] {
				seen[a.Value] = true
				out = append(out, a.Value)
			}
		}
	}
	return out
}

// Extension is the id of a header extension that the section offers, 0 if it does not.
func (s *Section) Extension(uri string) uint8 { return s.exts[uri] }

// fmtpValue finds key in `key=value;key=value`.
func fmtpValue(line, key string) string {
	for part := range strings.SplitSeq(line, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		if strings.EqualFold(k, key) {
			return v
		}
	}
	return ""
}

// APT is the format parameter that ties retransmissions to their payload type (RFC 4588 §8).
func APT(payload uint8) string { return "apt=" + strconv.Itoa(int(payload)) }
