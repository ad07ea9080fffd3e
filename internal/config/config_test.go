package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const secret = "0123456789abcdef0123456789abcdef"

func TestDefaults(t *testing.T) {
	c, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		HTTP:  HTTP{Listen: "127.0.0.1:7880"},
		ACME:  ACME{HTTPPort: 80},
		Media: Media{UDPPort: 7881, TCPPort: 7881},
		Admin: Admin{Listen: "127.0.0.1:7980"},
		Room:  Room{AutoCreate: true},
		Keys:  map[string]string{"devkey": "secret"},

		Membership:  Membership{Delegate: true, Sweep: true, Grace: 15 * time.Second},
		Bot:         Bot{Commands: true, Bridge: true},
		RemoteUsers: true,
		Limits: Limits{Requests: Requests{Address: 3000, User: 120, Server: 6000}, Overload: Overload{CPU: 80},
			Relay: RelayLimits{User: 32, Address: 4000, Server: 10_000, AllocationBitrate: 50_000_000}},
		TURN: TURN{UDPPort: 3478, TCPPort: 3478, TLSPort: 5349, FirstPort: 49152, LastPort: 65535}, // off with the development key
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("no configuration (-want +got):\n%s", diff)
	}
	if !c.Development() {
		t.Error("no configuration: not development")
	}
}

func TestFileAndEnvironment(t *testing.T) {
	c, err := load(t, `
http: {listen: ":7880", public_url: "https://call.example.org/", proxy_protocol: [192.0.2.1/32, 2001:db8::/64]}
media:
  {udp_port: 7000, tcp_port: off, stun: ["stun.example.org:3478"], interfaces: [eth0, "wg*"], ice_lite: true,
   advertise: [203.0.113.7, "2001:db8::7", {address: 203.0.113.8, udp_port: 40000, tcp_port: off, local: 10.0.0.5}]}
admin: {listen: off}
keys: {one: `+secret+`}
keys_file: keys.yaml
homeservers:
  - {server_name: example.org, client_api: "https://matrix.example.org/", federation: "http://127.0.0.1:8008"}
remote_users: subscribe
room:
log: {level: warn, format: json, identifiers: true}
`, "CALLSERVER_MEDIA_UDP_PORT=7001", "CALLSERVER_ROOM_AUTO_CREATE=true", "CALLSERVER_CONFIG=elsewhere", "PATH=/bin")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.HTTP.ProxyProtocol); got != "[192.0.2.1/32 2001:db8::/64]" {
		t.Errorf("proxy_protocol: %s", got)
	}
	if c.HTTP.PublicURL.String() != "https://call.example.org" {
		t.Errorf("public_url = %s", c.HTTP.PublicURL)
	}
	media := Media{
		UDPPort: 7001, TCPPort: Off, STUN: []string{"stun.example.org:3478"}, Interfaces: []string{"eth0", "wg*"}, ICELite: true,
		Advertise: []Advertised{
			{Addr: netip.MustParseAddr("203.0.113.7")}, {Addr: netip.MustParseAddr("2001:db8::7")},
			{Addr: netip.MustParseAddr("203.0.113.8"), UDPPort: 40000, TCPPort: Off, Local: netip.MustParseAddr("10.0.0.5")},
		},
	}
	if diff := cmp.Diff(media, c.Media, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("media (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"one": secret, "two": secret}, c.Keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Homeserver{{ServerName: "example.org", ClientAPI: "https://matrix.example.org", Federation: "http://127.0.0.1:8008"}}, c.Homeservers); diff != "" {
		t.Errorf("homeservers (-want +got):\n%s", diff)
	}
	if !c.Room.AutoCreate || !c.RemoteUsers || c.Admin.Listen != "" || !c.Log.JSON || !c.Log.Identifiers || c.Log.Level.String() != "WARN" || c.Development() || len(c.Warnings) != 1 {
		t.Errorf("got %+v", c)
	}
}

func TestEnvironmentTakesListsAsYAML(t *testing.T) {
	c, err := Load("", []string{
		"CALLSERVER_KEYS={one: " + secret + "}",
		"CALLSERVER_MEDIA_ADVERTISE=203.0.113.7, 2001:db8::7",
		"CALLSERVER_HOMESERVERS=[{server_name: example.org, unverified: refuse}]",
		"CALLSERVER_PORT_7880_TCP=tcp://10.0.0.1:7880",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Keys["one"] != secret || len(c.Media.Advertise) != 2 || len(c.Homeservers) != 1 {
		t.Errorf("got %+v", c)
	}
	if len(c.Warnings) != 2 || !strings.Contains(c.Warnings[0], "CALLSERVER_PORT_7880_TCP") {
		t.Errorf("warnings %q, want one about the unknown name, and that nobody can be verified", c.Warnings)
	}
}

func TestLimits(t *testing.T) {
	c, err := load(t, `
homeservers: [{server_name: a.org, unverified: refuse, publish: remote}, {server_name: b.org, unverified: refuse, publish: local}]
matrix_rooms:
  - {room: "!quiet:a.org", sources: microphone}
  - {room: "!open:a.org", publish: remote, participants: 20}
limits:
  requests: {address: 0, server: 10}
  room: {participants: 50, sources: [microphone, camera, camera]}
  user: {rooms: 2}
  bitrate: {participant: 2500k, server: 1.5G}
  load: {cpu: 75%}
`, "CALLSERVER_LIMITS_REQUESTS_USER=7", "CALLSERVER_REMOTE_USERS=refuse")
	if err != nil {
		t.Fatal(err)
	}
	want := Limits{
		Requests:  Requests{User: 7, Server: 10},
		Room:      RoomLimits{Participants: 50, Sources: []string{"microphone", "camera"}},
		UserRooms: 2,
		Bitrate:   Bitrate{Participant: 2_500_000, Server: 1_500_000_000},
		Overload:  Overload{CPU: 75},
		Relay:     RelayLimits{User: 32, Address: 4000, Server: 10_000, AllocationBitrate: 50_000_000},
	}
	if diff := cmp.Diff(want, c.Limits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	rooms := []MatrixRoom{
		{Room: "!quiet:a.org", RoomLimits: RoomLimits{Sources: []string{"microphone"}}},
		{Room: "!open:a.org", PublishRemote: true, RoomLimits: RoomLimits{Participants: 20}},
	}
	if diff := cmp.Diff(rooms, c.MatrixRooms); diff != "" {
		t.Errorf("matrix_rooms (-want +got):\n%s", diff)
	}
	if !c.Homeservers[0].PublishRemote || c.Homeservers[1].PublishRemote || c.RemoteUsers {
		t.Errorf("homeservers %+v, remote users %v", c.Homeservers, c.RemoteUsers)
	}
}

func TestProblems(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		env        []string
		want       []string // a line each, in order
	}{
		{"relay", "turn: {udp_port: 7881, tls_port: 3478, relay_ports: 70, domain: 'a/b', secrets: [5, ''], secrets_file: gone, peers: {allow: [all]}, tcp_relay: 1, enabled: true}\nlimits: {relay: {user: 0}}", nil, []string{
			`limits.relay.user: "0" is not a number of 1 or more`,
			`turn.domain: "a/b" is not a host name`,
			`turn.peers.allow: "all" is not a network`,
			`turn.relay_ports: "70" is not a range of ports`,
			`turn.secrets: has an entry that is no secret`, `turn.secrets: has an entry that is no secret`,
			`turn.secrets_file: `, `turn.tcp_relay: "1" is neither yes nor no`,
			`turn.tls_port: 3478 is turn.tcp_port already`, `turn.udp_port: 7881 is media.udp_port already`}},
		{"media among the relays", "turn: {relay_ports: 7000-8000, enabled: true}", nil, []string{`turn.relay_ports: 7000-8000 holds media.udp_port, 7881`}},
		{"three at once", "media: {udp_prot: 1, tcp_port: 70000}\nhttp: {listen: nowhere}", nil, []string{
			`http.listen: "nowhere" is not host:port - write for example 127.0.0.1:7880, or :7880 for every address`,
			`media.tcp_port: 70000 is not a port - use 1 to 65535, 0 for any free port, or off`,
			`media.udp_prot: no such setting - did you mean media.udp_port?`,
		}},
		{"without its section", "udp_port: 1", nil, []string{`udp_port: no such setting - did you mean media.udp_port?`}},
		{"nothing alike", "zzzzzz: 1", nil, []string{`zzzzzz: no such setting - remove it; docs/callserver.yaml lists every setting`}},
		{"section as value", "media: 1", nil, []string{`media: is a section, not a value - write its settings below it, indented`}},
		{"not YAML", "a: [", nil, []string{`is not YAML`}},
		{"key twice in YAML", "http: {listen: \"127.0.0.1:1\"}\nhttp: {}", nil, []string{`already defined`}},
		{"development key in the open", "http: {listen: \"0.0.0.0:7880\"}", nil, []string{
			`http.listen: 0.0.0.0:7880 can be reached by others, and the development key opens it - set keys (callserver token --new-key prints a pair), or keep to a loopback address`}},
		{"development key, written out", "http: {listen: \":7880\"}\nkeys: {devkey: secret, other: " + secret + "}", nil, []string{`http.listen: :7880 can be reached by others`}},
		{"development key behind a name", "http: {public_url: \"https://call.example.org\"}", nil, []string{`http.public_url: https://call.example.org is for others`}},
		{"no media", "media: {udp_port: off, tcp_port: off}", nil, []string{`media.udp_port: is off, and media.tcp_port too`}},
		{"certificate without key", "tls: {certificate_file: callserver.yaml}", nil, []string{`tls.key_file: is missing, and tls.certificate_file is of no use without it`}},
		{"key without certificate", "tls: {key_file: callserver.yaml}", nil, []string{`tls.certificate_file: is missing, and tls.key_file is of no use without it`}},
		{"certificate that is none", "tls: {certificate_file: callserver.yaml, key_file: callserver.yaml}", nil, []string{`tls.certificate_file: tls: failed to find any PEM data`}},
		{"authority without domains", "tls: {acme: {email: admin@example.org}}", nil, []string{`tls.acme.domains: is missing, and tls.acme.email is of no use without it`}},
		{"authority", "tls: {acme: {domains: ['*.example.org', 203.0.113.7, 'https://call.example.org', localhost], email: admin, directory: 'http://ca', ca_file: callserver.yaml, http_port: 0}}", nil, []string{
			`tls.acme.ca_file: callserver.yaml holds no certificate`, `tls.acme.directory: http://ca is not https`,
			`tls.acme.domains: *.example.org stands for many names`, `tls.acme.domains: "203.0.113.7" is no domain`,
			`tls.acme.domains: "https://call.example.org" is no domain`, `tls.acme.domains: "localhost" is no domain`,
			`tls.acme.email: "admin" is no address for mail`, `tls.acme.http_port: 0 is not a port`}},
		{"authority and nothing to keep it in", "tls: {acme: {domains: [call.example.org]}}\ndata: {file: off}", nil, []string{`tls.acme.domains: is set, and data.file is off`}},
		{"certificate that is nowhere", "tls: {certificate_file: 1, key_file: nothing.pem}", nil, []string{
			`tls.certificate_file: "1" is no file`, `tls.key_file: `}},
		{"everybody a proxy", "http: {proxy_protocol: [10.0.0.1, 0.0.0.0/0]}", nil, []string{
			`http.proxy_protocol: "10.0.0.1" is not a network`, `http.proxy_protocol: 0.0.0.0/0 is everybody`}},
		{"same address twice", "admin: {listen: \"127.0.0.1:7880\"}", nil, []string{`admin.listen: 127.0.0.1:7880 is http.listen already`}},
		{"private network without length", "federation_private_networks: [10.0.0.1, \"::ffff:10.0.0.0/104\"]", nil, []string{
			`federation_private_networks: "10.0.0.1" is not a network`, `federation_private_networks: "::ffff:10.0.0.0/104" is not`}},
		{"advertise half", "media: {advertise: [{udp_port: 1}, {address: 203.0.113.7, local: \"::1\"}, {address: 203.0.113.7, udp_prot: 1, tcp_port: 0}]}", nil, []string{
			`media.advertise[0].address: is missing`, `media.advertise[1].local: ::1 is of another family than 203.0.113.7`,
			`media.advertise[2].tcp_port: 0 is not a port`, `media.advertise[2].udp_prot: no such setting - did you mean media.advertise[2].udp_port?`}},
		{"no servers", "media: {stun: [stun.example.org], interfaces: [\"[\"]}", nil, []string{
			`media.interfaces: "[" is no name of a network interface`, `media.stun: "stun.example.org" is not host:port`}},
		{"advertise a name", "media: {advertise: [example.org, 0.0.0.0]}", nil, []string{
			`media.advertise: "example.org" is not an address`, `media.advertise: "0.0.0.0" is not an address`}},
		{"key without secret", "keys: {one: , two: 12}", nil, []string{`keys.one: has no secret`, `keys.two: has no secret`}},
		{"keys as list", "keys: [one]", nil, []string{`keys: is not a list of key: secret pairs`}},
		{"keys file missing", "keys_file: nowhere.yaml", nil, []string{`nowhere.yaml does not exist`}},
		{"key in both", "keys: {two: " + secret + "}\nkeys_file: keys.yaml", nil, []string{`keys_file.two: is defined twice`}},
		{"registrations", "homeservers: [{server_name: a.org, client_api: 'http://a.org', registration: [gone.yaml, 5], unverified: perhaps}, {server_name: b.org, registration: keys.yaml}]", nil, []string{
			"gone.yaml does not exist", `homeservers[0].registration: "5" is no file`,
			`homeservers[0].unverified: "perhaps" is not a policy - use refuse or allow`,
			"homeservers[1].client_api: is missing, and registration is of no use without it"}},
		{"homeservers", "homeservers: [{sever_name: a.org}, {server_name: \"@a:b\"}, {server_name: b.org}, {server_name: b.org}, {server_name: c.org, client_api: c.org}, d.org]", nil, []string{
			`homeservers[0].server_name: is missing`, `homeservers[0].sever_name: no such setting - did you mean homeservers[0].server_name?`,
			`homeservers[1].server_name: "@a:b" is not a server name`, `homeservers[3].server_name: b.org is listed twice`,
			`homeservers[4].client_api: "c.org" is not a base URL`, `homeservers[5]: is not a homeserver`}},
		{"servers", "servers: {allow: [a/b, 5], deny: '@x:y'}", nil, []string{
			`servers.allow: "a/b" is no server name`, `servers.allow: "5" is no server name`, `servers.deny: "@x:y" is no server name`}},
		{"CA without certificates", "federation_ca_file: keys.yaml", nil, []string{`federation_ca_file: keys.yaml holds no certificate`}},
		{"words", "room: {auto_create: maybe}\nremote_users: all\nlog: {level: loud, format: xml}", nil, []string{
			`log.format: "xml" is not a format`, `log.level: "loud" is not a level`, `remote_users: "all" is not a policy`, `room.auto_create: "maybe" is neither yes nor no`}},
		{"limits", "limits: {requests: {user: many}, room: {participants: -1, sources: []}, bitrate: {participant: fast}, load: {cpu: 101}, user: 3}", nil, []string{
			`limits.bitrate.participant: "fast" is not a bit rate`, `limits.load.cpu: "101" is no share`, `limits.requests.user: "many" is not a number`,
			`limits.room.participants: "-1" is not a number`, `limits.room.sources: is empty`, `limits.user: is a section, not a value`}},
		{"matrix rooms", "matrix_rooms: [{room: '#a:b.org'}, {room: '!a:b.org', publish: all, sorces: [x]}, {room: '!a:b.org', sources: [voice]}, 5]", nil, []string{
			`matrix_rooms[0].room: "#a:b.org" is not the id of a Matrix room`, `matrix_rooms[1].publish: "all" is not a policy`,
			`matrix_rooms[1].sorces: no such setting - did you mean matrix_rooms[1].sources?`,
			`matrix_rooms[2].room: !a:b.org is listed twice`, `matrix_rooms[2].sources: "voice" cannot be published`, `matrix_rooms[3]: is not a room`}},
		{"times", "membership: {grace: 15, sweep: 2}", nil, []string{
			`membership.grace: "15" is not a time from 1s to 1h0m0s - write for example 15s, or off`, `membership.sweep: "2" is neither yes nor no`}},
		{"by environment", "", []string{"CALLSERVER_MEDIA_UDP_PORT=many", "CALLSERVER_KEYS={"}, []string{
			`CALLSERVER_KEYS (keys): is not a YAML value`, `CALLSERVER_MEDIA_UDP_PORT (media.udp_port): many is not a port`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := load(t, tc.file, tc.env...)
			if err == nil {
				t.Fatalf("no problem in:\n%s", tc.file)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tc.want) {
				t.Fatalf("got\n%s\nwant %d lines", err, len(tc.want))
			}
			for i, line := range lines {
				if !strings.Contains(line, tc.want[i]) {
					t.Errorf("line %d\n got %s\nwant %s", i+1, line, tc.want[i])
				}
				if strings.Contains(line, secret) {
					t.Errorf("echoes a secret: %s", line)
				}
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	c, err := load(t, "keys: {short: abc}\nkeys_file: open.yaml\nadmin: {listen: \":7980\"}\n"+
		"homeservers: [{server_name: a.org, unverified: allow}, {server_name: b.org}, {server_name: c.org, unverified: refuse}]")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(c.Warnings, "\n")
	for _, want := range []string{"homeservers[0]: membership is not verified", "homeservers[1]: nobody can be verified", "homeservers[2]: nobody can be verified", "keys.short: the secret has 3 characters", "everybody on this machine can read", "admin.listen: :7980 shows metrics"} {
		if !strings.Contains(text, want) {
			t.Errorf("warnings\n%s\nlack %q", text, want)
		}
	}
}

func TestRelay(t *testing.T) {
	c, err := load(t, "turn: {enabled: true, udp_port: off, secrets: ["+secret+", short], relay_ports: 40000-40009, domain: turn.example.org, peers: {allow: 10.0.0.0/8}, secrets_file: secrets}",
		"CALLSERVER_TURN_TCP_PORT=0")
	if err != nil {
		t.Fatal(err)
	}
	want := TURN{
		Enabled: true, UDPPort: Off, TLSPort: 5349, Domain: "turn.example.org", FirstPort: 40000, LastPort: 40009,
		Secrets: []string{secret, "short", strings.Repeat("x", 40)}, Peers: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	}
	if diff := cmp.Diff(want, c.TURN, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("turn (-want +got):\n%s", diff)
	}
	if text := strings.Join(c.Warnings, "\n"); !strings.Contains(text, "turn.secrets: a secret has 5 characters") {
		t.Errorf("warnings\n%s\nlack the short secret", text)
	}
}

func TestAuthority(t *testing.T) {
	c, err := load(t, "http: {public_url: 'https://other.example.org'}\nkeys: {one: "+secret+"}\n"+
		"tls: {acme: {domains: [Call.Example.org., call.example.org, turn.example.org], http_port: off}}\ndata: {file: /var/lib/callserver/callserver.db}\nturn: {enabled: true, domain: relay.example.org}")
	if err != nil {
		t.Fatal(err)
	}
	want := ACME{Domains: []string{"call.example.org", "turn.example.org"}, HTTPPort: Off, Storage: "/var/lib/callserver/acme"}
	if diff := cmp.Diff(want, c.ACME); diff != "" || !c.Secure() {
		t.Errorf("secure %t, (-want +got):\n%s", c.Secure(), diff)
	}
	for _, want := range []string{"other.example.org of http.public_url is not in it", "relay.example.org of turn.domain is not in it"} {
		if text := strings.Join(c.Warnings, "\n"); !strings.Contains(text, want) {
			t.Errorf("warnings %q lack %q", text, want)
		}
	}
}

func TestRegistrations(t *testing.T) {
	one := filepath.Join(t.TempDir(), "one.yaml")
	if err := os.WriteFile(one, []byte("id: one"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{one, "[" + one + "]"} {
		c, err := load(t, "homeservers: [{server_name: a.org, client_api: 'http://a.org', registration: "+value+"}]", "")
		if err != nil {
			t.Fatal(err)
		}
		if c.Homeservers[0].Unverified {
			t.Errorf("registration: %s: membership is not verified", value)
		}
		if diff := cmp.Diff([]File{{one, []byte("id: one")}}, c.Homeservers[0].Registrations); diff != "" {
			t.Errorf("registration: %s (-want +got):\n%s", value, diff)
		}
	}
}

// What survives a restart is kept beside the configuration file, unless the operator says otherwise.
func TestDataFile(t *testing.T) {
	for _, tt := range []struct {
		text, env, want string // want is relative to the configuration file
		chosen          bool
	}{
		{"", "", "callserver.db", false},
		{"data: {file: state/calls.db}", "", "state/calls.db", true},
		{"data: {file: /var/lib/calls.db}", "", "/var/lib/calls.db", true},
		{"data: {file: off}", "", "", true},
		{"", "CALLSERVER_DATA_FILE=off", "", true},
		{"data: {file: off}", "CALLSERVER_DATA_FILE=calls.db", "calls.db", true},
	} {
		c, err := load(t, tt.text, tt.env)
		if err != nil {
			t.Errorf("%q %s: %v", tt.text, tt.env, err)
			continue
		}
		got := c.Data.File
		if dir, name := filepath.Split(got); !filepath.IsAbs(tt.want) && got != "" {
			if got = name; filepath.Base(dir) == "state" {
				got = "state/" + name
			}
		}
		if got != tt.want || c.Data.Default == tt.chosen {
			t.Errorf("%q %s: %+v, want %q", tt.text, tt.env, c.Data, tt.want)
		}
	}
	if c, err := Load("", nil); err != nil || c.Data.File != "" {
		t.Errorf("without a configuration file: %+v, %v", c.Data, err)
	}
}

// TestManual keeps docs/callserver.yaml complete and true: it loads as it is, it loads with every comment that is a
// setting taken in, and then it mentions every key.
func TestManual(t *testing.T) {
	const manual = "../../docs/callserver.yaml"
	asIs, err := Load(manual, nil)
	if err != nil {
		t.Fatalf("%s as it stands: %v", manual, err)
	}
	standard, _ := Load("", nil)
	standard.Room.AutoCreate = false                                      // written out in the manual
	standard.TURN.Enabled = true                                          // likewise
	standard.Data = Data{File: "../../docs/callserver.db", Default: true} // there is a file now
	if diff := cmp.Diff(standard, asIs); diff != "" {
		t.Errorf("%s does not show the defaults (-default +manual):\n%s", manual, diff)
	}

	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	full := regexp.MustCompile(`(?m)^( *)#(\S|  )`).ReplaceAllString(string(text), "$1$2")
	var found []string
	if _, err = load(t, full, ""); err != nil {
		found = strings.Split(err.Error(), "\n")
	}
	for _, line := range found { // the files it names exist only at the operator's
		if !strings.Contains(line, " does not exist - ") {
			t.Errorf("%s with every setting: %s", manual, line)
		}
	}
	for _, key := range slices.Concat(Keys(), HomeserverKeys(), MatrixRoomKeys(), AdvertiseKeys()) {
		if !regexp.MustCompile(`(?m)^[ -]*` + last(key) + `:`).MatchString(full) {
			t.Errorf("%s does not mention %s", manual, key)
		}
	}
}

func TestSuggest(t *testing.T) {
	for key, want := range map[string]string{
		"media.udp_port":   "media.udp_port",
		"media.udpport":    "media.udp_port",
		"meida.udp_port":   "media.udp_port",
		"http.udp_port":    "media.udp_port",
		"homeserver":       "homeservers",
		"htpp":             "http",
		"completely_other": "",
	} {
		if got := suggest(key, append(Keys(), sections()...)); got != want {
			t.Errorf("suggest(%q) = %q, want %q", key, got, want)
		}
	}
}

func TestLoopback(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "127.8.9.1:1": true, "[::1]:1": true, "localhost:1": true, "localhost": true, "[::ffff:127.0.0.1]:1": true, "alice.localhost:80": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "10.0.0.1:1": false, "example.org:1": false, "localhost.example.org": false, "": false,
	} {
		if got := Loopback(addr); got != want {
			t.Errorf("Loopback(%q) = %v, want %v", addr, got, want)
		}
	}
}

// FuzzLoad: no file makes Load panic.
func FuzzLoad(f *testing.F) {
	f.Add("http: {listen: \":1\"}\nkeys: {a: b}", "7881")
	f.Add("homeservers: [{server_name: a}, 3, {}]\nmedia: []", "[1")
	f.Fuzz(func(t *testing.T, file, port string) {
		name := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
			t.Skip("cannot write the case:", err)
		}
		c, err := Load(name, []string{"CALLSERVER_MEDIA_UDP_PORT=" + port, "CALLSERVER_MEDIA_ADVERTISE=" + port})
		if (c == nil) == (err == nil) {
			t.Errorf("config %v with error %v", c, err)
		}
	})
}

// load loads a file's text, beside a keys file that is private and one that is not.
func load(t *testing.T, text string, env ...string) (*Config, error) {
	t.Helper()
	dir := t.TempDir()
	for name, f := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"callserver.yaml": {text, 0o600},
		"keys.yaml":       {"two: " + secret + "\n", 0o600},
		"open.yaml":       {"three: " + secret + "\n", 0o644},
		"secrets":         {"# ours\n" + strings.Repeat("x", 40) + "\n\n" + secret + "\n", 0o600},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	return Load(filepath.Join(dir, "callserver.yaml"), env)
}
