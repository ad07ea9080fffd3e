package matrixrtc

import (
	"encoding/json"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func decodeAny(t *testing.T, rec *httptest.ResponseRecorder) any {
	t.Helper()
	expect(t, rec, 200, "")
	var got any
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTransports(t *testing.T) {
	w := newWorld(t, nil)
	want := map[string]any{"rtc_transports": []any{map[string]any{
		"type":                "livekit",
		"livekit_service_url": "https://rtc.example.org/livekit/jwt",
		"url":                 "wss://rtc.example.org/livekit/sfu",
	}}}
	for _, path := range []string{
		"/_matrix/client/v1/rtc/transports",
		"/_matrix/client/unstable/org.matrix.msc4143/rtc/transports",
	} {
		got := decodeAny(t, w.do(t, "GET", path, "", "Authorization", "Bearer x"))
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", path, d)
		}
		expect(t, w.do(t, "GET", path, ""), 401, "M_MISSING_TOKEN")
		expect(t, w.do(t, "POST", path, "{}", "Authorization", "Bearer x"), 405, "M_UNRECOGNIZED")
		if got := w.do(t, "OPTIONS", path, "").Header().Get("Access-Control-Allow-Headers"); got != "X-Requested-With, Content-Type, Authorization" {
			t.Errorf("%s: preflight allows the headers %q", path, got)
		}
	}
}

func TestWellKnown(t *testing.T) {
	foci := []any{map[string]any{"type": "livekit", "livekit_service_url": "https://rtc.example.org/livekit/jwt"}}
	base := func(url string) any {
		return map[string]any{"m.homeserver": map[string]any{"base_url": url}, "org.matrix.msc4143.rtc_foci": foci}
	}
	several := []Homeserver{
		{ServerName: "one.example.org", ClientAPI: "https://matrix.one.example.org"},
		{ServerName: "two.example.org:8448"},
		{ServerName: "[2001:db8::1]:8448"},
	}
	cases := []struct {
		name, host  string
		homeservers []Homeserver
		want        any
	}{
		{"asked by name", "one.example.org", several, base("https://matrix.one.example.org")},
		{"asked by name and port", "TWO.example.org:443", several, base("https://two.example.org")},
		{"asked by address", "[2001:db8::1]:443", several, base("https://[2001:db8::1]")},
		{"asked by another name", "rtc.example.org", several, base("https://matrix.one.example.org")},
		{"no homeserver", "rtc.example.org", nil, map[string]any{"org.matrix.msc4143.rtc_foci": foci}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(o *Options) { o.Homeservers = c.homeservers })
			got := decodeAny(t, w.do(t, "GET", "http://"+c.host+"/.well-known/matrix/client", ""))
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// In development no URL is configured.
func TestDerivedURLs(t *testing.T) {
	cases := []struct {
		name, url    string
		headers      []string
		service, sfu string
	}{
		{"loopback", "http://127.0.0.1:7880", nil, "http://127.0.0.1:7880/livekit/jwt", "ws://127.0.0.1:7880/livekit/sfu"},
		{"TLS", "https://rtc.example.org", nil, "https://rtc.example.org/livekit/jwt", "wss://rtc.example.org/livekit/sfu"},
		{"TLS at a proxy", "http://rtc.example.org", []string{"X-Forwarded-Proto", "https"}, "https://rtc.example.org/livekit/jwt", "wss://rtc.example.org/livekit/sfu"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(o *Options) { o.SFUURL, o.ServiceURL = "", "" })
			rec := w.do(t, "GET", c.url+pathTransports, "", append(c.headers, "Authorization", "Bearer x")...)
			got := decodeAny(t, rec)
			want := map[string]any{"rtc_transports": []any{map[string]any{"type": "livekit", "livekit_service_url": c.service, "url": c.sfu}}}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if _, sfu := w.granted(t, w.do(t, "POST", c.url+"/sfu/get", sfuGetBody("T"), c.headers...)); sfu != c.sfu {
				t.Errorf("token is for %q, want %q", sfu, c.sfu)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	w := newWorld(t, nil)
	for _, method := range []string{"GET", "HEAD"} {
		for _, path := range []string{"/healthz", "/livekit/jwt/healthz"} {
			if rec := w.do(t, method, path, ""); rec.Code != 200 {
				t.Errorf("%s %s: %d", method, path, rec.Code)
			}
		}
	}
}
