package telemetry

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

func TestLogger(t *testing.T) {
	var text, json bytes.Buffer
	Logger(&text, LogOptions{Level: slog.LevelWarn}).Info("quiet")
	Logger(&text, LogOptions{Level: slog.LevelWarn}).Warn("loud", "for", "clients")
	Logger(&json, LogOptions{JSON: true}).Info("said")
	if got := text.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "level=WARN msg=loud for=clients") {
		t.Errorf("text: %q", got)
	}
	if !strings.Contains(json.String(), `"msg":"said"`) {
		t.Errorf("json: %q", json.String())
	}
}

// Whatever is logged, by whatever key, in a text or an error: who, where and from which address stays out of the log, and
// secrets do even where the operator wants identifiers.
func TestIdentifiersStayOutOfTheLog(t *testing.T) {
	const room, call = "!OGEhHVWSdvArJzumhm:example.org", "TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E"
	for _, tc := range []struct {
		name   string
		args   []any
		hidden string // the part that must not be written
		kept   string // a part that must
	}{
		{"by key", []any{"room", "kitchen"}, "kitchen", "room=~"},
		{"identity", []any{"identity", "@alice:example.org:DEVICE"}, "alice", "identity=~"},
		{"address value", []any{"addr", netip.MustParseAddr("203.0.113.7")}, "203.0.113.7", "addr=~"},
		{"in an attribute of another name", []any{"what", "asked for @alice:example.org in " + room}, "alice", "what=\"asked for ~"},
		{"room in it", []any{"what", "asked for @alice:example.org in " + room}, "OGEh", ""},
		{"in an error", []any{"err", errors.New("look as @alice:example.org: forbidden")}, "alice", ": forbidden"},
		{"in a URL", []any{"err", `Get "https://m.example.org/_matrix/client/v3/rooms/%21OGEhHVWSdvArJzumhm:example.org/state/m.room.member/@alice:example.org?user_id=%40bob%3Aexample.org": EOF`}, "OGEh", "/state/m.room.member/~"},
		{"in its query", []any{"err", `Get "https://m.example.org/x?user_id=%40bob%3Aexample.org": EOF`}, "bob", "EOF"},
		{"room without server", []any{"err", "no such room !" + strings.Repeat("A", 43)}, "AAAA", "no such room ~"},
		{"name of a call", []any{"err", "join " + call + ": full"}, "TK4o8", ": full"},
		{"IPv4", []any{"err", "read udp 203.0.113.7:50000: timeout"}, "203.0.113.7", "read udp ~"},
		{"IPv6", []any{"err", "read udp [2001:db8::7]:50000: timeout"}, "db8", ": timeout"},
		{"bare IPv6", []any{"text", "candidate 2001:db8:1:2:3:4:5:6 ignored"}, "db8", " ignored"},
		{"mapped", []any{"text", "from ::ffff:203.0.113.7 now"}, "203.0.113", "from ~"},
		{"in a group", []any{slog.Group("who", "user", "@alice:example.org")}, "alice", "who.user=~"},
		{"token in a URL", []any{"path", "/rtc?access_token=eyJhbGciOi.x.y&auto_subscribe=1"}, "eyJ", "access_token=-&auto_subscribe=1"},
		{"bearer", []any{"err", "header Authorization: Bearer syt_secret"}, "syt_", "Bearer -"},

		{"loopback stays", []any{"err", "dial tcp 127.0.0.1:8008: refused"}, "~", "dial tcp 127.0.0.1:8008: refused"},
		{"listener stays", []any{"at", "http://203.0.113.7:7880"}, "~", "http://203.0.113.7:7880"},
		{"homeserver stays", []any{"homeserver", "matrix.example.org:8448"}, "~", "matrix.example.org:8448"},
		{"clock stays", []any{"text", "until 10:15:30 and 2026-11-23T10:15:30Z"}, "~", "until 10:15:30 and 2026-11-23T10:15:30Z"},
		{"numbers stay", []any{"participants", 3, "track", "TR_AMx4"}, "~", "participants=3 track=TR_AMx4"},
		{"module stays", []any{"text", "golang.org/x/sys@v0.30.0"}, "~", "golang.org/x/sys@v0.30.0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, write := range map[string]func(*slog.Logger){
				"here":    func(l *slog.Logger) { l.Info("said", tc.args...) },
				"by With": func(l *slog.Logger) { l.With(tc.args...).Info("said") },
			} {
				var out bytes.Buffer
				write(Logger(&out, LogOptions{}))
				if got := out.String(); strings.Contains(got, tc.hidden) || !strings.Contains(strings.ReplaceAll(got, `\"`, `"`), tc.kept) {
					t.Errorf("%s: line %qmust not have %q, and has %q", name, got, tc.hidden, tc.kept)
				}
			}
		})
	}
}

func TestIdentifiersWhereWanted(t *testing.T) {
	var out bytes.Buffer
	Logger(&out, LogOptions{Identifiers: true}).Info("said", "user", "@alice:example.org", "err", "GET /x?access_token=abc from 203.0.113.7")
	if got := out.String(); !strings.Contains(got, "user=@alice:example.org") || !strings.Contains(got, "203.0.113.7") || strings.Contains(got, "abc") {
		t.Errorf("line %q", got)
	}
}

// A pseudonym is the same on every line of a run, whether by key or inside a text, and another after a restart.
func TestPseudonyms(t *testing.T) {
	line := func(l *slog.Logger, out *bytes.Buffer, args ...any) string {
		out.Reset()
		l.Info("said", args...)
		return regexp.MustCompile(`~[A-Za-z0-9_-]{8}`).FindString(out.String())
	}
	var out bytes.Buffer
	first, second := Logger(&out, LogOptions{}), Logger(&out, LogOptions{})
	a := line(first, &out, "user", "@alice:example.org")
	if b := line(first, &out, "err", "look as @alice:example.org: no"); a == "" || a != b {
		t.Errorf("one user is %q and %q", a, b)
	}
	if b := line(first, &out, "user", "@bob:example.org"); a == b {
		t.Errorf("two users are both %q", a)
	}
	if b := line(second, &out, "user", "@alice:example.org"); a == b {
		t.Errorf("a user is %q in two runs", a)
	}
}

func FuzzScrub(f *testing.F) {
	f.Add("look as @alice:example.org: GET https://m/x?access_token=1 from [2001:db8::1]:5 and 10.0.0.1")
	f.Add("!::[[%40%3A~")
	v := newVeil()
	f.Fuzz(func(t *testing.T, text string) {
		if got := v.scrub("say " + text + " to @alice:example.org now"); strings.Contains(got, "@alice:example.org") {
			t.Errorf("scrub(%q) = %q", text, got)
		}
	})
}
