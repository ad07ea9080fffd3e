package bench

import (
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// A shape is what an encoder makes: this many packets of about this size in every frame.
type shape struct {
	interval time.Duration
	packets  int
	size     int    // mean payload bytes of a packet
	ticks    uint32 // of the RTP clock between frames
	width    uint16
	height   uint16
}

// The load: Opus at 50 packets/s of 80 bytes; VP8 at 160, 450 and 1700 kbit/s in 20, 60 and 210 packets/s.
var (
	opusShape = shape{interval: 20 * time.Millisecond, packets: 1, size: 80, ticks: 960}
	vp8Shapes = [...]shape{
		{time.Second / 20, 1, 1000, 4500, 320, 180},
		{time.Second / 30, 2, 937, 3000, 640, 360},
		{time.Second / 30, 7, 1012, 3000, 1280, 720},
	}
)

// A track is one track of the plan, and what was sent of it.
type track struct {
	id        uint32
	room      int
	publisher int // participant of the room
	video     bool
	layers    [len(vp8Shapes)]sent // audio uses the first; owned by the publisher's loop until it ended
}

// sent counts what left of one layer.
type sent struct {
	begun     time.Duration // first packet, 0 = none
	measured  uint32        // packets within the measurement
	first     uint32        // counter of the first of them
	keyFrames uint32        // within the measurement
}

// top is the layer that receivers should get.
func (t *track) top() int {
	if t.video {
		return len(vp8Shapes) - 1
	}
	return 0
}

func (t *track) shape(layer int) shape {
	if t.video {
		return vp8Shapes[layer]
	}
	return opusShape
}

// A stream is one RTP stream that a participant sends: an audio track or a layer of a video track. Its loop's goroutine
// only.
type stream struct {
	track *track
	layer int
	shape shape
	mid   string
	rid   string          // "" for audio
	ids   [ridID + 1]bool // of the header extensions that the server accepted
	level uint8           // of the audio, -dBov

	ssrc      uint32
	index     uint64 // roll-over counter and sequence number of the next packet
	timestamp uint32
	counter   uint32
	frame     uint32
	picture   uint16
	noise     *rand.Rand
	packets   uint32 // for sender reports
	octets    uint32
	keyWanted bool
	known     bool // the server reported on the stream, so mid and rid may go
	next      time.Duration
	history   []outgoing // by index, what left last
}

func newStream(t *track, layer int, mid string, ids map[uint8]bool, ssrc uint32) *stream {
	noise := rand.New(rand.NewPCG(uint64(t.id), uint64(layer)))
	s := &stream{
		track: t, layer: layer, shape: t.shape(layer), mid: mid, ssrc: ssrc, noise: noise,
		index: uint64(noise.Uint32N(1 << 15)), timestamp: noise.Uint32(), picture: uint16(noise.Uint32N(1 << 14)), level: 127,
		keyWanted: true, // an encoder's first frame
		history:   make([]outgoing, history),
	}
	for id := range s.ids {
		s.ids[id] = ids[uint8(id)]
	}
	if t.video {
		s.rid = rids[layer]
	} else if t.publisher == 0 { // one speaks in each room
		s.level = 30
	}
	return s
}

// outgoing is all that a packet is made of: the same one makes the same bytes again, as a resend must.
type outgoing struct {
	index     uint64
	timestamp uint32
	transport uint16 // transport-wide sequence number
	picture   uint16
	size      uint16 // of the payload
	known     bool   // mid and rid are left out
	stamp     stamp
}

// history is how many packets of a stream can be sent again.
const history = 512

// sendFrame writes the packets of one frame, protected: each into a slot, whose size it hands to commit. transport
// numbers the packets of the connection.
func (s *stream) sendFrame(now time.Duration, measured bool, c *crypt, transport *uint16, slot func() []byte, commit func(n int)) {
	key := s.track.video && s.keyWanted
	s.keyWanted = s.keyWanted && !s.track.video
	count := &s.track.layers[s.layer]
	if count.begun == 0 {
		count.begun = now
	}
	if measured && count.measured == 0 {
		count.first = s.counter
	}
	total := s.shape.size * s.shape.packets
	if s.track.video { // a real encoder's frames vary
		total += int(s.noise.Uint32N(uint32(total)*3/10)) - total*3/20
	}
	for i := range s.shape.packets {
		o := &s.history[s.index%history]
		*o = outgoing{
			index: s.index, timestamp: s.timestamp, transport: *transport, picture: s.picture, known: s.known,
			size:  part(total, s.shape.packets, i),
			stamp: stamp{track: s.track.id, layer: uint8(s.layer), frame: s.frame, counter: s.counter, sent: now},
		}
		if key {
			o.stamp.flags |= flagKey
		}
		if i == 0 {
			o.stamp.flags |= flagFirst
		}
		if i == s.shape.packets-1 {
			o.stamp.flags |= flagLast
		}
		commit(s.write(o, c, slot()))
		if s.track.video {
			*transport++
		}
		s.index++
		s.counter++
		s.packets++
		s.octets += uint32(o.size)
		if measured {
			count.measured++
		}
	}
	if key && measured {
		count.keyFrames++
	}
	s.timestamp += s.shape.ticks
	s.frame++
	s.picture = (s.picture + 1) & 0x7fff
	s.next += s.shape.interval
}

// part is the size of the i-th of n parts of a frame: they differ by a byte, the longer ones last, as libwebrtc makes them.
func part(total, n, i int) uint16 {
	size := total / n
	if i >= n-total%n {
		size++
	}
	return uint16(size)
}

// again writes a packet once more, byte for byte, and returns its size, 0 if it is not remembered.
func (s *stream) again(seq uint16, c *crypt, b []byte) int {
	back := uint64(uint16(s.index) - seq)
	if back == 0 || back > min(history, s.index) {
		return 0
	}
	o := &s.history[(s.index-back)%history]
	if o.size == 0 || o.index != s.index-back { // before the first
		return 0
	}
	return s.write(o, c, b)
}

// write writes a packet, protected, and returns its size.
func (s *stream) write(o *outgoing, c *crypt, b []byte) int {
	n := s.writeHeader(b, o)
	payload := b[n : n+int(o.size)]
	clear(payload)
	s.writePayload(payload, o)
	o.stamp.put(payload)
	return len(c.seal(b[:n+len(payload)], n, uint32(o.index>>16)))
}

// writeHeader writes the RTP header with the extensions that the server accepted and returns its size.
func (s *stream) writeHeader(b []byte, o *outgoing) int {
	b[0], b[1] = 0x90, opusPT
	if s.track.video {
		b[1] = vp8PT
		if o.stamp.flags&flagLast != 0 {
			b[1] |= 0x80
		}
	}
	binary.BigEndian.PutUint16(b[2:], uint16(o.index))
	binary.BigEndian.PutUint32(b[4:], o.timestamp)
	binary.BigEndian.PutUint32(b[8:], s.ssrc)
	at := 16
	put := func(id uint8, value ...byte) {
		if s.ids[id] && len(value) > 0 {
			b[at] = id<<4 | uint8(len(value)-1) // RFC 8285 §4.2
			at += 1 + copy(b[at+1:], value)
		}
	}
	if s.track.video {
		put(transportID, byte(o.transport>>8), byte(o.transport))
	} else {
		put(audioLevelID, 0x80|s.level)
	}
	if !o.known {
		put(midID, []byte(s.mid)...)
		put(ridID, []byte(s.rid)...)
	}
	for at%4 != 0 {
		b[at] = 0
		at++
	}
	binary.BigEndian.PutUint16(b[12:], 0xbede)
	binary.BigEndian.PutUint16(b[14:], uint16(at-16)/4)
	return at
}

// writePayload writes what a server looks at; the rest is zero, which nobody sees once it is protected.
func (s *stream) writePayload(b []byte, o *outgoing) {
	if !s.track.video {
		b[0] = 0x78 // RFC 6716 §3.1: one frame of 20 ms, mono
		return
	}
	// RFC 7741 §4.2: X; I, L, T and K with a picture id of 15 bits; one temporal layer.
	b[0], b[1] = 0x80, 0xf0
	binary.BigEndian.PutUint16(b[2:], 0x8000|o.picture)
	b[4], b[5] = byte(o.stamp.frame), 0
	if o.stamp.flags&flagFirst == 0 {
		return
	}
	b[0] |= 0x10               // S
	b[6], b[7], b[8] = 1, 0, 0 // RFC 7741 §4.3: P
	b[6] |= 0x10
	if o.stamp.flags&flagKey != 0 {
		b[6] &^= 1
		b[9], b[10], b[11] = 0x9d, 0x01, 0x2a
		binary.LittleEndian.PutUint16(b[12:], s.shape.width)
		binary.LittleEndian.PutUint16(b[14:], s.shape.height)
	}
}
