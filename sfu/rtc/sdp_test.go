package rtc_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"callserver/sfu/rtc"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden answers anew")

func offerOf(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".sdp"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	secrets = regexp.MustCompile(`(a=ice-ufrag:|a=ice-pwd:|a=fingerprint:sha-256 |o=- )[^\r\n]+`)
	ssrcs   = regexp.MustCompile(`(a=ssrc:|FID )(\d+)( \d+)?`)
)

// steady replaces what differs from run to run.
func steady(sdp string) string {
	sdp = secrets.ReplaceAllString(sdp, "${1}...")
	seen := map[string]string{}
	name := func(n string) string {
		if seen[n] == "" {
			seen[n] = fmt.Sprintf("SSRC%d", len(seen)+1)
		}
		return seen[n]
	}
	sdp = ssrcs.ReplaceAllStringFunc(sdp, func(m string) string {
		return regexp.MustCompile(`\d+`).ReplaceAllStringFunc(m, name)
	})
	return strings.ReplaceAll(sdp, "\r\n", "\n")
}

// TestAnswersOfBrowsers pins the whole text of what real offers are answered.
func TestAnswersOfBrowsers(t *testing.T) {
	for _, c := range []struct {
		browser string
		single  bool
	}{{"chromium", true}, {"firefox", true}, {"firefox-v0", false}} {
		t.Run(c.browser, func(t *testing.T) {
			bubble(t, func(w *world) {
				p, err := w.engine.NewPeer(rtc.PeerOptions{Single: c.single, Protocol: 17, Subscribes: c.single})
				if err != nil {
					t.Fatal(err)
				}
				if c.single {
					for _, d := range []rtc.DownlinkOptions{
						{TrackID: "TR_A1", StreamID: "PA_1|TR_A1", CNAME: "PA_1", Mime: "audio/opus"},
						{TrackID: "TR_V1", StreamID: "PA_1|TR_V1", CNAME: "PA_1", Mime: "video/vp8"},
						{TrackID: "TR_V2", StreamID: "PA_2|TR_V2", CNAME: "PA_2", Mime: "video/H264"},
					} {
						if err := p.AddDownlink(d); err != nil {
							t.Fatal(err)
						}
					}
				}
				for i, step := range []string{"join", "publish"} {
					name := c.browser + "-" + step
					offer := offerOf(t, name)
					a, err := p.Offer(uint32(i+1), offer, []rtc.Want{{Video: true, Mime: "video/VP8"}, {}})
					if err != nil {
						t.Fatal(err)
					}
					checkAnswer(t, offer, a)
					golden(t, name+".answer", steady(a.SDP)+describe(a))
				}
			})
		})
	}
}

func describe(a rtc.Answer) string {
	s := fmt.Sprintf("\nid %d, tracks %v\n", a.ID, a.Tracks)
	for _, section := range a.Sections {
		section.CID, section.StreamID, section.SSRCs = "cid", "stream", nil
		s += fmt.Sprintf("%+v\n", section)
	}
	return s
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", name, d)
	}
}

// checkAnswer asserts what the protocol demands of every answer, in words rather than bytes.
func checkAnswer(t *testing.T, offer string, a rtc.Answer) {
	t.Helper()
	offers := strings.Split(offer, "\r\nm=")
	answers := strings.Split(a.SDP, "\r\nm=")
	if len(offers) != len(answers) {
		t.Fatalf("%d sections answered of %d", len(answers)-1, len(offers)-1)
	}
	for _, want := range []string{"a=msid-semantic: WMS *", "a=group:BUNDLE ", "a=extmap-allow-mixed"} {
		if !strings.Contains(answers[0], strings.ReplaceAll(want, ": ", ":")) && !strings.Contains(answers[0], want) &&
			!(strings.Contains(want, "mixed") && !strings.Contains(offer, "mixed")) {
			t.Errorf("session lacks %q:\n%s", want, answers[0])
		}
	}
	for i := 1; i < len(offers); i++ {
		o, s := offers[i], answers[i]
		if !strings.Contains(s, "\na=setup:passive\r") {
			t.Errorf("section %d is not the DTLS server:\n%s", i, s)
		}
		if strings.HasPrefix(o, "application") {
			if !strings.Contains(s, "a=max-message-size:65535") {
				t.Errorf("data section lacks its message size:\n%s", s)
			}
			continue
		}
		for _, pt := range strings.Fields(strings.SplitN(s, "\r", 2)[0])[3:] {
			if !strings.Contains(strings.SplitN(o, "\r", 2)[0]+" ", " "+pt+" ") {
				t.Errorf("section %d: payload type %s was not offered", i, pt)
			}
		}
		for _, line := range strings.Split(s, "\r\n") {
			asked := strings.Replace(line, "/recvonly", "/sendonly", 1)
			if strings.HasPrefix(line, "a=extmap:") && !strings.Contains(o, asked) {
				t.Errorf("section %d: %s was not offered", i, line)
			}
			if strings.Contains(line, "~") || strings.HasPrefix(line, "a=candidate") {
				t.Errorf("section %d has %s", i, line)
			}
		}
		want := map[bool]string{true: "a=sendonly", false: "a=recvonly"}[strings.Contains(o, "\na=recvonly")]
		if !strings.Contains(s, want) || !strings.Contains(s, "a=rtcp-mux") || !strings.Contains(s, "a=rtcp-rsize") {
			t.Errorf("section %d lacks %s, rtcp-mux or rtcp-rsize:\n%s", i, want, s)
		}
	}
}

func TestRefusedOffers(t *testing.T) {
	offer := offerOf(t, "chromium-join")
	for name, bad := range map[string]string{
		"empty":         "",
		"not SDP":       "hello",
		"no sections":   "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n",
		"same mid":      strings.ReplaceAll(offer, "a=mid:1\r\n", "a=mid:0\r\n"),
		"no mid":        strings.ReplaceAll(offer, "a=mid:1\r\n", ""),
		"DTLS server":   strings.ReplaceAll(offer, "a=setup:actpass", "a=setup:passive"),
		"not bundled":   strings.ReplaceAll(offer, "a=group:BUNDLE 0 1", "a=group:BUNDLE 0"),
		"no ICE":        strings.ReplaceAll(offer, "a=ice-ufrag:", "a=x:"),
		"no finger":     strings.ReplaceAll(offer, "a=fingerprint:", "a=x:"),
		"unknown media": strings.ReplaceAll(offer, "m=audio", "m=text"),
		"too long":      offer + strings.Repeat("a=x\r\n", 1<<18),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				p, err := w.engine.NewPeer(rtc.PeerOptions{Single: true, Protocol: 17, Subscribes: true})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := p.Offer(1, bad, nil); !errors.Is(err, rtc.ErrBadDescription) {
					t.Errorf("got %v, want a refusal", err)
				}
				if n := w.engine.Stats().BadDescriptions; n != 1 {
					t.Errorf("counted %d refusals", n)
				}
			})
		})
	}
}

// Who publishes video is told how much is let through, in both ways that browsers read; sound is not bounded.
func TestAnswersBoundVideo(t *testing.T) {
	for _, limit := range []int64{0, 1_500_000} {
		bubbleWith(t, rtc.Options{VideoBitrate: limit}, func(w *world) {
			p, err := w.engine.NewPeer(rtc.PeerOptions{Single: true, Protocol: 17, Subscribes: true})
			if err != nil {
				t.Fatal(err)
			}
			a, err := p.Offer(1, offerOf(t, "chromium-publish"), []rtc.Want{{Video: true, Mime: "video/VP8"}, {}})
			if err != nil {
				t.Fatal(err)
			}
			bounded := 0
			for _, s := range strings.Split(a.SDP, "\r\nm=")[1:] {
				lines := strings.Contains(s, "\nb=AS:1500\r\nb=TIAS:1500000\r\n")
				if want := limit > 0 && strings.HasPrefix(s, "video") && strings.Contains(s, "a=recvonly"); lines != want || strings.Contains(s, "\nb=") != want {
					t.Errorf("limit %d: section has the lines: %t, want %t:\n%s", limit, lines, want, s)
				}
				if lines {
					bounded++
				}
			}
			if (bounded > 0) != (limit > 0) {
				t.Errorf("limit %d: %d sections are bounded", limit, bounded)
			}
		})
	}
}
