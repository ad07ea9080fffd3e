package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// repository is where README commands are typed.
const repository = "../.."

// readmeCommands are the lines of the README's sh blocks.
func readmeCommands(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		lines = append(lines, strings.Split(strings.TrimSpace(block[1]), "\n")...)
	}
	if len(lines) == 0 {
		t.Fatal("README.md shows no command")
	}
	return lines
}

// TestGoCommandsCarryTheTag: without goolm the module's Matrix encryption does not compile.
func TestGoCommandsCarryTheTag(t *testing.T) {
	for _, name := range []string{"README.md", "testbed/fuzz.sh", ".ci/hooks/pre-commit"} {
		text, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range regexp.MustCompile(`(?m)^.*\bgo (?:run|build|test|vet|install)\b.*$`).FindAllString(string(text), -1) {
			if !strings.Contains(command, "-tags goolm") {
				t.Errorf("%s: without -tags goolm: %s", name, strings.TrimSpace(command))
			}
		}
	}
	for name, setting := range map[string]string{"Makefile": "export GOFLAGS", "testbed/test.sh": "export GOFLAGS", "testbed/long.sh": "export GOFLAGS", ".golangci.yml": "build-tags: [goolm]"} {
		text, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), setting) || !strings.Contains(string(text), "goolm") {
			t.Errorf("%s does not set the tag for its go commands", name)
		}
	}
}

// TestTagCompilesMatrixEncryption builds the program the way the README does with mautrix's crypto linked in.
func TestTagCompilesMatrixEncryption(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "crypto.go")
	if err := os.WriteFile(source, []byte("package main\n\nimport _ \"maunium.net/go/mautrix/crypto\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(here, "crypto_linked_in.go"): source}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(readmeCommands(t), func(c string) bool { return strings.HasPrefix(c, "go build ") })
	if i < 0 {
		t.Fatal("README.md shows no go build")
	}
	args := strings.Fields(readmeCommands(t)[i])[1:]
	args[slices.Index(args, "-o")+1] = filepath.Join(dir, "callserver")
	goCommand(t, slices.Insert(args, 1, "-overlay", filepath.Join(dir, "overlay.json"))...)
}

// TestREADMECommands runs what the README tells a newcomer: the server without configuration, in which somebody joins
// with a token of the token command, and the binary with the configuration that init wrote.
func TestREADMECommands(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "callserver")
	for _, command := range readmeCommands(t) {
		args := strings.Fields(command)
		switch {
		case command == "go run -tags goolm ./cmd/callserver":
			testGoRun(t, args[1:])
		case strings.HasPrefix(command, "go run "):
			if out := goCommand(t, args[1:]...); !strings.HasPrefix(out, "eyJ") {
				t.Errorf("%s printed %q, want a token", command, out)
			}
		case strings.HasPrefix(command, "go build "):
			args[slices.Index(args, "-o")+1] = binary
			goCommand(t, args[1:]...)
		case command == "./callserver init":
			init := exec.Command(binary, "init")
			init.Dir = dir
			init.Stdin = strings.NewReader("example.org" + strings.Repeat("\n", 10)) // the rest by default
			if out, err := init.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		case strings.HasPrefix(command, "./callserver --config"):
			p := start(t, exec.Command("./"+filepath.Base(binary), args[1:]...), dir, freePorts...)
			p.said.wait(t, `msg=ready`)
			p.signal(t, syscall.SIGTERM)
			if code := p.wait(t); code != exitOK {
				t.Errorf("%s: exit %d:\n%s", command, code, p.said)
			}
		case strings.HasPrefix(command, "./callserver "):
			sh := exec.Command("sh", "-ec", command)
			sh.Dir = dir
			if out, err := sh.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		case strings.HasPrefix(command, "make "): // has a test of its own: make demo CHECK=1
		default:
			t.Errorf("README.md shows a command that no test runs: %s", command)
		}
	}
}

// testGoRun joins a room of the server that a newcomer starts.
func testGoRun(t *testing.T, args []string) {
	t.Helper()
	p := start(t, exec.Command("go", args...), repository, freePorts...)
	base := p.said.wait(t, `for=clients at=(\S+)`)[1]
	p.said.wait(t, `msg=ready`)
	conn, first := join(t, base, "/rtc", mint(t, "--room", "lobby", "--identity", "alice"))
	if first.GetJoin().GetParticipant().GetIdentity() != "alice" {
		t.Errorf("first message %v, want a join", first)
	}
	_ = conn.CloseNow()
	p.signal(t, syscall.SIGTERM)
	p.said.wait(t, `msg=stopped`)
	p.wait(t) // the code is that of go run, which a signal ends
}

// goCommand runs go in the repository and returns what it printed.
func goCommand(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// A process is a server in a process of its own, with everything that it started.
type process struct {
	cmd   *exec.Cmd
	said  *journal
	ended chan struct{}
}

func start(t *testing.T, cmd *exec.Cmd, dir string, environ ...string) *process {
	t.Helper()
	p := &process{cmd: cmd, said: newJournal(), ended: make(chan struct{})}
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), environ...)
	cmd.Stdout, cmd.Stderr = io.Discard, p.said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run has a child
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // the state says how it ended
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // nothing is left of one that ended
		<-p.ended
	})
	return p
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-p.cmd.Process.Pid, s); err != nil {
		t.Fatal(err)
	}
}

// wait returns the exit code, -1 after an end by signal.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(30 * time.Second):
		t.Fatalf("still running:\n%s", p.said)
		return 0
	}
}
