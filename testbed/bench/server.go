package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"callserver/bench"
)

const key, secret = "bench", "bench-secret-of-more-than-32-characters"

// A server is one of the two that are compared.
type server struct {
	name  string
	start func(ctx context.Context, g *ground, limited bool) (*exec.Cmd, string, error) // and its URL
}

// A measurement is what one run found.
type measurement struct {
	*bench.Report
	idle int64 // bytes resident before anybody joined
}

// settle is how long a server that has started is left alone before its memory is read.
const settle = time.Second

// port finds a free one. Another process may take it before the server does; then the run fails and says so.
func port() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

// ours is callserver. Limited, it refuses newcomers as it does by default; else it takes whatever comes, as livekit-server does.
func ours(binary string) server {
	return server{name: "callserver", start: func(ctx context.Context, g *ground, limited bool) (*exec.Cmd, string, error) {
		p, err := port()
		if err != nil {
			return nil, "", err
		}
		c := g.server(ctx, binary)
		c.Env = append(os.Environ(), "CALLSERVER_HTTP_LISTEN="+g.host+":"+p, "CALLSERVER_ADMIN_LISTEN=off",
			"CALLSERVER_MEDIA_UDP_PORT=0", "CALLSERVER_MEDIA_TCP_PORT=off", "CALLSERVER_MEDIA_ADVERTISE=["+g.host+"]",
			"CALLSERVER_ROOM_AUTO_CREATE=true", "CALLSERVER_LOG_LEVEL=error", "CALLSERVER_KEYS={"+key+": "+secret+"}")
		if !limited {
			c.Env = append(c.Env, "CALLSERVER_LIMITS_LOAD_CPU=0")
		}
		return c, "http://" + g.host + ":" + p + "/livekit/sfu", nil
	}}
}

// theirs is livekit-server.
func theirs(binary, dir string) server {
	return server{name: "livekit", start: func(ctx context.Context, g *ground, _ bool) (*exec.Cmd, string, error) {
		p, err := port()
		if err != nil {
			return nil, "", err
		}
		media, err := port()
		if err != nil {
			return nil, "", err
		}
		config := filepath.Join(dir, "livekit.yaml")
		text := fmt.Sprintf("port: %s\nbind_addresses: [%s]\nlogging: {level: error}\nkeys: {%s: %s}\n"+
			"rtc: {udp_port: %s, tcp_port: 0, node_ip: %s, use_external_ip: false, enable_loopback_candidate: %t}\n", p, g.host, key, secret, media, g.host, len(g.ends) == 0)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return nil, "", err
		}
		return g.server(ctx, binary, "--config", config), "http://" + g.host + ":" + p, nil
	}}
}

// A load is what the generator is told.
type load struct {
	args    []string
	limited bool // servers may refuse newcomers
}

// measure starts the server, loads it and stops it.
func (s *server) measure(ctx context.Context, g *ground, generator string, l load) (*measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	c, url, err := s.start(ctx, g, l.limited)
	if err != nil {
		return nil, err
	}
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	if err := c.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Wait() // what it said tells more
	}()
	defer stop(c, ended)
	if err := g.ready(ctx, url, ended); err != nil {
		return nil, fmt.Errorf("%s: %w:\n%s", s.name, err, &said)
	}
	m := &measurement{Report: &bench.Report{}}
	if m.idle, err = idle(ctx, c.Process.Pid); err != nil {
		return nil, err
	}
	args := append([]string{"bench", "--json", "--i-own-this-server", "--url", url, "--api-key", key, "--api-secret", secret,
		"--pid", strconv.Itoa(c.Process.Pid)}, l.args...)
	load := g.generator(ctx, generator, args...)
	load.Stderr = os.Stderr
	out, err := load.Output()
	if json.Unmarshal(out, m.Report) != nil {
		return nil, errors.Join(fmt.Errorf("%s: no report", s.name), err)
	}
	return m, nil // a void run says so itself
}

// stop ends a server that c runs.
func stop(c *exec.Cmd, ended <-chan struct{}) {
	_ = c.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		_ = c.Process.Kill()
		<-ended
	}
}

// idle is what a process takes up that has nothing to do, in bytes.
func idle(ctx context.Context, pid int) (int64, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(settle):
	}
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(raw)) // proc_pid_statm(5): size resident ...
	if len(fields) < 2 {
		return 0, fmt.Errorf("memory of process %d: cannot read %q", pid, raw)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// answers reports whether the server does.
func answers(ctx context.Context, client *http.Client, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, response.Body)
	return response.Body.Close() == nil
}
