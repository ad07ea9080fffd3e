package rtc

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"

	"callserver/sfu/srtp"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/prf"
	"github.com/pion/dtls/v3/pkg/protocol/extension"
	"github.com/pion/dtls/v3/pkg/protocol/handshake"
	"github.com/pion/webrtc/v4"
)

// exporter learns from one DTLS handshake, in which we are the server, what its keying material exporter would give (RFC 5705, RFC 5764 §4.2). Pion's
// peer connection hides the exporter, but tells the master secret and the client's random (key log) and our own hello (hook). See
// docs/adr/0017. Safe for concurrent use.
type exporter struct {
	mu                     sync.Mutex
	client, server, master []byte // randoms and master secret
	suite                  dtls.CipherSuiteID
	profile                srtp.Profile
}

// errNoKeys means that Pion's handshake did not tell what the keys follow from.
var errNoKeys = errors.New("media keys: the DTLS handshake ended without telling them; is the client the DTLS server, or Pion a new version?")

// install has the connections of s tell the exporter. Each connection needs settings of its own.
func (x *exporter) install(s *webrtc.SettingEngine) {
	s.SetDTLSKeyLogWriter(x)
	s.SetDTLSServerHelloMessageHook(x.hello)
}

// Write takes a line of the key log: label, client random, master secret.
func (x *exporter) Write(line []byte) (int, error) {
	f := bytes.Fields(line)
	if len(f) != 3 || string(f[0]) != "CLIENT_RANDOM" {
		return len(line), nil
	}
	client, err := hex.DecodeString(string(f[1]))
	master, err2 := hex.DecodeString(string(f[2]))
	if err := errors.Join(err, err2); err != nil {
		return 0, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.client, x.master = client, master
	return len(line), nil
}

// hello notes what our hello says and leaves it as it is.
func (x *exporter) hello(m handshake.MessageServerHello) handshake.Message {
	random := m.Random.MarshalFixed()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.server = random[:]
	if m.CipherSuiteID != nil {
		x.suite = dtls.CipherSuiteID(*m.CipherSuiteID)
	}
	for _, e := range m.Extensions {
		if u, ok := e.(*extension.UseSRTP); ok && len(u.ProtectionProfiles) == 1 {
			x.profile = srtp.Profile(u.ProtectionProfiles[0])
		}
	}
	return &m
}

// hashOf is the hash of a cipher suite's pseudo-random function (RFC 5246 §5, RFC 5289 §3), nil if we do not know it.
func hashOf(suite dtls.CipherSuiteID) prf.HashFunc {
	switch suite {
	case dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM,
		dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8, dtls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, dtls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
		dtls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, dtls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:
		return sha256.New
	case dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:
		return sha512.New384
	}
	return nil
}

// keys returns what protects media in both directions, once: what they follow from is forgotten.
func (x *exporter) keys() (*srtp.Sealer, *srtp.Opener, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.master == nil || x.server == nil {
		return nil, nil, errNoKeys
	}
	hash := hashOf(x.suite)
	if hash == nil {
		return nil, nil, fmt.Errorf("media keys: the hash of cipher suite %s is not known", x.suite)
	}
	seed := slices.Concat([]byte("EXTRACTOR-dtls_srtp"), x.client, x.server)
	material, err := prf.PHash(x.master, seed, x.profile.Material(), hash)
	clear(x.master)
	x.master = nil
	if err != nil {
		return nil, nil, fmt.Errorf("media keys: %w", err)
	}
	sealer, opener, err := srtp.Server(x.profile, material)
	if err != nil {
		return nil, nil, fmt.Errorf("media keys: %w", err)
	}
	return sealer, opener, nil
}
