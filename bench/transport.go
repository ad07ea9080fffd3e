package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/dtls/v3"
	dtlsnet "github.com/pion/dtls/v3/pkg/net"
	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/sctp"
)

// quiet keeps Pion's log out of the report.
var quiet = func() logging.LoggerFactory {
	f := logging.NewDefaultLoggerFactory()
	f.DefaultLogLevel = logging.LogLevelDisabled
	return f
}()

// An identity is the certificate that all participants of a run share.
type identity struct {
	certificate tls.Certificate
	fingerprint string // as in SDP
}

func newIdentity() (*identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().Add(30 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &identity{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, fingerprint(der)}, nil
}

// fingerprint is RFC 8122 §5.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	text := strings.ToUpper(hex.EncodeToString(sum[:]))
	parts := make([]string, 0, len(sum))
	for i := 0; i < len(text); i += 2 {
		parts = append(parts, text[i:i+2])
	}
	return "sha-256 " + strings.Join(parts, ":")
}

// A transport is one participant's ICE, DTLS and SCTP, which are Pion's. Media does not pass through it.
type transport struct {
	socket   *socket
	agent    *ice.Agent
	mux      *ice.UDPMuxDefault
	dtls     *dtls.Conn
	sctp     *sctp.Association
	identity *identity

	ufrag, pwd string
	candidates []string
}

// newTransport gathers the only candidate: the socket itself.
func newTransport(s *socket, id *identity) (*transport, error) {
	t := &transport{socket: s, identity: id}
	t.mux = ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: s, Logger: quiet.NewLogger("ice")})
	var err error
	t.agent, err = ice.NewAgentWithOptions(
		ice.WithUDPMux(t.mux),
		ice.WithIncludeLoopback(),
		ice.WithNetworkTypes([]ice.NetworkType{ice.NetworkTypeUDP4}),
		ice.WithCandidateTypes([]ice.CandidateType{ice.CandidateTypeHost}),
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
		ice.WithDisableActiveTCP(),
		ice.WithLoggerFactory(quiet),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ice agent: %w", err), t.mux.Close())
	}
	gathered := make(chan struct{})
	err = errors.Join(t.agent.OnCandidate(func(c ice.Candidate) {
		if c == nil {
			close(gathered)
			return
		}
		t.candidates = append(t.candidates, c.Marshal())
	}), t.agent.GatherCandidates())
	if err == nil {
		<-gathered
		t.ufrag, t.pwd, err = t.agent.GetLocalUserCredentials()
	}
	if err == nil && len(t.candidates) == 0 {
		err = errors.New("no candidate")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("gather candidates: %w", err), t.close())
	}
	return t, nil
}

// candidate takes a candidate of the server's, with or without the name of the attribute. What is of no use is ignored.
func (t *transport) candidate(text string) {
	text = strings.TrimPrefix(strings.TrimPrefix(text, "a="), "candidate:")
	if c, err := ice.UnmarshalCandidate(text); err == nil && c.NetworkType() == ice.NetworkTypeUDP4 {
		_ = t.agent.AddRemoteCandidate(c) // fails only once closed
	}
}

// connect brings ICE and DTLS up and returns the media keys and where to send.
func (t *transport) connect(ctx context.Context, a answer) (*keys, netip.AddrPort, error) {
	var to netip.AddrPort
	conn, err := t.agent.Dial(ctx, a.ufrag, a.pwd)
	if err != nil {
		return nil, to, fmt.Errorf("connect ICE: %w", err)
	}
	if to, err = netip.ParseAddrPort(conn.RemoteAddr().String()); err != nil {
		return nil, to, fmt.Errorf("address of the server: %w", err)
	}
	if err := t.handshake(ctx, conn, a); err != nil {
		return nil, to, fmt.Errorf("connect DTLS: %w", err)
	}
	if p, ok := t.dtls.SelectedSRTPProtectionProfile(); !ok || p != dtls.SRTP_AEAD_AES_128_GCM {
		return nil, to, errors.New("the server does not do AEAD_AES_128_GCM")
	}
	state, ok := t.dtls.ConnectionState()
	if !ok {
		return nil, to, errors.New("the handshake left no state")
	}
	material, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, 2*(keySize+saltSize))
	if err != nil {
		return nil, to, fmt.Errorf("export media keys: %w", err)
	}
	k, err := newKeys(material, !a.active)
	return k, to, err
}

func (t *transport) handshake(ctx context.Context, conn *ice.Conn, a answer) error {
	shared := []dtls.Option{
		dtls.WithCertificates(t.identity.certificate),
		dtls.WithSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithInsecureSkipVerify(true), // the fingerprint is what counts
		dtls.WithVerifyPeerCertificate(func(raw [][]byte, _ [][]*x509.Certificate) error {
			if len(raw) == 0 || !strings.EqualFold(fingerprint(raw[0]), a.fingerprint) {
				return errors.New("certificate does not match the fingerprint in the answer")
			}
			return nil
		}),
		dtls.WithLoggerFactory(quiet),
	}
	packets := dtlsnet.PacketConnFromConn(conn)
	var err error
	if a.active { // the server begins
		options := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
		for _, o := range shared {
			options = append(options, o)
		}
		t.dtls, err = dtls.ServerWithOptions(packets, conn.RemoteAddr(), options...)
	} else {
		options := make([]dtls.ClientOption, 0, len(shared))
		for _, o := range shared {
			options = append(options, o)
		}
		t.dtls, err = dtls.ClientWithOptions(packets, conn.RemoteAddr(), options...)
	}
	if err != nil {
		return err
	}
	return t.dtls.HandshakeContext(ctx)
}

// openChannels brings up SCTP and the data channels that clients open.
func (t *transport) openChannels(ctx context.Context, dtlsClient bool) error {
	var err error
	if t.sctp, err = sctp.ClientContext(ctx, sctp.WithNetConn(t.dtls), sctp.WithLoggerFactory(quiet)); err != nil {
		return fmt.Errorf("connect SCTP: %w", err)
	}
	id := uint16(1) // RFC 8832 §6: the DTLS client has the even ids
	if dtlsClient {
		id = 0
	}
	for _, c := range []struct {
		label string
		kind  datachannel.ChannelType
	}{
		{"_reliable", datachannel.ChannelTypeReliable},
		{"_lossy", datachannel.ChannelTypePartialReliableRexmitUnordered},
		{"_data_track", datachannel.ChannelTypePartialReliableRexmitUnordered},
	} {
		if _, err := datachannel.Dial(t.sctp, id, &datachannel.Config{ChannelType: c.kind, Label: c.label, LoggerFactory: quiet}); err != nil {
			return fmt.Errorf("open data channel %s: %w", c.label, err)
		}
		id += 2
	}
	return nil
}

// close ends what was begun and waits for Pion's goroutines. The socket's descriptor is its loop's to close.
func (t *transport) close() error {
	if t.sctp != nil {
		_ = t.sctp.Close() // the association is gone already
	}
	if t.dtls != nil {
		_ = t.dtls.Close() // the other side may have closed first
	}
	err := errors.Join(t.agent.GracefulClose(), t.mux.Close())
	return errors.Join(err, t.socket.Close())
}
