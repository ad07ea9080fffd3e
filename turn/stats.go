package turn

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"slices"
	"sync/atomic"
)

// A refusal is why something was not done for a client.
type refusal uint8

const (
	none           refusal = iota
	refusedUnknown         // a username that nobody gave out
	refusedExpired
	refusedForged // not signed as it must be
	refusedUser
	refusedAddress
	refusedServer
	refusedSocket
	refusedPeer
	refusedPort
	refusedSender
	refusedBitrate
	refusedCaller
	refusals
)

// reasons are the refusals in the words of metrics.
var reasons = [refusals]string{
	refusedUnknown: "unknown_user", refusedExpired: "expired", refusedForged: "forged",
	refusedUser: "user_quota", refusedAddress: "address_quota", refusedServer: "server_quota", refusedSocket: "no_socket",
	refusedPeer: "peer_address", refusedPort: "peer_port", refusedSender: "sender", refusedBitrate: "bitrate", refusedCaller: "caller_rate",
}

// Reasons lists why something is refused, as Stats names it.
func Reasons() []string { return slices.Clone(reasons[1:]) }

// Kinds lists the kinds of credentials, as Stats names them.
func Kinds() []string { return slices.Clone(kinds[:]) }

var kinds = [scopes]string{joins: "join", homeservers: "homeserver"}

// counts are a Relay's totals.
type counts struct {
	refused [refusals]atomic.Uint64
	opened  [scopes]atomic.Uint64
	carried [scopes]usage
	veil    [32]byte // makes pseudonyms
}

func (c *counts) refuse(why refusal) { c.refused[why].Add(1) }

// Stats is a snapshot of a Relay.
type Stats struct {
	Kinds   map[string]KindStats // by Kinds
	Refused map[string]uint64    // by Reasons
	Users   []UserStats          // those with allocations who had most carried by these, at most ten
}

// KindStats is what the holders of one kind of credentials had carried.
type KindStats struct {
	Allocations int    // now
	Opened      uint64 // ever
	Up, Down    Carried
}

// Carried counts packets in one direction, and the bytes in them.
type Carried struct{ Packets, Bytes uint64 }

// UserStats is what the allocations that a user has now carried.
type UserStats struct {
	User        string // a pseudonym, until the next start
	Allocations int
	Bytes       uint64
}

// listedUsers bounds Stats.Users.
const listedUsers = 10

// Stats returns the counters.
func (r *Relay) Stats() Stats {
	s := Stats{Kinds: map[string]KindStats{}, Refused: map[string]uint64{}}
	var now [scopes]int
	users := map[string]*UserStats{}
	for _, a := range r.ledger.live() {
		now[a.scope]++
		if a.carrier != nil {
			a.carrier.Settle()
		}
		u := users[a.user]
		if u == nil {
			u = &UserStats{User: r.counts.pseudonym(a.user)}
			users[a.user] = u
		}
		u.Allocations++
		u.Bytes += a.usage.bytes[up].Load() + a.usage.bytes[down].Load()
	}
	for kind, name := range kinds {
		c := &r.counts.carried[kind]
		s.Kinds[name] = KindStats{Allocations: now[kind], Opened: r.counts.opened[kind].Load(), Up: c.read(up), Down: c.read(down)}
	}
	for why := none + 1; why < refusals; why++ {
		s.Refused[reasons[why]] = r.counts.refused[why].Load()
	}
	for _, u := range users {
		s.Users = append(s.Users, *u)
	}
	slices.SortFunc(s.Users, func(a, b UserStats) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.User, b.User)) })
	s.Users = s.Users[:min(len(s.Users), listedUsers)]
	return s
}

func (u *usage) read(direction int) Carried {
	return Carried{u.packets[direction].Load(), u.bytes[direction].Load()}
}

// pseudonym stands for a user where everybody may look.
func (c *counts) pseudonym(user string) string {
	mac := hmac.New(sha256.New, c.veil[:])
	mac.Write([]byte(user))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:6])
}

// told logs who had how much carried, when an allocation ends.
func (r *Relay) told(a *Allocation) {
	if a.user == "" {
		return // pion asked for a port
	}
	sent, received := a.usage.read(up), a.usage.read(down)
	level := slog.LevelInfo
	if sent.Bytes+received.Bytes == 0 {
		level = slog.LevelDebug // clients ask for relays that they then need not
	}
	r.log.Log(r.context, level, "relayed", "user", a.user, "kind", kinds[a.scope], "for", r.clock().Sub(a.begun).Round(1e9).String(),
		"bytes_up", sent.Bytes, "bytes_down", received.Bytes)
}
