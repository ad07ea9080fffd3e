package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "callserver"

func TestModule(t *testing.T) {
	found, err := Check(root(t), module)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Error(v)
	}
}

func TestCheckFinds(t *testing.T) {
	const head = "package x\n\n"
	for _, tc := range []struct {
		name, file, source string
		want               string // in the violation's text; "" = none
	}{
		{"downwards", "sfu/forward/a.go", `import _ "callserver/sfu/packet"`, ""},
		{"upwards", "sfu/packet/a.go", `import _ "callserver/sfu/forward"`, "imports callserver/sfu/forward"},
		{"edge to edge", "signalling/livekit/a.go", `import _ "callserver/signalling/matrixrtc"`, "imports point one way"},
		{"config outside cmd", "edge/a.go", `import _ "callserver/internal/config"`, "imports callserver/internal/config"},
		{"config in cmd", "cmd/callserver/a.go", `import _ "callserver/internal/config"`, ""},
		{"test world in product", "cmd/callserver/a.go", `import _ "callserver/internal/testnet"`, "only tests"},
		{"unknown package", "helpers/a.go", `import _ "callserver/sfu"`, "not in the map"},
		{"webrtc in room", "sfu/a.go", `import _ "github.com/pion/webrtc/v4"`, "only sfu/rtc"},
		{"webrtc in rtc", "sfu/rtc/a.go", `import _ "github.com/pion/webrtc/v4"`, ""},
		{"webrtc in a test", "sfu/a_test.go", `import _ "github.com/pion/webrtc/v4"`, ""},
		{"prefix is not a path", "edge/a.go", `import _ "maunium.net/go/mautrixlike"`, ""},
		{"socket in room", "sfu/a.go", `import _ "net"`, "no socket"},
		{"netip in room", "sfu/a.go", `import _ "net/netip"`, ""},
		{"goroutine in room", "sfu/a.go", "func f() { go f() }", "starts a goroutine"},
		{"goroutine in rtc", "sfu/rtc/a.go", "func f() { go f() }", ""},
		{"clock in forward", "sfu/forward/a.go", "import \"time\"\nvar t = time.Now()", "time.Now"},
		{"duration in forward", "sfu/forward/a.go", "import \"time\"\nvar d = time.Second", ""},
		{"clock by another name", "sfu/forward/a.go", "import clock \"time\"\nvar t = clock.Now()", "another name"},
		{"testbed", "testbed/link/a.go", `import _ "callserver/sfu"`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			name := filepath.Join(dir, tc.file)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(head+tc.source), 0o644); err != nil {
				t.Fatal(err)
			}
			found, err := Check(dir, module)
			if err != nil {
				t.Fatal(err)
			}
			var text string
			for _, v := range found {
				text += v.String() + "\n"
			}
			if (tc.want == "") != (text == "") || !strings.Contains(text, tc.want) {
				t.Errorf("got %q, want %q in it, for:\n%s", text, tc.want, tc.source)
			}
		})
	}
}

// TestArchitectureNamesEveryPackage keeps ARCHITECTURE.md the map of the code as it is.
func TestArchitectureNamesEveryPackage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root(t), func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if err := skipDir(root(t), name); err != nil {
			return err
		}
		sources, err := filepath.Glob(filepath.Join(name, "*.go"))
		if rel, _ := filepath.Rel(root(t), name); len(sources) > 0 && !bytes.Contains(text, []byte(filepath.ToSlash(rel)+" ")) {
			t.Errorf("ARCHITECTURE.md does not show package %s", rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestProductLinks is the supply side of the map: what the binary links, module by module.
func TestProductLinks(t *testing.T) {
	deps := productDeps(t)
	if len(deps) == 0 {
		t.Fatal("go list -deps returned no module")
	}
	for path, dir := range deps {
		if within(path, "github.com/pion/dtls") && !strings.HasSuffix(path, "/v3") {
			t.Errorf("links %s: CVE-2026-26014 has no fix there; see docs/adr/0001", path)
		}
		if name := affero(t, dir); name != "" {
			t.Errorf("links %s, whose %s is the GNU Affero licence: the product is Apache-2.0", path, name)
		}
	}
}

// productDeps maps the path of each module that the product links to its directory.
func productDeps(t *testing.T) map[string]string {
	t.Helper()
	target := "./cmd/callserver"
	if _, err := os.Stat(filepath.Join(root(t), target)); errors.Is(err, os.ErrNotExist) {
		target = "./..."
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", "goolm", "-json=Module", target)
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps: %v\n%s", err, &stderr)
	}
	deps := map[string]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ Module *struct{ Path, Dir string } }
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return deps
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module != nil {
			deps[p.Module.Path] = p.Module.Dir
		}
	}
}

// affero names the licence file in dir that is the GNU AGPL, if there is one.
func affero(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		upper := strings.ToUpper(e.Name())
		if e.IsDir() || !strings.HasPrefix(upper, "LICEN") && !strings.HasPrefix(upper, "COPYING") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(bytes.ToUpper(text[:min(len(text), 400)]), []byte("AFFERO GENERAL PUBLIC LICENSE")) {
			return e.Name()
		}
	}
	return ""
}

// root is the module's directory, two above this package.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
