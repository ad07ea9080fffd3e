package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"callserver/signalling/homeserver"
)

// What survives a restart is kept beside the configuration, for nobody else to read. Where that cannot be, the server
// goes on without, unless the operator named the file.
func TestDataFile(t *testing.T) {
	registration, err := homeserver.NarrowRegistration("example.org", "http://127.0.0.1:7880").YAML()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("made", func(t *testing.T) {
		file := configure(t, registration)
		s := serve(t, nil, "serve", "--config", file)
		info, err := os.Stat(filepath.Join(filepath.Dir(file), "callserver.db"))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("others may read it: %v", info.Mode())
		}
		if _, metrics := request(t, "GET", s.admin+"/metrics"); !strings.Contains(metrics, "leaves_delegated_total 0\n") {
			t.Error("the metrics do not count delegated leaves")
		}
	})
	// A directory is what even root cannot write to.
	t.Run("cannot be made", func(t *testing.T) {
		file := configure(t, registration)
		if err := os.Mkdir(filepath.Join(filepath.Dir(file), "callserver.db"), 0o700); err != nil {
			t.Fatal(err)
		}
		serve(t, nil, "serve", "--config", file).said.wait(t, "level=WARN msg=\"data.file: a restart forgets")
	})
	t.Run("cannot be made, and was named", func(t *testing.T) {
		file := configure(t, registration)
		if err := os.Mkdir(filepath.Join(filepath.Dir(file), "named.db"), 0o700); err != nil {
			t.Fatal(err)
		}
		var complaints bytes.Buffer
		environ := append([]string{"CALLSERVER_DATA_FILE=named.db"}, freePorts...)
		if code := run(t.Context(), []string{"serve", "-c", file}, environ, &complaints, &complaints); code != exitFailure || !strings.Contains(complaints.String(), "data.file: open ") {
			t.Errorf("exit %d, %s", code, &complaints)
		}
	})
	t.Run("off", func(t *testing.T) {
		file := configure(t, registration)
		serve(t, []string{"CALLSERVER_DATA_FILE=off"}, "serve", "--config", file)
		if _, err := os.Stat(filepath.Join(filepath.Dir(file), "callserver.db")); !os.IsNotExist(err) {
			t.Errorf("there is a file: %v", err)
		}
	})
}
