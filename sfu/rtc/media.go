package rtc

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"callserver/internal/pionlog"
	"callserver/sfu/rtc/description"
	"callserver/sfu/rtc/port"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"
)

// Pion's own timers, shortened where a call would otherwise start later than it could.
const (
	dtlsRetransmit  = 100 * time.Millisecond
	reflexiveWait   = 100 * time.Millisecond // browsers hide their addresses: most pairs are peer-reflexive
	relayedWait     = 500 * time.Millisecond
	receiveMTU      = 1500 // bytes
	dtlsReplayWidth = 64   // packets
)

// newMediaEngine tells Pion every codec. It never sees a packet of one.
func newMediaEngine() (*webrtc.MediaEngine, error) {
	m := &webrtc.MediaEngine{}
	for _, f := range description.Formats {
		kind := webrtc.RTPCodecTypeAudio
		if f.Video() {
			kind = webrtc.RTPCodecTypeVideo
		}
		for _, c := range pionCodecs(&f) {
			if err := m.RegisterCodec(c, kind); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// pionCodecs is the codec and its retransmission format in Pion's words.
func pionCodecs(f *description.Format) []webrtc.RTPCodecParameters {
	out := []webrtc.RTPCodecParameters{{
		RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: f.Mime, ClockRate: f.Rate, Channels: f.Channels, SDPFmtpLine: f.FMTP,
		},
		PayloadType: webrtc.PayloadType(f.Payload),
	}}
	if f.RTX != 0 {
		out = append(out, webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{
				MimeType: webrtc.MimeTypeRTX, ClockRate: f.Rate, SDPFmtpLine: description.APT(f.Payload),
			},
			PayloadType: webrtc.PayloadType(f.RTX),
		})
	}
	return out
}

// newSettings configures Pion's transports.
func newSettings(o Options, p *port.Ports) (webrtc.SettingEngine, error) {
	s := webrtc.SettingEngine{LoggerFactory: pionlog.Factory{Log: o.Logger}}
	if err := s.SetAnsweringDTLSRole(webrtc.DTLSRoleServer); err != nil {
		return s, err
	}
	// GCM first: it costs a seventh of the CPU of the HMAC profile (RFC 7714). As the server we choose.
	s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	s.SetDTLSReplayProtectionWindow(dtlsReplayWidth)
	s.SetDTLSRetransmissionInterval(dtlsRetransmit)
	s.SetICETimeouts(o.ICEDisconnected, o.ICEFailed, o.ICEKeepalive)
	s.SetHostAcceptanceMinWait(0)
	s.SetSrflxAcceptanceMinWait(reflexiveWait)
	s.SetPrflxAcceptanceMinWait(reflexiveWait)
	s.SetRelayAcceptanceMinWait(relayedWait)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.DisableActiveTCP(true)
	s.SetReceiveMTU(receiveMTU)
	s.SetSCTPMaxMessageSize(description.MaxMessageSize)
	s.EnableSCTPZeroChecksum(false)
	s.DetachDataChannels()     // read with less room than Pion does: see Peer.readLoop
	s.DisableCloseByDTLS(true) // connections are closed by their owner; that the client closed is an event

	s.SetLite(o.Lite)
	s.SetNet(p.Net)
	s.SetIncludeLoopbackCandidate(slices.ContainsFunc(p.Local(), netip.Addr.IsLoopback))
	s.SetIPFilter(func(ip net.IP) bool {
		a, ok := netip.AddrFromSlice(ip)
		return ok && p.Has(a.Unmap())
	})
	var networks []webrtc.NetworkType
	if p.UDP != nil {
		s.SetICEUDPMux(p.UDP)
		networks = append(networks, webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6)
	}
	if p.TCP != nil {
		s.SetICETCPMux(p.TCP)
		networks = append(networks, webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6)
	}
	s.SetNetworkTypes(networks)
	return s, nil
}
