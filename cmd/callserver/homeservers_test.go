package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"callserver/signalling/homeserver"
)

// configure writes a configuration with a homeserver and its registration file, and returns its name.
func configure(t *testing.T, registration []byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"registration.yaml": string(registration),
		"callserver.yaml":   "homeservers: [{server_name: example.org, client_api: 'http://127.0.0.1:1', registration: registration.yaml}]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "callserver.yaml")
}

func TestHomeserverPushes(t *testing.T) {
	r := homeserver.NarrowRegistration("example.org", "http://127.0.0.1:7880")
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, nil, "serve", "--config", configure(t, text))
	for token, want := range map[string]int{r.ServerToken: 200, r.AppToken: 403} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.base+"/_matrix/app/v1/transactions/1", strings.NewReader(`{"events":[]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("a transaction is answered %d, want %d", resp.StatusCode, want)
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if _, metrics := request(t, http.MethodGet, s.admin+"/metrics"); !strings.Contains(metrics, "callserver_homeserver_transactions_total 1\n") {
		t.Error("the metrics do not count the transaction")
	}
}

func TestBrokenRegistration(t *testing.T) {
	file := configure(t, []byte("id: x\nas_token: secret-of-mine\n"))
	for _, args := range [][]string{{"check", "-c", file}, {"serve", "-c", file}} {
		var complaints bytes.Buffer
		code := run(t.Context(), args, nil, &complaints, &complaints)
		if code != exitFailure || !strings.Contains(complaints.String(), "homeservers[0].registration: registration.yaml: hs_token is missing") {
			t.Errorf("%v: exit %d, %s", args, code, &complaints)
		}
		if strings.Contains(complaints.String(), "secret-of-mine") {
			t.Errorf("%v shows the token", args)
		}
	}
}

func TestBrokenSigningKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "callserver.yaml")
	key := filepath.Join(filepath.Dir(file), "signing.key")
	if err := os.WriteFile(file, []byte("homeservers: [{server_name: example.org, signing_key_file: signing.key}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{"ed25519 a_AbCd secret-of-mine": exitFailure, "ed25519 a_AbCd YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1": 0} {
		if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		if code := run(t.Context(), []string{"check", "-c", file}, nil, &said, &said); code != want {
			t.Errorf("exit %d, want %d: %s", code, want, &said)
		}
		if strings.Contains(said.String(), "secret-of-mine") || strings.Contains(said.String(), "homeservers[0].signing_key_file: signing.key: not a signing key") != (want != 0) {
			t.Errorf("check says: %s", &said)
		}
	}
}
