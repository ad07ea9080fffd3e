package framecrypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/pbkdf2"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

const (
	salt       = "LKFrameEncryptionKey"
	keySize    = 16 // bytes of an AES key
	turnedSize = 32 // bytes of the material after a ratchet
	iterations = 100_000
)

var info = string(make([]byte, 128))

// Keys are those of one sender: up to 256, by index. Safe for concurrent use; the zero value has none.
type Keys struct {
	ring    [256]atomic.Pointer[key]
	current atomic.Uint32 // index + 1 of the one that seals; 0: none
}

// A key is one of a ring. What it is derived from serves to turn it.
type key struct {
	aead     cipher.AEAD
	material []byte // nil: from a password, which is not turned
	failed   atomic.Uint32
}

// Set puts the key that a member sent under an index, in place of another or of a dead one: 16 bytes today, 32 in newer
// texts. It does not seal until Use.
func (k *Keys) Set(index uint8, material []byte) error {
	if len(material) < keySize || len(material) > 64 {
		return fmt.Errorf("a key of %d bytes", len(material))
	}
	made, err := derive(slices.Clone(material))
	if err != nil {
		return err
	}
	k.ring[index].Store(made)
	return nil
}

// SetPassword puts the key that a shared password makes under an index. It takes tens of milliseconds.
func (k *Keys) SetPassword(index uint8, password string) error {
	raw, err := pbkdf2.Key(sha256.New, password, []byte(salt), iterations, keySize)
	if err != nil {
		return err
	}
	aead, err := gcm(raw)
	if err != nil {
		return err
	}
	k.ring[index].Store(&key{aead: aead})
	return nil
}

// Use has the key of an index seal from now on. It fails with ErrNoKey.
func (k *Keys) Use(index uint8) error {
	if k.ring[index].Load() == nil {
		return ErrNoKey
	}
	k.current.Store(uint32(index) + 1)
	return nil
}

// sealing returns the key that seals, and its index.
func (k *Keys) sealing() (*key, byte, error) {
	n := k.current.Load()
	if n == 0 {
		return nil, 0, ErrNoKey
	}
	return k.ring[n-1].Load(), byte(n - 1), nil
}

// derive makes a key of what a member sent.
func derive(material []byte) (*key, error) {
	raw, err := hkdf.Key(sha256.New, material, []byte(salt), info, keySize)
	if err != nil {
		return nil, err
	}
	aead, err := gcm(raw)
	if err != nil {
		return nil, err
	}
	return &key{aead: aead, material: material}, nil
}

// turned returns the next key of the ratchet.
func (k *key) turned() (*key, error) {
	if k.material == nil {
		return nil, errPassword
	}
	next, err := hkdf.Key(sha256.New, k.material, []byte(salt), info, turnedSize)
	if err != nil {
		return nil, err
	}
	return derive(next)
}

var errPassword = errors.New("a key of a password is not turned")

func gcm(raw []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
