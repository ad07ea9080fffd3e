package rtc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
)

// Bounds on what a client may describe.
const (
	maxDescription = 1 << 20 // bytes
	maxSections    = 2048    // two for each of a thousand participants
	maxLayers      = 3       // simulcast streams of one section
	maxToken       = 256     // bytes of a mid, rid or track id
)

// A description is a client's SDP, reduced to what matters to an SFU (RFC 8866, RFC 8829). It is parsed once; Pion is
// given only the simplified form of inner.
type description struct {
	parsed   *sdp.SessionDescription
	sections []*section
	ufrag    string
	bundle   []string // mids of the BUNDLE group
	mixed    bool     // a=extmap-allow-mixed
}

// kind is what a media section carries.
type kind uint8

const (
	application kind = iota
	audio
	video
)

// section is one media section of a description, from the client's point of view.
type section struct {
	media    *sdp.MediaDescription
	mid      string
	kind     kind
	rejected bool // port 0: takes no part
	sends    bool
	receives bool
	codecs   []offeredCodec
	exts     map[string]uint8  // header extension uri -> id
	oneWay   map[string]string // header extension uri -> direction, where the client restricts it
	cid      string            // msid track id
	stream   string            // msid stream id
	rids     []string          // lowest resolution first
	ssrcs    []uint32          // primaries in order of appearance
}

// offeredCodec is a codec that can be forwarded, under the client's payload type.
type offeredCodec struct {
	format   *format
	payload  uint8
	rtx      uint8 // payload type of its retransmissions, 0 = none
	fmtp     string
	feedback []string // rtcp-fb values
}

// parseDescription reads a client's SDP and refuses what cannot be served.
func parseDescription(text string) (*description, error) {
	if len(text) > maxDescription {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrBadDescription, len(text), maxDescription)
	}
	d := &description{parsed: &sdp.SessionDescription{}}
	if err := d.parsed.UnmarshalString(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadDescription, err)
	}
	if n := len(d.parsed.MediaDescriptions); n == 0 || n > maxSections {
		return nil, fmt.Errorf("%w: %d media sections", ErrBadDescription, n)
	}
	_, d.mixed = d.parsed.Attribute("extmap-allow-mixed")
	if group, ok := d.parsed.Attribute("group"); ok {
		if fields := strings.Fields(group); len(fields) > 0 && fields[0] == "BUNDLE" {
			d.bundle = fields[1:]
		}
	}
	seen := map[string]bool{}
	for _, m := range d.parsed.MediaDescriptions {
		if _, ok := m.Attribute("extmap-allow-mixed"); ok { // Firefox says it in every section
			d.mixed = true
		}
		s, err := d.section(m)
		if err != nil {
			return nil, fmt.Errorf("%w: section %q: %w", ErrBadDescription, s.mid, err)
		}
		if seen[s.mid] {
			return nil, fmt.Errorf("%w: mid %q is used twice", ErrBadDescription, s.mid)
		}
		seen[s.mid] = true
		d.sections = append(d.sections, s)
	}
	return d, d.checkTransport()
}

// section reads one media section.
func (d *description) section(m *sdp.MediaDescription) (*section, error) {
	s := &section{media: m, exts: map[string]uint8{}, oneWay: map[string]string{}}
	s.mid, _ = m.Attribute("mid")
	if s.mid == "" || len(s.mid) > maxToken {
		return s, fmt.Errorf("no usable a=mid")
	}
	_, bundleOnly := m.Attribute("bundle-only")
	s.rejected = m.MediaName.Port.Value == 0 && !bundleOnly
	switch m.MediaName.Media {
	case "audio":
		s.kind = audio
	case "video":
		s.kind = video
	case "application":
		return s, nil
	default:
		return s, fmt.Errorf("media %q is not served", m.MediaName.Media)
	}
	s.sends, s.receives = d.direction(m)
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
func (d *description) direction(m *sdp.MediaDescription) (sends, receives bool) {
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
func (s *section) readCodecs() {
	maps, fmtps, feedback := map[uint8]string{}, map[uint8]string{}, map[uint8][]string{}
	var everyone []string // rtcp-fb:*
	for _, a := range s.media.Attributes {
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
	if s.kind == video {
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
		if encoding == "" && s.kind == audio {
			encoding = static[pt]
		}
		name, _, _ := strings.Cut(encoding, "/")
		known := findFormat(prefix + name)
		if known == nil || slices.ContainsFunc(s.codecs, func(c offeredCodec) bool { return c.payload == pt }) {
			continue
		}
		s.codecs = append(s.codecs, offeredCodec{format: known, payload: pt, rtx: rtx[pt], fmtp: fmtps[pt],
			feedback: append(feedback[pt], everyone...)})
	}
}

// readStreams reads what the client sends on the section: its track id, simulcast streams and SSRCs.
func (s *section) readStreams() {
	repairs := map[string]bool{}
	var ssrcs []string
	for _, a := range s.media.Attributes {
		fields := strings.Fields(a.Value)
		switch {
		case len(fields) == 0:
		case a.Key == "msid" && len(fields) > 1:
			s.stream, s.cid = fields[0], fields[1]
		case a.Key == "rid" && len(fields) > 1 && fields[1] == "send" && len(fields[0]) <= maxToken:
			s.rids = append(s.rids, fields[0])
		case a.Key == "ssrc-group" && len(fields) == 3 && (fields[0] == "FID" || fields[0] == "FEC-FR"):
			repairs[fields[2]] = true
		case a.Key == "ssrc":
			ssrcs = append(ssrcs, fields[0])
			// Plan B style, still the only place where some stacks name the track.
			if s.cid == "" && len(fields) == 3 && strings.HasPrefix(fields[1], "msid:") {
				s.stream, s.cid = strings.TrimPrefix(fields[1], "msid:"), fields[2]
			}
		}
	}
	if len(s.cid) > maxToken || len(s.stream) > maxToken {
		s.cid, s.stream = "", ""
	}
	for _, text := range ssrcs {
		n, err := strconv.ParseUint(text, 10, 32)
		if err == nil && n != 0 && !repairs[text] && !slices.Contains(s.ssrcs, uint32(n)) {
			s.ssrcs = append(s.ssrcs, uint32(n))
		}
	}
	s.rids = orderRIDs(s.rids)
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
	return rids[:min(len(rids), maxLayers)]
}

// checkTransport refuses what one ICE and DTLS transport under our roles cannot serve.
func (d *description) checkTransport() error {
	setup, _ := d.parsed.Attribute("setup")
	d.ufrag, _ = d.parsed.Attribute("ice-ufrag")
	live := 0
	for _, s := range d.sections {
		if s.rejected {
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
				ErrBadDescription, role)
		}
		if len(d.sections) > 1 && !slices.Contains(d.bundle, s.mid) {
			return fmt.Errorf("%w: section %q is outside the BUNDLE group; all media share one transport here",
				ErrBadDescription, s.mid)
		}
	}
	if live == 0 {
		return fmt.Errorf("%w: every media section is rejected", ErrBadDescription)
	}
	if d.ufrag == "" {
		return fmt.Errorf("%w: no a=ice-ufrag", ErrBadDescription)
	}
	return nil
}

// find returns the section with the mid, or nil.
func (d *description) find(mid string) *section {
	for _, s := range d.sections {
		if s.mid == mid {
			return s
		}
	}
	return nil
}

// candidates lists the a=candidate values of all sections, to be trickled to Pion one by one: it refuses a whole
// description for one that it does not understand.
func (d *description) candidates() []string {
	var out []string
	for _, s := range d.sections {
		for _, a := range s.media.Attributes {
			if a.Key == "candidate" {
				out = append(out, a.Value)
			}
		}
	}
	return out
}

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

func aptLine(payload uint8) string { return "apt=" + strconv.Itoa(int(payload)) }
