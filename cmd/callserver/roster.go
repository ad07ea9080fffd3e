package main

import (
	"context"
	"fmt"
	"strings"

	"callserver/internal/config"
	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/matrixrtc/roster"
	"callserver/signalling/token"
)

// openRoster makes the roster of calls if a homeserver lets us see memberships, and there is something to do about them.
func (s *server) openRoster(c *config.Config) error {
	o := roster.Options{
		Homeservers: map[string]roster.Homeserver{}, Grace: c.Membership.Grace, Logger: s.log,
		Withhold: func(call, session string, on bool) { s.sessions.Withhold(call, sfu.SID(session), on) },
	}
	for i, h := range c.Homeservers {
		if len(h.Registrations) > 0 {
			o.Homeservers[h.ServerName] = roster.Of(s.matrix[i])
		}
	}
	if len(o.Homeservers) == 0 {
		return nil
	}
	if c.Membership.Sweep {
		if c.HTTP.PublicURL != nil {
			o.Service = strings.TrimRight(c.HTTP.PublicURL.JoinPath(authoriserPath).String(), "/")
		} else {
			s.log.Warn("memberships of participants who are gone are not cleared: set http.public_url, by which they are known to be ours")
		}
	}
	if o.Service == "" && o.Grace == 0 {
		return nil
	}
	if s.leaves != nil {
		o.Held = s.leaves.Holds
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	if s.data != nil {
		table, err := roster.NewTable(ctx, s.data)
		if err != nil {
			return fmt.Errorf("data.file: %s: %w", c.Data.File, err)
		}
		o.Store = table
	}
	var err error
	s.roster, err = roster.New(ctx, o)
	return err
}

// watchers are all who want to hear who comes and goes.
func (s *server) watchers() signalling.Watcher {
	var all watchers
	if s.leaves != nil {
		all = append(all, leaver{s.leaves})
	}
	if s.roster != nil {
		all = append(all, lister{s.roster})
	}
	return all
}

type watchers []signalling.Watcher

func (ws watchers) Joined(g token.Grant, session sfu.SID) {
	for _, w := range ws {
		w.Joined(g, session)
	}
}

func (ws watchers) Left(g token.Grant, session sfu.SID, why sfu.Reason) {
	for _, w := range ws {
		w.Left(g, session, why)
	}
}

// lister tells the roster who comes and goes with a token of our authoriser.
type lister struct{ roster *roster.Roster }

func (l lister) Joined(g token.Grant, session sfu.SID) {
	if o := g.Origin; o.User != "" {
		l.roster.Joined(roster.Presence{
			Stay:   roster.Stay{Room: o.Conversation, Call: g.Room, User: o.User, Device: o.Device},
			Member: o.Member, Identity: g.Identity, Session: string(session), Publishes: g.CanPublish,
		})
	}
}

func (l lister) Left(g token.Grant, session sfu.SID, why sfu.Reason) {
	reason := roster.Parted
	switch why {
	case sfu.ConnectionTimeout, sfu.JoinFailure:
		reason = roster.Lost
	case sfu.ServerShutdown:
		reason = roster.Shutdown
	}
	l.roster.Left(roster.Key{Call: g.Room, Identity: g.Identity}, string(session), reason)
}
