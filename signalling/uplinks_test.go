package signalling

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"callserver/sfu"
	"callserver/sfu/rtc"
)

func TestUplinksMatch(t *testing.T) {
	audio := func(mid, cid string) rtc.Section { return rtc.Section{MID: mid, CID: cid, Active: true} }
	video := func(mid, cid string) rtc.Section { return rtc.Section{MID: mid, CID: cid, Active: true, Video: true} }
	off := func(s rtc.Section) rtc.Section { s.Active = false; return s }

	type step struct {
		ask     string // cid of an announcement; "v..." is video
		offer   []rtc.Section
		matched map[string]sfu.SID // mid -> track
		gone    []sfu.SID
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"announced first", []step{
			{ask: "a1"},
			{ask: "v1"},
			{offer: []rtc.Section{audio("7", "a1"), video("8", "v1")}, matched: map[string]sfu.SID{"7": "TR_a1", "8": "TR_v1"}},
		}},
		{"offered first", []step{
			{offer: []rtc.Section{audio("7", "a1")}},
			{ask: "a1", matched: map[string]sfu.SID{"7": "TR_a1"}},
		}},
		{"an id beats the order", []step{
			{ask: "v1"},
			{ask: "v2"},
			{offer: []rtc.Section{video("7", "v2"), video("8", "v1")}, matched: map[string]sfu.SID{"7": "TR_v2", "8": "TR_v1"}},
		}},
		{"ids made up by the browser", []step{
			{ask: "v1"},
			{ask: "v2"},
			{offer: []rtc.Section{video("7", "x"), video("8", "y")}, matched: map[string]sfu.SID{"7": "TR_v1", "8": "TR_v2"}},
		}},
		{"the kind counts", []step{
			{ask: "a1"},
			{offer: []rtc.Section{video("7", "x")}},
			{ask: "v1", matched: map[string]sfu.SID{"7": "TR_v1"}},
		}},
		{"more sections than announcements", []step{
			{ask: "v1"},
			{offer: []rtc.Section{video("7", "v2"), video("8", "x")}},
			{ask: "v2", matched: map[string]sfu.SID{"7": "TR_v2", "8": "TR_v1"}},
		}},
		{"announced twice", []step{
			{ask: "v1"},
			{ask: "v1"},
			{offer: []rtc.Section{video("7", "v1")}, matched: map[string]sfu.SID{"7": "TR_v1"}},
			{offer: []rtc.Section{video("7", "v1"), video("8", "x")}},
		}},
		{"repeated offer", []step{
			{ask: "a1"},
			{offer: []rtc.Section{audio("7", "a1")}, matched: map[string]sfu.SID{"7": "TR_a1"}},
			{offer: []rtc.Section{audio("7", "a1")}},
			{offer: []rtc.Section{audio("7", "other")}}, // the source was replaced
		}},
		{"unpublished", []step{
			{ask: "a1"},
			{offer: []rtc.Section{audio("7", "a1")}, matched: map[string]sfu.SID{"7": "TR_a1"}},
			{offer: []rtc.Section{off(audio("7", "a1"))}, gone: []sfu.SID{"TR_a1"}},
			{offer: []rtc.Section{off(audio("7", "a1"))}},
		}},
		{"section used again at once", []step{
			{ask: "v1"},
			{offer: []rtc.Section{video("7", "v1")}, matched: map[string]sfu.SID{"7": "TR_v1"}},
			{ask: "v2"},
			{offer: []rtc.Section{video("7", "v2")}, gone: []sfu.SID{"TR_v1"}, matched: map[string]sfu.SID{"7": "TR_v2"}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var u uplinks
			for i, s := range tt.steps {
				var gone []sfu.SID
				if s.ask != "" {
					u.ask(&asked{track: sfu.SID("TR_" + s.ask), cids: []string{s.ask}, want: rtc.Want{Video: s.ask[0] == 'v'}})
				} else {
					gone = u.offered(s.offer)
				}
				var matched map[string]sfu.SID
				for _, p := range u.match() {
					if matched == nil {
						matched = map[string]sfu.SID{}
					}
					matched[p.section.MID] = p.asked.track
				}
				if d := cmp.Diff(s.matched, matched); d != "" {
					t.Errorf("step %d: matched (-want +got):\n%s", i, d)
				}
				if d := cmp.Diff(s.gone, gone); d != "" {
					t.Errorf("step %d: gone (-want +got):\n%s", i, d)
				}
			}
		})
	}
}
