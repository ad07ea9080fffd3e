package edge

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers with the name and the path that it saw.
func echo(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, name+" "+r.URL.Path)
	})
}

func TestMux(t *testing.T) {
	handler := &guard{next: Mux(
		Mount{Handler: echo("page"), Root: []string{"/", "/assets/"}},
		Mount{Handler: echo("sfu"), Root: []string{"/rtc", "/rtc/", "/twirp/"}, Prefixes: []string{"/livekit/sfu"}},
		Mount{Handler: echo("jwt"), Root: []string{"/sfu/get", "/get_token"}, Prefixes: []string{"/livekit/jwt/"}},
	), log: slog.New(slog.DiscardHandler)}
	for _, tc := range []struct{ path, want string }{
		{"/", "page /"},
		{"/assets/page.js", "page /assets/page.js"},
		{"/rtc", "sfu /rtc"},
		{"/rtc/v1/validate", "sfu /rtc/v1/validate"},
		{"//rtc/v1", "sfu /rtc/v1"},
		{"///twirp//livekit.RoomService/CreateRoom", "sfu /twirp/livekit.RoomService/CreateRoom"},
		{"/livekit/sfu", "sfu /"},
		{"/livekit/sfu/", "sfu /"},
		{"/livekit/sfu/rtc", "sfu /rtc"},
		{"/livekit/sfu//rtc/v1", "sfu /rtc/v1"},
		{"/livekit/jwt/sfu/get", "jwt /sfu/get"},
		{"/livekit/jwt//get_token", "jwt /get_token"},
		{"/livekit/jwt/anything", "jwt /anything"},
		{"/sfu/get", "jwt /sfu/get"},
		{"/livekit/jwtx", "not found\n"},
		{"/nothing", "not found\n"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.URL.Path = tc.path
		handler.ServeHTTP(w, r)
		if got := w.Body.String(); got != tc.want {
			t.Errorf("%s: got %d %q, want %q", tc.path, w.Code, got, tc.want)
		}
		if w.Code == http.StatusNotFound && w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: 404 without CORS", tc.path)
		}
	}
}

func TestDevelopmentGuard(t *testing.T) {
	for _, tc := range []struct {
		name        string
		development bool
		remote      string
		host        string
		header      string
		want        int
	}{
		{"loopback", true, "127.0.0.1:999", "127.0.0.1:7880", "", 200},
		{"loopback 6", true, "[::1]:999", "[::1]:7880", "", 200},
		{"name", true, "127.0.0.1:999", "alice.localhost:7880", "", 200},
		{"other machine", true, "10.1.1.1:999", "127.0.0.1:7880", "", 403},
		{"foreign name", true, "127.0.0.1:999", "evil.example.org", "", 403},
		{"forwarded", true, "127.0.0.1:999", "localhost", "Forwarded", 403},
		{"x-forwarded-for", true, "127.0.0.1:999", "localhost", "X-Forwarded-For", 403},
		{"x-forwarded-proto", true, "127.0.0.1:999", "localhost", "x-forwarded-proto", 403},
		{"own keys", false, "10.1.1.1:999", "call.example.org", "X-Forwarded-For", 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := &guard{next: http.HandlerFunc(OK), development: tc.development, log: slog.New(slog.DiscardHandler)}
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr, r.Host = tc.remote, tc.host
			if tc.header != "" {
				r.Header.Set(tc.header, "somebody")
			}
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			if w.Code != tc.want {
				t.Errorf("got %d %q, want %d", w.Code, w.Body, tc.want)
			}
			if refused := g.refused.Load() == 1; refused != (tc.want == 403) {
				t.Errorf("refused counted: %v, status %d", refused, w.Code)
			}
		})
	}
}

func TestPanicIsAnswered(t *testing.T) {
	g := &guard{next: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oops") }), log: slog.New(slog.DiscardHandler)}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set(RequestIDHeader, "chosen by the client")
	g.ServeHTTP(w, r)
	id := w.Header().Get(RequestIDHeader)
	if w.Code != 500 || id == "" || strings.Contains(id, " ") || !strings.Contains(w.Body.String(), id) {
		t.Errorf("got %d %q with request id %q", w.Code, w.Body, id)
	}
	if g.panics.Load() != 1 {
		t.Errorf("panics = %d, want 1", g.panics.Load())
	}
}

func TestOK(t *testing.T) {
	for method, want := range map[string]int{http.MethodGet: 200, http.MethodHead: 200, http.MethodPost: 405} {
		w := httptest.NewRecorder()
		OK(w, httptest.NewRequest(method, "/", nil))
		if w.Code != want || w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: got %d %v, want %d with CORS", method, w.Code, w.Header(), want)
		}
	}
}

// start runs a listener until the test ends.
func start(t *testing.T, h http.Handler) *Listener {
	t.Helper()
	return startWith(t, Options{Handler: h}, func(*Listener) {})
}

// startWith runs a listener that prepare has seen.
func startWith(t *testing.T, o Options, prepare func(*Listener)) *Listener {
	t.Helper()
	o.Listen, o.Logger = "127.0.0.1:0", slog.New(slog.DiscardHandler)
	l, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	prepare(l)
	done := make(chan error, 1)
	go func() { done <- l.Run() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = l.Close(ctx)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestLongRequestLine(t *testing.T) {
	l := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.RawQuery) < 1<<20 {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	for size, want := range map[int]string{1 << 20: "200", 3 << 20: "431"} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		go func() { // the server answers 431 before it has read everything
			_, _ = io.WriteString(conn, "GET /rtc/v1?join_request="+strings.Repeat("a", size)+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		}()
		status, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(status, want) {
			t.Errorf("request line of %d bytes: got %q, %v, want %s", size, status, err, want)
		}
		_ = conn.Close()
	}
}

func TestCloseWaitsForRequests(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	l, err := Listen(Options{Listen: "127.0.0.1:0", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, "done")
	})})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- l.Run() }()
	answer := make(chan string, 1)
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + l.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		answer <- string(body)
	}()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- l.Close(context.Background()) }()
	if err := <-served; err != nil { // Serve returns at once, Shutdown waits
		t.Error(err)
	}
	close(release)
	if got := <-answer; got != "done" {
		t.Errorf("the request under way got %q", got)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestListenOnUsedPort(t *testing.T) {
	l := start(t, nil)
	_, err := Listen(Options{Listen: l.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v, want: address already in use", err)
	}
}
