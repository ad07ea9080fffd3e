package rtc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"
)

// certificateAge is for how long new connections get the same certificate. Pion makes them for a month.
const certificateAge = 24 * time.Hour

// certificates are what the connections of an Engine show in DTLS: one for all, since each description names its fingerprint, and the secrets of a
// connection do not follow from it. Pion would make one for each. Safe for concurrent use.
type certificates struct {
	mu     sync.Mutex
	newest webrtc.Certificate
	made   time.Time // long ago = none yet
}

// at is the certificate of a connection that begins now.
func (c *certificates) at(now time.Time) (webrtc.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.made) < certificateAge {
		return c.newest, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return webrtc.Certificate{}, fmt.Errorf("make a key for DTLS: %w", err)
	}
	made, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return webrtc.Certificate{}, fmt.Errorf("make a certificate for DTLS: %w", err)
	}
	c.newest, c.made = *made, now
	return c.newest, nil
}
