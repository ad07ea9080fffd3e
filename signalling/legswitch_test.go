package signalling

import (
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"callserver/sfu"
	"callserver/sfu/codec"
)

// speak sends a packet of sound, and a frame of the camera, which is a key frame if one was asked for.
func (p *person) speak(level uint8, answered *int) {
	p.sources[sfu.Microphone].send([]byte("sound of "+string(p.Identity())), level)
	if cam := p.sources[sfu.Camera]; cam != nil {
		key := int(cam.asked.Load()) > *answered
		*answered = int(cam.asked.Load())
		cam.send(cam.frame(key, "picture of "+string(p.Identity())), 0)
	}
}

// A continuous stream, whoever it is of.
func checkContinuity(t *testing.T, name string, list []*rtp.Packet, video bool) {
	t.Helper()
	for i := 1; i < len(list); i++ {
		before, p := list[i-1], list[i]
		if p.SequenceNumber != before.SequenceNumber+1 || int32(p.Timestamp-before.Timestamp) <= 0 || p.SSRC != before.SSRC {
			t.Errorf("%s: %d at %d after %d at %d", name, p.SequenceNumber, p.Timestamp, before.SequenceNumber, before.Timestamp)
		}
		if video {
			a, _ := codec.ParseVP8(before.Payload)
			b, _ := codec.ParseVP8(p.Payload)
			if b.PictureID != a.PictureID+1 {
				t.Errorf("%s: picture %d after %d", name, b.PictureID, a.PictureID)
			}
		}
	}
}

func TestLegFollowsSpeaker(t *testing.T) {
	legTest(t, func(w *legWorld) {
		people := []*person{w.person("alice", sfu.Microphone, sfu.Camera), w.person("carol", sfu.Microphone, sfu.Camera), w.person("dave", sfu.Microphone)}
		answered := make([]int, len(people))
		r := w.remote("bob", LegOptions{})
		defer r.end()
		r.Client.Publish("mic", webrtc.MimeTypeOpus)
		r.Client.Publish("cam", webrtc.MimeTypeVP8)
		r.call(false)
		r.connected()
		var sound, picture []*rtp.Packet
		// talk has one of them speak for a while, everybody else sends silence.
		talk := func(who int, d time.Duration) {
			for range d / (20 * time.Millisecond) {
				for i, p := range people {
					level := uint8(127)
					if i == who {
						level = 10
					}
					p.speak(level, &answered[i])
				}
				time.Sleep(20 * time.Millisecond)
			}
			sound, picture = append(sound, packets(r.track(hearing))...), append(picture, packets(r.track(seeing))...)
		}
		shown := func(source sfu.TrackSource) sfu.Identity {
			e, _ := last(r, func(e Shown) bool { return e.Source == source })
			return e.Identity
		}
		for _, step := range []struct {
			name         string
			who          int
			heard, shown sfu.Identity
		}{
			{"the first to speak", 1, "carol", "carol"},
			{"another", 0, "alice", "alice"},
			{"somebody without a camera", 2, "dave", "alice"},
			{"the former again", 1, "carol", "carol"},
		} {
			talk(step.who, 4*time.Second)
			if got := shown(sfu.Microphone); got != step.heard {
				t.Errorf("%s: heard %s, want %s", step.name, got, step.heard)
			}
			if got := shown(sfu.Camera); got != step.shown {
				t.Errorf("%s: shown %s, want %s", step.name, got, step.shown)
			}
			if n := len(sound); n == 0 || !strings.HasSuffix(string(sound[n-1].Payload), string(step.heard)) {
				t.Errorf("%s: last of %d sounds is not %s's", step.name, n, step.heard)
			}
			if n := len(picture); n == 0 || !strings.HasSuffix(string(picture[n-1].Payload), string(step.shown)) {
				t.Errorf("%s: last of %d pictures is not %s's", step.name, n, step.shown)
			}
		}
		checkContinuity(t, "sound", sound, false)
		checkContinuity(t, "picture", picture, true)
		// A picture is cut at a key frame only.
		for i := 1; i < len(picture); i++ {
			d, _ := codec.ParseVP8(picture[i].Payload)
			if cut := string(picture[i].Payload[len(picture[i].Payload)-5:]) != string(picture[i-1].Payload[len(picture[i-1].Payload)-5:]); cut && !d.KeyFrame {
				t.Errorf("cut at packet %d, which is of no key frame", i)
			}
		}
		// Cameras that are not shown are not asked for, and nobody is kept who leaves.
		people[1].Leave(sfu.ClientInitiated, time.Now())
		people = people[:1]
		talk(0, time.Second)
		if got := shown(sfu.Camera); got != "alice" {
			t.Errorf("shown %s after the other left", got)
		}
		people[0].Leave(sfu.ClientInitiated, time.Now())
		w.wait("emptiness", func() bool { return shown(sfu.Camera) == "" })
	})
}

// A remote without room for a second stream sees a screen in place of the camera; one with room is offered a stream.
func TestLegScreen(t *testing.T) {
	for _, screens := range []bool{false, true} {
		legTest(t, func(w *legWorld) {
			alice := w.person("alice", sfu.Microphone, sfu.Camera)
			r := w.remote("bob", LegOptions{Screens: screens})
			defer r.end()
			r.Client.Publish("mic", webrtc.MimeTypeOpus)
			r.Client.Publish("cam", webrtc.MimeTypeVP8)
			r.call(false)
			r.connected()
			screen := alice.publish(sfu.ScreenShare, sfu.EncryptionNone)
			place := seeing
			wanted := func() bool { _, ok := last(r, func(OfferWanted) bool { return true }); return ok }
			if screens {
				place = watching
				w.wait("wish to offer", wanted)
				d, err := r.Leg.Offer(w.Context())
				if err != nil {
					t.Fatal(err)
				}
				if len(d.Streams) != 2 || !d.Streams[string(r.SID())+"|screen"].Screen {
					t.Errorf("streams %v", d.Streams)
				}
				if err := r.Leg.Accept(r.Client.Answer(d.SDP)); err != nil {
					t.Fatal(err)
				}
			}
			w.wait("screen", func() bool {
				screen.send(screen.frame(true, "screen"), 0)
				alice.sources[sfu.Camera].send(alice.sources[sfu.Camera].frame(true, "camera"), 0)
				time.Sleep(20 * time.Millisecond)
				return hasEnd(bodies(packets(r.track(place)), 6), "screen")
			})
			r.mu.Lock()
			r.events = nil
			r.mu.Unlock()
			alice.Unpublish(screen.sid, time.Now())
			w.wait("camera", func() bool {
				alice.sources[sfu.Camera].send(alice.sources[sfu.Camera].frame(true, "camera"), 0)
				time.Sleep(20 * time.Millisecond)
				return hasEnd(bodies(packets(r.track(seeing)), 6), "camera")
			})
			if screens {
				w.wait("wish to offer", wanted)
				d, err := r.Leg.Offer(w.Context())
				if err != nil || len(d.Streams) != 1 {
					t.Errorf("streams %v, %v", d.Streams, err)
				}
				if err := r.Leg.Accept(r.Client.Answer(d.SDP)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Key frames that the remote asks for are asked of whom it sees, and those that the room asks for of the remote.
func TestLegKeyFrames(t *testing.T) {
	legTest(t, func(w *legWorld) {
		alice := w.person("alice", sfu.Microphone, sfu.Camera)
		r := w.remote("bob", LegOptions{})
		done := make(chan struct{})
		defer func() { <-done }()
		defer r.end()
		r.Client.Publish("mic", webrtc.MimeTypeOpus)
		picture := r.Client.Publish("cam", webrtc.MimeTypeVP8)
		r.call(false)
		r.connected()
		cam := alice.sources[sfu.Camera]
		w.wait("picture", func() bool {
			cam.send(cam.frame(true, "x"), 0)
			time.Sleep(20 * time.Millisecond)
			return len(packets(r.track(seeing))) > 0
		})
		time.Sleep(2 * time.Second)
		before := cam.asked.Load()
		track := r.track(seeing)
		if err := track.Feedback(&rtcp.PictureLossIndication{MediaSSRC: uint32(track.Track.SSRC())}); err != nil {
			t.Fatal(err)
		}
		w.wait("request to alice", func() bool { return cam.asked.Load() > before })

		asked := make(chan struct{}, 1)
		go func() {
			defer close(done)
			for {
				list, _, err := picture.Sender.ReadRTCP()
				if err != nil {
					return
				}
				for _, p := range list {
					if _, ok := p.(*rtcp.PictureLossIndication); ok {
						select {
						case asked <- struct{}{}:
						default:
						}
					}
				}
			}
		}()
		picture.Send(0, true, 0, []byte("x"))
		time.Sleep(time.Second)
		for _, track := range w.server.Rooms().Participant("room", "bob").Info().Tracks {
			if track.Kind == sfu.Video {
				alice.record(w, track)
			}
		}
		select {
		case <-asked:
		case <-time.After(5 * time.Second):
			t.Error("no key frame asked of the remote")
		}
	})
}
