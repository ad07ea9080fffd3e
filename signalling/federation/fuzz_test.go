package federation

import (
	"strings"
	"testing"
)

// Whatever a homeserver answers: a user of that server or an error.
func FuzzSubject(f *testing.F) {
	for _, answer := range tokens {
		f.Add(200, []byte(`{"sub":"`+answer+`"}`), "example.org")
		f.Add(200, []byte(answer), "example.org:8448")
	}
	f.Fuzz(func(t *testing.T, status int, body []byte, server string) {
		sub, err := subject(status, body, server)
		if err == nil && (!strings.HasPrefix(sub, "@") || !strings.HasSuffix(sub, ":"+server) || len(sub) < len(server)+3) {
			t.Fatalf("%q of %q is accepted as %q", body, server, sub)
		}
	})
}
