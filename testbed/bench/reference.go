package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The server that callserver is compared with, by its published Go module.
const (
	referenceModule  = "github.com/livekit/livekit-server"
	referenceVersion = "v1.13.5"
)

// command runs a program whose output is shown.
func command(ctx context.Context, dir, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Stdout, c.Stderr = dir, os.Stderr, os.Stderr
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

// reference builds livekit-server from its published module, once.
func reference(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "livekit-server-"+referenceVersion)
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	fmt.Fprintln(os.Stderr, "building", referenceModule, referenceVersion)
	download := exec.CommandContext(ctx, "go", "mod", "download", "-json", referenceModule+"@"+referenceVersion)
	download.Dir, download.Stderr = dir, os.Stderr
	download.Env = append(os.Environ(), "GOFLAGS=")
	out, err := download.Output()
	if err != nil {
		return "", fmt.Errorf("download %s: %w", referenceModule, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", err
	}
	source := filepath.Join(dir, "livekit-server-source") // the module cache is read-only
	if err := os.RemoveAll(source); err != nil {
		return "", err
	}
	if err := command(ctx, dir, "cp", "-r", module.Dir, source); err != nil {
		return "", err
	}
	if err := command(ctx, dir, "chmod", "-R", "u+w", source); err != nil {
		return "", err
	}
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "./cmd/server")
	c.Dir, c.Stderr = source, os.Stderr
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", referenceModule, err)
	}
	return binary, os.RemoveAll(source)
}
