package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Cores of the two sides.
const (
	serverCore    = "0"
	generatorCore = "1"
)

// A ground is where the two sides run: on the loopback of this machine, or in two network namespaces joined by a pair of virtual
// cards. Close it.
type ground struct {
	host string   // where servers listen
	ends []string // names of the namespaces, server first; empty on the loopback
}

// loopback is this machine.
func loopback() *ground { return &ground{host: "127.0.0.1"} }

// The addresses of the pair (RFC 2544 benchmarking).
const serverAddress, generatorAddress = "198.18.77.1", "198.18.77.2"

// unsegmented makes two namespaces whose cards take one datagram at a time, as cards do that cannot split runs, or are told not to: the
// kernel splits them before.
func unsegmented(ctx context.Context) (*ground, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("network namespaces need root: run this as root, or without OFFLOAD=off")
	}
	name := fmt.Sprintf("callbench-%d-", os.Getpid())
	g := &ground{host: serverAddress}
	for _, end := range []string{"server", "load"} {
		if err := ip(ctx, "netns add "+name+end); err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.ends = append(g.ends, name+end)
	}
	commands := []string{
		fmt.Sprintf("-n %s link add name media gso_max_segs 1 type veth peer name media netns %s gso_max_segs 1", g.ends[0], g.ends[1]),
		fmt.Sprintf("-n %s address add %s/30 dev media", g.ends[0], serverAddress),
		fmt.Sprintf("-n %s address add %s/30 dev media", g.ends[1], generatorAddress),
	}
	for _, end := range g.ends {
		commands = append(commands, "-n "+end+" link set lo up", "-n "+end+" link set media up")
	}
	for _, c := range commands {
		if err := ip(ctx, c); err != nil {
			return nil, errors.Join(err, g.close())
		}
	}
	return g, nil
}

func ip(ctx context.Context, args string) error {
	if out, err := exec.CommandContext(ctx, "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

// close removes the namespaces.
func (g *ground) close() error {
	var errs []error
	for _, end := range g.ends {
		errs = append(errs, ip(context.Background(), "netns delete "+end))
	}
	return errors.Join(errs...)
}

// server is a command on the server's side.
func (g *ground) server(ctx context.Context, name string, args ...string) *exec.Cmd {
	return g.command(ctx, 0, serverCore, name, args)
}

// generator is a command on the other side.
func (g *ground) generator(ctx context.Context, name string, args ...string) *exec.Cmd {
	return g.command(ctx, 1, generatorCore, name, args)
}

// command runs a program in a namespace and on a core. The process keeps its number through all of it.
func (g *ground) command(ctx context.Context, end int, core, name string, args []string) *exec.Cmd {
	line := append([]string{"taskset", "-c", core, name}, args...)
	if len(g.ends) > 0 {
		line = append([]string{"ip", "netns", "exec", g.ends[end]}, line...)
	}
	return exec.CommandContext(ctx, line[0], line[1:]...)
}

// ready waits until the server answers.
func (g *ground) ready(ctx context.Context, url string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !g.answers(ctx, url) {
		select {
		case <-ended:
			return errors.New("the server ended")
		case <-ctx.Done():
			return errors.New("the server does not answer")
		case <-tick.C:
		}
	}
	return nil
}

// answers reports whether the server does. In a namespace it is asked for its listening socket: this process is not in there.
func (g *ground) answers(ctx context.Context, url string) bool {
	if len(g.ends) == 0 {
		return answers(ctx, http.DefaultClient, url)
	}
	address := strings.TrimPrefix(url, "http://")
	address, _, _ = strings.Cut(address, "/")
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", g.ends[0], "ss", "-Hltn", "sport = :"+port).Output()
	return err == nil && len(out) > 0
}
