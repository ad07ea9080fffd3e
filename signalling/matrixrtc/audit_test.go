package matrixrtc

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each admission and each refusal is one record, with its reason and how the user was proven, and without a token.
func TestAudit(t *testing.T) {
	get := sfuGetBody("T")
	for _, tc := range []struct {
		name, path, body string
		before           func(*world)
		want             map[string]any
	}{
		{"admitted", "/sfu/get", get, nil, map[string]any{
			"msg": "call access granted", "membership": "nobody", "publish": true, "opens": true, "moderates": false,
			"generation": 1.0, "homeserver": "example.org", "proof": "openid", "user": "@alice:example.org", "room": "!abc:example.org", "device": "DEVICE", "addr": "8.8.8.8",
		}},
		{"not understood", "/sfu/get", "{}", nil, map[string]any{
			"msg": "call access refused", "reason": "malformed", "errcode": "M_BAD_JSON", "status": 400.0, "addr": "8.8.8.8",
		}},
		{"not vouched for", "/get_token", getTokenBody("foreign", "@alice:example.org"), nil, map[string]any{
			"msg": "call access refused", "reason": "unvouched", "errcode": "M_UNAUTHORIZED", "status": 401.0,
			"generation": 2.0, "homeserver": "example.org", "room": "!abc:example.org", "device": "DEVICE", "addr": "8.8.8.8",
		}},
		{"replayed", "/sfu/get", edit(get, func(b map[string]any) { b["device_id"] = "OTHER" }), func(w *world) { w.granted(t, w.do(t, "POST", "/sfu/get", get)) }, map[string]any{
			"msg": "call access refused", "reason": "replayed", "errcode": "M_UNAUTHORIZED", "status": 401.0,
			"generation": 1.0, "homeserver": "example.org", "proof": "openid", "user": "@alice:example.org", "room": "!abc:example.org", "device": "OTHER", "addr": "8.8.8.8",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			w := newWorld(t, func(o *Options) { o.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
			if tc.before != nil {
				tc.before(w)
				log.Reset()
			}
			w.do(t, "POST", tc.path, tc.body)
			var records []map[string]any
			for line := range strings.Lines(log.String()) {
				var record map[string]any
				if err := json.Unmarshal([]byte(line), &record); err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(record["msg"].(string), "call access") {
					delete(record, "time")
					delete(record, "level")
					delete(record, "err")
					records = append(records, record)
				}
			}
			if d := cmp.Diff([]map[string]any{tc.want}, records); d != "" {
				t.Errorf("records (-want +got):\n%s", d)
			}
			if strings.Contains(log.String(), `"T"`) || strings.Contains(log.String(), "foreign") {
				t.Errorf("a token is in the log: %s", log.String())
			}
		})
	}
}

// Who is refused by a limit is written once a minute, and counted each time.
func TestAuditOfLimits(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t, func(o *Options) {
		o.Requests = Requests{Address: 1}
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	for range 10 {
		w.do(t, "POST", "/sfu/get", "{}")
	}
	if n := strings.Count(log.String(), "reason=address"); n != 1 || w.Stats().Refusals["address"] != 9 {
		t.Errorf("%d records of %d refusals, want 1 of 9", n, w.Stats().Refusals["address"])
	}
}

// Every reason that the code knows is one that is counted.
func TestReasonsAreComplete(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "audit.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 && strings.HasPrefix(spec.Names[0].Name, "reason") && spec.Names[0].Name != "reasons" {
			declared = append(declared, strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`))
		}
		return true
	})
	if d := cmp.Diff(declared, Reasons()); d != "" || len(declared) == 0 {
		t.Errorf("reasons (-declared +listed):\n%s", d)
	}
	w := newWorld(t, nil)
	if got := slices.Sorted(maps.Keys(w.Stats().Refusals)); !slices.Equal(got, slices.Sorted(slices.Values(Reasons()))) {
		t.Errorf("counted are %q", got)
	}
}
