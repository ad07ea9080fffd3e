package signalling

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"callserver/sfu"
)

// hears reports whether the remote gets sound of a person's.
func (r *remote) hears(p *person) bool {
	body := "sound of " + string(p.Identity())
	p.sources[sfu.Microphone].send([]byte(body), 20)
	time.Sleep(20 * time.Millisecond)
	return hasEnd(bodies(packets(r.track(hearing)), len(body)), body)
}

// published is what the remote has in the room at present.
func (r *remote) published() map[sfu.TrackSource]sfu.TrackInfo {
	out := map[sfu.TrackSource]sfu.TrackInfo{}
	if p := r.w.server.Rooms().Participant("room", "bob"); p != nil {
		for _, t := range p.Info().Tracks {
			out[t.Source] = t
		}
	}
	return out
}

func TestLegIsCalled(t *testing.T) {
	legTest(t, func(w *legWorld) {
		alice := w.person("alice", sfu.Microphone, sfu.Camera)
		r := w.remote("bob", LegOptions{Video: true})
		defer r.end()
		d, err := r.Leg.Offer(w.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(d.SDP, "a=end-of-candidates") || !strings.Contains(d.SDP, " 10.0.0.1 7881 typ host") {
			t.Errorf("an offer without our candidates: %s", d.SDP)
		}
		if again, err := r.Leg.Offer(w.Context()); err != nil || again.SDP != d.SDP {
			t.Errorf("the first offer, asked for again, is another: %v", err)
		}
		// The called side sends on the sections that it is offered.
		sound, picture := r.Client.Publish("mic", webrtc.MimeTypeOpus), r.Client.Publish("cam", webrtc.MimeTypeVP8)
		if err := r.Leg.Accept(r.Client.Answer(d.SDP)); err != nil {
			t.Fatal(err)
		}
		if err := r.Leg.Accept("an answer that is late"); err == nil {
			t.Error("no error of a description that is none")
		}
		r.connected()
		w.wait("sound", func() bool { return r.hears(alice) })
		w.wait("picture", func() bool {
			alice.sources[sfu.Camera].send(alice.sources[sfu.Camera].frame(true, "x"), 0)
			time.Sleep(20 * time.Millisecond)
			return len(packets(r.track(seeing))) > 0
		})
		w.wait("tracks", func() bool { return len(r.published()) == 2 })
		heard, seen := alice.record(w, r.published()[sfu.Microphone]), alice.record(w, r.published()[sfu.Camera])
		w.wait("media of the remote", func() bool {
			sound.Send(0, false, 20, []byte("howdy"))
			picture.Send(0, true, 0, []byte("folks"))
			time.Sleep(20 * time.Millisecond)
			return heard.has("howdy") && seen.has("folks")
		})
	})
}

// A call that begins with sound gets a picture, loses it, is restarted and put on hold.
func TestLegRenegotiates(t *testing.T) {
	legTest(t, func(w *legWorld) {
		alice := w.person("alice", sfu.Microphone, sfu.Camera)
		r := w.remote("bob", LegOptions{})
		defer r.end()
		sound := r.Client.Publish("mic", webrtc.MimeTypeOpus)
		r.call(false)
		r.connected()
		w.wait("sound", func() bool { return r.hears(alice) })
		if got := r.published(); len(got) != 1 || got[sfu.Microphone].Muted {
			t.Errorf("published %+v", got)
		}

		picture := r.Client.Publish("cam", webrtc.MimeTypeVP8)
		r.call(false)
		w.wait("picture", func() bool {
			alice.sources[sfu.Camera].send(alice.sources[sfu.Camera].frame(true, "x"), 0)
			time.Sleep(20 * time.Millisecond)
			return len(packets(r.track(seeing))) > 0
		})
		if got := r.published(); len(got) != 2 {
			t.Errorf("published %+v", got)
		}

		r.call(true)
		time.Sleep(3 * time.Second)
		w.wait("sound after an ICE restart", func() bool { return r.hears(alice) })
		heard := alice.record(w, r.published()[sfu.Microphone])
		w.wait("sound of the remote after an ICE restart", func() bool {
			sound.Send(0, false, 20, []byte("howdy"))
			time.Sleep(20 * time.Millisecond)
			return heard.has("howdy")
		})

		// The section stays, and so does the track, muted.
		before := r.published()[sfu.Camera]
		picture.Unpublish()
		r.call(false)
		if got := r.published()[sfu.Camera]; got.SID != before.SID || !got.Muted {
			t.Errorf("a camera that is not sent is %+v", got)
		}

		for _, hold := range []bool{true, false} {
			offer := r.Client.Offer(false)
			if hold {
				offer = strings.ReplaceAll(strings.ReplaceAll(offer, "a=sendrecv", "a=inactive"), "a=recvonly", "a=inactive")
			}
			d, err := r.Leg.Answer(w.Context(), offer)
			if err != nil {
				t.Fatal(err)
			}
			r.Client.Accept(d.SDP)
			w.wait("news of being held", func() bool { e, ok := last(r, func(Held) bool { return true }); return ok && e.On == hold })
			if got := r.published()[sfu.Microphone]; got.Muted != hold {
				t.Errorf("held %v: microphone is %+v", hold, got)
			}
			if hold && strings.Contains(d.SDP, "a=sendrecv") {
				t.Errorf("we send to a remote that holds: %s", d.SDP)
			}
		}
		w.wait("sound after a hold", func() bool { return r.hears(alice) })
	})
}

// An offer of ours is taken back for one of the remote's.
func TestLegGlare(t *testing.T) {
	legTest(t, func(w *legWorld) {
		alice := w.person("alice", sfu.Microphone, sfu.Camera)
		r := w.remote("bob", LegOptions{Screens: true})
		defer r.end()
		r.Client.Publish("mic", webrtc.MimeTypeOpus)
		r.call(false)
		r.connected()
		r.Client.Publish("cam", webrtc.MimeTypeVP8)
		r.call(false)
		screen := alice.publish(sfu.ScreenShare, sfu.EncryptionNone)
		wanted := func() bool { _, ok := last(r, func(OfferWanted) bool { return true }); return ok }
		w.wait("wish to offer", wanted)
		if _, err := r.Leg.Offer(w.Context()); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		r.events = nil
		r.mu.Unlock()
		r.Client.Publish("screen", webrtc.MimeTypeVP8)
		r.call(false)
		if err := r.Leg.Accept(r.Client.Publisher.LocalDescription().SDP); err != nil {
			t.Errorf("an answer to an offer that was taken back: %v", err)
		}
		w.wait("wish to offer again", wanted)
		d, err := r.Leg.Offer(w.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Leg.Accept(r.Client.Answer(d.SDP)); err != nil {
			t.Fatal(err)
		}
		w.wait("screen", func() bool {
			screen.send(screen.frame(true, "screen"), 0)
			time.Sleep(20 * time.Millisecond)
			return hasEnd(bodies(packets(r.track(watching)), 6), "screen")
		})
		if got := r.published(); len(got) != 3 {
			t.Errorf("published %+v", got)
		}
	})
}

func TestLegMutes(t *testing.T) {
	legTest(t, func(w *legWorld) {
		alice := w.person("alice", sfu.Microphone)
		r := w.remote("bob", LegOptions{})
		defer r.end()
		r.Streams(map[string]LegStream{"stream-mic": {AudioMuted: true}})
		r.Client.Publish("mic", webrtc.MimeTypeOpus)
		r.call(false)
		r.connected()
		muted := func() bool { return r.published()[sfu.Microphone].Muted }
		if !muted() {
			t.Error("not muted as its stream says")
		}
		r.Streams(map[string]LegStream{"stream-mic": {}})
		if muted() {
			t.Error("still muted after its stream was not")
		}
		r.Mute(sfu.Microphone, true)
		if !muted() {
			t.Error("not muted")
		}
		r.Mute(sfu.Microphone, false)
		track := r.published()[sfu.Microphone]
		if _, err := w.server.Rooms().MuteTrack("room", "bob", track.SID, true, time.Now()); err != nil {
			t.Fatal(err)
		}
		w.wait("news of the mute", func() bool {
			e, ok := last(r, func(e RemoteMute) bool { return e.Source == sfu.Microphone })
			return ok && e.Muted
		})
		r.Streams(nil)
		if !muted() {
			t.Error("muted by somebody with the power to, and no longer so")
		}

		shown := func(muted bool) func() bool {
			return func() bool {
				e, ok := last(r, func(e Shown) bool { return e.Source == sfu.Microphone })
				return ok && e.Identity == "alice" && e.Muted == muted
			}
		}
		w.wait("alice", shown(false))
		if err := alice.Mute(alice.sources[sfu.Microphone].sid, true, time.Now()); err != nil {
			t.Fatal(err)
		}
		w.wait("alice muted", shown(true))
	})
}

func TestLegRefuses(t *testing.T) {
	legTest(t, func(w *legWorld) {
		r := w.remote("bob", LegOptions{})
		defer r.end()
		r.Client.Publish("mic", webrtc.MimeTypeOpus)
		offer := r.Client.Offer(false)
		for name, sdp := range map[string]string{
			"nothing":              "",
			"not a description":    "v=0",
			"the other DTLS role":  strings.ReplaceAll(offer, "a=setup:actpass", "a=setup:passive"),
			"a section of no kind": strings.Replace(offer, "m=audio", "m=text", 1),
			"no bundle":            strings.Replace(offer, "a=group:BUNDLE 0", "a=group:BUNDLE 7", 1) + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:9\r\n",
		} {
			_, err := r.Leg.Answer(w.Context(), sdp)
			var refusal *Error
			if !errors.As(err, &refusal) || refusal.Code != Invalid {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := r.Leg.Accept(offer); err != nil {
			t.Errorf("an answer to nothing: %v", err)
		}
		d, err := r.Leg.Answer(w.Context(), offer) // none of it did harm
		if err != nil {
			t.Fatal(err)
		}
		r.Client.Accept(d.SDP)
		r.connected()
	})
	legTest(t, func(w *legWorld) {
		r := w.remote("bob", LegOptions{})
		defer r.end()
		if _, err := r.Leg.Offer(w.Context()); err != nil {
			t.Fatal(err)
		}
		r.Client.Publish("mic", webrtc.MimeTypeOpus)
		if _, err := r.Leg.Answer(w.Context(), r.Client.Offer(false)); err == nil {
			t.Error("first offers that cross are not refused")
		}
	})
}

// Lost packets are asked for and sent again on either side; what stays lost costs the frames that it was of.
func TestLegLoss(t *testing.T) {
	legTest(t, func(w *legWorld) {
		alice := w.person("alice", sfu.Microphone, sfu.Camera)
		r := w.remote("bob", LegOptions{})
		defer r.end()
		r.Client.Publish("mic", webrtc.MimeTypeOpus)
		r.Client.Publish("cam", webrtc.MimeTypeVP8)
		r.call(false)
		r.connected()
		w.wait("sound", func() bool { return r.hears(alice) })
		var n atomic.Int64
		w.net.Drop(func(b []byte, from, _ string) bool {
			if from != "10.0.0.1:7881" || len(b) < 12 || b[0]>>6 != 2 || b[1]&0x7f >= 64 && b[1]&0x7f < 96 {
				return false
			}
			return n.Add(1)%10 == 0
		})
		var got []*rtp.Packet
		cam := alice.sources[sfu.Camera]
		for i := range 200 {
			cam.send(cam.frame(i == 0, "x"), 0)
			time.Sleep(20 * time.Millisecond)
			got = append(got, packets(r.track(seeing))...)
		}
		w.net.Drop(nil)
		time.Sleep(time.Second)
		got = append(got, packets(r.track(seeing))...)
		seen := map[uint16]bool{}
		for _, p := range got {
			seen[p.SequenceNumber] = true
		}
		if len(seen) < 195 || n.Load() < 200 {
			t.Errorf("%d of 200 packets arrived, %d passed the network", len(seen), n.Load())
		}
	})
}
