package bench

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Payload types and header extension ids of our offers; an answer uses the same (RFC 3264 §6.1).
const (
	opusPT = 111
	vp8PT  = 96
	rtxPT  = 97

	audioLevelID = 1
	transportID  = 3
	midID        = 4
	ridID        = 10
)

var extensionURIs = []struct {
	id    uint8
	kind  string // "" = both
	uri   string
	sends bool // only where we send
}{
	{audioLevelID, "audio", "urn:ietf:params:rtp-hdrext:ssrc-audio-level", false},
	{transportID, "", "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01", false},
	{midID, "", "urn:ietf:params:rtp-hdrext:sdes:mid", false},
	{ridID, "video", "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", true},
}

// rids name the layers of a video track, lowest first, as browsers do.
var rids = [...]string{"q", "h", "f"}

// A section is one media section of our description.
type section struct {
	mid  string
	kind string // audio, video or application
	cid  string // of the track that it sends; "" = it receives
	ssrc uint32 // of what it sends, if that is one stream
}

// A description is our side of the negotiation. The client is always the offerer (/rtc/v1). Caller's goroutine only.
type description struct {
	session, version uint64
	ufrag, pwd       string
	fingerprint      string // "sha-256 AA:BB..."
	candidates       []string
	sections         []section
}

// add appends a section and returns its mid.
func (d *description) add(s section) string {
	s.mid = strconv.Itoa(len(d.sections))
	d.sections = append(d.sections, s)
	return s.mid
}

// offer writes the description.
func (d *description) offer() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	d.version++
	line("v=0\r\no=- %d %d IN IP4 127.0.0.1\r\ns=-\r\nt=0 0", d.session, d.version)
	var mids []string
	for _, s := range d.sections {
		mids = append(mids, s.mid)
	}
	line("a=group:BUNDLE %s\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS *", strings.Join(mids, " "))
	for _, s := range d.sections {
		switch s.kind {
		case "audio":
			line("m=audio 9 UDP/TLS/RTP/SAVPF %d", opusPT)
		case "video":
			line("m=video 9 UDP/TLS/RTP/SAVPF %d %d", vp8PT, rtxPT)
		default:
			line("m=application 9 UDP/DTLS/SCTP webrtc-datachannel")
		}
		line("c=IN IP4 0.0.0.0")
		for _, c := range d.candidates {
			line("a=candidate:%s", c)
		}
		line("a=ice-ufrag:%s\r\na=ice-pwd:%s\r\na=ice-options:trickle", d.ufrag, d.pwd)
		line("a=fingerprint:%s\r\na=setup:actpass\r\na=mid:%s", d.fingerprint, s.mid)
		if s.kind == "application" {
			line("a=sctp-port:5000\r\na=max-message-size:65536")
			continue
		}
		s.writeMedia(line)
	}
	return b.String()
}

// writeMedia writes what only audio and video sections have.
func (s section) writeMedia(line func(string, ...any)) {
	for _, e := range extensionURIs {
		if (e.kind == "" || e.kind == s.kind) && (s.cid != "" || !e.sends) {
			line("a=extmap:%d %s", e.id, e.uri)
		}
	}
	if s.cid == "" {
		line("a=recvonly")
	} else {
		line("a=sendonly\r\na=msid:%s %s", s.cid, s.cid)
	}
	line("a=rtcp-mux\r\na=rtcp-rsize")
	if s.kind == "audio" {
		line("a=rtpmap:%d opus/48000/2\r\na=fmtp:%[1]d minptime=10;useinbandfec=1\r\na=rtcp-fb:%[1]d transport-cc\r\na=rtcp-fb:%[1]d nack", opusPT)
	} else {
		line("a=rtpmap:%d VP8/90000\r\na=rtpmap:%d rtx/90000\r\na=fmtp:%[2]d apt=%[1]d", vp8PT, rtxPT)
		for _, feedback := range []string{"goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"} {
			line("a=rtcp-fb:%d %s", vp8PT, feedback)
		}
	}
	switch {
	case s.cid != "" && s.kind == "video":
		for _, rid := range rids {
			line("a=rid:%s send", rid)
		}
		line("a=simulcast:send %s", strings.Join(rids[:], ";"))
	case s.cid != "":
		line("a=ssrc:%d cname:%s\r\na=ssrc:%[1]d msid:%s %[2]s", s.ssrc, s.cid, s.cid)
	}
}

// An answer is what we need of the server's description.
type answer struct {
	ufrag, pwd  string
	fingerprint string // "sha-256 AA:BB..."
	active      bool   // the server starts DTLS
	candidates  []string
	receives    map[string]map[uint8]bool // mid -> header extensions, for each section on which the server receives
}

// parseAnswer reads the server's description. It skips what it does not know.
func parseAnswer(sdp string) (answer, error) {
	a := answer{receives: map[string]map[uint8]bool{}}
	var mid, direction, port string
	extensions := map[uint8]bool{}
	finish := func() {
		if mid != "" && port != "0" && (direction == "recvonly" || direction == "sendrecv") {
			a.receives[mid] = extensions
		}
		mid, direction, port, extensions = "", "", "", map[uint8]bool{}
	}
	for line := range strings.Lines(sdp) {
		line = strings.TrimRight(line, "\r\n")
		if m, ok := strings.CutPrefix(line, "m="); ok {
			finish()
			if f := strings.Fields(m); len(f) > 1 {
				port = f[1]
			}
			continue
		}
		name, value, _ := strings.Cut(strings.TrimPrefix(line, "a="), ":")
		switch name {
		case "ice-ufrag":
			a.ufrag = value
		case "ice-pwd":
			a.pwd = value
		case "fingerprint":
			a.fingerprint = value
		case "setup":
			a.active = value == "active"
		case "candidate":
			a.candidates = append(a.candidates, value)
		case "mid":
			mid = value
		case "sendrecv", "sendonly", "recvonly", "inactive":
			direction = name
		case "extmap":
			id, _, _ := strings.Cut(value, " ")
			id, _, _ = strings.Cut(id, "/")
			if n, err := strconv.ParseUint(id, 10, 8); err == nil {
				extensions[uint8(n)] = true
			}
		}
	}
	finish()
	if a.ufrag == "" || a.pwd == "" || a.fingerprint == "" {
		return a, errors.New("answer without ICE credentials or fingerprint")
	}
	return a, nil
}
