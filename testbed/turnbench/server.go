package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const secret = "bench-secret"

// A server is a relay, and the media ports that are reached through it, in one process or two.
type server struct {
	name      string
	processes []*exec.Cmd
	turn      netip.AddrPort
	media     netip.AddrPort
	child     *child // with the media ports

	user, password string // that reach the media ports; "" = any
}

// child is a process of this program that takes commands.
type child struct {
	in  *json.Encoder
	out *bufio.Scanner
}

func (c *child) ask(what command) (reply, error) {
	if err := c.in.Encode(what); err != nil {
		return reply{}, err
	}
	return c.read()
}

func (c *child) read() (reply, error) {
	var r reply
	if !c.out.Scan() {
		return r, errors.Join(errors.New("the media server ended"), c.out.Err())
	}
	return r, json.Unmarshal(c.out.Bytes(), &r)
}

// startOurs starts this program's own relay, or only its media ports.
func (s *server) startOurs(ctx context.Context, mode string, environment ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, "taskset", "-c", strconv.Itoa(serverCore), self, mode)
	c.Stderr = os.Stderr
	c.Env = append(os.Environ(), environment...)
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	s.processes = append(s.processes, c)
	s.child = &child{json.NewEncoder(in), bufio.NewScanner(out)}
	s.child.out.Buffer(nil, 1<<20)
	r, err := s.child.read()
	s.media = r.Media
	if r.TURN.IsValid() {
		s.turn, s.user, s.password = r.TURN, r.User, r.Password
	}
	return err
}

// startCoturn starts Debian's turnserver, and waits until it answers.
func (s *server) startCoturn(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	s.turn = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	c := exec.CommandContext(ctx, "taskset", "-c", strconv.Itoa(serverCore), "turnserver", "-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1",
		"--listening-port="+strconv.Itoa(int(port)), "--min-port=20000", "--max-port=32000", "--realm=bench", "--use-auth-secret", "--static-auth-secret="+secret,
		"--allow-loopback-peers", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--no-stdout-log", "--log-file=/dev/null", "--pidfile=/dev/null",
		"--no-software-attribute", "--relay-threads="+coturnThreads)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		return fmt.Errorf("start coturn (Debian's package coturn has it): %w", err)
	}
	s.processes = append(s.processes, c)
	return nil
}

func freePort() (uint16, error) {
	l, err := listenBare("127.0.0.1", 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return addrOf(l.LocalAddr()).Port(), nil
}

// start starts the relay of that name.
func start(ctx context.Context, name string) (*server, error) {
	s := &server{name: name}
	var err error
	switch name {
	case coturn:
		if err = s.startOurs(ctx, "media"); err == nil {
			err = s.startCoturn(ctx)
		}
	case bare:
		err = s.startOurs(ctx, bare)
	default:
		err = s.startOurs(ctx, "relay")
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// stop ends the processes.
func (s *server) stop() {
	for _, c := range s.processes {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	}
}

// cpu is what the processes have used, to the nanosecond, and what the kernel has carried on their core for them: it does so in their own time, and from a
// thread of its own where that takes long.
func (s *server) cpu() (time.Duration, error) {
	sum := softIRQ(serverCore)
	for _, c := range s.processes {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", c.Process.Pid))
		if err != nil || len(tasks) == 0 {
			return 0, errors.Join(errors.New("a server has ended"), err)
		}
		for _, name := range tasks {
			sum += ran(name)
		}
	}
	return sum, nil
}

// ran is how long a task has run, 0 if there is none.
func ran(schedstat string) time.Duration {
	raw, err := os.ReadFile(schedstat)
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(raw), " ")
	ns, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(ns)
}

// softIRQ is how long the kernel's thread has run that carries packets sent on a core.
func softIRQ(core int) time.Duration {
	return ran(fmt.Sprintf("/proc/%d/schedstat", softIRQs()[core]))
}

// softIRQs are the processes of those threads, by core; 0 where there is none to be seen.
var softIRQs = sync.OnceValue(func() (found [generatorCore + 1]int) {
	all, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range all {
		raw, _ := os.ReadFile(name)
		for core := range found {
			if strings.TrimSpace(string(raw)) == fmt.Sprintf("ksoftirqd/%d", core) {
				found[core], _ = strconv.Atoi(filepath.Base(filepath.Dir(name)))
			}
		}
	}
	return found
})

// resident is the memory of the relay, in bytes.
func (s *server) resident() (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.processes[len(s.processes)-1].Process.Pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(raw))[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// idle is how long both cores together have had nothing to do, in hundredths of a second. The kernel measures that; what it says of the time that they work is
// sampled by a clock, which beats with the timers of who works.
func idle() (sum time.Duration) {
	raw, _ := os.ReadFile("/proc/stat") // none: nobody else is noticed
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[0] != "cpu"+strconv.Itoa(serverCore) && fields[0] != "cpu"+strconv.Itoa(generatorCore) {
			continue
		}
		for _, field := range fields[4:6] { // idle, and waiting for a disk
			if n, err := strconv.ParseInt(field, 10, 64); err == nil {
				sum += time.Duration(n) * 10 * time.Millisecond
			}
		}
	}
	return sum
}

// self is how long this process has worked, and the kernel for it.
func self() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // fails for wrong arguments only
	return softIRQ(generatorCore) + time.Duration(r.Utime.Nano()+r.Stime.Nano())
}
