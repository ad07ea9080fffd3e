// A session is one participant's stay on this server: its place in the room, its media connection, and the rules of
// who may offer when. Package signalling owns sessions, and the translation between what sfu.Participant and rtc.Peer
// say to each other. It never speaks a wire protocol: that is its edges' (livekit, matrix, whip).
package signalling

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"callserver/sfu"
	"callserver/sfu/rtc"
	"callserver/signalling/token"
)

// tickInterval is how often the rooms look at their timers. Speaker detection works in windows of 400 ms.
const tickInterval = 50 * time.Millisecond

// newsInterval is how often they tell news that waits, while some does: few people at a time, so that handshakes come between.
const newsInterval = 10 * time.Millisecond

// Options configure a Server.
type Options struct {
	Rooms  *sfu.Rooms
	Engine *rtc.Engine
	Logger *slog.Logger // nil: none

	// ICEServers are for the client of a session to use besides our own addresses, with credentials of its own; nil: none.
	ICEServers func(session sfu.SID) []ICEServer

	Revocations *token.Revocations // tokens that no longer let anybody in; nil: none
	UserRooms   int                // rooms that one user of our own authoriser may be in at once; 0: no limit
	Watcher     Watcher            // hears who comes and goes; nil: nobody does
}

// A Watcher hears of every session that begins and ends, on the goroutine that begins or ends it: it must not block.
type Watcher interface {
	Joined(g token.Grant, session sfu.SID)
	Left(g token.Grant, session sfu.SID, why sfu.Reason)
}

// nobody is no Watcher.
type nobody struct{}

func (nobody) Joined(token.Grant, sfu.SID)           {}
func (nobody) Left(token.Grant, sfu.SID, sfu.Reason) {}

// An ICEServer is a STUN or TURN server that clients may use.
type ICEServer struct {
	URLs                 []string
	Username, Credential string
}

// A Server makes sessions and runs the clock of the rooms. Safe for concurrent use.
type Server struct {
	rooms  *sfu.Rooms
	engine *rtc.Engine
	ice    func(sfu.SID) []ICEServer
	log    *slog.Logger
	secret [32]byte // makes up what must be random per room

	revocations *token.Revocations
	userRooms   int
	watcher     Watcher
	sessions    registry
	ladder      *ladder
	started     time.Time
	overloaded  atomic.Bool
	turnedAway  atomic.Uint64
}

// New returns a Server. Its rooms stand still until Run is called.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{rooms: o.Rooms, engine: o.Engine, ice: o.ICEServers, log: o.Logger, revocations: o.Revocations, userRooms: o.UserRooms, ladder: newLadder(o.ICEServers != nil), started: time.Now()}
	if s.ice == nil {
		s.ice = func(sfu.SID) []ICEServer { return nil }
	}
	if s.watcher = o.Watcher; s.watcher == nil {
		s.watcher = nobody{}
	}
	_, _ = rand.Read(s.secret[:]) // never fails (crypto/rand)
	return s
}

// Run drives the rooms' timers until ctx ends, which is no error.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	news := time.NewTimer(0)
	defer news.Stop()
	for {
		var now time.Time
		select {
		case now = <-tick.C:
			s.rooms.Tick(now)
		case now = <-news.C:
		case <-ctx.Done():
			return nil
		}
		if s.rooms.TellNews(now) {
			news.Reset(newsInterval)
		}
	}
}

// Rooms are the rooms of this server.
func (s *Server) Rooms() *sfu.Rooms { return s.rooms }

// InjectionMark is the random trailer by which clients with end-to-end encryption tell frames made by the server from
// forged ones: the same for everybody in a room. This server makes no frames, so nothing ever carries it.
func (s *Server) InjectionMark(room sfu.SID) []byte {
	sum := sha256.Sum256(append(s.secret[:], room...))
	return sum[:16]
}

// PeerOptions are what a client says of itself when it joins.
type PeerOptions struct {
	Single         bool // one connection, offered by the client
	Client         sfu.ClientInfo
	AutoSubscribe  bool
	AdaptiveStream bool
	AllowPause     bool
	Metadata       string            // replaces the grant's, if any
	Attributes     map[string]string // on top of the grant's
}

// Check reports whether Join would be refused, as an *Error, without joining.
func (s *Server) Check(g token.Grant) error {
	if err := s.checkUser(g); err != nil {
		return err
	}
	m := member(g, PeerOptions{})
	if err := s.rooms.Check(sfu.RoomID(g.Room), m); err != nil {
		return refusal(err)
	}
	if s.overloaded.Load() && !s.returning(g, m) {
		return errOverloaded
	}
	return nil
}

// checkUser refuses who lost the place, and who is in as many calls as allowed.
func (s *Server) checkUser(g token.Grant) error {
	switch {
	case s.Revoked(g):
		return errRevoked
	case s.userRooms > 0 && s.sessions.roomsBeside(g) >= s.userRooms:
		return errTooManyRooms
	}
	return nil
}

// Revoked reports whether the bearer of a grant has lost the place that its token was issued for.
func (s *Server) Revoked(g token.Grant) bool { return s.revocations.Revoked(g.Origin) }

// Join makes a session for the bearer of a grant. A refusal is an *Error. The caller ends the session with Leave.
func (s *Server) Join(ctx context.Context, g token.Grant, o PeerOptions) (*Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, Wrong(err)
	}
	if err := s.Check(g); err != nil { // before the peer, which costs far more
		s.count(err)
		return nil, err
	}
	next := s.ladder.next(stayOf(g), time.Now())
	sess, err := s.join(g, member(g, o), rtc.PeerOptions{
		Single: o.Single, Protocol: o.Client.Protocol, Firefox: isFirefox(o.Client), AvoidUDP: next == tcpAlone,
	})
	if err != nil {
		return nil, err
	}
	sess.step = next
	return sess, nil
}

// join makes a session whose bearer has been checked.
func (s *Server) join(g token.Grant, m sfu.Member, o rtc.PeerOptions) (*Session, error) {
	ready := make(chan struct{}, 1)
	m.Ready, o.Ready = ready, ready
	o.Subscribes, o.Label = m.Permission.CanSubscribe, g.Identity
	peer, err := s.engine.NewPeer(o)
	if err != nil {
		return nil, Wrong(err)
	}
	part, err := s.rooms.Join(sfu.RoomID(g.Room), m, time.Now())
	if err != nil {
		peer.Close()
		return nil, refusal(err)
	}
	sess := &Session{
		grant:     g,
		ladder:    s.ladder,
		log:       s.log.With("room", g.Room, "participant", part.SID()),
		part:      part,
		peer:      peer,
		sid:       part.SID(),
		single:    o.Single,
		downlinks: map[sfu.SID]string{},
		ready:     ready,
		ice:       s.ice,
	}
	s.sessions.add(sess)
	sess.ended = func(why sfu.Reason) {
		s.sessions.remove(sess)
		s.watcher.Left(g, sess.sid, why)
	}
	s.watcher.Joined(g, sess.sid)
	if err := s.checkUser(g); err != nil { // since the first check, and perhaps before others could see the session
		sess.Leave(sfu.ParticipantRemoved)
		return nil, err
	}
	return sess, nil
}

var (
	errOverloaded   = &Error{Code: Overloaded, Text: "the server is at its limit: try again later"}
	errRevoked      = &Error{Code: NotAllowed, Text: "the token has been revoked"}
	errTooManyRooms = &Error{Code: Unavailable, Text: "you are in too many calls"}
)

// refusal turns an error of the rooms into one for the client; nil stays nil.
func refusal(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sfu.ErrRoomNotFound):
		return &Error{Code: RoomNotFound, Text: "requested room does not exist"}
	case errors.Is(err, sfu.ErrRoomFull), errors.Is(err, sfu.ErrLimit):
		return &Error{Code: Unavailable, Text: "room is full"}
	case errors.Is(err, sfu.ErrRoomLocked):
		return &Error{Code: NotAllowed, Text: "the call is locked", Err: sfu.ErrRoomLocked}
	}
	return Wrong(err)
}

// member is who a grant makes of a client.
func member(g token.Grant, o PeerOptions) sfu.Member {
	m := sfu.Member{
		Identity:       sfu.Identity(g.Identity),
		Name:           g.Name,
		Metadata:       g.Metadata,
		Attributes:     maps.Clone(g.Attributes),
		Kind:           kinds[g.Kind],
		Permission:     permission(g),
		Client:         o.Client,
		AutoSubscribe:  o.AutoSubscribe,
		AdaptiveStream: o.AdaptiveStream,
		AllowPause:     o.AllowPause,
		CreateRoom:     g.CanCreateRoom(),
		Owner:          g.Origin.Person(),
	}
	if o.Metadata != "" {
		m.Metadata = o.Metadata
	}
	for k, v := range o.Attributes {
		if m.Attributes == nil {
			m.Attributes = map[string]string{}
		}
		m.Attributes[k] = v
	}
	return m
}

// kinds are the numbers that the client protocol gives to a token's kind; what is not listed is standard.
var kinds = map[string]int32{
	"standard": 0, "ingress": 1, "egress": 2, "sip": 3, "agent": 4, "connector": 7, "bridge": 8,
}

func permission(g token.Grant) sfu.Permission {
	p := sfu.Permission{
		CanSubscribe:      g.CanSubscribe,
		CanPublish:        g.CanPublish,
		CanPublishData:    g.CanPublishData,
		CanUpdateMetadata: g.CanUpdateOwnMetadata,
		Hidden:            g.Hidden,
		Recorder:          g.Recorder,
		Agent:             g.Agent,
	}
	for _, name := range g.CanPublishSources {
		if source, ok := sources[name]; ok {
			p.CanPublishSources = append(p.CanPublishSources, source)
		}
	}
	if len(g.CanPublishSources) > 0 && len(p.CanPublishSources) == 0 {
		p.CanPublish = false // none that we know; an empty list would mean all
	}
	return p
}

var sources = map[string]sfu.TrackSource{
	"camera": sfu.Camera, "microphone": sfu.Microphone,
	"screen_share": sfu.ScreenShare, "screen_share_audio": sfu.ScreenShareAudio,
}

func isFirefox(c sfu.ClientInfo) bool { return strings.EqualFold(c.Browser, "firefox") }
