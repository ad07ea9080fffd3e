package rtc_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"callserver/sfu/forward"
	"callserver/sfu/rtc"

	"github.com/pion/rtcp"
)

// talkTo has m publish sound, which the other is sent as TR_A.
func (m *member) talkTo(to *member) (send func(layer int, key bool), source *forward.Source) {
	m.w.t.Helper()
	send, source = m.publish("mic", "audio/opus")
	to.negotiate(false)
	to.subscribe("TR_A", source, "audio/opus")
	return send, source
}

// publish has m send one track and returns it with the source that it feeds.
func (m *member) publish(cid, mime string, rids ...string) (send func(layer int, key bool), source *forward.Source) {
	m.w.t.Helper()
	track := m.Publish(cid, mime, rids...)
	video := strings.HasPrefix(mime, "video/")
	m.wants = append(m.wants, rtc.Want{CID: cid, Video: video, Mime: mime})
	source = m.feed(m.negotiate(false), cid, forward.SourceOptions{Video: video})
	n := 0
	return func(layer int, key bool) {
		n++
		track.Send(layer, key, 20, fmt.Appendf(nil, "%s layer %d packet %d", cid, layer, n))
	}, source
}

// TestSections follows media_sections_requirement: what is missing is asked for once, freed sections serve again under a
// new stream id, and zero sections mean "negotiate again".
func TestSections(t *testing.T) {
	bubble(t, func(w *world) {
		alice, bob := w.join(true, 17), w.join(true, 17)
		defer bob.leave()
		defer alice.leave()
		_, source := alice.publish("mic", "audio/opus")
		bob.negotiate(false)
		w.until("connection", bob.connected)
		for i := range 5 { // three placeholders are there
			bob.subscribe(fmt.Sprintf("TR_%d", i), source, "audio/opus")
		}
		w.until("five bound", func() bool { return count[rtc.DownlinkBound](bob) == 5 })
		if n := count[rtc.SectionsNeeded](bob); n != 1 {
			t.Errorf("asked %d times for sections", n)
		}
		if e := first[rtc.SectionsNeeded](bob); e.Audio != 2 || e.Video != 0 {
			t.Errorf("asked for %+v, want two of audio", e)
		}
		bob.peer.RemoveDownlink("TR_1")
		w.until("removal told", func() bool { return count[rtc.SectionsNeeded](bob) == 2 })
		bob.subscribe("TR_new", source, "audio/opus")
		w.until("new one bound", func() bool { return count[rtc.DownlinkBound](bob) == 6 })
		bob.mu.Lock()
		defer bob.mu.Unlock()
		last := bob.answers[len(bob.answers)-1]
		if last.Tracks["1"] != "TR_new" || !strings.Contains(last.SDP, "a=msid:PA_x|TR_new TR_new") {
			t.Errorf("freed section is not used again: %v", last.Tracks)
		}
		if strings.Contains(last.SDP, "TR_1 ") {
			t.Error("the removed track is still described")
		}
		for _, e := range bob.events[slices.IndexFunc(bob.events, isSecondRequest()):] {
			if s, ok := e.(rtc.SectionsNeeded); ok && (s.Audio != 0 || s.Video != 0) {
				t.Errorf("asked for %+v though a section was free", s)
			}
		}
	})
}

func isSecondRequest() func(rtc.Event) bool {
	n := 0
	return func(e rtc.Event) bool {
		if _, ok := e.(rtc.SectionsNeeded); ok {
			n++
		}
		return n == 2
	}
}

// first returns the first event of its type.
func first[E rtc.Event](m *member) (found E) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		if e, ok := e.(E); ok {
			return e
		}
	}
	return found
}

// TestLoss loses packets on the way up and on the way down: all of them arrive all the same, in either mode.
func TestLoss(t *testing.T) {
	for _, single := range []bool{true, false} {
		t.Run(fmt.Sprintf("single=%v", single), func(t *testing.T) {
			bubble(t, func(w *world) {
				alice, bob := w.join(true, 17), w.join(single, 17)
				defer bob.leave()
				defer alice.leave()
				send, source := alice.publish("cam", "video/VP8")
				bob.negotiate(false)
				bob.subscribe("TR_V", source, "video/VP8")
				w.until("alice", alice.connected)
				w.until("bob bound", func() bool { return count[rtc.DownlinkBound](bob) == 1 })
				if !first[rtc.DownlinkBound](bob).RTX {
					t.Error("no retransmission stream")
				}
				lost := map[string]int{}
				w.net.Drop(func(b []byte, from, to string) bool {
					if len(b) < 12 || b[0] < 128 || b[0] > 191 || b[1]&0x7f != 96 {
						return false // only first transmissions of video
					}
					lost[from+to]++
					return lost[from+to]%10 == 5
				})
				for n := range 100 {
					send(0, n%50 == 0)
					time.Sleep(33 * time.Millisecond)
				}
				w.until("track", func() bool { return bob.received("TR_V") != nil })
				time.Sleep(2 * time.Second)
				stats := source.Stats().Layers[0]
				sink := bob.sinks["TR_V"].Stats()
				if stats.Nacks == 0 && sink.Retransmitted == 0 {
					t.Errorf("nothing was asked for again: %+v %+v", stats, sink)
				}
			})
		})
	}
}

// TestLossIsAskedForAtOnce: not only when the next tick comes.
func TestLossIsAskedForAtOnce(t *testing.T) {
	for _, payload := range []byte{96, 111} { // video, sound
		t.Run(fmt.Sprintf("payload=%d", payload), func(t *testing.T) {
			bubble(t, func(w *world) {
				alice, bob := w.join(true, 17), w.join(true, 17)
				defer bob.leave()
				defer alice.leave()
				send, source := alice.talkTo(bob)
				if payload == 96 {
					send, source = alice.publish("cam", "video/VP8")
					bob.subscribe("TR_V", source, "video/VP8")
				}
				w.until("alice", alice.connected)
				w.until("bob bound", func() bool { return count[rtc.DownlinkBound](bob) > 0 })
				var lose atomic.Bool
				w.net.Drop(func(b []byte, from, to string) bool {
					return len(b) > 12 && b[0]>>6 == 2 && b[1]&0x7f == payload && strings.HasPrefix(to, "10.0.0.1:") && lose.Swap(false)
				})
				for n := range 20 {
					for source.Waits() || n == 0 && source.Stats().Layers[0].Packets < 10 { // alice answers nothing: it is given up
						send(0, true)
						time.Sleep(20 * time.Millisecond)
					}
					time.Sleep(time.Duration(n) * time.Millisecond) // ticks come at another time than before
					before := source.Stats().Layers[0].Nacks
					lose.Store(true)
					send(0, false)
					time.Sleep(20 * time.Millisecond)
					send(0, false)
					time.Sleep(time.Millisecond)
					if asked := source.Stats().Layers[0].Nacks - before; asked != 1 {
						t.Errorf("asked for %d packets, %d ms after a tick, when the loss shows", asked, n)
					}
				}
			})
		})
	}
}

// TestKeyFrameRequest passes a receiver's PLI on to the publisher.
func TestKeyFrameRequest(t *testing.T) {
	bubble(t, func(w *world) {
		alice, bob := w.join(true, 17), w.join(true, 17)
		defer bob.leave()
		defer alice.leave()
		send, source := alice.publish("cam", "video/VP8", "q", "h")
		bob.negotiate(false)
		bob.subscribe("TR_V", source, "video/VP8")
		w.until("alice", alice.connected)
		w.until("bob bound", func() bool { return count[rtc.DownlinkBound](bob) == 1 })
		w.until("track", func() bool {
			send(0, true)
			send(1, true)
			return bob.received("TR_V") != nil
		})
		for range 30 { // a request right after a key frame would be answered by it
			send(0, false)
			send(1, false)
			time.Sleep(33 * time.Millisecond)
		}
		before := bob.sinks["TR_V"].Stats().KeyFrameWanted
		r := bob.received("TR_V")
		pli := &rtcp.PictureLossIndication{MediaSSRC: uint32(r.Track.SSRC())}
		if err := r.Feedback(pli); err != nil {
			t.Fatal(err)
		}
		w.until("request", func() bool { return bob.sinks["TR_V"].Stats().KeyFrameWanted > before })
		var requests uint64
		w.until("request upstream", func() bool {
			send(0, false)
			send(1, false)
			requests = 0
			for _, l := range source.Stats().Layers {
				requests += l.Requests
			}
			return requests > 0
		})
	})
}

// TestICERestart renews the credentials of every kind of connection; media goes on.
func TestICERestart(t *testing.T) {
	bubble(t, func(w *world) {
		alice, bob := w.join(true, 17), w.join(false, 17)
		defer bob.leave()
		defer alice.leave()
		send, _ := alice.talkTo(bob)
		w.until("alice", alice.connected)
		w.until("bob bound", func() bool { return count[rtc.DownlinkBound](bob) == 1 })
		before := alice.answers[len(alice.answers)-1].SDP
		offers := count[rtc.OfferReady](bob)
		after := alice.negotiate(true).SDP
		if ufrag(before) == ufrag(after) {
			t.Error("the publisher's restart was answered with old credentials")
		}
		if old := bob.negotiate(true).SDP; ufrag(old) == ufrag(bob.answers[0].SDP) {
			t.Error("the dual publisher's restart was answered with old credentials")
		}
		bob.peer.Negotiate(true)
		w.until("subscriber offer", func() bool { return count[rtc.OfferReady](bob) > offers })
		w.until("media", func() bool {
			send(0, false)
			return alice.connected() && bob.connected() && bob.received("TR_A") != nil
		})
		r := bob.received("TR_A")
		for len(r.Packets) > 0 {
			<-r.Packets
		}
		w.until("media after the restart", func() bool { send(0, false); return len(r.Packets) > 5 })
		if count[rtc.CandidateGathered](alice) < 2 || !first[rtc.CandidateGathered](alice).Final {
			t.Error("candidates were not told again, or the last is not marked")
		}
	})
}

func ufrag(sdp string) string {
	_, rest, _ := strings.Cut(sdp, "a=ice-ufrag:")
	value, _, _ := strings.Cut(rest, "\r")
	return value
}

// TestData sends both ways over the channels of every mode.
func TestData(t *testing.T) {
	for _, c := range []struct {
		name     string
		single   bool
		protocol int32
	}{{"opened by the client", true, 17}, {"negotiated", true, 18}, {"dual", false, 17}} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(w *world) {
				m := w.join(c.single, c.protocol)
				defer m.leave()
				if err := m.peer.WriteData(true, []byte("early")); err == nil {
					t.Error("sent before the channel was open")
				}
				m.negotiate(false)
				w.until("open", func() bool { return count[rtc.DataOpen](m) == 1 })
				w.until("sent up", func() bool { return m.Send("_reliable", []byte("up")) })
				w.until("arrived", func() bool { return count[rtc.DataReceived](m) > 0 })
				if e := first[rtc.DataReceived](m); !e.Reliable || string(e.Payload) != "up" {
					t.Errorf("got %+v", e)
				}
				sizes := []int{1 << 10, 1<<10 + 1, 14_000, 64_000, 3}
				for _, n := range sizes {
					w.until("sent up", func() bool { return m.Send("_reliable", bytes.Repeat([]byte("x"), n)) })
				}
				w.until("all sizes", func() bool { return count[rtc.DataReceived](m) > len(sizes) })
				var got []int
				m.mu.Lock()
				for _, e := range m.events {
					if e, ok := e.(rtc.DataReceived); ok {
						got = append(got, len(e.Payload))
					}
				}
				m.mu.Unlock()
				if want := append([]int{2}, sizes...); !slices.Equal(got, want) {
					t.Errorf("messages of %v bytes arrived, want %v", got, want)
				}
				for _, reliable := range []bool{true, false} {
					if err := m.peer.WriteData(reliable, []byte("down")); err != nil {
						t.Error(err)
					}
				}
				w.until("both down", func() bool {
					m.mu.Lock()
					defer m.mu.Unlock()
					return slices.Contains(m.data, "_reliable down") && slices.Contains(m.data, "_lossy down")
				})
			})
		})
	}
}

// TestSlowReader cuts off a client that does not read its reliable channel, and drops lossy messages, without blocking.
func TestSlowReader(t *testing.T) {
	bubble(t, func(w *world) {
		m := w.join(true, 17)
		m.negotiate(false)
		w.until("open", func() bool { return count[rtc.DataOpen](m) == 1 })
		w.net.Drop(func([]byte, string, string) bool { return true })
		close(m.stop)
		m.loop.Wait()
		message := make([]byte, 60_000)
		var lossy, reliable int
		for range 100 {
			if m.peer.WriteData(false, message) != nil {
				lossy++
			}
			if m.peer.WriteData(true, message) != nil {
				reliable++
			}
		}
		if lossy == 0 || reliable == 0 {
			t.Errorf("dropped %d lossy and %d reliable messages", lossy, reliable)
		}
		failed := false
		for _, e := range m.peer.Events() {
			_, ok := e.(rtc.Failed)
			failed = failed || ok
		}
		if !failed {
			t.Error("the client was not cut off")
		}
		m.stop = make(chan struct{})
		w.net.Drop(nil)
		m.leave()
	})
}

// TestUnpublish reports a section that turned inactive, and that a client vanished.
func TestUnpublish(t *testing.T) {
	bubble(t, func(w *world) {
		m := w.join(true, 17)
		track := m.Publish("mic", "audio/opus")
		m.feed(m.negotiate(false), "mic", forward.SourceOptions{})
		w.until("connection", m.connected)
		track.Unpublish()
		a := m.negotiate(false)
		if len(a.Sections) != 1 || a.Sections[0].Active || a.Sections[0].MID != track.MID() {
			t.Errorf("got %+v, want one ended section", a.Sections)
		}
		if b := m.negotiate(false); len(b.Sections) != 0 {
			t.Errorf("told again: %+v", b.Sections)
		}
		if err := m.peer.Uplink(track.MID(), nil); err == nil {
			t.Error("an ended section takes a source")
		}
		m.Client.Close()
		w.until("gone", func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return slices.Contains(m.events, rtc.Event(rtc.StateChanged{State: rtc.FailedState, Primary: true}))
		})
		close(m.stop)
		m.loop.Wait()
		m.peer.Close()
	})
}

// TestRefusedDownlink drops a track whose codec the client does not have.
func TestRefusedDownlink(t *testing.T) {
	for _, single := range []bool{true, false} {
		bubble(t, func(w *world) {
			m := w.join(single, 17)
			defer m.leave()
			m.negotiate(false)
			m.subscribe("TR_X", forward.NewSource(forward.SourceOptions{}), "audio/red")
			w.until("refusal", func() bool { return count[rtc.DownlinkRefused](m) == 1 })
			if err := m.peer.AddDownlink(rtc.DownlinkOptions{TrackID: "TR_Y", Mime: "video/none"}); err == nil {
				t.Error("an unknown codec is taken")
			}
		})
	}
}

// TestWire looks at what leaves the server while packets are lost and asked for again: no number of a stream, and so no nonce, is ever used for
// two packets. What is sent again without a stream of its own is the same to the byte.
func TestWire(t *testing.T) {
	for _, rtx := range []bool{true, false} {
		t.Run(fmt.Sprintf("rtx=%v", rtx), func(t *testing.T) { bubble(t, func(w *world) { testWire(t, w, rtx) }) })
	}
}

func testWire(t *testing.T, w *world, rtx bool) {
	alice, bob := w.join(true, 17), w.join(true, 17)
	bob.noRTX = !rtx
	defer bob.leave()
	defer alice.leave()
	sendAudio, mic := alice.publish("mic", "audio/opus")
	sendVideo, cam := alice.publish("cam", "video/VP8")
	bob.negotiate(false)
	bob.subscribe("TR_A", mic, "audio/opus")
	bob.subscribe("TR_V", cam, "video/VP8")
	w.until("both bound", func() bool { return count[rtc.DownlinkBound](bob) == 2 })
	var mu sync.Mutex
	wire := map[string]string{}        // receiver, SSRC and number -> packet
	repeated, all := map[byte]int{}, 0 // by payload type
	w.net.Drop(func(b []byte, from, to string) bool {
		if len(b) < 12 || b[0]>>6 != 2 || b[1] >= 192 && b[1] <= 223 || !strings.HasPrefix(from, "10.0.0.") {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		all++
		key := to + string(b[8:12]) + string(b[2:4])
		if before, ok := wire[key]; ok {
			repeated[b[1]&0x7f]++
			if before != string(b) {
				t.Errorf("two packets of number %x of stream %x", b[2:4], b[8:12])
			}
		}
		wire[key] = string(b)
		return all%10 == 3
	})
	for n := range 100 {
		sendAudio(0, false)
		sendVideo(0, n%50 == 0)
		time.Sleep(20 * time.Millisecond)
		if n == 60 {
			track := bob.received("TR_A")
			var seqs []uint16
			for len(track.Packets) > 0 {
				seqs = append(seqs, (<-track.Packets).SequenceNumber)
			}
			nack := &rtcp.TransportLayerNack{MediaSSRC: uint32(track.Track.SSRC()), Nacks: rtcp.NackPairsFromSequenceNumbers(seqs[len(seqs)-5:])}
			if err := track.Feedback(nack); err != nil {
				t.Error(err)
			}
		}
	}
	w.net.Drop(nil)
	mu.Lock()
	defer mu.Unlock()
	audio, video, again := repeated[111], repeated[96], bob.sinks["TR_V"].Stats().Retransmitted
	if audio < 5 || again == 0 || all < 200 || (video == 0) != rtx {
		t.Errorf("%d packets, %d audio sent again, %d video, %d of them with the same number", all, audio, again, video)
	}
}
