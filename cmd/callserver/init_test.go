package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"callserver/setup"
)

// TestInit: the defaults give private files with which check is content and the server starts.
func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	var steps, said bytes.Buffer
	if code := run(t.Context(), []string{"init", "--yes", "--server-name", "example.org", "-d", dir}, nil, &steps, &said); code != exitOK {
		t.Fatalf("exit %d: %s", code, &said)
	}
	for _, name := range setup.FileNames() {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	written, err := os.ReadFile(filepath.Join(dir, setup.StepsFile))
	if err != nil || string(written) != steps.String() {
		t.Errorf("%s is not what was printed: %v", setup.StepsFile, err)
	}
	configuration := filepath.Join(dir, setup.ConfigurationFile)
	var checked bytes.Buffer
	if code := run(t.Context(), []string{"check", "-c", configuration}, nil, &checked, &checked); code != exitOK || strings.Contains(checked.String(), "warning") {
		t.Errorf("check: exit %d, %s", code, &checked)
	}
	if code := serve(t, nil, "serve", "-c", configuration).stop(); code != exitOK {
		t.Errorf("serve: exit %d", code)
	}
}

// TestInitNeverOverwrites: one file that is there keeps all from being written, unless the operator says so.
func TestInitNeverOverwrites(t *testing.T) {
	for _, name := range setup.FileNames() {
		dir := t.TempDir()
		mine := filepath.Join(dir, name)
		if err := os.WriteFile(mine, []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		args := []string{"init", "--yes", "--server-name", "example.org", "-d", dir}
		var said bytes.Buffer
		code := run(t.Context(), args, nil, &said, &said)
		text, err := os.ReadFile(mine)
		entries, _ := os.ReadDir(dir)
		if code != exitFailure || !strings.Contains(said.String(), mine+" is there already") || string(text) != "mine" || err != nil || len(entries) != 1 {
			t.Errorf("%s: exit %d, %s, %q, %v, %d files", name, code, &said, text, err, len(entries))
		}
		if code := run(t.Context(), append(args, "--force"), nil, &said, &said); code != exitOK {
			t.Errorf("%s: --force: exit %d, %s", name, code, &said)
		}
		if info, err := os.Stat(mine); err != nil || info.Mode().Perm() != 0o600 || info.Size() < 10 {
			t.Errorf("%s: --force left %v, %v", name, info.Mode(), err)
		}
	}
}

// TestInitAsks: wrong answers are asked again, Enter takes the default, flags are not asked for.
func TestInitAsks(t *testing.T) {
	dir := t.TempDir()
	var steps, said bytes.Buffer
	answers := "https://no.name\nexample.org:8448\nDendrite\n\nnowhere\nhttp://10.0.0.5:8008/\n\n\nn\n"
	c := initCmd{Directory: dir, Listen: "127.0.0.1:7880", Proxy: "caddy"}
	if err := c.Run(&command{ctx: t.Context(), stdin: strings.NewReader(answers), stdout: &steps, stderr: &said}); err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	for _, want := range []string{"[https://matrix.example.org]", "[https://call.example.org]", `"nowhere" is not a base URL`, `"https://no.name" is not a server name`} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q is not in\n%s", want, &said)
		}
	}
	if strings.Contains(said.String(), "Which reverse proxy") {
		t.Error("asks what a flag said")
	}
	if _, err := os.Stat(filepath.Join(dir, setup.WideFile)); !os.IsNotExist(err) {
		t.Errorf("a wide registration that was not wanted: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, setup.ConfigurationFile))
	if err != nil || !strings.Contains(string(text), "server_name: example.org:8448\n    client_api: http://10.0.0.5:8008\n") {
		t.Errorf("wrote %s, %v", text, err)
	}
	if !strings.Contains(steps.String(), "dendrite.yaml") || !strings.Contains(steps.String(), "```caddy call.example.org") {
		t.Errorf("the steps are for somebody else:\n%s", &steps)
	}
}

// TestInitRefuses: what cannot be asked or is wrong ends the command with the flag's name, before anything is written.
func TestInitRefuses(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "no answer to the question - give --server-name"},
		{[]string{"-y"}, "--server-name is needed"},
		{[]string{"-y", "--server-name", "@a:b"}, "--server-name: "},
		{[]string{"-y", "--server-name", "example.org", "--homeserver", "exchange"}, `--homeserver: "exchange" is none of synapse, dendrite, other`},
		{[]string{"-y", "--server-name", "example.org", "--public-url", "https://example.org/calls"}, "--public-url: "},
		{[]string{"-y", "--server-name", "example.org", "--advertise", "example.org"}, "--advertise: "},
		{[]string{"-y", "--server-name", "example.org", "--wide", "perhaps"}, "--wide: "},
		{[]string{"-y", "--server-name", "example.org", "--listen", "7880"}, "--listen: "},
	} {
		dir := t.TempDir()
		var said bytes.Buffer
		cmd := &command{ctx: t.Context(), stdin: strings.NewReader(""), stdout: &said, stderr: &said}
		code := cmd.run(append([]string{"init", "-d", dir}, tc.args...))
		entries, err := os.ReadDir(dir)
		if code != exitFailure || !strings.Contains(said.String(), tc.want) || len(entries) != 0 || err != nil {
			t.Errorf("%v: exit %d, %d files, %v, %s", tc.args, code, len(entries), err, &said)
		}
	}
}

// TestInitLeavesNothingHalfWritten: a file that cannot take its place leaves no remains.
func TestInitLeavesNothingHalfWritten(t *testing.T) {
	dir := t.TempDir()
	occupied := filepath.Join(dir, setup.KeysFile, "below")
	if err := os.MkdirAll(occupied, 0o700); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if code := run(t.Context(), []string{"init", "-y", "--force", "--server-name", "example.org", "-d", dir}, nil, &said, &said); code != exitFailure {
		t.Errorf("exit %d, %s", code, &said)
	}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), setup.KeysFile+".") {
			t.Errorf("%s was left", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestInitEndsAtOnce: Ctrl-C at a question ends the program, although main drains at the first signal otherwise.
func TestInitEndsAtOnce(t *testing.T) {
	silent, nobody, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	defer nobody.Close() // not before: a terminal does not end
	binary := filepath.Join(t.TempDir(), "callserver")
	goCommand(t, "build", "-o", binary, "./cmd/callserver")
	cmd := exec.Command(binary, "init")
	cmd.Stdin = silent
	p := start(t, cmd, t.TempDir())
	p.said.wait(t, "Name of your homeserver")
	p.signal(t, syscall.SIGINT)
	if code := p.wait(t); code != -1 {
		t.Errorf("exit %d, want the end by the signal", code)
	}
}
