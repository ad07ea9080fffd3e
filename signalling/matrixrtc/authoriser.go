// An Authoriser turns proof of a Matrix account into a token for the calls of a Matrix room (MSC4195).
// Package matrixrtc owns the token endpoints of MatrixRTC clients, the verification of their OpenID tokens at
// their homeservers, and the documents by which clients discover this server.
// It never speaks to media, keeps no state about calls, and never logs or stores a token.
//
// # Who gets in
//
// Closed by default. A user of a configured homeserver has full access: the token lets it publish, and the room is
// created for it. Anybody else is refused with 403 M_FORBIDDEN before a single packet is sent to the server it
// names, unless Options.Remote is [RemoteSubscribe]: then it gets a token that subscribes only and creates no room,
// which is what members of a call on several servers need from the servers of the others.
//
// What a token allows is decided in one place, policy.decide: users of other homeservers publish only where the operator
// says so (publish: remote), rooms may be kept to a microphone, and whose power in the Matrix room suffices to kick may
// mute and remove others and end the call (roomAdmin).
//
// Whoever it is must be joined to the Matrix room. That is asked of the homeservers by what they allow this program:
// MSC4502, the user's own eyes through a wide registration, the sender of the narrow one where it is in the room, the
// eyes of a local user who is in the call. The first that can see decides. Where none can, the user is refused, unless
// Homeserver.Unverified says otherwise; where the homeserver does not answer, too, with 502 M_UNKNOWN. Users of other
// homeservers get in only while a user of a configured one is in the call.
//
// Who leaves the Matrix room, or is kicked or banned, is taken out of its calls as soon as a homeserver tells us, and
// every token for it is worthless until the membership is verified anew (see [Authoriser.Run]). Running calls never end
// because a homeserver does not answer.
//
// # Delayed leaves
//
// Clients can have us send their leave when they crash (MSC4140), and then rely on us for an hour. So it is offered only
// while it is known to work (package leave). Otherwise the probes answer 404, so that clients keep sending their own
// restarts every few seconds, and a token request with delay fields is refused with 400 M_BAD_JSON, on which clients
// repeat it without.
package matrixrtc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	mautrix "maunium.net/go/mautrix/federation"

	"callserver/internal/expiring"
	"callserver/sfu"
	"callserver/signalling/federation"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/leave"
	"callserver/signalling/matrixrtc/member"
	"callserver/signalling/matrixrtc/roster"
	"callserver/signalling/matrixrtc/standing"
	"callserver/signalling/token"
)

// What clients expect of rooms, and for how long a token lives. Clients in a call get new ones every five minutes.
const (
	TokenLife        = 10 * time.Minute
	EmptyTimeout     = 300 * time.Second // until a created room that nobody entered is gone
	DepartureTimeout = 20 * time.Second  // until a room that everybody left is gone
)

const (
	maxTold     = 1024   // homeservers that the log is kept short about
	maxExpected = 50_000 // calls with somebody who is about to connect
)

// Rooms is where rooms are created for users with full access.
type Rooms interface {
	// CreateRoom makes sure that the room exists. It is called again for rooms that do.
	CreateRoom(name string, o sfu.RoomOptions) error
}

// A Homeserver is one whose users have full access.
type Homeserver struct {
	ServerName string // as in the ids of its users: example.org
	ClientAPI  string // base URL of its client API; empty means https://HOST of ServerName

	Connection *homeserver.Homeserver // what may be asked there; nil means nothing
	Unverified bool                   // its users are let in where nobody can tell whether they are in the Matrix room

	PublishRemote bool // users of other homeservers publish in calls that its users hold

	SigningKey *federation.SigningKey // signs requests to other homeservers in its name; nil means that nothing does
}

// Options of an Authoriser. Keys, Rooms and Directory are required.
type Options struct {
	Keys        token.Keys
	Key         string // id of the signing key; empty means the alphabetically first of Keys
	Rooms       Rooms
	Directory   *federation.Directory // asks homeservers whose OpenID token one is; its owner closes it
	Homeservers []Homeserver
	Remote      Remote
	EveryRoom   RoomPolicy            // of Matrix rooms that are not in MatrixRooms, and where an entry leaves something out
	MatrixRooms map[string]RoomPolicy // by Matrix room id
	Requests    Requests
	Servers     standing.Servers   // whose users may use this server at all
	Sessions    Sessions           // the running calls; nil means that nobody is ever in one
	Revocations *token.Revocations // shared with whoever checks tokens; nil means that nobody does
	Leaves      *leave.Keeper      // takes over delayed leaves; nil means that nobody does
	Roster      *roster.Roster     // hears of every token; nil means that nobody does

	// Where clients find the media server and this service. Empty means derived from the host the client asked,
	// which is for development: clients tell servers apart by the exact text of these URLs.
	SFUURL     string // wss://rtc.example.org/livekit/sfu
	ServiceURL string // https://rtc.example.org/livekit/jwt
	SFUPath    string // for the derived SFUURL; empty means /livekit/sfu
	Prefix     string // endpoints answer below it as well as without it; empty means /livekit/jwt

	ClientAddr func(*http.Request) netip.Addr // whose rate limit a request counts towards; nil means its peer's
	Now        func() time.Time               // nil means time.Now
	Logger     *slog.Logger                   // nil means none
}

// An Authoriser serves the endpoints of MatrixRTC clients. Safe for concurrent use.
type Authoriser struct {
	options     Options
	homeservers map[string]Homeserver // by server name
	names       []string              // their names in the configured order
	policy      policy
	members     *standing.Members
	expected    *expiring.Map[string, string] // by call: a local user who is about to connect
	limits      limits
	replays     *replays
	told        *expiring.Map[[2]string, struct{}] // what was logged lately, about which server
	refusals    *expiring.Map[string, Refusal]     // the last of each user
	counters    counters
	closing     atomic.Bool
}

// New checks the options, all of them, and returns an Authoriser that the caller must Close.
func New(o Options) (*Authoriser, error) {
	a := &Authoriser{options: o, homeservers: make(map[string]Homeserver)}
	err := errors.Join(a.setKey(), a.setURLs(), a.setHomeservers())
	if o.Rooms == nil {
		err = errors.Join(err, errors.New("no rooms to create rooms in"))
	}
	if o.Directory == nil {
		err = errors.Join(err, errors.New("no directory of homeservers"))
	}
	if err != nil {
		return nil, fmt.Errorf("set up the authoriser: %w", err)
	}
	if a.options.Logger == nil {
		a.options.Logger = slog.New(slog.DiscardHandler)
	}
	if a.options.Now == nil {
		a.options.Now = time.Now
	}
	if a.options.ClientAddr == nil {
		a.options.ClientAddr = peerAddr
	}
	a.setMembers()
	a.policy = policy{homeservers: a.homeservers, remote: o.Remote, every: o.EveryRoom, rooms: o.MatrixRooms}
	a.limits, a.replays = newLimits(o.Requests), newReplays()
	a.counters.reasons = newTally()
	a.told = expiring.New[[2]string, struct{}](maxTold)
	a.refusals = expiring.New[string, Refusal](maxRefusals)
	return a, nil
}

func (a *Authoriser) setMembers() {
	o := &a.options
	var connections []*homeserver.Homeserver
	for _, name := range a.names {
		if c := a.homeservers[name].Connection; c != nil {
			connections = append(connections, c)
		}
	}
	if o.Sessions == nil {
		o.Sessions = nobody{}
	}
	a.members = standing.New(standing.Options{
		Connections: connections, Sessions: o.Sessions, Revocations: o.Revocations, Now: o.Now, Logger: o.Logger,
	})
	a.expected = expiring.New[string, string](maxExpected)
}

func (a *Authoriser) setKey() error {
	o := &a.options
	if len(o.Keys) == 0 {
		return errors.New("keys: no key to sign tokens with")
	}
	if o.Key == "" {
		o.Key = slices.Min(slices.Collect(maps.Keys(o.Keys)))
	}
	if o.Keys[o.Key] == "" {
		return fmt.Errorf("keys: %q has no secret", o.Key)
	}
	return nil
}

func (a *Authoriser) setURLs() error {
	o := &a.options
	if o.SFUPath == "" {
		o.SFUPath = "/livekit/sfu"
	}
	if o.Prefix == "" {
		o.Prefix = "/livekit/jwt"
	}
	o.SFUPath = "/" + strings.Trim(o.SFUPath, "/")
	o.Prefix = "/" + strings.Trim(o.Prefix, "/")
	// Clients join paths by plain concatenation and tell servers apart by string equality.
	o.SFUURL = strings.TrimRight(o.SFUURL, "/")
	o.ServiceURL = strings.TrimRight(o.ServiceURL, "/")
	return errors.Join(
		checkURL("media server URL", o.SFUURL, "ws", "wss", "http", "https"),
		checkURL("service URL", o.ServiceURL, "http", "https"),
	)
}

func (a *Authoriser) setHomeservers() error {
	var errs []error
	for i, h := range a.options.Homeservers {
		host, _, ok := mautrix.ParseServerName(h.ServerName)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("homeservers[%d].server_name: %q is not a server name like example.org", i, h.ServerName))
			continue
		case a.homeservers[h.ServerName].ServerName != "":
			errs = append(errs, fmt.Errorf("homeservers[%d].server_name: %q is listed twice", i, h.ServerName))
			continue
		}
		errs = append(errs, checkURL(fmt.Sprintf("homeservers[%d].client_api", i), h.ClientAPI, "http", "https"))
		if h.ClientAPI == "" {
			h.ClientAPI = "https://" + (&url.URL{Host: bracket(host)}).Host
		}
		h.ClientAPI = strings.TrimRight(h.ClientAPI, "/")
		a.homeservers[h.ServerName] = h
		a.names = append(a.names, h.ServerName)
	}
	return errors.Join(errs...)
}

// bracket puts the brackets of a URL around an IPv6 address.
func bracket(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func checkURL(what, raw string, schemes ...string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme) || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s: %q is not a URL like %s://host/path", what, raw, schemes[len(schemes)-1])
	}
	return nil
}

// Close makes token endpoints answer 503. Requests being answered go on.
func (a *Authoriser) Close() error {
	a.closing.Store(true)
	return nil
}

// Run follows everybody who is in a call until ctx ends, which is no error: see [standing.Members.Run].
func (a *Authoriser) Run(ctx context.Context) error { return a.members.Run(ctx) }

// Standing tells how a user stands in a Matrix room now: see [standing.Members.Check].
func (a *Authoriser) Standing(ctx context.Context, p standing.Place) (standing.Finding, error) {
	now := a.options.Now()
	return a.members.Check(ctx, p, a.holders(member.RoomName(string(p.Room), member.SlotRoom), string(p.Room), now))
}

// Stats returns what happened since the start.
func (a *Authoriser) Stats() Stats {
	s := a.counters.snapshot()
	s.Federation = a.options.Directory.Stats()
	s.Members.Stats = a.members.Stats()
	return s
}

func peerAddr(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap()
}
