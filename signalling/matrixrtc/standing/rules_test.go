package standing

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

func TestServerACL(t *testing.T) {
	for _, tc := range []struct {
		name, acl, server string
		want              bool
	}{
		{"everybody", `{"allow":["*"]}`, "example.org", true},
		{"nobody is named", `{}`, "example.org", false},
		{"no content", `null`, "example.org", false},
		{"allow is no list", `{"allow":"*"}`, "example.org", false},
		{"deny counts more", `{"allow":["*"],"deny":["example.org"]}`, "example.org", false},
		{"the port does not matter", `{"allow":["*"],"deny":["example.org"]}`, "example.org:8448", false},
		{"nor does the case", `{"allow":["*"],"deny":["EXAMPLE.org"]}`, "example.ORG", false},
		{"a glob", `{"allow":["*"],"deny":["*.evil.org"]}`, "a.b.evil.org", false},
		{"a glob is no suffix", `{"allow":["*"],"deny":["*.evil.org"]}`, "evil.org", true},
		{"one character", `{"allow":["exampl?.org"]}`, "example.org", true},
		{"whole names", `{"allow":["example.or"]}`, "example.org", false},
		{"a dot is a dot", `{"allow":["example.org"]}`, "exampleXorg", false},
		{"literals", `{"allow":["*"],"allow_ip_literals":false}`, "1.2.3.4:8448", false},
		{"literals, v6", `{"allow":["*"],"allow_ip_literals":false}`, "[2001:db8::1]:8448", false},
		{"literals by default", `{"allow":["*"]}`, "1.2.3.4", true},
		{"literals: not false", `{"allow":["*"],"allow_ip_literals":"no"}`, "1.2.3.4", true},
		{"names are no literals", `{"allow":["*"],"allow_ip_literals":false}`, "example.org", true},
		{"members that are no text", `{"allow":[5,null,"*"],"deny":[{}]}`, "example.org", true},
	} {
		if got := parseACL(json.RawMessage(tc.acl)).Permits(tc.server); got != tc.want {
			t.Errorf("%s: %s permits %s: %v, want %v", tc.name, tc.acl, tc.server, got, tc.want)
		}
	}
	if !(*ServerACL)(nil).Permits("example.org") {
		t.Error("no ACL permits everybody")
	}
}

func TestServers(t *testing.T) {
	for _, tc := range []struct {
		servers Servers
		server  string
		want    bool
	}{
		{Servers{}, "example.org", true},
		{Servers{Deny: []string{"*.evil.org", "evil.org"}}, "evil.org:8448", false},
		{Servers{Deny: []string{"localhost:1"}}, "localhost:2", true},
		{Servers{Deny: []string{"localhost:1"}}, "localhost:1", false},
		{Servers{Allow: []string{"example.*"}}, "example.org", true},
		{Servers{Allow: []string{"example.*"}}, "other.org", false},
		{Servers{Allow: []string{"*"}, Deny: []string{"other.org"}}, "other.org", false},
	} {
		if got := tc.servers.Permits(tc.server); got != tc.want {
			t.Errorf("%+v permits %s: %v, want %v", tc.servers, tc.server, got, tc.want)
		}
	}
}

func TestGlobIsQuick(t *testing.T) {
	start := time.Now()
	if glob(strings.Repeat("*a", 2000)+"b", strings.Repeat("a", 4000)) {
		t.Error("matched")
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a hostile pattern took %v", took)
	}
}

func FuzzRules(f *testing.F) {
	f.Add(`{"allow":["*"],"deny":["*.x"],"allow_ip_literals":false}`, "a.x:1")
	f.Add(`{"users":{"@a:b":"50"},"kick":1e9,"users_default":-1}`, "[::1]:2")
	f.Add(`{"room_version":"12","additional_creators":["@a:b"]}`, "")
	f.Fuzz(func(t *testing.T, content, server string) {
		raw := json.RawMessage(content)
		_ = parseACL(raw).Permits(server)
		_ = parseLevels(raw).of(id.UserID(server))
		_, _ = parseCreators(&event.Event{Content: event.Content{VeryRaw: raw}})
		if hostOf(server) != hostOf(hostOf(server)) {
			t.Errorf("the host of the host of %q is another", server)
		}
	})
}

func TestModerators(t *testing.T) {
	for _, tc := range []struct {
		name, levels, create string
		user                 string
		want                 bool
	}{
		{"kick level reached", `{"users":{"@bob:example.org":50}}`, `{}`, bob, true},
		{"not reached", `{"users":{"@bob:example.org":49}}`, `{}`, bob, false},
		{"another kick level", `{"users":{"@bob:example.org":50},"kick":60}`, `{}`, bob, false},
		{"a low kick level", `{"users":{"@bob:example.org":1},"kick":1}`, `{}`, bob, true},
		{"everybody", `{"users_default":50}`, `{}`, bob, true},
		{"as text", `{"users":{"@bob:example.org":"100"}}`, `{"room_version":"9"}`, bob, true},
		{"a level that cannot be read", `{"users":{"@bob:example.org":[]}}`, `{}`, bob, false},
		{"a kick level that cannot be read", `{"users":{"@bob:example.org":100},"kick":{}}`, `{}`, bob, false},
		{"not a number", `{"users":{"@bob:example.org":"NaN"}}`, `{}`, bob, false},
		{"no levels: the creator", ``, `{"room_version":"10"}`, alice, true},
		{"no levels: others", ``, `{"room_version":"10"}`, bob, false},
		{"the creator is named in the levels", `{"users":{"@bob:example.org":100}}`, `{"room_version":"11"}`, alice, false},
		{"version 12: the creator", `{"users":{"@bob:example.org":100}}`, `{"room_version":"12"}`, alice, true},
		{"version 12: another creator", `{}`, `{"room_version":"12","additional_creators":["@bob:example.org"]}`, bob, true},
		{"version 11: no other creators", `{}`, `{"room_version":"11","additional_creators":["@bob:example.org"]}`, bob, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMatrix(map[string]string{alice: "join", bob: "join"})
			m.state["m.room.create"], m.state["m.room.power_levels"] = tc.create, tc.levels
			ms := New(Options{Connections: []*homeserver.Homeserver{connect(t, m, wide())}})
			f, err := ms.Check(t.Context(), Place{id.UserID(tc.user), room}, nil)
			if err != nil || f.Standing != Joined || f.Moderator != tc.want {
				t.Errorf("%+v, %v; want moderator %v", f, err, tc.want)
			}
		})
	}
}

// Where only MSC4502 tells, nobody sees who moderates, and no server ACL.
func TestRulesUnseen(t *testing.T) {
	m := newMatrix(map[string]string{alice: "join"})
	m.query, m.state["m.room.server_acl"] = true, `{}`
	ms := New(Options{Connections: []*homeserver.Homeserver{connect(t, m, narrow())}})
	if f, err := ms.Check(t.Context(), Place{alice, room}, nil); err != nil || f.Standing != Joined || f.Moderator {
		t.Errorf("%+v, %v", f, err)
	}
}

// A homeserver that tells of the membership and not of the rules refuses: the ACL may deny the user.
func TestRulesUnavailable(t *testing.T) {
	m := newMatrix(map[string]string{alice: "join"})
	ms := New(Options{Connections: []*homeserver.Homeserver{connect(t, m, wide())}})
	if _, err := ms.Check(t.Context(), Place{alice, room}, nil); err != nil {
		t.Fatal(err)
	}
	ms.outdate(room)
	m.set(func() { m.down = true })
	if f, err := ms.Check(t.Context(), Place{alice, room}, nil); err == nil || f.Standing != Unknown {
		t.Errorf("%+v, %v; want no answer", f, err)
	}
}
