// Command bench compares callserver with livekit-server under the same load: both are built here, each is pinned to one
// core and the load generator to another, they take turns, and the medians and their ratios are printed.
package main

import (
	"bytes"
	"context"
	"encoding/json"
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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"callserver/bench"
)

const (
	referenceModule  = "github.com/livekit/livekit-server"
	referenceVersion = "v1.13.5"
	key, secret      = "bench", "bench-secret-of-more-than-32-characters"
	serverCore       = "0"
	generatorCore    = "1"
)

// cases are the loads of which docs/bench.md speaks.
var cases = map[string][]string{
	"a": {"--publishers=50", "--no-video"},
	"b": {"--publishers=1", "--subscribers=300", "--no-audio"},
	"c": {"--rooms=17", "--publishers=5"},
	"d": {"--rooms=80", "--publishers=2"},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-compare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var (
		name   = flag.String("case", "b", "a, b, c or d")
		rounds = flag.Int("rounds", 3, "runs of each server")
		cache  = flag.String("cache", ".cache/bench", "where binaries are kept")
		extra  = flag.String("args", "", "more arguments of callserver bench, which win over those of the case")
		only   = flag.String("only", "", "callserver or livekit: the other is left out")
		build  = flag.Bool("reference", false, "only build livekit-server, and print where it is")
	)
	flag.Parse()
	load, ok := cases[*name]
	if !ok {
		return fmt.Errorf("case %q: want a, b, c or d", *name)
	}
	dir, err := filepath.Abs(*cache)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if *build {
		path, err := reference(ctx, dir)
		if err == nil {
			fmt.Println(path)
		}
		return err
	}
	ours := filepath.Join(dir, "callserver")
	if err := command(ctx, ".", "go", "build", "-tags", "goolm", "-trimpath", "-o", ours, "./cmd/callserver"); err != nil {
		return err
	}
	servers := []server{{name: "callserver", start: startOurs(ours)}}
	if *only != "callserver" {
		theirs, err := reference(ctx, dir)
		if err != nil {
			return err
		}
		servers = append(servers, server{name: "livekit", start: startReference(theirs, dir)})
	}
	if *only == "livekit" {
		servers = servers[1:]
	}
	args := append(slices.Clone(load), "--join-rate=40")
	args = append(args, strings.Fields(*extra)...)
	fmt.Printf("case %s: %s\n", *name, strings.Join(args, " "))
	for round := range *rounds {
		for i := range servers {
			report, err := servers[i].measure(ctx, ours, args)
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, servers[i].name, err)
			}
			fmt.Printf("\nround %d, %s\n", round+1, servers[i].name)
			if err := report.WriteTable(os.Stdout); err != nil {
				return err
			}
			servers[i].reports = append(servers[i].reports, report)
		}
	}
	return compare(servers)
}

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

// A server is one of the two, and what was measured of it.
type server struct {
	name    string
	start   func(ctx context.Context) (*exec.Cmd, string, error) // and its URL
	reports []*bench.Report
}

// port finds a free one. Another process may take it before the server does; then the run fails and says so.
func port() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

func startOurs(binary string) func(context.Context) (*exec.Cmd, string, error) {
	return func(ctx context.Context) (*exec.Cmd, string, error) {
		p, err := port()
		if err != nil {
			return nil, "", err
		}
		c := exec.CommandContext(ctx, "taskset", "-c", serverCore, binary)
		c.Env = append(os.Environ(), "CALLSERVER_HTTP_LISTEN=127.0.0.1:"+p, "CALLSERVER_ADMIN_LISTEN=off",
			"CALLSERVER_MEDIA_UDP_PORT=0", "CALLSERVER_MEDIA_TCP_PORT=off", "CALLSERVER_ROOM_AUTO_CREATE=true",
			"CALLSERVER_LOG_LEVEL=warn", "CALLSERVER_LIMITS_LOAD_CPU=0", "CALLSERVER_KEYS={"+key+": "+secret+"}")
		return c, "http://127.0.0.1:" + p + "/livekit/sfu", nil
	}
}

func startReference(binary, dir string) func(context.Context) (*exec.Cmd, string, error) {
	return func(ctx context.Context) (*exec.Cmd, string, error) {
		p, err := port()
		if err != nil {
			return nil, "", err
		}
		media, err := port()
		if err != nil {
			return nil, "", err
		}
		config := filepath.Join(dir, "livekit.yaml")
		text := fmt.Sprintf("port: %s\nbind_addresses: [127.0.0.1]\nlogging: {level: error}\nkeys: {%s: %s}\n"+
			"rtc: {udp_port: %s, tcp_port: 0, node_ip: 127.0.0.1, use_external_ip: false, enable_loopback_candidate: true}\n", p, key, secret, media)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return nil, "", err
		}
		return exec.CommandContext(ctx, "taskset", "-c", serverCore, binary, "--config", config), "http://127.0.0.1:" + p, nil
	}
}

// measure starts the server, loads it and stops it.
func (s *server) measure(ctx context.Context, generator string, args []string) (*bench.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	c, url, err := s.start(ctx)
	if err != nil {
		return nil, err
	}
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	running, stop := context.WithCancel(ctx)
	defer stop()
	if err := c.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Wait() // what it said tells more
	}()
	defer func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = c.Process.Kill()
			<-ended
		}
	}()
	if err := ready(running, url, ended); err != nil {
		return nil, fmt.Errorf("%w:\n%s", err, &said)
	}
	all := append([]string{"-c", generatorCore, generator, "bench", "--json", "--url", url, "--api-key", key, "--api-secret", secret,
		"--pid", strconv.Itoa(c.Process.Pid)}, args...)
	g := exec.CommandContext(running, "taskset", all...)
	g.Stderr = os.Stderr
	out, err := g.Output()
	report := &bench.Report{}
	if json.Unmarshal(out, report) != nil {
		return nil, errors.Join(errors.New("no report"), err)
	}
	return report, nil // a void run says so itself
}

// ready waits until the server answers.
func ready(ctx context.Context, url string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			return response.Body.Close()
		}
		select {
		case <-ended:
			return errors.New("the server ended")
		case <-ctx.Done():
			return errors.New("the server does not answer")
		case <-tick.C:
		}
	}
}

// figures are what is compared: the name, the value, and whether more is better.
var figures = []struct {
	name string
	more bool
	of   func(*bench.Report) float64
}{
	{"forwarded packets per CPU-second", true, func(r *bench.Report) float64 { return r.Server.PerCPUSecond }},
	{"forwarded packets/s", true, func(r *bench.Report) float64 { return r.Packets.PerSecond }},
	{"server cores", false, func(r *bench.Report) float64 { return r.Server.Cores }},
	{"latency p50 ms", false, func(r *bench.Report) float64 { return float64(r.Latency.P50) / 1e6 }},
	{"latency p99 ms", false, func(r *bench.Report) float64 { return float64(r.Latency.P99) / 1e6 }},
	{"latency max ms", false, func(r *bench.Report) float64 { return float64(r.Latency.Max) / 1e6 }},
	{"loss %", false, func(r *bench.Report) float64 { return 100 * r.Packets.Loss }},
	{"resident MiB", false, func(r *bench.Report) float64 { return float64(r.Server.RSS) / (1 << 20) }},
	{"resident MiB a participant", false, func(r *bench.Report) float64 { return float64(r.Server.RSSEach) / (1 << 20) }},
	{"context switches", false, func(r *bench.Report) float64 { return float64(r.Server.Switches) }},
	{"joined", true, func(r *bench.Report) float64 { return float64(r.Joins.Joined) }},
	{"join p50 ms", false, func(r *bench.Report) float64 { return float64(r.Joins.P50) / 1e6 }},
	{"join p99 ms", false, func(r *bench.Report) float64 { return float64(r.Joins.P99) / 1e6 }},
	{"first key frame p50 ms", false, func(r *bench.Report) float64 { return float64(r.FirstKeyFrame.P50) / 1e6 }},
	{"key frames a second and layer", false, func(r *bench.Report) float64 { return r.Packets.KeyFrames }},
	{"generator % of its core", false, func(r *bench.Report) float64 { return 100 * r.Generator.Share }},
}

// compare prints the medians of the runs that count.
func compare(servers []server) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	head := "\nmedian of the runs"
	for _, s := range servers {
		head += "\t" + s.name
	}
	if len(servers) == 2 {
		head += "\ttimes better"
	}
	_, _ = fmt.Fprintln(w, head+"\t")
	void := 0
	for _, f := range figures {
		line := f.name
		var medians []float64
		for _, s := range servers {
			var values []float64
			for _, r := range s.reports {
				if r.Void == "" {
					values = append(values, f.of(r))
				}
			}
			if len(values) == 0 {
				return fmt.Errorf("all runs of %s are void", s.name)
			}
			void = max(void, len(s.reports)-len(values))
			slices.Sort(values)
			medians = append(medians, values[(len(values)-1)/2])
			line += fmt.Sprintf("\t%.2f", medians[len(medians)-1])
		}
		if len(medians) == 2 {
			better, worse := medians[1], medians[0]
			if f.more {
				better, worse = medians[0], medians[1]
			}
			if worse > 0 {
				line += fmt.Sprintf("\t%.2f", better/worse)
			} else {
				line += "\t"
			}
		}
		_, _ = fmt.Fprintln(w, line+"\t")
	}
	if void > 0 {
		_, _ = fmt.Fprintf(w, "up to %d runs of a server were void and are left out\n", void)
	}
	return w.Flush()
}
