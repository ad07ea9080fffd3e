package livekit

import (
	"bytes"
	"testing"

	"github.com/livekit/protocol/livekit"
)

// vp8KeyFrame is a payload that says of itself: descriptor with S, then a frame header of a key frame of 16x16.
var vp8KeyFrame = []byte{0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x10, 0x00, 0x10, 0x00, 'c', 'a', 'l', 'l'}

var opusFrame = []byte{0xfc, 'o', 'p', 'u', 's', 'f', 'r', 'a', 'm', 'e'}

// Clients with one and with two connections meet in one room, and everybody gets audio and video of everybody else.
func TestCall(t *testing.T) {
	n := newNode(t)
	people := []*fake{n.join(t, "alice", true), n.join(t, "bob", false), n.join(t, "carol", true)}
	audio, video := map[*fake]string{}, map[*fake]string{}
	for _, f := range people {
		audio[f] = f.publish("audio of "+f.grant.Identity, livekit.TrackType_AUDIO, livekit.TrackSource_MICROPHONE)
		video[f] = f.publish("video of "+f.grant.Identity, livekit.TrackType_VIDEO, livekit.TrackSource_CAMERA)
		f.send("audio of "+f.grant.Identity, opusFrame)
		f.send("video of "+f.grant.Identity, vp8KeyFrame)
	}
	for _, f := range people {
		for _, other := range people {
			if f == other {
				continue
			}
			f.receives(audio[other], 20)
			f.receives(video[other], 20)
			f.mu.Lock()
			if got := f.payloads[audio[other]]; !bytes.Equal(got, opusFrame) {
				t.Errorf("%s got audio %x of %s, want %x", f.grant.Identity, got, other.grant.Identity, opusFrame)
			}
			f.mu.Unlock()
			info := f.participant(other.grant.Identity, "active with two tracks", func(p *livekit.ParticipantInfo) bool {
				return len(p.Tracks) == 2 && p.State == livekit.ParticipantInfo_ACTIVE
			})
			for _, track := range info.Tracks {
				if track.MimeType == "" {
					t.Errorf("track %s of %s has no mime type", track.Sid, other.grant.Identity)
				}
			}
		}
	}
}
