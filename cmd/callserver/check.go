package main

import (
	"errors"
	"fmt"
	"log/slog"
)

type checkCmd struct{ configured }

// Run loads the configuration as serve would and opens nothing.
func (c checkCmd) Run(cmd *command) error {
	conf, err := c.load(cmd)
	if err != nil {
		return err
	}
	_, err = connections(conf, slog.New(slog.DiscardHandler))
	_, keysErr := signingKeys(conf)
	if err = errors.Join(err, keysErr); err != nil {
		return err
	}
	for _, w := range conf.Warnings {
		_, _ = fmt.Fprintf(cmd.stderr, "callserver: warning: %s\n", w)
	}
	what := c.file(cmd)
	if what == "" {
		what = "no configuration file"
	}
	if conf.Development() {
		what += " (development key: this machine only)"
	}
	_, err = fmt.Fprintf(cmd.stdout, "%s: fine\n", what)
	return err
}
