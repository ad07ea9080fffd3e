package homeserver

import (
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"
)

func TestRegistrationsWeWrite(t *testing.T) {
	narrow, wide := parsed(t, NarrowRegistration("example.org", "http://127.0.0.1:7880")), parsed(t, WideRegistration("example.org"))
	if !narrow.Receives() || wide.Receives() {
		t.Errorf("the narrow one receives events: %v, the wide one: %v; want true, false", narrow.Receives(), wide.Receives())
	}
	for _, tc := range []struct {
		user         id.UserID
		narrow, wide bool
	}{
		{"@alice:example.org", false, true},
		{"@_callserver_bob:example.org", true, true},
		{"@_callserver-wide:example.org", false, true},
		{"@alice:example.org.evil.com", false, false},
		{"@alice:exampleXorg", false, false},
		{"@alice:evil.com", false, false},
		{"x@alice:example.org", false, false},
	} {
		if got := narrow.covers(tc.user); got != tc.narrow {
			t.Errorf("the narrow one covers %s: %v, want %v", tc.user, got, tc.narrow)
		}
		if got := wide.covers(tc.user); got != tc.wide {
			t.Errorf("the wide one covers %s: %v, want %v", tc.user, got, tc.wide)
		}
	}
	for name, r := range map[string]*Registration{"narrow": narrow, "wide": wide} {
		text, err := r.YAML()
		if err != nil {
			t.Fatal(err)
		}
		url, aliases := "url: http://127.0.0.1:7880\n", "regex: '#_callserver_.*:"
		if name == "wide" {
			url, aliases = "url: null\n", "aliases: []\n" // an empty text is no URL to Synapse
		}
		for _, want := range []string{url, "rate_limited: false\n", aliases, "rooms: []\n", "io.element.msc4502.scopes:\n", "exclusive: "} {
			if !strings.Contains(string(text), want) {
				t.Errorf("the %s registration lacks %q:\n%s", name, want, text)
			}
		}
		if len(r.AppToken) != 64 || len(r.ServerToken) != 64 || r.AppToken == r.ServerToken {
			t.Errorf("tokens of the %s registration: %d and %d characters, equal: %v", name, len(r.AppToken), len(r.ServerToken), r.AppToken == r.ServerToken)
		}
		if s := r.String(); strings.Contains(s, r.AppToken) || strings.Contains(s, r.ServerToken) {
			t.Errorf("printing the %s registration shows a token", name)
		}
	}
}

func TestParseRegistration(t *testing.T) {
	const head = "id: a\nas_token: b\nhs_token: c\nsender_localpart: d\n"
	for name, tc := range map[string]struct {
		text string
		want []string // in the error; nil = fine
	}{
		"fine":          {head + "url: null\nnamespaces: {users: [{exclusive: true, regex: '@x.*'}]}\n", nil},
		"keys of later": {head + "io.element.msc9999: true\nprotocols: [irc]\n", nil},
		"empty url":     {head + "url: ''\n", nil},
		"empty":         {"", []string{"id is missing", "as_token is missing", "hs_token is missing", "sender_localpart is missing"}},
		"not YAML":      {"{", []string{"not a registration file"}},
		"a list":        {"- id: a", []string{"not a registration file"}},
		"same tokens":   {"id: a\nas_token: b\nhs_token: b\nsender_localpart: d\n", []string{"the same"}},
		"url":           {head + "url: localhost\n", []string{`url: "localhost"`}},
		"expression":    {head + "namespaces: {users: [{regex: '('}]}\n", []string{"namespaces.users[0]"}},
	} {
		_, err := ParseRegistration([]byte(tc.text))
		if (err == nil) != (tc.want == nil) {
			t.Errorf("%s: error %v, want %q", name, err, tc.want)
		}
		for _, want := range tc.want {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q lacks %q", name, err, want)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	r := NarrowRegistration(server, "http://127.0.0.1:1")
	for name, o := range map[string]Options{
		"no server name": {ClientAPI: "https://example.org"},
		"a URL as name":  {ServerName: "https://example.org"},
		"no URL":         {ServerName: server, ClientAPI: "example.org"},
		"twice":          {ServerName: server, ClientAPI: "https://example.org", Registrations: []*Registration{r, r}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseRegistration(f *testing.F) {
	for _, r := range []*Registration{NarrowRegistration("example.org", "http://127.0.0.1:7880"), WideRegistration("example.org")} {
		text, err := r.YAML()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseRegistration(text)
		if err != nil {
			return
		}
		r.covers(alice)
		again, err := r.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseRegistration(again); err != nil {
			t.Errorf("what it wrote of %q it does not read: %v", text, err)
		}
	})
}
