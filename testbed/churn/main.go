// Command churn holds callserver against what calls do besides lasting: two hundred people join within five seconds, the
// server is killed under five hundred and started again, and rooms come and go by the thousand. It builds callserver from
// this tree, runs it on this machine, prints what it found, and fails where a bar is missed. `make long PART=churn`.
//
// It needs two cores for itself. Flags make it smaller: -scale 0.1 is a tenth of everything.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"callserver/bench"
)

const key, secret = "churn", "a-secret-of-a-test-that-is-long-enough"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "churn:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("churn", flag.ContinueOnError)
	scale := flags.Float64("scale", 1, "share of the people and rooms")
	only := flags.String("only", "burst,kill,rooms", "which of them")
	cycles := flags.Int("cycles", 20, "how often the rooms come and go")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "callserver-churn-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	binary, err := build(ctx, dir)
	if err != nil {
		return err
	}
	several := func(n int) int { return max(1, int(float64(n)**scale)) }
	scenes := map[string]func(context.Context, *server) error{
		"burst": func(ctx context.Context, s *server) error { return burst(ctx, s, several(40)) },
		"kill":  func(ctx context.Context, s *server) error { return kill(ctx, s, several(100)) },
		"rooms": func(ctx context.Context, s *server) error { return rooms(ctx, s, several(1000), *cycles) },
	}
	var errs []error
	for _, name := range strings.Split(*only, ",") {
		scene := scenes[name]
		if scene == nil {
			return fmt.Errorf("there is no %q", name)
		}
		fmt.Printf("== %s\n", name)
		if err := play(ctx, binary, scene); err != nil {
			fmt.Printf("%s: FAILED: %v\n", name, err)
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// build makes callserver from this tree; CALLSERVER names a program to use in its place.
func build(ctx context.Context, dir string) (string, error) {
	if given := os.Getenv("CALLSERVER"); given != "" {
		return given, nil
	}
	binary := filepath.Join(dir, "callserver")
	c := exec.CommandContext(ctx, "go", "build", "-tags", "goolm", "-o", binary, "./cmd/callserver")
	c.Env, c.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("build callserver: %w", err)
	}
	return binary, nil
}

// play runs a scene on a server of its own.
func play(ctx context.Context, binary string, scene func(context.Context, *server) error) error {
	s := &server{binary: binary}
	for _, port := range []*string{&s.http, &s.admin, &s.media} {
		var err error
		if *port, err = freePort(); err != nil {
			return err
		}
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	err := scene(ctx, s)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, &s.said)
	}
	return errors.Join(err, s.end(syscall.SIGTERM))
}

// freePort is one that the server can have again after it was killed.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

// A server is callserver, running again and again on the same ports.
type server struct {
	binary, http, admin, media string
	process                    *exec.Cmd
	said                       bytes.Buffer
}

// start returns once it answers.
func (s *server) start(ctx context.Context) error {
	s.process = exec.Command(s.binary) // not by ctx: it is ended with a signal of our choice
	s.process.Env = append(os.Environ(), "CALLSERVER_HTTP_LISTEN=127.0.0.1:"+s.http, "CALLSERVER_ADMIN_LISTEN=127.0.0.1:"+s.admin,
		"CALLSERVER_MEDIA_UDP_PORT="+s.media, "CALLSERVER_MEDIA_TCP_PORT=off", "CALLSERVER_MEDIA_ADVERTISE=[127.0.0.1]", "CALLSERVER_TURN_ENABLED=false",
		"CALLSERVER_ROOM_AUTO_CREATE=true", "CALLSERVER_LOG_LEVEL=warn", "CALLSERVER_KEYS={"+key+": "+secret+"}")
	s.process.Stdout, s.process.Stderr = &s.said, &s.said
	if err := s.process.Start(); err != nil {
		return err
	}
	return eventually(ctx, 20*time.Second, "callserver answers", func() bool {
		_, err := s.get(ctx, "/healthz")
		return err == nil
	})
}

func (s *server) end(sig os.Signal) error {
	if err := s.process.Process.Signal(sig); err != nil {
		return err
	}
	err := s.process.Wait()
	if sig == syscall.SIGKILL {
		return nil
	}
	return err
}

func (s *server) get(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+s.admin+path, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, response.Status)
	}
	return string(text), err
}

// metric is one number of the server's own.
func (s *server) metric(ctx context.Context, name string) (float64, error) {
	text, err := s.get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	return number(text, name)
}

// number is what follows a name on its line.
func number(text, name string) (float64, error) {
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("no number %s", name)
	}
	return strconv.ParseFloat(found[1], 64)
}

func (s *server) options(load bench.Load, rate float64) bench.Options {
	load.Prefix = fmt.Sprintf("churn-%d", time.Now().UnixNano())
	return bench.Options{
		URL: "ws://127.0.0.1:" + s.http + "/livekit/sfu", Key: key, Secret: secret, Load: load, JoinRate: rate,
		Warmup: 2 * time.Second, Duration: 5 * time.Second, Progress: os.Stderr,
	}
}

func eventually(ctx context.Context, limit time.Duration, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s", what, limit)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}
