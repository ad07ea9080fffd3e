package main

import (
	"errors"
	"fmt"
	"log/slog"

	"callserver/internal/config"
	"callserver/signalling/federation"
	"callserver/signalling/homeserver"
)

// connections makes a connection of each homeserver of the configuration, in its order, and reports every registration
// that is none. Nothing is opened.
func connections(c *config.Config, log *slog.Logger) ([]*homeserver.Homeserver, error) {
	var made []*homeserver.Homeserver
	var errs []error
	for i, h := range c.Homeservers {
		o := homeserver.Options{ServerName: h.ServerName, ClientAPI: h.ClientAPI, RootCAs: c.FederationCA, Logger: log}
		for _, file := range h.Registrations {
			r, err := homeserver.ParseRegistration(file.Text)
			if err != nil {
				errs = append(errs, fmt.Errorf("homeservers[%d].registration: %s: %w", i, file.Name, err))
				continue
			}
			o.Registrations = append(o.Registrations, r)
		}
		connection, err := homeserver.New(o)
		if err != nil {
			errs = append(errs, fmt.Errorf("homeservers[%d]: %w", i, err))
			continue
		}
		made = append(made, connection)
	}
	return made, errors.Join(errs...)
}

// directory knows the configured homeservers, and how far it may reach for others.
func directory(c *config.Config) *federation.Directory {
	o := federation.Options{RootCAs: c.FederationCA, Private: c.FederationPrivate}
	for _, h := range c.Homeservers {
		o.Servers = append(o.Servers, federation.Server{Name: h.ServerName, Base: h.Federation})
	}
	return federation.New(o)
}

// signingKeys reads the key of each homeserver of the configuration, in its order, and reports every file that holds none.
func signingKeys(c *config.Config) ([]*federation.SigningKey, error) {
	keys := make([]*federation.SigningKey, len(c.Homeservers))
	var errs []error
	for i, h := range c.Homeservers {
		if h.SigningKey.Name == "" {
			continue
		}
		key, err := federation.ParseSigningKey(h.SigningKey.Text)
		if err != nil {
			errs = append(errs, fmt.Errorf("homeservers[%d].signing_key_file: %s: %w - name the homeserver's own, Synapse's signing_key_path or Dendrite's private_key", i, h.SigningKey.Name, err))
		}
		keys[i] = key
	}
	return keys, errors.Join(errs...)
}
