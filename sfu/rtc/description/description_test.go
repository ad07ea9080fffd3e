package description

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzDescription(f *testing.F) {
	files, err := filepath.Glob("../testdata/*.sdp")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		// The session with one section at a time: the fuzzer spends its time on shortening long seeds.
		sections := strings.Split(string(b), "\r\nm=")
		for _, s := range sections[1:] {
			if !strings.Contains(s, "recvonly") || strings.Contains(s, "a=mid:3") {
				f.Add(sections[0] + "\r\nm=" + s + "\r\n")
			}
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Parse(text)
		if err != nil {
			return
		}
		plans := map[string]*Plan{}
		for _, s := range d.Sections {
			switch {
			case s.Kind == Application:
			case s.Sends:
				plans[s.MID] = s.Receive(Want{Stereo: true}, true)
			default:
				plans[s.MID] = s.Send("", false, nil)
			}
			if len(s.RIDs) > MaxLayers {
				t.Fatalf("%d rids", len(s.RIDs))
			}
		}
		inner, err := d.Offer()
		if err != nil {
			return
		}
		if _, err := d.Answer(); err != nil {
			t.Fatal(err)
		}
		if _, err := Compose(inner, plans, d.Mixed); err != nil {
			t.Fatalf("%v\n%s", err, inner)
		}
		carrier, err := d.Carrier()
		if err != nil {
			t.Fatal(err)
		}
		reply, err := d.Reply(carrier, 1, plans)
		if err != nil {
			t.Fatalf("%v\n%s", err, carrier)
		}
		if n := strings.Count(reply, "\nm="); n != len(d.Sections) {
			t.Fatalf("%d sections in reply to %d:\n%s", n, len(d.Sections), reply)
		}
	})
}

func TestOrderOfLayers(t *testing.T) {
	for _, c := range []struct{ offered, want string }{
		{"q h f", "q h f"}, {"f h q", "q h f"}, {"h q", "q h"}, {"2 1 0", "2 1 0"}, {"0 1 2", "2 1 0"},
		{"low mid high", "low mid high"}, {"a b c d", "a b c"}, {"", ""}, {"q q", "q"},
	} {
		got := orderRIDs(strings.Fields(c.offered))
		if !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%q: got %q, want %q", c.offered, got, c.want)
		}
	}
}

// section makes a one-section offer of the lines.
func sectionOf(t *testing.T, first string, lines ...string) *Section {
	t.Helper()
	text := "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-ufrag:u\r\na=setup:actpass\r\nm=" + first +
		"\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n"
	for _, l := range lines {
		text += "a=" + l + "\r\n"
	}
	d, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return d.Sections[0]
}

func TestChoiceOfCodec(t *testing.T) {
	video := sectionOf(t, "video 9 UDP/TLS/RTP/SAVPF 100 101 102 103 104 105 106 107", "sendonly",
		"rtpmap:100 VP9/90000", "fmtp:100 profile-id=2", "rtpmap:101 VP9/90000", "fmtp:101 profile-id=0",
		"rtpmap:102 H264/90000", "fmtp:102 packetization-mode=0;profile-level-id=42e01f",
		"rtpmap:103 H264/90000", "fmtp:103 packetization-mode=1;profile-level-id=64001f",
		"rtpmap:104 H264/90000", "fmtp:104 packetization-mode=1;profile-level-id=42001f",
		"rtpmap:105 rtx/90000", "fmtp:105 apt=104", "rtpmap:106 VP8/90000", "rtcp-fb:* nack", "rtcp-fb:106 goog-remb",
		"rtpmap:107 unknown/90000")
	for _, c := range []struct {
		want         string
		payload, rtx uint8
	}{{"video/VP9", 101, 0}, {"video/h264", 104, 105}, {"", 106, 0}, {"video/AV1", 106, 0}} {
		p := video.Receive(Want{Mime: c.want}, false)
		if len(p.Codecs) != 1 || p.Codecs[0].Payload != c.payload || p.Codecs[0].RTX != c.rtx {
			t.Errorf("%q: got %+v, want %d with %d", c.want, p.Codecs, c.payload, c.rtx)
		}
		feedback := []string{"nack"}
		if p.Codecs[0].Payload == 106 {
			feedback = []string{"goog-remb", "nack"}
		}
		if d := cmp.Diff(feedback, p.Codecs[0].Feedback); d != "" {
			t.Errorf("feedback: %s", d)
		}
	}
	audio := sectionOf(t, "audio 9 UDP/TLS/RTP/SAVPF 63 111 0", "sendonly", "rtpmap:111 opus/48000/2", "rtpmap:63 red/48000/2",
		"fmtp:63 111/111")
	for _, c := range []struct {
		name string
		want Want
		red  bool
		fmtp string
		n    int
	}{
		{"plain", Want{}, false, "minptime=10;useinbandfec=1;usedtx=1", 1},
		{"no dtx", Want{DisableDTX: true}, false, "minptime=10;useinbandfec=1", 1},
		{"stereo", Want{DisableDTX: true, Stereo: true}, false, "minptime=10;useinbandfec=1;stereo=1;maxaveragebitrate=510000", 1},
		{"red", Want{DisableDTX: true}, true, "minptime=10;useinbandfec=1", 2},
		{"red, encrypted", Want{DisableDTX: true, Encrypted: true}, true, "minptime=10;useinbandfec=1", 1},
		{"red, not wanted", Want{DisableDTX: true, DisableRED: true}, true, "minptime=10;useinbandfec=1", 1},
	} {
		p := audio.Receive(c.want, c.red)
		last := p.Codecs[len(p.Codecs)-1]
		if len(p.Codecs) != c.n || last.FMTP != c.fmtp || last.Payload != 111 {
			t.Errorf("%s: got %+v", c.name, p.Codecs)
		}
		if d := cmp.Diff([]string{"nack"}, last.Feedback); d != "" {
			t.Errorf("%s: lost audio is not asked for: %s", c.name, d)
		}
	}
	if d := cmp.Diff([]string{"nack"}, audio.Send("audio/opus", false, &Sending{}).Codecs[0].Feedback); d != "" {
		t.Errorf("lost audio can not be asked of us: %s", d)
	}
}

func TestStreamsOfSections(t *testing.T) {
	s := sectionOf(t, "video 9 UDP/TLS/RTP/SAVPF 96", "sendonly", "rtpmap:96 VP8/90000", "ssrc-group:SIM 1 2 3",
		"ssrc-group:FID 3 4", "ssrc:1 cname:x", "ssrc:2 cname:x", "ssrc:3 msid:stream track", "ssrc:4 cname:x")
	if d := cmp.Diff([]uint32{1, 2, 3}, s.SSRCs); d != "" || s.CID != "track" || s.StreamID != "stream" {
		t.Errorf("got %q %q %s", s.CID, s.StreamID, d)
	}
	if primary, repair, others := s.Streams(); primary != 3 || repair != 4 || !cmp.Equal(others, []uint32{1, 2}) {
		t.Errorf("the stream that is taken: got %d, %d and not %d", primary, repair, others)
	}
	for _, a := range s.inner(nil).Attributes {
		if strings.HasPrefix(a.Key, "ssrc") || a.Key == "msid" || a.Key == "extmap" {
			t.Errorf("Pion is told %s:%s", a.Key, a.Value)
		}
	}
}
