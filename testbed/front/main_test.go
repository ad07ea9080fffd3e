package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// named answers every request with its name and what reached it.
func named(t *testing.T, name string) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, name+" "+r.Host+" "+r.Header.Get("X-Forwarded-Proto"))
	}))
	t.Cleanup(server.Close)
	return server
}

func TestRoutes(t *testing.T) {
	handler, err := newHandler(named(t, "homeserver").URL, named(t, "callserver").URL, false)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/_matrix/client/v1/rtc/transports":                                                         "callserver",
		"/_matrix/client/unstable/org.matrix.msc4143/rtc/transports":                                "callserver",
		"/.well-known/matrix/client":                                                                "callserver",
		"/_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave":            "callserver",
		"/_matrix/federation/v1/rtc/livekit/get_token":                                              "callserver",
		"/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token":                     "callserver",
		"/_matrix/client/versions":                                                                  "homeserver",
		"/_matrix/client/v3/rooms/%21room:localhost/state/m.room.name/":                             "homeserver",
		"/_matrix/federation/v1/openid/userinfo?access_token=T":                                     "homeserver",
		"/_matrix/client/v3/rooms/r/send/x/..%2F..%2F..%2F..%2F..%2Fclient%2Fv1%2Frtc%2Ftransports": "homeserver",
	} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "http://example.org"+path, nil))
		if got := answer.Body.String(); got != want+" example.org http" {
			t.Errorf("%s: got %q, want it from %s", path, got, want)
		}
	}
}

// A homeserver that hands requests on gets them first.
func TestHandedOn(t *testing.T) {
	handler, err := newHandler(named(t, "homeserver").URL, named(t, "callserver").URL, true)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/_matrix/client/v1/rtc/transports":                     "callserver",
		"/_matrix/client/v1/rtc/livekit/get_token":              "homeserver",
		"/_matrix/federation/v1/rtc/livekit/get_token":          "homeserver",
		"/_matrix/client/v1/rtc/livekit/delegate_delayed_leave": "homeserver",
	} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "http://example.org"+path, nil))
		if got := answer.Body.String(); got != want+" example.org http" {
			t.Errorf("%s: got %q, want it from %s", path, got, want)
		}
	}
}

func TestNoBaseURL(t *testing.T) {
	for _, base := range []string{"", "127.0.0.1:8008", "http://%"} {
		if _, err := newHandler(base, "http://127.0.0.1:1", false); err == nil {
			t.Errorf("%q was taken as a base URL", base)
		}
	}
}

func TestCertificateIsForLocalhost(t *testing.T) {
	certificate, authority, err := newCertificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatal("the authority is not PEM")
	}
	client, server := net.Pipe()
	defer client.Close()
	served := make(chan error, 1)
	go func() { served <- tls.Server(server, certificate.config()).Handshake() }()
	connection := tls.Client(client, &tls.Config{RootCAs: roots, ServerName: "localhost"})
	if err := connection.HandshakeContext(context.Background()); err != nil {
		t.Errorf("client: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("server: %v", err)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	certificate, _, err := newCertificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := serve(ctx, http.NotFoundHandler(), "127.0.0.1:0", "127.0.0.1:0", certificate); err != nil {
		t.Error(err)
	}
}
