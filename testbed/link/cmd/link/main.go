//go:build linux

// Command link runs a command behind a link with faults: in a network namespace of its own, whose only way out is a TUN device that
// leads to another TUN device on the server's side. What happens to packets between them is a script's (testbed/link.ParseScript),
// played from the start, or sent later to a Unix socket.
//
//	link [--here] [--script FILE] [--control SOCKET] [--trace FILE] [--near COMMAND] [--] COMMAND [ARGUMENT...]
//
// The server's side has 10.77.0.1 and is a new namespace too, so that the machine's own network is never touched; --here makes it the
// one that link was started in, for callers that are in one of their own. The client's side has 10.77.0.2. --near is a shell command to
// run on the server's side meanwhile. Needs root. Nothing is left behind: devices and namespaces go with the last process in them. The
// exit status is the command's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"callserver/testbed/link"

	"golang.org/x/sys/unix"
)

const (
	serverAddress = "10.77.0.1"
	clientAddress = "10.77.0.2"
	patience      = 10 * time.Second // for a process that was asked to end
)

type options struct {
	here                         bool
	script, control, trace, near string
	command                      []string
}

func main() {
	var o options
	flag.BoolVar(&o.here, "here", false, "the server's side is this network namespace, not a new one")
	flag.StringVar(&o.script, "script", "", "`file` with the script to play from the start")
	flag.StringVar(&o.control, "control", "", "Unix `socket` that takes scripts to play at once and answers with counters")
	flag.StringVar(&o.trace, "trace", "", "`file` that gets a line of counters, queues and lateness every tenth of a second")
	flag.StringVar(&o.near, "near", "", "shell `command` to run on the server's side meanwhile")
	flag.Parse()
	o.command = flag.Args()
	if len(o.command) == 0 {
		fmt.Fprintln(os.Stderr, "link: no command to run behind the link")
		os.Exit(2)
	}
	status, err := run(context.Background(), o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "link:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

// run returns the exit status of the command.
func run(ctx context.Context, o options) (int, error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Geteuid() != 0 {
		return 1, errors.New("needs root, for network namespaces and TUN devices; run it as root")
	}
	if !o.here {
		return runAgain(ctx)
	}
	script := link.Script{}
	if o.script != "" {
		text, err := os.ReadFile(o.script)
		if err != nil {
			return 1, err
		}
		if script, err = link.ParseScript(text); err != nil {
			return 1, err
		}
	}
	return between(ctx, o, script)
}

// runAgain runs this program once more, --here in a new network namespace.
func runAgain(ctx context.Context) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	again := command(ctx, self, append([]string{"--here"}, os.Args[1:]...)...)
	again.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
	runtime.LockOSThread() // Pdeathsig follows the thread that started the process
	defer runtime.UnlockOSThread()
	return finish(again)
}

// command is a process that shares our files, is asked to end when ctx ends, and does not outlive the thread that starts it.
func command(ctx context.Context, name string, parameters ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, parameters...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = patience
	return c
}

// finish runs a command to its end and returns its exit status. It must be called on a locked thread.
func finish(c *exec.Cmd) (int, error) {
	err := c.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, fmt.Errorf("%s: %w", c.Path, err)
	}
	return 0, nil
}

// ip runs iproute2 in the namespace of the calling thread.
func ip(parameters ...string) error {
	if output, err := exec.Command("ip", parameters...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", parameters, err, output)
	}
	return nil
}

// side makes a TUN device in the namespace of the calling thread and addresses it.
func side(name, address, peer string) (*os.File, error) {
	device, err := link.OpenTUN(name)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		ip("link", "set", "lo", "up"),
		ip("address", "add", address, "peer", peer, "dev", name),
		ip("link", "set", name, "up"),
	)
	if err != nil {
		return nil, errors.Join(err, device.Close())
	}
	return device, nil
}
