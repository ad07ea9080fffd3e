package framecrypto

// An Opener opens the frames of one track that a client sealed. Caller's goroutine only.
type Opener struct {
	keys  *Keys
	codec Codec
	work  []byte // what was escaped
}

// NewOpener returns an Opener for frames sealed by the keys.
func NewOpener(keys *Keys, codec Codec) *Opener { return &Opener{keys: keys, codec: codec} }

// Open appends the opened frame to dst, which must not overlap frame. Intra says whether a picture is a key frame. It
// fails with ErrMalformed, ErrNoKey, ErrDeadKey and ErrForged, having appended nothing; the frame is to be dropped then. A
// key that does not open a frame is turned a few times, as clients do; one that fails for many frames in a row is dead
// until it is set again.
func (o *Opener) Open(dst, frame []byte, intra bool) ([]byte, error) {
	if len(frame) == 0 {
		return dst, nil
	}
	clear, escaped := readable(o.codec, frame, intra)
	if clear > len(frame) {
		return dst, ErrMalformed
	}
	header, sealed := frame[:clear], frame[clear:]
	if escaped {
		o.work = appendUnescaped(o.work[:0], sealed)
		sealed = o.work
	}
	if len(sealed) < tagSize+footer || sealed[len(sealed)-trailer] != ivSize {
		return dst, ErrMalformed
	}
	index := sealed[len(sealed)-1]
	iv := sealed[len(sealed)-footer : len(sealed)-trailer]
	return o.openWith(dst, header, sealed[:len(sealed)-footer], iv, index)
}

func (o *Opener) openWith(dst, header, sealed, iv []byte, index byte) ([]byte, error) {
	slot := &o.keys.ring[index]
	key := slot.Load()
	switch {
	case key == nil:
		return dst, ErrNoKey
	case key.failed.Load() > maxFailed:
		return dst, ErrDeadKey
	}
	start := len(dst)
	dst = append(dst, header...)
	opened, err := key.aead.Open(dst, iv, sealed, header)
	if err == nil {
		key.failed.Store(0)
		return opened, nil
	}
	next := key
	for range ratchets {
		if next, err = next.turned(); err != nil {
			break
		}
		if opened, err = next.aead.Open(dst, iv, sealed, header); err == nil {
			slot.CompareAndSwap(key, next)
			return opened, nil
		}
	}
	key.failed.Add(1)
	return dst[:start], ErrForged
}
