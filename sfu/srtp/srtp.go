// Package srtp protects and opens RTP and RTCP packets of one connection, one direction at a time.
// It owns the session keys and how they follow from what DTLS exports, the ciphers of the profiles that we negotiate, and the
// roll-over counters of streams in both directions (RFC 3711, RFC 5764, RFC 7714).
// It never keeps a packet, allocates for one with the GCM profiles, or protects two different packets under one nonce.
package srtp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"unsafe"

	"callserver/sfu/prefetch"
)

// Profile is a protection profile by its number in use_srtp (RFC 5764 §4.1.2).
type Profile uint16

// The profiles that are served.
const (
	AES128SHA1 Profile = 0x0001 // SRTP_AES128_CM_HMAC_SHA1_80
	GCM128     Profile = 0x0007 // SRTP_AEAD_AES_128_GCM
	GCM256     Profile = 0x0008 // SRTP_AEAD_AES_256_GCM
)

// MaxOverhead is how many bytes protection adds to an RTP packet at most.
const MaxOverhead = 16

// Errors of opening. They are not wrapped: the packet path counts them, it does not print them.
var (
	ErrShort = errors.New("srtp: packet too short")
	ErrTag   = errors.New("srtp: authentication failed")
	ErrOld   = errors.New("srtp: control packet that came before, or is too old to tell")
)

const (
	shaTag      = 10 // bytes of the HMAC that are sent
	rtcpHeader  = 8
	rtcpTrailer = 4 // E flag and index
	encrypted   = 1 << 31
)

// sizes are those of a profile's keying material in bytes.
type sizes struct{ key, salt int }

func (p Profile) sizes() (sizes, error) {
	switch p {
	case AES128SHA1:
		return sizes{16, 14}, nil
	case GCM128:
		return sizes{16, 12}, nil
	case GCM256:
		return sizes{32, 12}, nil
	}
	return sizes{}, fmt.Errorf("SRTP profile %#04x is not served", uint16(p))
}

// Material is how many bytes of keying material to export for the profile, 0 for one that is not served.
func (p Profile) Material() int {
	s, err := p.sizes()
	if err != nil {
		return 0
	}
	return 2 * (s.key + s.salt)
}

// Server splits exported material (RFC 5764 §4.2) from the DTLS server's point of view: what the client protects is opened.
func Server(p Profile, material []byte) (*Sealer, *Opener, error) {
	s, err := p.sizes()
	if err != nil {
		return nil, nil, err
	}
	if len(material) != p.Material() {
		return nil, nil, fmt.Errorf("SRTP keying material of %d bytes, want %d", len(material), p.Material())
	}
	client, server, salts := material[:s.key], material[s.key:2*s.key], material[2*s.key:]
	in, err := newCrypt(p, client, salts[:s.salt])
	if err != nil {
		return nil, nil, err
	}
	out, err := newCrypt(p, server, salts[s.salt:])
	if err != nil {
		return nil, nil, err
	}
	return &Sealer{crypt: *out}, &Opener{crypt: *in}, nil
}

// crypt is the session keys of one direction. Caller's goroutine only: the nonce is built in it.
type crypt struct {
	rtp, rtcp keys
	nonce     [aes.BlockSize]byte
	tag       [sha1.Size]byte
	word      [rtcpTrailer]byte
}

// keys are a cipher and what comes with it; aead, or else block and mac.
type keys struct {
	aead  cipher.AEAD
	block cipher.Block
	mac   hash.Hash
	salt  [14]byte // 12 with aead
}

// Labels of the key derivation (RFC 3711 §4.3.2): cipher, authentication, salt; those of RTCP follow those of RTP.
const (
	labelCipher = iota
	labelAuth
	labelSalt
	labelsRTCP
)

func newCrypt(p Profile, key, salt []byte) (*crypt, error) {
	c := &crypt{}
	for label, k := range map[byte]*keys{0: &c.rtp, labelsRTCP: &c.rtcp} {
		copy(k.salt[:], derive(key, salt, label+labelSalt, len(salt)))
		block, err := aes.NewCipher(derive(key, salt, label+labelCipher, len(key)))
		if err != nil {
			return nil, err
		}
		if p == AES128SHA1 {
			k.block, k.mac = block, hmac.New(sha1.New, derive(key, salt, label+labelAuth, sha1.Size))
			continue
		}
		if k.aead, err = cipher.NewGCM(block); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// derive is the key derivation of RFC 3711 §4.3.3 at rate zero: AES in counter mode over the salt and a label. Salts of 96 bits are
// filled up with zeros (RFC 7714 §11).
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

// gcmNonce is RFC 7714 §8.1 (index: roll-over counter and sequence number) and §9.1 (index: SRTCP index, as the sixth to fourth last bytes
// are zero).
func (c *crypt) gcmNonce(k *keys, ssrc uint32, index uint64) []byte {
	n := c.nonce[:12]
	copy(n, k.salt[:12])
	var x [8]byte
	binary.BigEndian.PutUint32(x[:4], ssrc)
	for i := range 4 {
		n[2+i] ^= x[i]
	}
	binary.BigEndian.PutUint64(x[:], index)
	for i := range 6 {
		n[6+i] ^= x[2+i]
	}
	return n
}

// stream is the key stream of RFC 3711 §4.1.1.
func (c *crypt) stream(k *keys, ssrc uint32, index uint64) cipher.Stream {
	n := c.nonce[:]
	clear(n)
	binary.BigEndian.PutUint32(n[4:], ssrc)
	binary.BigEndian.PutUint64(n[6:], binary.BigEndian.Uint64(n[6:])^index)
	for i := range 14 {
		n[i] ^= k.salt[i]
	}
	return cipher.NewCTR(k.block, n)
}

// authenticate is RFC 3711 §4.2: over the packet and, for RTP, the roll-over counter, which is not sent.
func (c *crypt) authenticate(k *keys, b []byte, roc []byte) []byte {
	k.mac.Reset()
	k.mac.Write(b)
	k.mac.Write(roc)
	return k.mac.Sum(c.tag[:0])[:shaTag]
}

func (c *crypt) roc(index uint64) []byte {
	binary.BigEndian.PutUint32(c.word[:], uint32(index>>16))
	return c.word[:]
}

// A Sealer protects what we send on one connection. Caller's goroutine only.
type Sealer struct {
	crypt
	index uint32 // of the last SRTCP packet
}

// RTP protects a packet: b holds its header, and payload is the rest, which may be elsewhere or directly behind the header in the array of b. It
// returns the whole packet in the array of b, which must have room for it. index is that of Stream.
func (s *Sealer) RTP(b, payload []byte, ssrc uint32, index uint64) []byte {
	k := &s.rtp
	if k.aead != nil {
		return k.aead.Seal(b, s.gcmNonce(k, ssrc, index), payload, b)
	}
	n := len(b)
	b = b[:n+len(payload)]
	s.stream(k, ssrc, index).XORKeyStream(b[n:], payload)
	return append(b, s.authenticate(k, b, s.roc(index))...)
}

// Fetch has the processor fetch what RTP needs besides the Sealer itself.
func (s *Sealer) Fetch() {
	if s.rtp.aead != nil {
		prefetch.Lines((*[2]unsafe.Pointer)(unsafe.Pointer(&s.rtp.aead))[1], aeadLines) // what the interface points to: round keys, and powers of the hash key
	}
}

// aeadLines is how many cache lines the standard library's AES-GCM takes up.
const aeadLines = 12

// Overhead is how many bytes protection adds to an RTP packet.
func (s *Sealer) Overhead() int {
	if s.rtp.aead != nil {
		return s.rtp.aead.Overhead()
	}
	return shaTag
}

// RTCP protects a compound packet of at least eight bytes and returns it in the array of to, which must not overlap it. Each gets an index of its
// own, whichever SSRC it is of.
func (s *Sealer) RTCP(to, packet []byte) []byte {
	s.index = (s.index + 1) &^ encrypted // RFC 3711 §9.2: the key outlives no call that sends 2^31 of them
	k, ssrc := &s.rtcp, binary.BigEndian.Uint32(packet[4:])
	binary.BigEndian.PutUint32(s.word[:], s.index|encrypted)
	to = append(to, packet[:rtcpHeader]...)
	if k.aead != nil {
		var aad [rtcpHeader + rtcpTrailer]byte
		copy(aad[copy(aad[:], packet[:rtcpHeader]):], s.word[:])
		to = k.aead.Seal(to, s.gcmNonce(k, ssrc, uint64(s.index)), packet[rtcpHeader:], aad[:])
		return append(to, s.word[:]...)
	}
	at := len(to)
	to = append(to, packet[rtcpHeader:]...)
	s.stream(k, ssrc, uint64(s.index)).XORKeyStream(to[at:], to[at:])
	to = append(to, s.word[:]...)
	return append(to, s.authenticate(k, to[at-rtcpHeader:], nil)...)
}

// An Opener opens what the client protected. Caller's goroutine only.
type Opener struct {
	crypt
	arrived map[uint32]*arrived // by SSRC of the sender: each counts its SRTCP packets by itself
}

// maxSenders bounds the SSRCs whose SRTCP indexes are remembered; with more all are forgotten.
const maxSenders = 512

// RTP opens the packet in b, whose header has n bytes, into to, which has room for it and does not overlap it. It returns the packet without what protection
// added.
func (o *Opener) RTP(to, b []byte, n int, ssrc uint32, index uint64) ([]byte, error) {
	k := &o.rtp
	if k.aead != nil {
		payload, err := k.aead.Open(to[n:n], o.gcmNonce(k, ssrc, index), b[n:], b[:n])
		if err != nil {
			return nil, ErrTag
		}
		copy(to, b[:n])
		return to[:n+len(payload)], nil
	}
	end := len(b) - shaTag
	if end < n {
		return nil, ErrShort
	}
	if !hmac.Equal(o.authenticate(k, b[:end], o.roc(index)), b[end:]) {
		return nil, ErrTag
	}
	copy(to, b[:n])
	o.stream(k, ssrc, index).XORKeyStream(to[n:end], b[n:end])
	return to[:end], nil
}

// RTCP opens, in place, the compound packet in b. It returns ErrOld for one that was opened before.
func (o *Opener) RTCP(b []byte) ([]byte, error) {
	plain, ssrc, index, err := o.control(b)
	if err == nil && !o.fresh(ssrc, index) {
		return nil, ErrOld
	}
	return plain, err
}

// fresh notes the index of an authentic SRTCP packet and reports whether it is the first of its number (RFC 3711 §3.3.2).
func (o *Opener) fresh(ssrc, index uint32) bool {
	a := o.arrived[ssrc]
	if a == nil {
		if o.arrived == nil || len(o.arrived) >= maxSenders {
			o.arrived = map[uint32]*arrived{}
		}
		a = &arrived{highest: index}
		o.arrived[ssrc] = a
	}
	return a.note(index)
}

// control authenticates and decrypts.
func (o *Opener) control(b []byte) (plain []byte, ssrc, index uint32, err error) {
	k := &o.rtcp
	end := len(b) - rtcpTrailer
	if k.aead == nil {
		end -= shaTag
	}
	if end < rtcpHeader {
		return nil, 0, 0, ErrShort
	}
	word := binary.BigEndian.Uint32(b[end:])
	index, ssrc = word&^encrypted, binary.BigEndian.Uint32(b[4:])
	if k.aead != nil {
		plain, err = o.rtcpGCM(b[:end], b[end:], ssrc, index, word&encrypted != 0)
		return plain, ssrc, index, err
	}
	if !hmac.Equal(o.authenticate(k, b[:end+rtcpTrailer], nil), b[end+rtcpTrailer:]) {
		return nil, 0, 0, ErrTag
	}
	if word&encrypted != 0 {
		o.stream(k, ssrc, uint64(index)).XORKeyStream(b[rtcpHeader:end], b[rtcpHeader:end])
	}
	return b[:end], ssrc, index, nil
}

// rtcpGCM is RFC 7714 §9.2 and §9.3; what is not encrypted is authenticated all the same.
func (o *Opener) rtcpGCM(b, word []byte, ssrc, index uint32, sealed bool) ([]byte, error) {
	k := &o.rtcp
	nonce := o.gcmNonce(k, ssrc, uint64(index))
	if sealed {
		var aad [rtcpHeader + rtcpTrailer]byte
		copy(aad[copy(aad[:], b[:rtcpHeader]):], word)
		payload, err := k.aead.Open(b[rtcpHeader:rtcpHeader], nonce, b[rtcpHeader:], aad[:])
		if err != nil {
			return nil, ErrTag
		}
		return b[:rtcpHeader+len(payload)], nil
	}
	end := len(b) - k.aead.Overhead()
	if end < rtcpHeader {
		return nil, ErrShort
	}
	if _, err := k.aead.Open(nil, nonce, b[end:], append(b[:end:end], word...)); err != nil {
		return nil, ErrTag
	}
	return b[:end], nil
}
