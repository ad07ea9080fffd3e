package sfu

import (
	"testing"
	"time"

	"callserver/sfu/forward"
	"callserver/sfu/packet"
)

// camera sends VP8, 50 frames a second, and counts the key frames that it is asked for.
type camera struct {
	source *forward.Source
	seq    uint16
	asked  int
}

func (c *camera) RequestKeyFrame(int8) { c.asked++ }
func (c *camera) Await()               {}

// send has the camera send for a while, beginning with a key frame or not, and returns how many were asked for since the last call.
func (c *camera) send(st *stage, d time.Duration, key bool) int {
	for end := st.now.Add(d); st.now.Before(end); {
		st.now = st.now.Add(20 * time.Millisecond)
		c.seq++
		p := packet.Get(packet.Capacity)
		p.SequenceNumber, p.Timestamp, p.SSRC, p.Marker = c.seq, uint32(c.seq)*1800, 1, true
		p.Payload = append(p.Buffer()[:0], 0x10, 0x01)
		if key {
			p.Payload = append(p.Payload[:1], 0x00, 0x00, 0x00, 0x9d, 0x01, 0x2a)
		}
		key = false
		c.source.Push(forward.Layer{}, p, st.now)
	}
	return c.take()
}

func (c *camera) take() int {
	n := c.asked
	c.asked = 0
	return n
}

// TestReceiversShareAKeyFrame has people bind a camera one after the other who were told of it at the same time: one key frame serves them all, and who comes
// alone, or with somebody who does not come, gets one all the same.
func TestReceiversShareAKeyFrame(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob, carol, dave := st.join("alice"), st.join("bob"), st.join("carol"), st.join("dave")
	sid, source := alice.publish(TrackRequest{CID: "cam", Kind: Video, Source: Camera})
	cam := &camera{source: source}
	source.SetUpstream(cam)
	cam.send(st, 20*time.Millisecond, true)

	bob.bind(sid)
	if n := cam.send(st, 60*time.Millisecond, false); n != 0 {
		t.Errorf("asked %d times while two others are about to come", n)
	}
	carol.bind(sid)
	if n := cam.send(st, 60*time.Millisecond, false); n != 0 {
		t.Errorf("asked %d times while one is about to come", n)
	}
	dave.bind(sid)
	if n := cam.take(); n != 1 {
		t.Errorf("asked %d times when all are there, want once", n)
	}
	if n := cam.send(st, 2*time.Second, true); n != 0 {
		t.Errorf("asked %d times once all have it", n)
	}

	st.join("erin").bind(sid)
	if n := cam.take(); n != 1 {
		t.Errorf("asked %d times for somebody who comes alone, want once", n)
	}
	cam.send(st, 2*time.Second, true)

	frank, grace := st.join("frank"), st.join("grace")
	frank.bind(sid)
	if n := cam.send(st, gatherFor-20*time.Millisecond, false); n != 0 {
		t.Errorf("asked %d times while grace is about to come", n)
	}
	if n := cam.send(st, 20*time.Millisecond, false); n != 1 {
		t.Errorf("asked %d times when she did not come, want once", n)
	}
	cam.send(st, 2*time.Second, true)
	st.join("heidi").bind(sid)
	if n := cam.take(); n != 1 {
		t.Errorf("asked %d times although grace is not waited for any more, want once", n)
	}
	grace.Leave(ClientInitiated, st.now)
}
