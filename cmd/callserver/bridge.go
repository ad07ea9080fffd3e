package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"callserver/internal/config"
	"callserver/internal/telemetry"
	"callserver/signalling"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/standin"
	"callserver/signalling/matrix/switchboard"
	"callserver/signalling/matrixrtc/standing"
	"callserver/signalling/token"
)

// legs makes the media of bridged calls.
type legs struct{ *signalling.Server }

func (l legs) JoinLeg(ctx context.Context, g token.Grant, o signalling.LegOptions) (switchboard.Leg, error) {
	leg, err := l.Server.JoinLeg(ctx, g, o)
	if err != nil {
		return nil, err
	}
	return leg, nil
}

// openSwitchboard makes the switchboard of older calls if a homeserver pushes events here.
func (s *server) openSwitchboard(c *config.Config) error {
	if !c.Bot.Bridge || !slices.ContainsFunc(s.matrix, func(h *homeserver.Homeserver) bool { return h.Sender() != "" }) {
		return nil
	}
	if c.HTTP.PublicURL == nil {
		s.log.Warn("calls of older clients are not bridged: set http.public_url, by which their members are known to be here")
		return nil
	}
	o := switchboard.Options{
		Connections: s.matrix, Media: legs{s.sessions}, Logger: s.log,
		Servers: standing.Servers{Allow: c.Servers.Allow, Deny: c.Servers.Deny},
		Standin: standin.Rules{Service: strings.TrimRight(c.HTTP.PublicURL.JoinPath(authoriserPath).String(), "/")},
	}
	if s.leaves != nil {
		o.Standin.Delegate = s.leaves.Delegate
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	if s.data != nil {
		table, err := switchboard.NewTable(ctx, s.data)
		if err != nil {
			return fmt.Errorf("data.file: %s: %w", c.Data.File, err)
		}
		o.Store = table
	}
	var err error
	s.switchboard, err = switchboard.New(ctx, o)
	return err
}

func (s *server) observeSwitchboard() {
	if s.switchboard == nil {
		return
	}
	type stats = switchboard.Stats
	telemetry.Poll(s.telemetry, s.switchboard.Stats,
		counter("bridge_invited_total", "Invitations to bridged calls.", func(v stats) uint64 { return v.Invited }),
		counter("bridge_placed_total", "Calls to older clients.", func(v stats) uint64 { return v.Placed }),
		counter("bridge_answered_total", "Bridged calls that were answered.", func(v stats) uint64 { return v.Answered }),
		counter("bridge_ended_total", "Bridged calls that ended, answered or not.", func(v stats) uint64 { return v.Ended }),
		counter("bridge_failed_total", "Of these, those that failed.", func(v stats) uint64 { return v.Failed }),
		counter("bridge_refused_total", "Calls not bridged: nobody agreed, or there are too many.", func(v stats) uint64 { return v.Refused }),
		counter("bridge_malformed_total", "Events of calls that could not be read.", func(v stats) uint64 { return v.Malformed }),
		counter("bridge_ignored_total", "Events that mean nothing in the state of their call, or from somebody else.", func(v stats) uint64 { return v.Ignored }),
		counter("bridge_dropped_total", "Events of calls that there was no room for.", func(v stats) uint64 { return v.Dropped }),
		counter("bridge_overrun_total", "Calls ended because too many events came for them.", func(v stats) uint64 { return v.Overrun }),
		counter("bridge_panics_total", "Calls ended by a fault of this server.", func(v stats) uint64 { return v.Panics }),
		counter("bridge_send_failures_total", "Events of calls that a homeserver did not take.", func(v stats) uint64 { return v.SendFailures }),
		gauge("bridge_calls", "Bridged calls.", func(v stats) int { return v.Calls }),
	)
}
