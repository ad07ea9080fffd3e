package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"callserver/setup"
)

type initCmd struct {
	ServerName    string `placeholder:"NAME" help:"Your homeserver's name, the part after the colon in @you:example.org."`
	Homeserver    string `placeholder:"KIND" help:"What it runs: synapse, dendrite or other."`
	ClientAPI     string `name:"client-api" placeholder:"URL" help:"Where clients reach it."`
	HomeserverURL string `name:"homeserver-url" placeholder:"URL" help:"Where callserver reaches it."`
	PublicURL     string `name:"public-url" placeholder:"URL" help:"Where clients will reach callserver."`
	Proxy         string `placeholder:"KIND" help:"The reverse proxy: nginx, caddy, traefik or other."`
	Advertise     string `placeholder:"IP,..." help:"Public addresses of this machine, if it is behind NAT."`
	Wide          string `placeholder:"yes|no" help:"May callserver act for every user of the homeserver?"`
	Listen        string `default:"127.0.0.1:7880" placeholder:"HOST:PORT" help:"Where the proxy reaches callserver."`
	Directory     string `short:"d" default:"." placeholder:"DIR" help:"Where the files go."`
	Yes           bool   `short:"y" help:"Ask nothing: what is not given takes its default."`
	Force         bool   `help:"Replace files that are there already."`
}

// A question is one that the operator answers by a flag or at the terminal.
type question struct {
	flag     string
	answer   *string
	ask      string // a line
	help     string // more of it, empty for none
	standard string // the default; empty: none, unless optional
	optional bool
	check    func(string) (string, error)
}

const initIntro = `This writes a configuration, and the files by which callserver and your homeserver know each other.
Nothing is started, and nobody is asked but you. Enter takes what stands in [brackets].

`

const wideHelp = `The wide registration lets callserver act for every user of your homeserver. It uses that to look whether somebody is in a
room before it lets them into the call there, and to clear up after a client that crashed, without a bot in the room.
Nothing is pushed to it. Who steals its file can do whatever your users can: it is as secret as your signing key.
Without it that works only in rooms that the user @_callserver is in (and, on Synapse, the look works everywhere).
`

// Run asks what was not given, writes the files and prints what is left to do.
func (c initCmd) Run(cmd *command) error {
	directory, err := filepath.Abs(c.Directory)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if !c.Force {
		if err := absent(directory); err != nil {
			return err
		}
	}
	if c.Listen, err = setup.CheckListen(c.Listen); err != nil {
		return fmt.Errorf("init: --listen: %w", err)
	}
	if err := c.ask(cmd); err != nil {
		return err
	}
	site := setup.Site{
		ServerName: c.ServerName, Homeserver: c.Homeserver, ClientAPI: c.ClientAPI, HomeserverURL: c.HomeserverURL,
		PublicURL: c.PublicURL, Proxy: c.Proxy, Advertise: c.Advertise, Wide: c.Wide == "yes",
		Listen: c.Listen, Directory: directory, ServicePath: authoriserPath, SFUPath: sfuPath,
	}
	files, err := site.Files()
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if err := writeFiles(directory, files); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	for _, f := range files {
		_, _ = fmt.Fprintf(cmd.stderr, "wrote %s\n", filepath.Join(directory, f.Name))
	}
	_, _ = fmt.Fprintln(cmd.stderr)
	quiet := *cmd
	quiet.stdout = io.Discard
	if err := (checkCmd{configured{filepath.Join(directory, setup.ConfigurationFile)}}).Run(&quiet); err != nil {
		return err
	}
	_, err = cmd.stdout.Write(files[len(files)-1].Text)
	return err
}

// ask goes through the questions in their order: later ones have defaults that follow from earlier answers.
func (c *initCmd) ask(cmd *command) error {
	terminal := bufio.NewReader(cmd.stdin)
	if !c.Yes {
		signal.Reset(os.Interrupt, syscall.SIGTERM) // nothing must be closed in order: Ctrl-C at a question is the end
		_, _ = io.WriteString(cmd.stderr, initIntro)
	}
	for _, next := range []func() question{
		func() question {
			return question{flag: "server-name", answer: &c.ServerName, check: setup.CheckServerName,
				ask: "Name of your homeserver, the part after the colon in @you:example.org"}
		},
		func() question {
			return question{flag: "homeserver", answer: &c.Homeserver, check: setup.CheckChoice(setup.Homeservers), standard: "synapse",
				ask: "What does it run: synapse, dendrite or other?"}
		},
		func() question {
			return question{flag: "client-api", answer: &c.ClientAPI, check: setup.CheckURL, standard: "https://matrix." + domain(c.ServerName),
				ask: "Where do clients reach it?"}
		},
		func() question {
			reach := "http://127.0.0.1:8008"
			if c.Homeserver == "other" {
				reach = c.ClientAPI
			}
			return question{flag: "homeserver-url", answer: &c.HomeserverURL, check: setup.CheckURL, standard: reach,
				ask: "Where will callserver reach it?", help: "Its own port is best, without the proxy in between.\n"}
		},
		func() question {
			return question{flag: "public-url", answer: &c.PublicURL, check: setup.CheckPublicURL, standard: "https://call." + domain(c.ServerName),
				ask: "Where will clients reach callserver?", help: "A host name of its own, behind your reverse proxy.\n"}
		},
		func() question {
			return question{flag: "proxy", answer: &c.Proxy, check: setup.CheckChoice(setup.Proxies), standard: "nginx",
				ask: "Which reverse proxy: nginx, caddy, traefik or other?"}
		},
		func() question {
			return question{flag: "advertise", answer: &c.Advertise, check: setup.CheckAddresses, optional: true,
				ask: "Public IP addresses of this machine, if it is behind NAT", help: "Empty if it has them itself.\n"}
		},
		func() question {
			return question{flag: "wide", answer: &c.Wide, check: setup.CheckYes, standard: "yes",
				ask: "Write the wide registration?", help: wideHelp}
		},
	} {
		if err := next().settle(terminal, cmd.stderr, c.Yes); err != nil {
			return err
		}
	}
	return nil
}

// settle checks the flag's value, or asks until the answer is right; where nothing may be asked the default is taken.
func (q question) settle(from *bufio.Reader, to io.Writer, silent bool) error {
	if *q.answer != "" || silent {
		given := cmp.Or(*q.answer, q.standard)
		if given == "" && q.optional {
			return nil
		}
		if given == "" {
			return fmt.Errorf("init: --%s is needed: %s", q.flag, q.ask)
		}
		value, err := q.check(given)
		if err != nil {
			return fmt.Errorf("init: --%s: %w", q.flag, err)
		}
		*q.answer = value
		return nil
	}
	_, _ = fmt.Fprintf(to, "%s\n%s", q.ask, q.help)
	for {
		_, _ = fmt.Fprintf(to, "[%s] ", q.standard)
		line, err := from.ReadString('\n')
		text := cmp.Or(strings.TrimSpace(line), q.standard)
		if err != nil && line == "" {
			return fmt.Errorf("init: no answer to the question - give --%s, or --yes for the defaults", q.flag)
		}
		if text == "" && q.optional {
			_, err = fmt.Fprintln(to)
			return err
		}
		value, err := q.check(text)
		if err == nil {
			*q.answer = value
			_, err = fmt.Fprintln(to)
			return err
		}
		_, _ = fmt.Fprintf(to, "%v\n", err)
	}
}

// domain is a server name without its port.
func domain(serverName string) string {
	if i := strings.LastIndexByte(serverName, ':'); i > 0 && !strings.HasSuffix(serverName, "]") {
		return serverName[:i]
	}
	return serverName
}

// absent makes sure that nothing would be replaced, before anybody answers questions in vain.
func absent(directory string) error {
	for _, name := range setup.FileNames() {
		_, err := os.Lstat(filepath.Join(directory, name))
		if err == nil {
			return fmt.Errorf("init: %s is there already - choose another --directory, or replace it with --force (its tokens change: the homeserver needs the new registrations)",
				filepath.Join(directory, name))
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("init: %w", err)
		}
	}
	return nil
}

// writeFiles makes the directory if need be and every file complete under its name, private from its first byte.
func writeFiles(directory string, files []setup.File) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		if err := writeFile(directory, f); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(directory string, file setup.File) error {
	temporary, err := os.CreateTemp(directory, file.Name+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = temporary.Write(file.Text)
	err = errors.Join(err, temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), filepath.Join(directory, file.Name))
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
	}
	return err
}
