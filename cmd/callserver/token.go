package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"callserver/signalling/token"
)

type tokenCmd struct {
	configured
	Room      string        `short:"r" placeholder:"NAME" help:"Room that the token opens."`
	Identity  string        `short:"i" placeholder:"ID" help:"Who joins with it. Two people need two identities."`
	Name      string        `placeholder:"TEXT" help:"Name shown to the others."`
	TTL       time.Duration `name:"ttl" default:"6h" help:"How long it may be used to join."`
	Key       string        `placeholder:"KEY" help:"Key that signs it. Default: the first by alphabet."`
	Subscribe bool          `help:"See and hear only, publish nothing."`
	Create    bool          `default:"true" negatable:"" help:"May open the room by joining it."`
	Admin     bool          `help:"May administer the room over the RoomService API."`
	List      bool          `help:"May list rooms over the RoomService API."`
	NewKey    bool          `help:"Print a new key and its secret for the keys section instead, and nothing else."`
}

// Run prints one token, ready to be pasted.
func (t tokenCmd) Run(cmd *command) error {
	if t.NewKey {
		key, secret := token.NewKey()
		_, err := fmt.Fprintf(cmd.stdout, "%s: %s\n", key, secret)
		return err
	}
	if t.Room == "" || t.Identity == "" {
		return errors.New("token: --room and --identity are needed, for example: callserver token --room lobby --identity alice")
	}
	conf, err := t.load(cmd)
	if err != nil {
		return err
	}
	key := t.Key
	if key == "" {
		key = slices.Min(slices.Collect(maps.Keys(conf.Keys)))
	}
	if conf.Keys[key] == "" {
		return fmt.Errorf("token: the configuration has no key %q", key)
	}
	raw, err := token.Keys(conf.Keys).Mint(key, t.grant(), t.TTL, time.Now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.stdout, raw)
	return err
}

func (t tokenCmd) grant() token.Grant {
	g := token.Join(t.Room, t.Identity)
	g.Name = t.Name
	g.CanPublish, g.CanPublishData = !t.Subscribe, !t.Subscribe
	g.CanUpdateOwnMetadata = !t.Subscribe
	g.RoomCreate, g.RoomAdmin, g.RoomList = t.Create, t.Admin, t.List
	return g
}
