package main

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"callserver/sfu/rtc"
)

// TestRelayURLs is what clients are told, in the order in which they try it, four at most.
func TestRelayURLs(t *testing.T) {
	place := func(public string) rtc.Place {
		return rtc.Place{Public: netip.MustParseAddrPort(public), Local: netip.MustParseAddrPort("10.0.0.1:7881")}
	}
	all := relayURLs{udp: 3478, tcp: 3478, tls: 5349, secure: "call.example.org"}
	named := all
	named.domain = "turn.example.org"
	for name, tc := range map[string]struct {
		urls   relayURLs
		places []rtc.Place
		want   []string
	}{
		"both families": {all, []rtc.Place{place("203.0.113.7:7881"), place("203.0.113.8:7881"), place("[2001:db8::7]:7881")}, []string{
			"turn:203.0.113.7:3478?transport=udp", "turn:203.0.113.7:3478?transport=tcp", "turn:[2001:db8::7]:3478?transport=udp", "turns:call.example.org:5349?transport=tcp"}},
		"IPv6 alone":       {all, []rtc.Place{place("[2001:db8::7]:7881")}, []string{"turn:[2001:db8::7]:3478?transport=udp", "turn:[2001:db8::7]:3478?transport=tcp", "turns:call.example.org:5349?transport=tcp"}},
		"by name":          {named, nil, []string{"turn:turn.example.org:3478?transport=udp", "turn:turn.example.org:3478?transport=tcp", "turns:call.example.org:5349?transport=tcp"}},
		"no certificate":   {relayURLs{udp: 1, tcp: 2}, []rtc.Place{place("203.0.113.7:7881")}, []string{"turn:203.0.113.7:1?transport=udp", "turn:203.0.113.7:2?transport=tcp"}},
		"no media by UDP":  {all, []rtc.Place{place("203.0.113.7:0")}, nil},
		"nothing listened": {relayURLs{}, []rtc.Place{place("203.0.113.7:7881")}, nil},
	} {
		if got := tc.urls.of(tc.places); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// TestServesRelay has a client of a call told where the relay is, and every listener said and measured.
func TestServesRelay(t *testing.T) {
	dir := t.TempDir()
	trusted := certify(t, dir)
	file := filepath.Join(dir, "callserver.yaml")
	text := "tls: {certificate_file: cert.pem, key_file: key.pem}\nhttp: {public_url: https://localhost}\nturn: {enabled: true}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, nil, "--config", file)
	defer s.stop()
	at := s.said.wait(t, `for=relay at="udp (127.0.0.1:\d+)"`)[1]
	for _, protocol := range []string{"tcp", "tls"} {
		s.said.wait(t, `for=relay at="`+protocol+` \S+:\d+"`)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, ServerName: "localhost"}}
	conn, first := joinBy(t, &http.Client{Transport: transport}, s.base, "/rtc", mint(t, "--room", "lobby", "--identity", "alice"))
	defer conn.CloseNow()
	servers := first.GetJoin().GetIceServers()
	if len(servers) != 1 {
		t.Fatalf("told %v", servers)
	}
	for _, want := range []string{"turn:" + at + "?transport=udp", "turns:localhost:443?transport=tcp"} {
		if !slices.Contains(servers[0].GetUrls(), want) {
			t.Errorf("told %q, want %s among them", servers[0].GetUrls(), want)
		}
	}
	until, user, _ := strings.Cut(servers[0].GetUsername(), ":")
	seconds, err := strconv.ParseInt(until, 10, 64)
	if left := time.Until(time.Unix(seconds, 0)); err != nil || left < 50*time.Minute || left > time.Hour || user != "join:"+first.GetJoin().GetParticipant().GetSid() {
		t.Errorf("username %q", servers[0].GetUsername())
	}
	if _, metrics := request(t, "GET", s.admin+"/metrics"); !strings.Contains(metrics, `callserver_relay_allocations{kind="join"} 0`) || !strings.Contains(metrics, `callserver_relay_refused_total{reason="peer_port"} 0`) ||
		!strings.Contains(metrics, `callserver_relay_dropped_total{reason="no_permission"} 0`) {
		t.Error("metrics lack the relay")
	}
}
