// Package fakeserver connects a test to the homeserver that it plays itself.
// It owns the connection, by registrations that have passed through their files, as when serving.
// It never answers a request: that is the test's own handler.
package fakeserver

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"callserver/signalling/homeserver"
)

// Connect serves the answers and connects to them as to example.org by the registrations, which it also returns as they were read. The test's end closes
// both.
func Connect(t testing.TB, answers http.Handler, registrations ...*homeserver.Registration) (*homeserver.Homeserver, []*homeserver.Registration) {
	t.Helper()
	s := httptest.NewServer(answers)
	t.Cleanup(s.Close)
	o := homeserver.Options{ServerName: "example.org", ClientAPI: s.URL}
	for _, r := range registrations {
		text, err := r.YAML()
		if err != nil {
			t.Fatal(err)
		}
		read, err := homeserver.ParseRegistration(text)
		if err != nil {
			t.Fatal(err)
		}
		o.Registrations = append(o.Registrations, read)
	}
	h, err := homeserver.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h, o.Registrations
}
