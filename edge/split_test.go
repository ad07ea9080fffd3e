package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// seen answers with what the handler saw of the connection.
var seen = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	secure := "plain"
	if r.TLS != nil {
		secure = "tls"
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
	}
	_, _ = io.WriteString(w, strings.Join([]string{r.Proto, secure, from.Addr().String()}, " "))
})

// certificates are those of a test: call.example.org.
func certificates(t *testing.T) *Certificates {
	t.Helper()
	f := filesIn(t.TempDir(), "call")
	writeCertificate(t, f, "call.example.org")
	c, err := LoadCertificates([]Files{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// echoing answers every connection of a listener with a word and what it reads, until it ends.
func echoing(t *testing.T, l net.Listener, word string) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 4)
			if _, err := io.ReadFull(c, b); err == nil {
				_, _ = io.WriteString(c, word+string(b)+" "+c.RemoteAddr().(*net.TCPAddr).IP.String())
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

// say opens a connection, writes, and returns all that comes back.
func say(t *testing.T, l interface{ Addr() net.Addr }, secure *tls.Config, before, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, before); err != nil {
		t.Fatal(err)
	}
	if secure != nil {
		t := tls.Client(c, secure)
		defer t.Close()
		c = t
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "error"
	}
	answer, err := io.ReadAll(c)
	if err != nil && len(answer) == 0 {
		return "error"
	}
	return string(answer)
}

const (
	get  = "GET / HTTP/1.1\r\nHost: call.example.org\r\nConnection: close\r\n\r\n"
	stun = "\x00\x01\x00\x00" // a binding request begins so
	ice  = "\x00\x14\x00\x01" // and so, framed
)

// TestOnePort has every protocol on one port.
func TestOnePort(t *testing.T) {
	l := startWith(t, Options{Handler: seen, Certificates: certificates(t)}, func(l *Listener) {
		echoing(t, l.TURN(), "turn")
		echoing(t, l.ICE(), "ice")
	})
	client := func(protocols ...string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
	}
	for _, tc := range []struct {
		name   string
		secure *tls.Config
		text   string
		want   string
	}{
		{"https", client("http/1.1"), get, "HTTP/1.1 tls 127.0.0.1"},
		{"https without alpn", client(), get, "HTTP/1.1 tls 127.0.0.1"},
		{"turn", client(), stun, "turn" + stun + " 127.0.0.1"},
		{"turn by alpn", client("stun.turn"), stun, "turn" + stun + " 127.0.0.1"},
		{"turn by alpn beside http", client("http/1.1", "stun.turn"), stun, "turn" + stun + " 127.0.0.1"},
		{"stun by alpn", client("stun.nat-discovery"), stun, "turn" + stun + " 127.0.0.1"},
		{"ice", nil, ice, "ice" + ice + " 127.0.0.1"},
		{"http without tls", nil, get, ""},
		{"alpn of others", client("imap"), get, "error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := say(t, l, tc.secure, "", tc.text)
			if !strings.HasSuffix(got, tc.want) || tc.want == "" && strings.Contains(got, "HTTP/1.1 200") {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	t.Run("http 2", func(t *testing.T) {
		transport := &http.Transport{TLSClientConfig: client(), ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Get("https://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "HTTP/2.0 tls 127.0.0.1" {
			t.Errorf("got %q, %v", body, err)
		}
	})
	if n := l.Stats().Closed; n < 2 {
		t.Errorf("%d connections counted as closed, want those of http without tls and of imap", n)
	}
}

// TestTURNAlone has TURN on ports of its own, plain and inside TLS, also behind a proxy.
func TestTURNAlone(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	secure := &tls.Config{InsecureSkipVerify: true}
	for _, tc := range []struct {
		name         string
		options      Options
		secure       *tls.Config
		before, want string
	}{
		{"plain", Options{}, nil, "", "turn" + stun + " 127.0.0.1"},
		{"tls", Options{Certificates: certificates(t)}, secure, "", "turn" + stun + " 127.0.0.1"},
		{"plain to tls", Options{Certificates: certificates(t)}, nil, "", ""},
		{"proxied", Options{ProxyProtocol: trusted}, nil, proxyHeader(1, 0x11, source4), "turn" + stun + " 198.51.100.7"},
		{"proxied tls", Options{Certificates: certificates(t), ProxyProtocol: trusted}, secure, proxyHeader(1, 0x21, source6), "turn" + stun + " 2001:db8::7"},
		{"header missing", Options{ProxyProtocol: trusted}, nil, "", "error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.options.Listen = "127.0.0.1:0"
			s, err := ListenTURN(tc.options)
			if err != nil {
				t.Fatal(err)
			}
			s.split.timeout = 500 * time.Millisecond
			echoing(t, s.TURN(), "turn")
			done := make(chan error, 1)
			go func() { done <- s.Run() }()
			if got := say(t, s, tc.secure, tc.before, stun); got != tc.want && (tc.want != "" && tc.want != "error" || strings.Contains(got, "turn")) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if err := errors.Join(s.Close(), <-done); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNobodyServes closes what nobody accepts.
func TestNobodyServes(t *testing.T) {
	l := start(t, seen)
	if got := say(t, l, nil, "", get); !strings.HasSuffix(got, "HTTP/1.1 plain 127.0.0.1") {
		t.Errorf("plain HTTP: got %q", got)
	}
	if got := say(t, l, nil, "", ice+"\r\n\r\n"); !strings.Contains(got, "400") {
		t.Errorf("ICE that nobody serves: got %q, want what HTTP says to it", got)
	}
	l = startWith(t, Options{Handler: seen, Certificates: certificates(t)}, func(*Listener) {})
	if got := say(t, l, &tls.Config{InsecureSkipVerify: true}, "", stun); got != "" && got != "error" {
		t.Errorf("TURN that nobody serves: got %q", got)
	}
}

// TestSilence ends connections that say too little, and lets others in meanwhile.
func TestSilence(t *testing.T) {
	l := startWith(t, Options{Handler: seen, Certificates: certificates(t)}, func(l *Listener) { l.split.timeout = 50 * time.Millisecond })
	for _, text := range []string{"", "\x16", "\x16\x03\x01\x02\x00\x01"} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%q: %v", text, err)
		}
		_ = c.Close()
	}
	if n := l.Stats().Closed; n != 3 {
		t.Errorf("%d connections counted as closed, want 3", n)
	}
}

// TestTooManySilent closes a connection beyond the bound at once.
func TestTooManySilent(t *testing.T) {
	l := start(t, seen)
	l.split.mu.Lock()
	for range maxHellos {
		c, _ := net.Pipe()
		l.split.open[c] = struct{}{}
	}
	l.split.mu.Unlock()
	if got := say(t, l, nil, "", get); got != "" && got != "error" {
		t.Errorf("got %q", got)
	}
	l.split.mu.Lock()
	clear(l.split.open)
	l.split.mu.Unlock()
	if got := say(t, l, nil, "", get); !strings.Contains(got, "200 OK") {
		t.Errorf("got %q when the others had gone", got)
	}
}

// TestCloseEndsTheSilent does not wait for who has said nothing yet.
func TestCloseEndsTheSilent(t *testing.T) {
	l, err := Listen(Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Run() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := l.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// proxyHeader is version 2 of the PROXY protocol.
func proxyHeader(command, family byte, rest []byte) string {
	b := append([]byte(proxySignature), 0x20|command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(rest)))
	return string(append(b, rest...))
}

var (
	source4 = []byte{198, 51, 100, 7, 203, 0, 113, 1, 0x1f, 0x90, 0x01, 0xbb}
	source6 = append(append(netip.MustParseAddr("2001:db8::7").AsSlice(), netip.MustParseAddr("2001:db8::1").AsSlice()...), 0x1f, 0x90, 0x01, 0xbb)
)

func TestProxyProtocol(t *testing.T) {
	c := certificates(t)
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	secure := &tls.Config{InsecureSkipVerify: true}
	for _, tc := range []struct {
		name   string
		header string
		want   string
	}{
		{"ipv4", proxyHeader(1, 0x11, source4), "tls 198.51.100.7"},
		{"ipv6", proxyHeader(1, 0x21, source6), "tls 2001:db8::7"},
		{"with extensions", proxyHeader(1, 0x11, append(bytes.Clone(source4), 0x04, 0, 1, 0)), "tls 198.51.100.7"},
		{"of itself", proxyHeader(0, 0, nil), "tls 127.0.0.1"},
		{"of no TCP", proxyHeader(1, 0, nil), "tls 127.0.0.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := startWith(t, Options{Handler: seen, Certificates: c, ProxyProtocol: trusted}, func(*Listener) {})
			if got := say(t, l, secure, tc.header, get); !strings.HasSuffix(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	t.Run("turn", func(t *testing.T) {
		l := startWith(t, Options{Certificates: c, ProxyProtocol: trusted}, func(l *Listener) { echoing(t, l.TURN(), "turn") })
		if got, want := say(t, l, secure, proxyHeader(1, 0x11, source4), stun), "turn"+stun+" 198.51.100.7"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("header missing", func(t *testing.T) {
		l := startWith(t, Options{Handler: seen, ProxyProtocol: trusted}, func(*Listener) {})
		if got := say(t, l, nil, "", get); got != "" && got != "error" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("from somebody else", func(t *testing.T) {
		l := startWith(t, Options{Handler: seen, ProxyProtocol: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, func(*Listener) {})
		if got := say(t, l, nil, proxyHeader(1, 0x11, source4), get); strings.Contains(got, "198.51.100.7") || strings.Contains(got, "200 OK") {
			t.Errorf("a stranger chose its address: %q", got)
		}
	})
}

func TestReadProxyHeader(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want error
	}{
		"nothing":         {"", errNoProxyHeader},
		"version 1":       {"PROXY TCP4 198.51.100.7 203.0.113.1 8080 443\r\n", errNoProxyHeader},
		"version 3":       {proxySignature + "\x31\x11\x00\x0c" + string(source4), errNoProxyHeader},
		"unknown command": {proxyHeader(2, 0x11, source4), errProxyHeader},
		"too long":        {proxyHeader(1, 0x11, make([]byte, maxProxyHeader+1)), errProxyHeader},
		"cut off":         {proxyHeader(1, 0x11, source4)[:20], errProxyHeader},
		"short addresses": {proxyHeader(1, 0x21, source4), errProxyHeader},
	} {
		if _, err := readProxyHeader(strings.NewReader(tc.text)); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

func FuzzReadProxyHeader(f *testing.F) {
	f.Add([]byte(proxyHeader(1, 0x11, source4) + get))
	f.Add([]byte(proxyHeader(1, 0x21, source6) + "\x16\x03\x01"))
	f.Add([]byte(proxyHeader(0, 0, nil)))
	f.Add([]byte(proxyHeader(1, 0x31, make([]byte, 216))))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		addr, err := readProxyHeader(r)
		if err != nil {
			if addr.IsValid() {
				t.Errorf("address %v with error %v", addr, err)
			}
			return
		}
		if read, want := len(b)-r.Len(), 16+int(binary.BigEndian.Uint16(b[14:])); read != want {
			t.Errorf("read %d bytes of a header of %d", read, want)
		}
	})
}
