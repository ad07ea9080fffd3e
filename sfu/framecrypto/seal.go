package framecrypto

import (
	"crypto/rand"
	"encoding/binary"
)

// A Sealer seals the frames of one track that this server sends. Caller's goroutine only.
type Sealer struct {
	keys  *Keys
	codec Codec
	ssrc  uint32
	count uint32
	iv    [ivSize]byte
	work  []byte // header, or what is escaped
}

// NewSealer returns a Sealer whose IVs are made of the SSRC, the frame's time stamp and a count from a random start: no
// two tracks that share keys may share an SSRC.
func NewSealer(keys *Keys, codec Codec, ssrc uint32) *Sealer {
	var start [2]byte
	_, _ = rand.Read(start[:]) // never fails (crypto/rand)
	return &Sealer{keys: keys, codec: codec, ssrc: ssrc, count: uint32(binary.BigEndian.Uint16(start[:]))}
}

// Seal appends the sealed frame to dst, which must not overlap frame. The time stamp is RTP's; intra says whether a
// picture is a key frame. It fails with ErrNoKey, and with ErrMalformed where the frame ends before its header does.
func (s *Sealer) Seal(dst, frame []byte, timestamp uint32, intra bool) ([]byte, error) {
	if len(frame) == 0 {
		return dst, nil
	}
	key, index, err := s.keys.sealing()
	if err != nil {
		return dst, err
	}
	clear, escaped := readable(s.codec, frame, intra)
	if clear > len(frame) {
		return dst, ErrMalformed
	}
	s.next(timestamp)
	if !escaped {
		start := len(dst)
		dst = append(dst, frame[:clear]...)
		dst = key.aead.Seal(dst, s.iv[:], frame[clear:], dst[start:])
		return s.end(dst, index), nil
	}
	start := len(dst)
	dst = appendLongStarts(dst, frame[:clear])
	s.work = key.aead.Seal(s.work[:0], s.iv[:], frame[clear:], dst[start:])
	s.work = s.end(s.work, index)
	return appendEscaped(dst, s.work), nil
}

// next makes the IV of the next frame. Any that is unique will do; this is the one that clients make.
func (s *Sealer) next(timestamp uint32) {
	binary.BigEndian.PutUint32(s.iv[0:], s.ssrc)
	binary.BigEndian.PutUint32(s.iv[4:], timestamp)
	binary.BigEndian.PutUint32(s.iv[8:], timestamp-s.count%0xffff)
	s.count++
}

func (s *Sealer) end(dst []byte, index byte) []byte {
	return append(append(dst, s.iv[:]...), ivSize, index)
}
