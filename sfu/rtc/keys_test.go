package rtc

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"

	"callserver/sfu/srtp"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/selfsign"
	"github.com/pion/dtls/v3/pkg/protocol/handshake"
)

// handshakeWith completes a handshake over loopback, in which we are the server and x listens, and returns our end.
func handshakeWith(t *testing.T, x *exporter, suite dtls.CipherSuiteID, profile dtls.SRTPProtectionProfile) *dtls.Conn {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := selfsign.SelfSign(key)
	if err != nil {
		t.Fatal(err)
	}
	var sockets [2]net.PacketConn
	for i := range sockets {
		if sockets[i], err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	common := []dtls.Option{dtls.WithCertificates(tls.Certificate{Certificate: certificate.Certificate, PrivateKey: key}), dtls.WithInsecureSkipVerify(true),
		dtls.WithCipherSuites(suite), dtls.WithSRTPProtectionProfiles(profile)}
	var forServer []dtls.ServerOption
	var forClient []dtls.ClientOption
	for _, o := range common {
		forServer, forClient = append(forServer, o), append(forClient, o)
	}
	forServer = append(forServer, dtls.WithKeyLogWriter(x), dtls.WithServerHelloMessageHook(x.hello))
	client, err := dtls.ClientWithOptions(sockets[1], sockets[0].LocalAddr(), forClient...)
	if err != nil {
		t.Fatal(err)
	}
	server, err := dtls.ServerWithOptions(sockets[0], sockets[1].LocalAddr(), forServer...)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- client.Handshake() }()
	if err := errors.Join(server.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Close()
		_ = client.Close()
	})
	return server
}

// TestKeys has Pion's DTLS shake hands with every cipher suite and profile, and compares the keys that the exporter found with those that the
// connection exports itself. Should this fail after an upgrade, Pion tells less or something else than before: then no media flows at all.
func TestKeys(t *testing.T) {
	for _, suite := range []dtls.CipherSuiteID{
		dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, dtls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
		dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM, dtls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	} {
		for _, profile := range []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80} {
			t.Run(fmt.Sprintf("%s/%#04x", suite, uint16(profile)), func(t *testing.T) {
				x := &exporter{}
				server := handshakeWith(t, x, suite, profile)
				sealer, _, err := x.keys()
				if err != nil {
					t.Fatal(err)
				}
				state, ok := server.ConnectionState()
				if !ok {
					t.Fatal("no state")
				}
				material, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, srtp.Profile(profile).Material())
				if err != nil {
					t.Fatal(err)
				}
				want, _, err := srtp.Server(srtp.Profile(profile), material)
				if err != nil {
					t.Fatal(err)
				}
				packet := []byte{0x80, 201, 0, 1, 0, 0, 0, 9}
				if got, want := sealer.RTCP(nil, packet), want.RTCP(nil, packet); !bytes.Equal(got, want) {
					t.Errorf("Pion's handshake tells other keys than it uses: sealed %x, want %x", got, want)
				}
				if _, _, err := x.keys(); !errors.Is(err, errNoKeys) {
					t.Errorf("the keys are told twice: %v", err)
				}
			})
		}
	}
}

// TestNoKeys says so where a handshake told nothing, or what is not known.
func TestNoKeys(t *testing.T) {
	x := &exporter{}
	if _, _, err := x.keys(); !errors.Is(err, errNoKeys) {
		t.Errorf("got %v", err)
	}
	for _, line := range []string{"", "CLIENT_RANDOM 00", "SERVER_TRAFFIC 00 00", "CLIENT_RANDOM x y"} {
		_, _ = x.Write([]byte(line))
		if _, _, err := x.keys(); !errors.Is(err, errNoKeys) {
			t.Errorf("%q: got %v", line, err)
		}
	}
	if _, err := x.Write([]byte("CLIENT_RANDOM 01 02\n")); err != nil {
		t.Error(err)
	}
	unknown := uint16(0x1301)
	x.hello(handshake.MessageServerHello{CipherSuiteID: &unknown})
	if _, _, err := x.keys(); err == nil || errors.Is(err, errNoKeys) {
		t.Errorf("an unknown cipher suite: got %v", err)
	}
}
