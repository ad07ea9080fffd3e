// Program callserver lets people in Matrix rooms call each other: an SFU that LiveKit clients speak to, with the
// authoriser that Matrix clients ask first. This package owns the command line, the wiring of every other package and
// the order of start and stop. It never holds behaviour of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"callserver/internal/config"
)

func main() {
	ctx, drain := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the process
		<-signals
		signal.Stop(signals) // the next one ends the process at once
		drain()
	}()
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// command is what every subcommand needs besides its own flags.
type command struct {
	ctx            context.Context //nolint:containedctx // lives as long as one run
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

type cli struct {
	Serve   serveCmd   `cmd:"" default:"withargs" help:"Run the server. This is what happens without a command, too."`
	Init    initCmd    `cmd:"" help:"Ask a few questions, write a configuration, and print what the homeserver and the proxy need."`
	Check   checkCmd   `cmd:"" help:"Check the configuration offline and print every mistake at once."`
	Token   tokenCmd   `cmd:"" help:"Print an access token for a room, or a new key."`
	Bench   benchCmd   `cmd:"" help:"Load a LiveKit-compatible server with simulated calls and measure it."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// configured is embedded by the commands that read the configuration.
type configured struct {
	Config string `name:"config" short:"c" placeholder:"FILE" help:"Configuration file (or $CALLSERVER_CONFIG). Without one the server runs for development on this machine."`
}

func (f configured) load(cmd *command) (*config.Config, error) {
	return config.Load(f.file(cmd), cmd.environ)
}

// file is the configuration file's name, "" for none.
func (f configured) file(cmd *command) string {
	if f.Config != "" {
		return f.Config
	}
	for _, v := range cmd.environ {
		if name, ok := strings.CutPrefix(v, config.Prefix+"CONFIG="); ok {
			return name
		}
	}
	return ""
}

// exited carries the code of an exit that kong asks for (--help) up to run.
type exited int

// run is the whole program: main and the tests call it alike. It returns the exit code once everything that it started
// has ended; cancelling ctx drains the server.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	return (&command{ctx, environ, os.Stdin, stdout, stderr}).run(args)
}

func (cmd *command) run(args []string) (code int) {
	defer func() {
		if e, ok := recover().(exited); ok {
			code = int(e)
		}
	}()
	var c cli
	parser, err := kong.New(&c,
		kong.Name("callserver"),
		kong.Description("Calls for Matrix rooms: an SFU for LiveKit clients and the authoriser before it."),
		kong.Writers(cmd.stdout, cmd.stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars(benchVars),
		kong.Bind(cmd))
	if err != nil {
		panic(err) // the cli struct itself is wrong
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		complain(cmd.stderr, err)
		_, _ = fmt.Fprintln(cmd.stderr, `callserver: "callserver --help" shows what can be written here`)
		return exitUsage
	}
	if err := parsed.Run(); err != nil {
		complain(cmd.stderr, err)
		return exitFailure
	}
	return exitOK
}

// complain prints an error, and the mistakes of a configuration a line each.
func complain(stderr io.Writer, err error) {
	if problems, ok := errors.AsType[config.Problems](err); ok {
		for _, p := range problems {
			_, _ = fmt.Fprintf(stderr, "callserver: %s\n", p)
		}
		return
	}
	_, _ = fmt.Fprintf(stderr, "callserver: %v\n", err)
}
