package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"callserver/internal/config"
	"callserver/internal/telemetry"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrix"
	"callserver/signalling/matrix/device"
	"callserver/signalling/matrixrtc/standing"
)

// openBot makes the bot if a homeserver pushes events here.
func (s *server) openBot(c *config.Config) error {
	if !slices.ContainsFunc(s.matrix, func(h *homeserver.Homeserver) bool { return h.Sender() != "" }) {
		return nil
	}
	vault, err := s.openVault(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	o := matrix.Options{
		Vault:       vault,
		Connections: s.matrix, Sessions: s.sessions, Rooms: s.rooms, Standing: s.authoriser.Standing, Refusal: s.refusal,
		Invite: c.Bot.Invite, Servers: standing.Servers{Allow: c.Servers.Allow, Deny: c.Servers.Deny},
		ElementCall: c.Bot.ElementCall, Silent: !c.Bot.Commands, Logger: s.log,
	}
	if s.switchboard != nil {
		o.Bridge = s.switchboard
	}
	if s.bot, err = matrix.New(ctx, o); err != nil {
		return fmt.Errorf("data.file: %s: %w", c.Data.File, err)
	}
	if s.switchboard != nil {
		s.switchboard.Use(s.bot)
	}
	return nil
}

// openVault makes the place for the bot's keys, nil if nothing survives a restart.
func (s *server) openVault(c *config.Config) (*device.Vault, error) {
	if s.data == nil {
		return nil, nil
	}
	key, err := device.LoadKey(c.Data.File + ".key")
	if err != nil {
		return nil, fmt.Errorf("data.file: the key of the bot's keys: %w", err)
	}
	recovery := c.Bot.Recovery
	if recovery == "" {
		recovery = filepath.Join(filepath.Dir(c.Data.File), "recovery-keys")
	}
	return &device.Vault{Database: s.data, Key: key, Recovery: device.NewRecovery(recovery)}, nil
}

// refusal is what the authoriser remembers, in the bot's words.
func (s *server) refusal(user string) (matrix.Refusal, bool) {
	r, ok := s.authoriser.LastRefusal(user)
	return matrix.Refusal{At: r.At, Words: r.Words, Room: r.Room, Device: r.Device, Addr: r.Addr}, ok
}

func (s *server) observeBot() {
	if s.bot == nil {
		return
	}
	telemetry.Poll(s.telemetry, s.bot.Stats,
		counter("bot_commands_total", "Commands that the bot heard.", func(v matrix.Stats) uint64 { return v.Commands }),
		counter("bot_ignored_total", "Commands too old, too many of one user, or of a homeserver that is not permitted.", func(v matrix.Stats) uint64 { return v.Ignored }),
		counter("bot_dropped_total", "Commands, invitations and departures that the bot had no room for.", func(v matrix.Stats) uint64 { return v.Dropped }),
		counter("bot_unreadable_total", "Encrypted messages that the bot has no key for, or that are not what they seem.", func(v matrix.Stats) uint64 { return v.Unreadable }),
		counter("bot_replies_total", "Messages that the bot sent.", func(v matrix.Stats) uint64 { return v.Replies }),
		counter("bot_failures_total", "Steps of the bot that a homeserver did not take.", func(v matrix.Stats) uint64 { return v.Failures }),
		counter("bot_joined_total", "Invitations that the bot followed.", func(v matrix.Stats) uint64 { return v.Joined }),
		counter("bot_declined_total", "Invitations that the bot declined.", func(v matrix.Stats) uint64 { return v.Declined }),
		counter("bot_left_total", "Rooms that the bot left because nobody else was in them.", func(v matrix.Stats) uint64 { return v.Left }),
	)
}
