package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"callserver/internal/testnet/pebble"
)

// TestPebbleServes gets a certificate with settings of the configuration, and shows it.
func TestPebbleServes(t *testing.T) {
	http01 := pebble.FreePort(t)
	authority := pebble.Start(t, pebble.Options{HTTPPort: http01, TLSPort: pebble.FreePort(t)})
	dir := t.TempDir()
	file := filepath.Join(dir, "callserver.yaml")
	config := fmt.Sprintf("tls: {acme: {domains: [call.example.org], directory: %q, ca_file: %q, http_port: %d}}\n", authority.Directory, authority.RootFile, http01)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, nil, "--config", file)
	defer s.stop()
	s.said.wait(t, "certificate obtained")
	base, err := url.Parse(s.base)
	if err != nil || base.Scheme != "https" {
		t.Fatalf("clients at %s: %v", s.base, err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Issued, ServerName: "call.example.org"}, DisableKeepAlives: true}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) { // until it is in use
		resp, err := (&http.Client{Transport: transport}).Get(s.base + "/healthz")
		if err == nil {
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("got %s", resp.Status)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	kept, err := os.Stat(filepath.Join(dir, "acme"))
	if err != nil || kept.Mode().Perm() != 0o700 {
		t.Errorf("certificates are not kept beside the data file, for this user alone: %v, %v", kept, err)
	}
}
