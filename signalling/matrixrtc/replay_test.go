package matrixrtc

import (
	"strconv"
	"testing"
	"time"
)

// An OpenID token is good for the device and the room of its first use, for the hour that it lives; see
// [TestReplaysAreBounded] for how much is remembered.
func TestOpenIDTokenShownAgain(t *testing.T) {
	device := func(body, name string) string {
		return edit(body, func(b map[string]any) {
			if m, ok := b["member"].(map[string]any); ok {
				m["claimed_device_id"] = name
			} else {
				b["device_id"] = name
			}
		})
	}
	room := func(body, key, name string) string {
		return edit(body, func(b map[string]any) { b[key] = name })
	}
	v1, v2 := sfuGetBody("T"), getTokenBody("T", "@alice:example.org")
	for _, tc := range []struct {
		name   string
		after  time.Duration
		path   string
		body   string
		status int
		code   string
	}{
		{"the same again", 0, "/get_token", v2, 200, ""},
		{"/get_token, then /sfu/get", 0, "/sfu/get", v1, 200, ""},
		{"the same after half an hour", 30 * time.Minute, "/sfu/get", v1, 200, ""},
		{"another member id", 0, "/get_token", edit(v2, func(b map[string]any) { b["member"].(map[string]any)["id"] = "m2" }), 200, ""},
		{"another device", 0, "/get_token", device(v2, "OTHER"), 401, "M_UNAUTHORIZED"},
		{"another device at /sfu/get", 0, "/sfu/get", device(v1, "OTHER"), 401, "M_UNAUTHORIZED"},
		{"another room", 0, "/get_token", room(v2, "room_id", "!other:example.org"), 401, "M_UNAUTHORIZED"},
		{"another room at /sfu/get", 0, "/sfu/get", room(v1, "room", "!other:example.org"), 401, "M_UNAUTHORIZED"},
		{"another room within the hour", 59 * time.Minute, "/sfu/get", room(v1, "room", "!other:example.org"), 401, "M_UNAUTHORIZED"},
		{"borders count", 0, "/sfu/get", room(device(v1, "DEVICE!"), "room", "abc:example.org"), 401, "M_UNAUTHORIZED"},
		{"a token of its own", 0, "/sfu/get", device(sfuGetBody("T2"), "OTHER"), 200, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.hs.users = map[string]string{"T": "@alice:example.org", "T2": "@alice:example.org"}
			w.granted(t, w.do(t, "POST", "/get_token", v2))
			w.now = w.now.Add(tc.after)
			expect(t, w.do(t, "POST", tc.path, tc.body), tc.status, tc.code)
			if n := w.Stats().Refusals["replayed"]; (n == 1) != (tc.code != "") {
				t.Errorf("%d refusals are counted as replayed", n)
			}
			if tc.code != "" { // what was refused does not take the place of the first use
				w.granted(t, w.do(t, "POST", "/sfu/get", v1))
			}
		})
	}
}

// A join of Element Call: two requests at once and a third with the delay fields, each with an OpenID token of its own, and
// /get_token before them where somebody else is in the call already.
func TestRequestsOfOneJoin(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Requests = usual })
	w.hs.users = map[string]string{"1": "@alice:example.org", "2": "@alice:example.org", "3": "@alice:example.org", "4": "@alice:example.org"}
	w.granted(t, w.do(t, "POST", "/get_token", getTokenBody("1", "@alice:example.org")))
	w.granted(t, w.do(t, "POST", "/sfu/get", sfuGetBody("2")))
	w.granted(t, w.do(t, "POST", "/sfu/get", sfuGetBody("3")))
	late := edit(sfuGetBody("4"), func(b map[string]any) {
		b["delay_id"], b["delay_timeout"], b["delay_cs_api_url"] = "syd_1", 3600000, "https://matrix.example.org"
	})
	expect(t, w.do(t, "POST", "/sfu/get", late), 400, "M_BAD_JSON") // nobody takes leaves over here: the client repeats it without
	w.granted(t, w.do(t, "POST", "/sfu/get", sfuGetBody("4")))
}

// A token that its homeserver does not answer for is not remembered: nobody can spoil it for its user beforehand.
func TestUnprovenTokensAreNotRemembered(t *testing.T) {
	w := newWorld(t, nil)
	expect(t, w.do(t, "POST", "/sfu/get", edit(sfuGetBody("later"), func(b map[string]any) { b["device_id"] = "MALLORY" })), 401, "M_UNAUTHORIZED")
	w.now = w.now.Add(time.Minute) // the refusal itself is remembered for half a minute
	w.hs.users = map[string]string{"later": "@alice:example.org"}
	w.granted(t, w.do(t, "POST", "/sfu/get", sfuGetBody("later")))
}

func TestReplaysAreBounded(t *testing.T) {
	r, now := newReplays(), time.Unix(0, 0)
	refused := 0
	for i := range maxReplays + maxReplays/2 {
		if r.check(openIDToken{strconv.Itoa(i), "example.org"}, "D", "!r", now) != nil {
			t.Fatal("a token is refused at its first use")
		}
	}
	for i := range maxReplays + maxReplays/2 {
		if r.check(openIDToken{strconv.Itoa(i), "example.org"}, "E", "!r", now) != nil {
			refused++
		}
	}
	if refused == 0 || refused > maxReplays {
		t.Errorf("%d tokens are remembered, at most %d", refused, maxReplays)
	}
}
