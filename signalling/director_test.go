package signalling

import (
	"fmt"
	"testing"
	"time"

	"callserver/sfu"
)

// Participants are named by a letter, and so are their tracks: A's microphone is "Am", its camera "Ac", its screen "As".
func TestDirector(t *testing.T) {
	type scene struct {
		others string // who is there with which tracks, such as "Am,Ac Bm"; in capitals what is muted: "AM"
		voices string // who speaks how loud, in steps: "A5 B0"
		after  time.Duration
		want   string // tracks heard, seen and watched, "-" for none
	}
	for _, tc := range []struct {
		name    string
		screens bool
		scenes  []scene
	}{
		{"nobody", true, []scene{{"", "", 0, "- - -"}}},
		{"one other", true, []scene{{"Am,Ac", "", 0, "Am Ac -"}, {"AM,AC", "", 0, "AM AC -"}, {"Am,Ac", "", 0, "Am Ac -"}}},
		{"one other without a camera, and then with one", true, []scene{{"Am", "", 0, "Am - -"}, {"Am,Ac", "", 0, "Am Ac -"}, {"Am", "", 0, "Am - -"}}},
		{"the first there, until somebody speaks", true, []scene{
			{"Am,Ac Bm,Bc", "", 0, "Am Ac -"},
			{"Am,Ac Bm,Bc", "B4", 5 * time.Second, "Bm Bc -"},
			{"Am,Ac Bm,Bc", "B0", time.Second, "Bm Bc -"},
			{"Am,Ac Bm,Bc", "A4", time.Second, "Am Ac -"},
		}},
		{"a picture stays for a while, a voice does not", true, []scene{
			{"Am,Ac Bm,Bc", "A4", 0, "Am Ac -"},
			{"Am,Ac Bm,Bc", "A0 B4", time.Second, "Bm Ac -"},
			{"Am,Ac Bm,Bc", "", time.Second, "Bm Bc -"},
		}},
		{"who speaks is not interrupted, unless by somebody much louder", true, []scene{
			{"Am Bm Cm", "A4", 0, "Am - -"},
			{"Am Bm Cm", "B5", 5 * time.Second, "Am - -"},
			{"Am Bm Cm", "C7", time.Second, "Cm - -"},
			{"Am Bm Cm", "A8 B8", time.Second, "Cm - -"},
		}},
		{"the louder of two who begin at once", true, []scene{{"Am Bm Cm", "A2 B4 C3", 0, "Bm - -"}}},
		{"a speaker without a camera leaves the picture as it is", true, []scene{
			{"Am,Ac Bm", "A4", 0, "Am Ac -"},
			{"Am,Ac Bm", "A0 B4", 5 * time.Second, "Bm Ac -"},
		}},
		{"who is muted is heard and seen no more where there are others", true, []scene{
			{"Am,Ac Bm,Bc", "A4", 0, "Am Ac -"},
			{"AM,AC Bm,Bc", "A0", time.Second, "Bm Bc -"},
		}},
		{"who is muted last of all stays, whoever spoke last", true, []scene{
			{"Am,Ac Bm,Bc", "A4", 0, "Am Ac -"},
			{"Am,Ac BM,Bc", "A0", 5 * time.Second, "Am Ac -"},
			{"Am,AC BM,Bc", "A4", time.Second, "Am Bc -"},
			{"Am,AC BM,BC", "", time.Second, "Am BC -"},
			{"AM,AC BM,BC", "A0", time.Second, "AM BC -"},
			{"AM,AC Bm,BC", "", time.Second, "Bm BC -"},
			{"AM,AC BM,BC", "", time.Second, "BM BC -"},
		}},
		{"who leaves is replaced by who spoke last", true, []scene{
			{"Am,Ac Bm,Bc Cm,Cc", "C4", 0, "Cm Cc -"},
			{"Am,Ac Bm,Bc Cm,Cc", "C0 B4", 5 * time.Second, "Bm Bc -"},
			{"Am,Ac Cm,Cc", "", time.Second, "Cm Cc -"},
		}},
		{"a screen beside the camera", true, []scene{
			{"Am,Ac,As", "", 0, "Am Ac As"},
			{"Am,Ac,As Bs", "", 0, "Am Ac As"},
			{"Am,Ac Bs", "", 0, "Am Ac Bs"},
			{"Am,Ac BS", "", 0, "Am Ac -"},
		}},
		{"a screen in place of the camera", false, []scene{
			{"Am,Ac Bs", "", 0, "Am Bs -"},
			{"Am,Ac", "", 0, "Am Ac -"},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, now := director{screens: tc.screens}, time.Unix(1000, 0)
			for i, s := range tc.scenes {
				now = now.Add(s.after)
				d.heard(voicesOf(s.voices))
				got := ""
				for place, p := range d.choose(othersOf(s.others), func(int, *sfu.TrackInfo) bool { return true }, now) {
					if place > 0 {
						got += " "
					}
					got += map[bool]string{true: "-", false: p.track.Name}[p.track.SID == ""]
				}
				if got != s.want {
					t.Errorf("scene %d: %s, want %s", i, got, s.want)
				}
			}
		})
	}
}

func othersOf(text string) (list []*sfu.ParticipantInfo) {
	var p *sfu.ParticipantInfo
	for i := 0; i+1 < len(text); i += 3 {
		name, kind := text[i:i+1], text[i+1]
		if p == nil || p.SID != sfu.SID(name) {
			p = &sfu.ParticipantInfo{SID: sfu.SID(name), Identity: sfu.Identity(name)}
			list = append(list, p)
		}
		lower := kind | 0x20
		source := map[byte]sfu.TrackSource{'m': sfu.Microphone, 'c': sfu.Camera, 's': sfu.ScreenShare}[lower]
		p.Tracks = append(p.Tracks, sfu.TrackInfo{SID: sfu.SID(name + string(lower)), Name: text[i : i+2], Source: source, Muted: kind != lower})
	}
	return list
}

func voicesOf(text string) (list []sfu.Speaker) {
	for i := 0; i+1 < len(text); i += 3 {
		var level int
		_, _ = fmt.Sscan(text[i+1:i+2], &level)
		list = append(list, sfu.Speaker{SID: sfu.SID(text[i : i+1]), Level: float32(level) / 8, Active: level > 0})
	}
	return list
}

// What nobody reads stays small, and of what is shown the latest is told.
func TestLegEvents(t *testing.T) {
	l := &Leg{ready: make(chan struct{}, 1)}
	for i := range 10_000 {
		l.tellLocked(Shown{Source: sfu.Camera, Muted: i%2 == 0})
		l.tellLocked(Shown{Source: sfu.Microphone, Identity: "a"})
		l.tellLocked(RemoteMute{Source: sfu.Camera, Muted: i%2 == 0})
		l.tellLocked(OfferWanted{})
		l.tellLocked(Held{On: i%2 == 0})
		l.tellLocked(sfu.ParticipantsChanged{Participants: []*sfu.ParticipantInfo{{SID: "a", Version: uint32(i)}, {SID: "b"}}})
	}
	got := l.Events()
	if len(got) != 6 || got[0] != (Shown{Source: sfu.Camera}) {
		t.Errorf("%d events: %+v", len(got), got)
	}
	if p := got[5].(sfu.ParticipantsChanged).Participants; len(p) != 2 || p[0].Version != 9999 {
		t.Errorf("participants %+v", p)
	}
	for range 10_000 {
		l.tellLocked(Connected{})
	}
	got = l.Events()
	if _, ok := got[0].(Broken); !ok || len(got) > maxLegEvents+1 {
		t.Errorf("%d events, the first is %+v", len(got), got[0])
	}
}
