package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/livekit"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"callserver/internal/testnet/pebble"
)

func TestMain(m *testing.M) {
	var lingering []goleak.Option
	if pebble.Given() {
		lingering = pebble.Lingering()
	}
	goleak.VerifyTestMain(m, lingering...)
}

// freePorts lets any number of servers run side by side.
var freePorts = []string{
	"CALLSERVER_HTTP_LISTEN=127.0.0.1:0", "CALLSERVER_ADMIN_LISTEN=127.0.0.1:0", "CALLSERVER_MEDIA_UDP_PORT=0", "CALLSERVER_MEDIA_TCP_PORT=0",
	"CALLSERVER_TURN_UDP_PORT=0", "CALLSERVER_TURN_TCP_PORT=0", "CALLSERVER_TURN_TLS_PORT=0",
}

// A journal collects what a server says and tells when a line arrives.
type journal struct {
	mu     sync.Mutex
	text   bytes.Buffer
	change chan struct{}
}

func newJournal() *journal { return &journal{change: make(chan struct{})} }

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	close(j.change)
	j.change = make(chan struct{})
	return j.text.Write(b)
}

// wait returns the first match of the pattern, once it was said.
func (j *journal) wait(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(30 * time.Second)
	for {
		j.mu.Lock()
		match, change := re.FindStringSubmatch(j.text.String()), j.change
		j.mu.Unlock()
		if match != nil {
			return match
		}
		select {
		case <-change:
		case <-deadline:
			t.Fatalf("%q was not said in:\n%s", pattern, j)
		}
	}
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// A running server, driven as main does it.
type running struct {
	base, admin string
	said        *journal
	stop        func() int // drains and returns the exit code
}

func serve(t *testing.T, environ []string, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	said := newJournal()
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, args, append(environ, freePorts...), io.Discard, said) }()
	stop := sync.OnceValue(func() int { cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	said.wait(t, `msg=ready`)
	return &running{
		base:  said.wait(t, `for=clients at=(\S+)`)[1],
		admin: said.wait(t, `for=admin at=(\S+)`)[1],
		said:  said,
		stop:  stop,
	}
}

// request sends one request on a connection of its own.
func request(t *testing.T, method, target string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// mint runs the token command.
func mint(t *testing.T, args ...string) string {
	t.Helper()
	var out, complaints bytes.Buffer
	if code := run(t.Context(), append([]string{"token"}, args...), nil, &out, &complaints); code != 0 {
		t.Fatalf("token %v: exit %d: %s", args, code, &complaints)
	}
	return strings.TrimSpace(out.String())
}

// join opens the client websocket and returns it with the first message.
func join(t *testing.T, base, path, jwt string) (*websocket.Conn, *livekit.SignalResponse) {
	t.Helper()
	return joinBy(t, http.DefaultClient, base, path, jwt)
}

// joinBy is join over the connections of a client.
func joinBy(t *testing.T, client *http.Client, base, path, jwt string) (*websocket.Conn, *livekit.SignalResponse) {
	t.Helper()
	target := "ws" + strings.TrimPrefix(base, "http") + path + "?" + url.Values{"access_token": {jwt}, "protocol": {"16"}, "auto_subscribe": {"1"}, "sdk": {"go"}}.Encode()
	conn, _, err := websocket.Dial(t.Context(), target, &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn, receive(t, conn)
}

func receive(t *testing.T, conn *websocket.Conn) *livekit.SignalResponse {
	t.Helper()
	_, b, err := conn.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := &livekit.SignalResponse{}
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestServesWithoutConfiguration(t *testing.T) {
	s := serve(t, nil)
	s.said.wait(t, `development key is in use.*key=devkey secret=secret`)
	jwt := mint(t, "--room", "lobby", "--identity", "alice")
	for _, tc := range []struct {
		method, target string
		header         []string
		status         int
		body           string // in the answer
	}{
		{"GET", s.base + "/", nil, 200, "<div id=\"app\">"},
		{"HEAD", s.base + "/", nil, 200, ""},
		{"GET", s.base + "/healthz", nil, 200, "OK"},
		{"GET", s.base + "/web/settings.json", nil, 200, `"development":true`},
		{"GET", s.base + "/livekit/sfu", nil, 200, "OK"},
		{"HEAD", s.base + "/livekit/sfu/", nil, 200, ""},
		{"GET", s.base + "/rtc/validate?access_token=" + jwt, nil, 200, "success"},
		{"GET", s.base + "//rtc/validate?access_token=" + jwt, nil, 200, "success"},
		{"GET", s.base + "/livekit/sfu/rtc/validate?access_token=" + jwt, nil, 200, "success"},
		{"GET", s.base + "/rtc/validate?access_token=nonsense", nil, 401, ""},
		{"GET", s.base + "/.well-known/matrix/client", nil, 200, "/livekit/jwt"},
		{"GET", s.base + "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports", []string{"Authorization", "Bearer x"}, 200, "/livekit/sfu"},
		{"GET", s.base + "/sfu/get", nil, 405, "M_UNRECOGNIZED"},
		{"GET", s.base + "/livekit/jwt//sfu/get", nil, 405, "M_UNRECOGNIZED"},
		{"POST", s.base + "/livekit/jwt/delegate_delayed_leave", nil, 404, "M_UNRECOGNIZED"},
		{"GET", s.base + "/elsewhere", nil, 404, ""},
		{"GET", s.base + "/", []string{"X-Forwarded-For", "203.0.113.9"}, 403, "set keys in the configuration"},
		{"GET", s.admin + "/healthz", nil, 200, "OK"},
		{"GET", s.admin + "/metrics", nil, 200, "callserver_rooms 0"},
		{"GET", s.admin + "/debug/pprof/", nil, 200, "goroutine"},
	} {
		resp, body := request(t, tc.method, tc.target, tc.header...)
		if resp.StatusCode != tc.status || !strings.Contains(body, tc.body) {
			t.Errorf("%s %s: got %d %.200q, want %d with %q", tc.method, tc.target, resp.StatusCode, body, tc.status, tc.body)
		}
	}
	if code := s.stop(); code != exitOK {
		t.Errorf("exit %d after a drain:\n%s", code, s.said)
	}
}

func TestPageTokenJoins(t *testing.T) {
	s := serve(t, nil)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.base+"/web/token", strings.NewReader(`{"room":"lobby","identity":"web-1","name":"Alice"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got struct{ Token string }
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/rtc", "/livekit/sfu/rtc", "//rtc"} {
		_, first := join(t, s.base, path, got.Token)
		if p := first.GetJoin().GetParticipant(); p.GetIdentity() != "web-1" || p.GetName() != "Alice" {
			t.Errorf("%s: joined as %q (%q), first message %v", path, p.GetIdentity(), p.GetName(), first)
		}
	}
}

func TestDrainSaysLeave(t *testing.T) {
	s := serve(t, nil)
	conn, _ := join(t, s.base, "/rtc", mint(t, "--room", "lobby", "--identity", "alice"))
	ended := make(chan int, 1)
	go func() { ended <- s.stop() }()
	for {
		m := receive(t, conn)
		if leave := m.GetLeave(); leave != nil {
			if leave.GetReason() != livekit.DisconnectReason_SERVER_SHUTDOWN {
				t.Errorf("leave with reason %s", leave.GetReason())
			}
			break
		}
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
	if code := <-ended; code != exitOK {
		t.Errorf("exit %d", code)
	}
	s.said.wait(t, `msg=draining`)
	s.said.wait(t, `msg=stopped`)
}

func TestThreeMistakesAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "callserver.yaml")
	const text = "http: {listen: \"0.0.0.0:7880\"}\nmedia: {udp_prot: 7881, tcp_port: many}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"callserver: http.listen: 0.0.0.0:7880 can be reached by others, and the development key opens it - set keys (callserver token --new-key prints a pair), or keep to a loopback address",
		"callserver: media.tcp_port: many is not a port - use 1 to 65535, 0 for any free port, or off",
		"callserver: media.udp_prot: no such setting - did you mean media.udp_port?",
	}
	for _, args := range [][]string{{"check", "--config", file}, {"--config", file}, {"serve", "-c", file}} {
		var out, complaints bytes.Buffer
		if code := run(t.Context(), args, nil, &out, &complaints); code != exitFailure {
			t.Errorf("%v: exit %d", args, code)
		}
		if got := strings.Split(strings.TrimSpace(complaints.String()), "\n"); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%v: got\n%s\nwant\n%s", args, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "callserver.yaml")
	if err := os.WriteFile(file, []byte("keys: {b-key: 0123456789abcdef0123456789abcdef, a-key: short}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name          string
		args, environ []string
		code          int
		out, complain string // in what is printed
	}{
		{"version", []string{"version"}, nil, exitOK, "callserver 0.1.0-dev", ""},
		{"help", []string{"--help"}, nil, exitOK, "Commands:", ""},
		{"unknown flag", []string{"serve", "--fast"}, nil, exitUsage, "", "unknown flag --fast"},
		{"unknown command", []string{"server"}, nil, exitUsage, "", "unexpected argument server"},
		{"no such file", []string{"check", "--config", "nowhere.yaml"}, nil, exitFailure, "", "nowhere.yaml: no such file"},
		{"check nothing", []string{"check"}, nil, exitOK, "development key", ""},
		{"check a file", []string{"check", "-c", file}, nil, exitOK, "callserver.yaml: fine", "warning: keys.a-key: the secret has 5 characters"},
		{"file by environment", []string{"check"}, []string{"CALLSERVER_CONFIG=" + file}, exitOK, "callserver.yaml: fine", ""},
		{"token without room", []string{"token"}, nil, exitFailure, "", "--room and --identity are needed"},
		{"token with unknown key", []string{"token", "-r", "r", "-i", "i", "--key", "x"}, nil, exitFailure, "", `no key "x"`},
		{"token", []string{"token", "-r", "r", "-i", "i", "-c", file}, nil, exitOK, "eyJ", ""},
		{"new key", []string{"token", "--new-key"}, nil, exitOK, "key-", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, complaints bytes.Buffer
			code := run(t.Context(), tc.args, tc.environ, &out, &complaints)
			if code != tc.code || !strings.Contains(out.String(), tc.out) || !strings.Contains(complaints.String(), tc.complain) {
				t.Errorf("got exit %d, %q, %q; want %d, %q, %q", code, &out, &complaints, tc.code, tc.out, tc.complain)
			}
		})
	}
}

// TestNewKeyIsAConfiguration: what --new-key prints can be pasted below keys.
func TestNewKeyIsAConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "callserver.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "http: {listen: \":7880\"}\nkeys:\n  %s\n", mint(t, "--new-key")), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, complaints bytes.Buffer
	if code := run(t.Context(), []string{"check", "-c", file}, nil, &out, &complaints); code != 0 || complaints.Len() > 0 {
		t.Errorf("exit %d: %s", code, &complaints)
	}
}

func TestPortInUse(t *testing.T) {
	s := serve(t, nil)
	taken := strings.TrimPrefix(s.base, "http://")
	var complaints bytes.Buffer
	code := run(t.Context(), nil, append(freePorts[1:len(freePorts):len(freePorts)], "CALLSERVER_HTTP_LISTEN="+taken), io.Discard, &complaints)
	if code != exitFailure || !strings.Contains(complaints.String(), "http.listen: ") || !strings.Contains(complaints.String(), "address already in use") {
		t.Errorf("exit %d: %s", code, &complaints)
	}
}

func TestClientAddr(t *testing.T) {
	for _, tc := range []struct{ peer, forwarded, want string }{
		{"203.0.113.9:1", "", "203.0.113.9"},
		{"203.0.113.9:1", "198.51.100.1", "203.0.113.9"}, // not a proxy of ours
		{"127.0.0.1:1", "198.51.100.1", "198.51.100.1"},
		{"10.0.0.2:1", "6.6.6.6, 198.51.100.1", "198.51.100.1"}, // what came before the proxy is anybody's word
		{"127.0.0.1:1", "nobody", "127.0.0.1"},
		{"[::ffff:127.0.0.1]:1", "", "127.0.0.1"},
	} {
		r := &http.Request{RemoteAddr: tc.peer, Header: http.Header{}}
		if tc.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tc.forwarded)
		}
		if got := clientAddr(r).String(); got != tc.want {
			t.Errorf("peer %s, forwarded for %q: got %s, want %s", tc.peer, tc.forwarded, got, tc.want)
		}
	}
}
