package homeserver

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"
)

// bot returns an agent of the bot of a world.
func bot(t *testing.T, w *world) Agent {
	t.Helper()
	a, err := w.As(w.Sender())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestLogIn(t *testing.T) {
	const inUse, loggedIn = `{"errcode":"M_USER_IN_USE"}`, `{"user_id":"@_callserver:example.org","device_id":"DEV","access_token":"own"}`
	type replies map[string]struct { // by METHOD and the last parts of the path
		status int
		body   string
	}
	for _, tc := range []struct {
		name    string
		replies replies
		own     bool
		err     string
	}{
		{"it creates devices and lets us be them", replies{
			"POST register": {400, inUse}, "PUT devices/DEV": {201, `{}`}, "GET account/whoami": {200, `{"user_id":"@_callserver:example.org","device_id":"DEV"}`},
		}, false, ""},
		{"it has devices log in", replies{"POST register": {400, inUse}, "PUT devices/DEV": {404, `{"errcode":"M_FORBIDDEN"}`}, "POST login": {200, loggedIn}}, true, ""},
		{"it lets us rename a device, not be it", replies{
			"POST register": {400, inUse}, "PUT devices/DEV": {200, `{}`}, "GET account/whoami": {200, `{"user_id":"@_callserver:example.org","device_id":"AS_Device"}`},
			"POST login": {200, loggedIn},
		}, true, ""},
		{"the answer is for another device", replies{
			"POST register": {200, `{}`}, "PUT devices/DEV": {404, `{"errcode":"M_FORBIDDEN"}`}, "POST login": {200, strings.Replace(loggedIn, "DEV", "OTHER", 1)},
		}, false, `"OTHER"`},
		{"it does neither", replies{
			"POST register": {200, `{}`}, "PUT devices/DEV": {404, `{"errcode":"M_NOT_FOUND"}`}, "POST login": {403, `{"errcode":"M_FORBIDDEN","error":"no"}`},
		}, false, "403"},
		{"it is down", replies{"POST register": {502, ``}}, false, "502"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, func(r *http.Request) (int, string) {
				reply, known := tc.replies[r.Method+" "+strings.TrimPrefix(r.URL.Path, "/_matrix/client/v3/")]
				if !known {
					t.Errorf("asked for %s %s", r.Method, r.URL.Path)
				}
				return reply.status, reply.body
			}, nil)
			a, err := bot(t, w).LogIn(t.Context(), "DEV", "a device")
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %v, want an error with %q", err, tc.err)
				}
				return
			}
			if err != nil || a.who.own != tc.own || a.who.device != "DEV" || a.who.user != w.Sender() {
				t.Errorf("got %+v, %v", a.who, err)
			}
		})
	}
}

// TestRegistersOurOwn registers a user of ours that the homeserver does not know, once, and no user of its own.
func TestRegistersOurOwn(t *testing.T) {
	for user, want := range map[id.UserID]int{"@_callserver_x:example.org": 3, alice: 1} {
		known := false
		w := newWorld(t, func(r *http.Request) (int, string) {
			if strings.HasSuffix(r.URL.Path, "/register") {
				known = true
				return 200, `{}`
			}
			if !known {
				return 403, `{"errcode":"M_FORBIDDEN","error":"Application service has not registered this user (@x)"}`
			}
			return 200, `{}`
		}, nil)
		a, err := w.As(user)
		if err != nil {
			t.Fatal(err)
		}
		err = a.Join(t.Context(), room)
		if got := w.remote.requests(); len(got) != want || (err == nil) != (want == 3) {
			t.Errorf("%s: %v, asked %q", user, err, got)
		}
	}
}

func TestMail(t *testing.T) {
	w := newWorld(t, func(r *http.Request) (int, string) {
		switch r.URL.Query().Get("since") {
		case "":
			return 200, `{"next_batch":"n1","to_device":{"events":[{"type":"a","sender":"@a:b","content":{}},{"no":"event"}]},"device_one_time_keys_count":{"signed_curve25519":3}}`
		case "n1":
			return 200, `{"next_batch":"n2","device_lists":{"changed":["@a:b"]}}`
		}
		return 400, `{"errcode":"M_INVALID_PARAM"}`
	}, nil)
	a := bot(t, w)
	first, err := a.Mail(t.Context(), "")
	if err != nil || first.Next != "n1" || len(first.Events) != 1 || first.OneTime != 3 || !first.Gap || first.Empty() {
		t.Errorf("first %+v, %v", first, err)
	}
	second, err := a.Mail(t.Context(), "n1")
	if err != nil || second.Next != "n2" || len(second.Changed) != 1 || second.OneTime != -1 || second.Gap {
		t.Errorf("second %+v, %v", second, err)
	}
	if again, err := a.Mail(t.Context(), "forgotten"); err != nil || again.Next != "n1" || !again.Gap {
		t.Errorf("after a place that is forgotten: %+v, %v", again, err)
	}
}

// TestMailOfASender says what to do where the bot is a registration's sender, as it was once.
func TestMailOfASender(t *testing.T) {
	old := NarrowRegistration(server, "http://127.0.0.1:7880")
	old.SenderLocalpart = "_callserver"
	old.Namespaces.Users[0].Regex = "@_callserver_.*:example.org"
	w := newWorld(t, always(500, `{"errcode":"M_UNKNOWN","error":"Internal server error"}`), func(o *Options) { o.Registrations = []*Registration{parsed(t, old)} })
	if w.Sender() != "@_callserver:example.org" {
		t.Fatalf("the bot is %s", w.Sender())
	}
	if _, err := bot(t, w).Mail(t.Context(), ""); !errors.Is(err, ErrSender) || errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
