package rtc_test

import (
	"fmt"
	"testing"
	"time"

	"callserver/sfu/forward"
	"callserver/sfu/rtc"
)

// TestCall is a call of a single-connection and a dual-connection client: audio and simulcast VP8 both ways.
func TestCall(t *testing.T) {
	bubble(t, func(w *world) {
		members := []*member{w.join(true, 17), w.join(false, 17)}
		var sources [][2]*forward.Source
		for i, m := range members {
			mic := m.Publish(fmt.Sprintf("mic%d", i), "audio/opus")
			cam := m.Publish(fmt.Sprintf("cam%d", i), "video/VP8", "q", "h", "f")
			m.wants = []rtc.Want{{CID: mic.CID}, {CID: cam.CID, Video: true, Mime: "video/VP8"}}
			a := m.negotiate(false)
			sources = append(sources, [2]*forward.Source{
				m.feed(a, mic.CID, forward.SourceOptions{}),
				m.feed(a, cam.CID, forward.SourceOptions{Video: true}),
			})
			defer m.leave()
			stop := make(chan struct{})
			done := make(chan struct{})
			defer func() { close(stop); <-done }()
			go func() {
				defer close(done)
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					case <-time.After(20 * time.Millisecond):
					}
					mic.Send(0, false, 20, []byte("opus frame"))
					for layer := range 3 {
						cam.Send(layer, n%50 == 0, 0, fmt.Appendf(nil, "layer %d", layer))
					}
				}
			}()
		}
		for i, m := range members {
			other := sources[1-i]
			m.subscribe(fmt.Sprintf("TR_A%d", 1-i), other[0], "audio/opus")
			m.subscribe(fmt.Sprintf("TR_V%d", 1-i), other[1], "video/VP8")
		}
		for i, m := range members {
			w.until("connection", m.connected)
			for _, track := range []string{fmt.Sprintf("TR_A%d", 1-i), fmt.Sprintf("TR_V%d", 1-i)} {
				w.until("track "+track, func() bool { return m.received(track) != nil })
				r := m.received(track)
				for range 20 {
					select {
					case <-r.Packets:
					case <-time.After(5 * time.Second):
						t.Fatalf("member %d: %s stopped", i, track)
					}
				}
			}
		}
	})
}
