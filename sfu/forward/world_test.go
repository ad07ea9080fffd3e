package forward

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/packet"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// got is a copy of an Outgoing.
type got struct {
	Outgoing
	bytes []byte // head and payload
}

// receiver is a Writer that remembers.
type receiver struct {
	mu      sync.Mutex
	packets []got
	err     error
}

func (r *receiver) WriteRTP(o *Outgoing) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := got{Outgoing: *o, bytes: slices.Concat(o.Head, o.Payload)}
	g.Head, g.Payload = bytes.Clone(o.Head), bytes.Clone(o.Payload)
	g.DependencyDescriptor, g.AbsCaptureTime = bytes.Clone(o.DependencyDescriptor), bytes.Clone(o.AbsCaptureTime)
	r.packets = append(r.packets, g)
	return r.err
}

func (r *receiver) take() []got {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.packets
	r.packets = nil
	return taken
}

// publisher is an Upstream that counts key frame requests by stream.
type publisher struct {
	mu       sync.Mutex
	requests [maxStreams]int
	awaited  int
}

func (p *publisher) Await() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.awaited++
}

func (p *publisher) RequestKeyFrame(spatial int8) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests[spatial]++
}

func (p *publisher) take() [maxStreams]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.requests
	p.requests = [maxStreams]int{}
	return taken
}

// pkt is one RTP packet to push.
type pkt struct {
	seq     uint16
	ts      uint32
	ssrc    uint32
	marker  bool
	payload []byte
	level   int // audio level in -dBov, if > 0
	dd      []byte
	rtx     bool
}

// packet returns it as if it had been received.
func (d pkt) packet(t testing.TB) *packet.Packet {
	t.Helper()
	b := []byte{0x90, 96}
	if d.marker {
		b[1] |= 0x80
	}
	b = binary.BigEndian.AppendUint16(b, d.seq)
	b = binary.BigEndian.AppendUint32(b, d.ts)
	b = binary.BigEndian.AppendUint32(b, d.ssrc)
	var ext []byte
	if d.level > 0 {
		ext = append(ext, 1, 1, uint8(d.level)|0x80)
	}
	if d.dd != nil {
		ext = append(append(ext, 2, uint8(len(d.dd))), d.dd...)
	}
	for len(ext)%4 != 0 {
		ext = append(ext, 0)
	}
	b = append(b, 0x10, 0, 0, uint8(len(ext)/4))
	b = append(append(b, ext...), d.payload...)
	p := packet.Get(packet.Capacity)
	n := copy(p.Buffer(), b)
	if err := p.Parse(n, packet.Extensions{AudioLevel: 1, DependencyDescriptor: 2}); err != nil {
		t.Fatalf("parse %x: %v", b, err)
	}
	p.Retransmitted = d.rtx
	return p
}

// vp8 is a VP8 payload: descriptor and some bytes that tell packets apart.
type vp8 struct {
	start, key, sync bool
	wide             bool
	picture          uint16
	tl0, tid, keyidx uint8
	body             byte
}

func (v vp8) payload() []byte {
	b := []byte{0x80, 0xf0}
	if v.start {
		b[0] |= 0x10
	}
	if v.wide {
		b = append(b, 0x80|uint8(v.picture>>8), uint8(v.picture))
	} else {
		b = append(b, uint8(v.picture&0x7f))
	}
	last := v.tid<<6 | v.keyidx&0x1f
	if v.sync {
		last |= 0x20
	}
	b = append(b, v.tl0, last)
	frame := byte(1)
	if v.key {
		frame = 0
	}
	return append(b, frame, v.body)
}

// camera makes the packets of one simulcast stream: frames of a few packets at 30 a second.
type camera struct {
	ssrc    uint32
	seq     uint16
	ts      uint32
	picture uint16
	tl0     uint8
	keyidx  uint8
	frames  int
	size    int // packets a frame
	layers  int // temporal layers, 1 to 3
	narrow  bool
}

// frame returns the packets of the next frame.
func (c *camera) frame(key bool) []pkt {
	var tid uint8
	sync := key
	if key {
		c.frames = 0
	}
	switch {
	case c.layers == 2 && c.frames%2 == 1:
		tid, sync = 1, true
	case c.layers == 3 && c.frames%4 == 2:
		tid, sync = 1, true
	case c.layers == 3 && c.frames%2 == 1:
		tid, sync = 2, c.frames%4 == 1
	}
	c.frames++
	if tid == 0 {
		c.tl0++
	}
	if key {
		c.keyidx++
	}
	var ps []pkt
	for i := range max(c.size, 1) {
		v := vp8{start: i == 0, key: key, sync: sync, wide: !c.narrow, picture: c.picture & 0x7fff, tl0: c.tl0, tid: tid, keyidx: c.keyidx, body: byte(c.seq)}
		ps = append(ps, pkt{seq: c.seq, ts: c.ts, ssrc: c.ssrc, marker: i == max(c.size, 1)-1, payload: v.payload()})
		c.seq++
	}
	c.picture++
	c.ts += 3000
	return ps
}

// parsed is the VP8 descriptor of what a receiver got.
func parsed(t testing.TB, g got) codec.VP8Descriptor {
	t.Helper()
	d, err := codec.ParseVP8(g.bytes)
	if err != nil {
		t.Fatalf("descriptor of %x: %v", g.bytes, err)
	}
	return d
}

// world is a Source with its publisher, at a time.
type world struct {
	testing.TB
	*Source
	publisher
	now time.Time
}

func newWorld(t testing.TB, o SourceOptions) *world {
	w := &world{TB: t, Source: NewSource(o), now: start}
	w.SetUpstream(&w.publisher)
	return w
}

func (w *world) push(stream int8, ps ...pkt) {
	w.Helper()
	for _, d := range ps {
		w.Source.Push(Layer{Spatial: stream}, d.packet(w.TB), w.now)
	}
}

func (w *world) wait(d time.Duration) { w.now = w.now.Add(d) }

func seqs(gs []got) []uint16 {
	var s []uint16
	for _, g := range gs {
		s = append(s, g.SequenceNumber)
	}
	return s
}
