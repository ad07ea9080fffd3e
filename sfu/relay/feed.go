package relay

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/forward"
	"callserver/sfu/frame"
	"callserver/sfu/framecrypto"
	"callserver/sfu/packet"
)

// sealed are the codecs whose frames have an encrypted form.
var sealed = map[codec.Codec]framecrypto.Codec{
	codec.Opus: framecrypto.Opus, codec.VP8: framecrypto.VP8, codec.VP9: framecrypto.VP9, codec.H264: framecrypto.H264,
}

// Sealable reports whether frames of the codec can be encrypted and passed on.
func Sealable(c codec.Codec) bool {
	_, ok := sealed[c]
	return ok
}

// A Feed is the Writer of one track's Sink. It implements forward.Writer; From says which Sink.
type Feed struct {
	stage *Stage
	id    uint32                       // our SSRC towards the stage's Source
	sink  atomic.Pointer[forward.Sink] // nil until From

	keyless atomic.Bool // a frame came for which there is no key: to ask for others is of no use

	mu       sync.Mutex
	opener   *framecrypto.Opener // nil: nothing is opened
	sealer   *framecrypto.Sealer // nil: nothing is sealed
	builder  *frame.Builder      // nil: packets are passed one to one
	splitter *frame.Splitter
	begun    bool   // a key frame has come through
	sequence uint16 // of the last packet, where frames are put together
	work     []byte // a frame, opened or sealed
	asked    time.Time
}

// keyFrameSpacing bounds how often a feed asks for a key frame because a frame was of no use. The Source has its own bound above it.
const keyFrameSpacing = 500 * time.Millisecond

// assemble has the feed work on whole frames, where packets are not frames already.
func (f *Feed) assemble(c codec.Codec) {
	if frame.Splits(c) {
		f.builder, f.splitter = frame.NewBuilder(c), frame.NewSplitter(c)
	}
}

// From says whose Writer the feed is, for key frame requests.
func (f *Feed) From(k *forward.Sink) { f.sink.Store(k) }

// Close lets go of what waits. The feed must have lost the stage.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.builder != nil {
		f.builder.Close()
		f.builder = nil
		f.opener, f.sealer, f.splitter = nil, nil, nil
	}
}

// Keyed says that there are keys now which there were not: what could not be opened or sealed is asked for again.
func (f *Feed) Keyed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keyless.Swap(false) && f.builder != nil {
		f.needKeyFrame(f.stage.clock())
	}
}

func (f *Feed) requestKeyFrame(now time.Time) {
	if k := f.sink.Load(); k != nil && !f.keyless.Load() {
		k.RequestKeyFrame(now)
	}
}

// WriteRTP implements forward.Writer.
func (f *Feed) WriteRTP(o *forward.Outgoing) error {
	size := len(o.Head) + len(o.Payload) + len(o.AbsCaptureTime)
	if size > packet.Capacity {
		return errTooLong
	}
	p := packet.Get(size)
	b := p.Buffer()
	n := copy(b, o.Head)
	n += copy(b[n:], o.Payload)
	p.SequenceNumber, p.Timestamp, p.Marker, p.Payload = o.SequenceNumber, o.Timestamp, o.Marker, b[:n:n]
	p.AudioLevel, p.Voice, p.HasAudioLevel = o.AudioLevel, o.Voice, o.HasAudioLevel
	if len(o.AbsCaptureTime) > 0 {
		p.AbsCaptureTime = b[n : n+copy(b[n:], o.AbsCaptureTime)]
	}
	now := f.stage.clock()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.builder != nil:
		f.builder.Add(p, now)
		f.advance(now)
	case f.opener != nil || f.sealer != nil:
		f.turnPacket(p, now)
	default:
		f.stage.push(f, p, now)
	}
	return nil
}

var errTooLong = errors.New("relay: packet longer than a datagram may be")

// flush gives up what has been waited for long enough.
func (f *Feed) flush(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.builder != nil {
		f.advance(now)
	}
}

// turnPacket opens or seals a packet that is a whole frame.
func (f *Feed) turnPacket(p *packet.Packet, now time.Time) {
	turned, ok := f.turn(&frame.Frame{Timestamp: p.Timestamp, Data: p.Payload})
	if !ok {
		p.Release()
		return
	}
	size := len(turned) + len(p.AbsCaptureTime)
	if size > packet.Capacity {
		p.Release()
		return
	}
	q := packet.Get(size)
	b := q.Buffer()
	n := copy(b, turned)
	q.SequenceNumber, q.Timestamp, q.Marker, q.Payload = p.SequenceNumber, p.Timestamp, p.Marker, b[:n:n]
	q.AudioLevel, q.Voice, q.HasAudioLevel = p.AudioLevel, p.Voice, p.HasAudioLevel
	if len(p.AbsCaptureTime) > 0 {
		q.AbsCaptureTime = b[n : n+copy(b[n:], p.AbsCaptureTime)]
	}
	p.Release()
	f.stage.push(f, q, now)
}

// advance passes on the frames that are complete.
func (f *Feed) advance(now time.Time) {
	given := f.builder.GivenUp()
	for {
		whole := f.builder.Next(now)
		if lost := f.builder.GivenUp() - given; lost > 0 {
			given += lost
			f.stage.counts.dropped.Add(lost)
			f.needKeyFrame(now)
		}
		if whole == nil {
			return
		}
		if whole.Gap {
			f.sequence++ // a receiver is to know
		}
		f.passFrame(whole, now)
	}
}

// passFrame opens or seals a picture and sends it on.
func (f *Feed) passFrame(whole *frame.Frame, now time.Time) {
	if !f.begun && !whole.Key {
		if f.keyless.Load() { // of the key before, perhaps: a sender takes up a new one a while after it was told
			if _, ok := f.turn(whole); ok {
				f.keyless.Store(false)
			}
		}
		f.needKeyFrame(now)
		return
	}
	turned, ok := f.turn(whole)
	if !ok {
		f.sequence++
		f.needKeyFrame(now)
		return
	}
	f.begun = true
	f.keyless.Store(false)
	whole.Data = turned
	f.splitter.Start(whole)
	for first := true; ; first = false {
		p := packet.Get(packet.Capacity)
		b := p.Buffer()
		payload, last, ok := f.splitter.Next(b[:0])
		if !ok {
			p.Release()
			return
		}
		f.sequence++
		p.SequenceNumber, p.Timestamp, p.Payload, p.Marker = f.sequence, whole.Timestamp, payload, last && whole.Ends
		if n := len(payload); first && len(whole.AbsCaptureTime) > 0 {
			p.AbsCaptureTime = b[n : n+copy(b[n:], whole.AbsCaptureTime)]
		}
		f.stage.push(f, p, now)
	}
}

// turn opens or seals a frame. What it returns is good until it is called again.
func (f *Feed) turn(whole *frame.Frame) (turned []byte, ok bool) {
	var err error
	if f.opener != nil {
		f.work, err = f.opener.Open(f.work[:0], whole.Data, whole.Key)
	} else {
		f.work, err = f.sealer.Seal(f.work[:0], whole.Data, whole.Timestamp, whole.Key)
	}
	switch {
	case err == nil:
		return f.work, true
	case errors.Is(err, framecrypto.ErrNoKey):
		f.keyless.Store(true)
		f.stage.counts.keyless.Add(1)
	default:
		f.stage.counts.forged.Add(1)
	}
	return nil, false
}

// needKeyFrame asks for a key frame, at most twice a second.
func (f *Feed) needKeyFrame(now time.Time) {
	if !f.keyless.Load() && now.Sub(f.asked) >= keyFrameSpacing {
		f.asked = now
		f.requestKeyFrame(now)
	}
}
