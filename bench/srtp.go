package bench

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pion/srtp/v3"
)

// Sizes of AEAD_AES_128_GCM (RFC 7714 §12), the only profile we offer: both servers compared prefer it.
const (
	keySize  = 16
	saltSize = 12
	tagSize  = 16
)

// A crypt protects or opens the RTP packets of one direction. Roll-over counters are the caller's. Caller's goroutine
// only.
type crypt struct {
	aead cipher.AEAD
	salt [saltSize]byte
	iv   [saltSize]byte
}

func newCrypt(key, salt []byte) (*crypt, error) {
	const labelKey, labelSalt = 0, 2 // RFC 3711 §4.3.1, for RTP
	block, err := aes.NewCipher(derive(key, salt, labelKey, keySize))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	c := &crypt{aead: aead}
	copy(c.salt[:], derive(key, salt, labelSalt, saltSize))
	return c, nil
}

// derive is the key derivation of RFC 3711 §4.3.3 at rate zero: AES in counter mode over the salt and a label.
func derive(key, salt []byte, label byte, n int) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has a fixed size
	}
	var in [aes.BlockSize]byte
	copy(in[:], salt)
	in[7] ^= label
	out := make([]byte, n)
	cipher.NewCTR(block, in[:]).XORKeyStream(out, out)
	return out
}

// nonce is RFC 7714 §8.1.
func (c *crypt) nonce(ssrc, roc uint32, seq uint16) []byte {
	c.iv = c.salt
	for i, v := range [...]byte{
		byte(ssrc >> 24), byte(ssrc >> 16), byte(ssrc >> 8), byte(ssrc),
		byte(roc >> 24), byte(roc >> 16), byte(roc >> 8), byte(roc), byte(seq >> 8), byte(seq),
	} {
		c.iv[i+2] ^= v
	}
	return c.iv[:]
}

// seal protects the packet in b, whose header has n bytes, in place. b needs room for the tag behind it.
func (c *crypt) seal(b []byte, n int, roc uint32) []byte {
	iv := c.nonce(binary.BigEndian.Uint32(b[8:]), roc, binary.BigEndian.Uint16(b[2:]))
	return b[:n+len(c.aead.Seal(b[n:n], iv, b[n:], b[:n]))]
}

// open returns the payload of the packet in b, whose header has n bytes, decrypted in place.
func (c *crypt) open(b []byte, n int, roc uint32) ([]byte, error) {
	iv := c.nonce(binary.BigEndian.Uint32(b[8:]), roc, binary.BigEndian.Uint16(b[2:]))
	return c.aead.Open(b[n:n], iv, b[n:], b[:n])
}

// keys are what one participant and the server protect media with.
type keys struct {
	out, in         *crypt
	outRTCP, inRTCP *srtp.Context
}

// newKeys splits the keying material of RFC 5764 §4.2: client key, server key, client salt, server salt.
func newKeys(material []byte, dtlsClient bool) (*keys, error) {
	if len(material) != 2*(keySize+saltSize) {
		return nil, errors.New("keying material of the wrong size")
	}
	ours, theirs := material[:keySize], material[keySize:2*keySize]
	ourSalt, theirSalt := material[2*keySize:2*keySize+saltSize], material[2*keySize+saltSize:]
	if !dtlsClient {
		ours, theirs, ourSalt, theirSalt = theirs, ours, theirSalt, ourSalt
	}
	k := &keys{}
	var errs [4]error
	k.out, errs[0] = newCrypt(ours, ourSalt)
	k.in, errs[1] = newCrypt(theirs, theirSalt)
	k.outRTCP, errs[2] = srtp.CreateContext(ours, ourSalt, srtp.ProtectionProfileAeadAes128Gcm)
	k.inRTCP, errs[3] = srtp.CreateContext(theirs, theirSalt, srtp.ProtectionProfileAeadAes128Gcm)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("media keys: %w", err)
	}
	return k, nil
}

// headerSize is the size of an RTP header with everything before the payload, false if b is no RTP packet (RFC 3550
// §5.1, RFC 8285).
func headerSize(b []byte) (int, bool) {
	if len(b) < 12 || b[0]>>6 != 2 {
		return 0, false
	}
	n := 12 + 4*int(b[0]&0x0f)
	if b[0]&0x10 != 0 {
		if len(b) < n+4 {
			return 0, false
		}
		n += 4 + 4*int(binary.BigEndian.Uint16(b[n+2:]))
	}
	return n, n <= len(b)
}

// A rollover follows the sequence numbers of one received stream (RFC 3711 §3.3.1).
type rollover struct {
	begun bool
	last  uint64 // highest index: roll-over counter and sequence number
}

// index guesses the index of a sequence number; accept makes it the highest one if it is.
func (r *rollover) index(seq uint16) uint64 {
	if !r.begun {
		return uint64(seq)
	}
	i := r.last&^0xffff | uint64(seq)
	switch d := int64(i) - int64(r.last); {
	case d > 1<<15 && i >= 1<<16:
		i -= 1 << 16
	case d < -(1 << 15):
		i += 1 << 16
	}
	return i
}

func (r *rollover) accept(index uint64) {
	if !r.begun || index > r.last {
		r.begun, r.last = true, index
	}
}
