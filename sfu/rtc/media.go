package rtc

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"
)

// Header extensions that are negotiated. RFC 8285 ids are the client's where the client offers.
const (
	uriMID         = "urn:ietf:params:rtp-hdrext:sdes:mid"
	uriRID         = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
	uriRepairedRID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
	uriAudioLevel  = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
	uriTransportCC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
	uriDependency  = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
	uriCaptureTime = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
)

// maxMessageSize is what we accept on a data channel, in bytes.
const maxMessageSize = 65535

// Pion's own timers, shortened where a call would otherwise start later than it could.
const (
	dtlsRetransmit  = 100 * time.Millisecond
	reflexiveWait   = 100 * time.Millisecond // browsers hide their addresses: most pairs are peer-reflexive
	relayedWait     = 500 * time.Millisecond
	receiveMTU      = 1500 // bytes
	dtlsReplayWidth = 64   // packets
)

// format is a codec as SDP spells it, with the payload types of the offers that we make (RFC 8829 leaves them to us).
type format struct {
	mime     string // "video/VP8"
	rate     uint32 // Hz
	channels uint16
	fmtp     string // what Pion is told; clients see their own
	payload  uint8
	rtx      uint8 // 0 = none
}

// formats lists every codec that can be forwarded, in our order of preference.
var formats = []format{
	{"audio/opus", 48000, 2, "minptime=10;useinbandfec=1", 111, 0},
	{"audio/red", 48000, 2, "111/111", 63, 0},
	{"audio/PCMU", 8000, 1, "", 0, 0},
	{"audio/PCMA", 8000, 1, "", 8, 0},
	{"video/VP8", 90000, 0, "", 96, 97},
	{"video/H264", 90000, 0, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f", 102, 103},
	{"video/VP9", 90000, 0, "profile-id=0", 98, 99},
	{"video/AV1", 90000, 0, "", 45, 46},
	{"video/H265", 90000, 0, "", 49, 50},
}

// findFormat returns the table's entry for a codec by mime type, or nil.
func findFormat(mime string) *format {
	for i := range formats {
		if strings.EqualFold(formats[i].mime, mime) {
			return &formats[i]
		}
	}
	return nil
}

func (f *format) video() bool  { return strings.HasPrefix(f.mime, "video/") }
func (f *format) name() string { return f.mime[strings.IndexByte(f.mime, '/')+1:] }

// newMediaEngine tells Pion every codec, and the header extensions that it demultiplexes by.
func newMediaEngine() (*webrtc.MediaEngine, error) {
	m := &webrtc.MediaEngine{}
	for _, f := range formats {
		kind := webrtc.RTPCodecTypeAudio
		if f.video() {
			kind = webrtc.RTPCodecTypeVideo
		}
		for _, c := range f.pion() {
			if err := m.RegisterCodec(c, kind); err != nil {
				return nil, err
			}
		}
	}
	for _, uri := range []string{uriMID, uriRID, uriRepairedRID} { // Pion demultiplexes by these
		for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
			capability := webrtc.RTPHeaderExtensionCapability{URI: uri}
			if err := m.RegisterHeaderExtension(capability, kind); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// pion is the codec and its retransmission format in Pion's words.
func (f *format) pion() []webrtc.RTPCodecParameters {
	out := []webrtc.RTPCodecParameters{{
		RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: f.mime, ClockRate: f.rate, Channels: f.channels, SDPFmtpLine: f.fmtp,
		},
		PayloadType: webrtc.PayloadType(f.payload),
	}}
	if f.rtx != 0 {
		out = append(out, webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{
				MimeType: webrtc.MimeTypeRTX, ClockRate: f.rate, SDPFmtpLine: aptLine(f.payload),
			},
			PayloadType: webrtc.PayloadType(f.rtx),
		})
	}
	return out
}

// newSettings configures Pion's transports.
func newSettings(o Options, p *ports) (webrtc.SettingEngine, error) {
	s := webrtc.SettingEngine{LoggerFactory: &logFactory{o.Logger}}
	if err := s.SetAnsweringDTLSRole(webrtc.DTLSRoleServer); err != nil {
		return s, err
	}
	// GCM first: it costs a seventh of the CPU of the HMAC profile (RFC 7714). As the server we choose.
	s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	s.SetDTLSReplayProtectionWindow(dtlsReplayWidth)
	s.DisableSRTPReplayProtection(true) // Firefox probes bandwidth with packets that it has sent before
	s.DisableSRTCPReplayProtection(true)
	s.SetDTLSRetransmissionInterval(dtlsRetransmit)
	s.SetICETimeouts(o.ICEDisconnected, o.ICEFailed, o.ICEKeepalive)
	s.SetHostAcceptanceMinWait(0)
	s.SetSrflxAcceptanceMinWait(reflexiveWait)
	s.SetPrflxAcceptanceMinWait(reflexiveWait)
	s.SetRelayAcceptanceMinWait(relayedWait)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.DisableActiveTCP(true)
	s.SetReceiveMTU(receiveMTU)
	s.SetSCTPMaxMessageSize(maxMessageSize)
	s.EnableSCTPZeroChecksum(false)
	s.DisableCloseByDTLS(true) // connections are closed by their owner; that the client closed is an event
	s.SetFireOnTrackBeforeFirstRTP(true)
	s.SetIgnoreRidPauseForRecv(true)

	s.SetNet(p.net)
	s.SetIncludeLoopbackCandidate(slices.ContainsFunc(p.addresses, netip.Addr.IsLoopback))
	s.SetIPFilter(func(ip net.IP) bool {
		a, ok := netip.AddrFromSlice(ip)
		return ok && slices.Contains(p.addresses, a.Unmap())
	})
	if o.Interfaces != nil {
		s.SetInterfaceFilter(o.Interfaces)
	}
	var networks []webrtc.NetworkType
	if p.udp != nil {
		s.SetICEUDPMux(p.udp)
		networks = append(networks, webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6)
	}
	if p.tcp != nil {
		s.SetICETCPMux(p.tcp)
		networks = append(networks, webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6)
	}
	s.SetNetworkTypes(networks)
	return s, nil
}
