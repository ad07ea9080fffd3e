package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.mau.fi/util/dbutil"

	"callserver/edge"
	"callserver/edge/acme"
	"callserver/internal/config"
	"callserver/internal/telemetry"
	"callserver/sfu"
	"callserver/sfu/egress"
	"callserver/sfu/rtc"
	"callserver/sfu/rtc/port"
	"callserver/signalling"
	"callserver/signalling/federation"
	"callserver/signalling/homeserver"
	"callserver/signalling/livekit"
	"callserver/signalling/matrix"
	"callserver/signalling/matrix/switchboard"
	"callserver/signalling/matrixrtc"
	"callserver/signalling/matrixrtc/leave"
	"callserver/signalling/matrixrtc/roster"
	"callserver/signalling/matrixrtc/standing"
	"callserver/signalling/token"
	"callserver/signalling/token/ledger"
	"callserver/web"
)

// A server is every part of the running program, wired and bound to its sockets.
type server struct {
	log          *slog.Logger
	telemetry    *telemetry.Telemetry
	rooms        *sfu.Rooms
	engine       *rtc.Engine
	sessions     *signalling.Server
	overload     *overload
	client       *livekit.Edge
	matrix       []*homeserver.Homeserver // as configured
	directory    *federation.Directory
	authoriser   *matrixrtc.Authoriser
	page         *web.Page
	relay        *relayService      // nil = off
	public       *edge.Listener     // what clients reach
	scheme       string             // of public: http, or https with a certificate of our own
	certificates *edge.Certificates // nil = none of our own
	issuer       *acme.Issuer       // who looks after them, nil = nobody: they are in files
	admin        *edge.Listener     // what the operator reaches, nil = off
	draining     atomic.Bool

	data   *dbutil.Database // nil: nothing survives a restart
	leaves *leave.Keeper    // nil: no homeserver lets us
	ledger *ledger.Ledger   // nil: no data
	roster *roster.Roster   // the same
	bot    *matrix.Bot      // nil: no homeserver pushes events here

	switchboard *switchboard.Switchboard // nil: the same, or calls of older clients are not bridged

	revocations *token.Revocations // shared by the authoriser, which revokes, and the sessions, which look
}

// newServer wires the parts and opens every socket, or none.
func newServer(c *config.Config, log *slog.Logger) (_ *server, err error) {
	s := &server{log: log, telemetry: telemetry.New(version()), rooms: sfu.New(roomOptions(c))}
	defer func() {
		if err != nil {
			_ = s.close(context.Background()) // the first error says more
		}
	}()
	if s.engine, err = rtc.New(engineOptions(c, log)); err != nil {
		return nil, err
	}
	if err = s.loadCertificates(c); err != nil {
		return nil, err
	}
	if err = s.openRelay(c, log); err != nil {
		return nil, err
	}
	if s.matrix, err = connections(c, log); err != nil {
		return nil, err
	}
	keys := token.Keys(c.Keys)
	s.revocations = &token.Revocations{}
	if err = s.openData(c); err != nil {
		return nil, err
	}
	if err = s.openLedger(c); err != nil {
		return nil, err
	}
	if err = s.openLeaves(c); err != nil {
		return nil, err
	}
	if err = s.openRoster(c); err != nil {
		return nil, err
	}
	calls := signalling.Options{
		Rooms: s.rooms, Engine: s.engine, Logger: log, Revocations: s.revocations, Watcher: s.watchers(), UserRooms: c.Limits.UserRooms,
	}
	if s.relay != nil {
		calls.ICEServers = s.relay.servers
	}
	s.sessions = signalling.New(calls)
	s.overload = newOverload(c, s.rooms, s.sessions, func() egress.Stats { return s.engine.Stats().Egress }, log)
	s.client = livekit.New(livekit.Options{Server: s.sessions, Keys: keys, Logger: log})
	s.directory = directory(c)
	signing, err := signingKeys(c)
	if err != nil {
		return nil, err
	}
	if s.authoriser, err = matrixrtc.New(s.authoriserOptions(c, signing)); err != nil {
		return nil, err
	}
	if err = s.openSwitchboard(c); err != nil {
		return nil, err
	}
	if err = s.openBot(c); err != nil {
		return nil, err
	}
	s.page = web.New(pageOptions(c))
	if err = s.listen(c); err != nil {
		return nil, err
	}
	if c.Admin.Listen != "" {
		if s.admin, err = edge.Listen(edge.Options{Listen: c.Admin.Listen, Handler: s.telemetry.Handler(), Logger: log}); err != nil {
			return nil, fmt.Errorf("admin.listen: %w", err)
		}
	}
	s.observe()
	s.telemetry.Check("server", func() error {
		if s.draining.Load() {
			return errors.New("draining")
		}
		return nil
	})
	return s, nil
}

func engineOptions(c *config.Config, log *slog.Logger) rtc.Options {
	o := rtc.Options{
		UDPPort: c.Media.UDPPort, TCPPort: c.Media.TCPPort,
		STUN: c.Media.STUN, Interfaces: port.Matching(c.Media.Interfaces), Lite: c.Media.ICELite, Loopback: c.Development(),
		VideoBitrate: c.Limits.Bitrate.Participant, Logger: log,
	}
	for _, a := range c.Media.Advertise {
		o.Advertise = append(o.Advertise, rtc.Advertised{Addr: a.Addr, UDP: a.UDPPort, TCP: a.TCPPort, Local: a.Local})
	}
	return o
}

// listen opens what clients reach.
func (s *server) listen(c *config.Config) error {
	var err error
	s.public, err = edge.Listen(edge.Options{
		Listen: c.HTTP.Listen, Handler: s.routes(), Development: c.Development(), Logger: s.log, ProxyProtocol: c.HTTP.ProxyProtocol, Certificates: s.certificates,
	})
	if err != nil {
		return fmt.Errorf("http.listen: %w", err)
	}
	s.scheme = "http"
	if s.certificates == nil { // clients do not reach it directly
		return nil
	}
	s.scheme = "https"
	port := publicPort(c, s.public.Addr())
	s.engine.AcceptTCP(s.public.ICE(), port)
	if s.relay != nil {
		return s.relay.shareHTTPS(s.public.TURN(), port)
	}
	return nil
}

// loadCertificates gets what every TLS listener shows, if the operator wants TLS here.
func (s *server) loadCertificates(c *config.Config) (err error) {
	if !c.Secure() {
		return nil
	}
	if len(c.ACME.Domains) == 0 {
		if s.certificates, err = edge.LoadCertificates([]edge.Files{edge.Files(c.TLS)}, s.log); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		return nil
	}
	s.issuer, err = acme.New(acme.Options{
		Domains: c.ACME.Domains, Email: c.ACME.Email, Directory: c.ACME.Directory, Roots: c.ACME.Roots,
		HTTPPort: c.ACME.HTTPPort, Storage: c.ACME.Storage, Logger: s.log,
	})
	if err != nil {
		return fmt.Errorf("tls.acme: %w", err)
	}
	s.certificates = edge.Issued(s.issuer.Certificate, acme.Protocol)
	return nil
}

// publicPort is the port under which clients reach the listener.
func publicPort(c *config.Config, listener net.Addr) int {
	if u := c.HTTP.PublicURL; u != nil {
		if n, err := strconv.Atoi(u.Port()); err == nil {
			return n
		}
		return map[string]int{"http": 80, "https": 443}[u.Scheme]
	}
	if a, ok := listener.(*net.TCPAddr); ok {
		return a.Port
	}
	return 0
}

func (s *server) authoriserOptions(c *config.Config, signing []*federation.SigningKey) matrixrtc.Options {
	o := matrixrtc.Options{
		Keys:        c.Keys,
		Rooms:       roomMaker{s.rooms},
		Sessions:    s.sessions,
		Revocations: s.revocations,
		Leaves:      s.leaves,
		Roster:      s.roster,
		SFUPath:     sfuPath,
		Prefix:      authoriserPath,
		Directory:   s.directory,
		ClientAddr:  clientAddr,
		Logger:      s.log,
	}
	for i, h := range c.Homeservers {
		o.Homeservers = append(o.Homeservers, matrixrtc.Homeserver{
			ServerName: h.ServerName, ClientAPI: h.ClientAPI, Connection: s.matrix[i],
			Unverified: h.Unverified, PublishRemote: h.PublishRemote, SigningKey: signing[i],
		})
	}
	o.Requests = matrixrtc.Requests(c.Limits.Requests)
	o.EveryRoom = roomPolicy(config.MatrixRoom{RoomLimits: c.Limits.Room})
	o.MatrixRooms = make(map[string]matrixrtc.RoomPolicy, len(c.MatrixRooms))
	for _, r := range c.MatrixRooms {
		o.MatrixRooms[r.Room] = roomPolicy(r)
	}
	o.Servers = standing.Servers{Allow: c.Servers.Allow, Deny: c.Servers.Deny}
	if c.RemoteUsers {
		o.Remote = matrixrtc.RemoteSubscribe
	}
	if c.HTTP.PublicURL != nil {
		o.ServiceURL = c.HTTP.PublicURL.JoinPath(authoriserPath).String()
		socket := c.HTTP.PublicURL.JoinPath(sfuPath)
		socket.Scheme = map[string]string{"http": "ws", "https": "wss"}[socket.Scheme]
		o.SFUURL = socket.String()
	}
	return o
}

// roomMaker lets the authoriser open rooms.
type roomMaker struct{ rooms *sfu.Rooms }

func (m roomMaker) CreateRoom(name string, o sfu.RoomOptions) error {
	m.rooms.Create(sfu.RoomID(name), o, time.Now())
	return nil
}

func roomOptions(c *config.Config) sfu.Options {
	return sfu.Options{
		AutoCreate: c.Room.AutoCreate, MaxParticipants: c.Limits.Room.Participants, Bitrate: sfu.Bitrate(c.Limits.Bitrate),
	}
}

func roomPolicy(r config.MatrixRoom) matrixrtc.RoomPolicy {
	return matrixrtc.RoomPolicy{PublishRemote: r.PublishRemote, Sources: r.Sources, Participants: r.Participants}
}

// pageTokenLife is how long a token of the page may be used to join; connected clients get fresh ones.
const pageTokenLife = time.Hour

func pageOptions(c *config.Config) web.Options {
	if !c.Development() {
		return web.Options{}
	}
	return web.Options{Token: func(room, identity, name string) (string, error) {
		g := token.Join(room, identity)
		g.Name, g.RoomCreate = name, true
		return token.Keys(c.Keys).Mint(config.DevelopmentKey, g, pageTokenLife, time.Now())
	}}
}

// work lists what runs until the server ends.
func (s *server) work() []func(context.Context) error {
	work := []func(context.Context) error{
		s.sessions.Run,
		s.overload.Run,
		s.authoriser.Run,
		func(context.Context) error { return s.public.Run() },
	}
	if s.relay != nil {
		work = append(work, s.relay.work()...)
	}
	if s.issuer != nil {
		work = append(work, func(ctx context.Context) error { return s.issuer.Run(ctx, s.public.Addr()) })
	}
	if s.leaves != nil {
		work = append(work, s.leaves.Run)
	}
	if s.ledger != nil {
		work = append(work, s.ledger.Run)
	}
	if s.roster != nil {
		work = append(work, s.roster.Run, func(ctx context.Context) error { return s.roster.Follow(ctx, s.matrix...) })
	}
	if s.bot != nil {
		work = append(work, s.bot.Run)
	}
	if s.switchboard != nil {
		work = append(work, s.switchboard.Run)
	}
	if s.admin != nil {
		work = append(work, func(context.Context) error { return s.admin.Run() })
	}
	return work
}

// close takes the parts down in the order in which clients notice: they are told, then the doors close, then media ends.
// Who does not leave until ctx ends is cut off, which is no error. Parts that were never wired are passed over.
func (s *server) close(ctx context.Context) error {
	s.draining.Store(true)
	var errs []error
	end := func(what string, err error) {
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			s.log.Warn("cut off who did not leave in time", "part", what)
		case err != nil:
			errs = append(errs, fmt.Errorf("close %s: %w", what, err))
		}
	}
	var telling sync.WaitGroup
	var bridged error
	if s.switchboard != nil {
		telling.Go(func() { bridged = s.switchboard.Close(ctx) }) // a homeserver that is slow keeps no client waiting
	}
	if s.client != nil {
		end("clients", s.client.Close(ctx))
	}
	telling.Wait()
	end("bridged calls", bridged)
	if s.authoriser != nil {
		end("authoriser", s.authoriser.Close())
	}
	for _, l := range []*edge.Listener{s.public, s.admin} {
		if l != nil {
			end("http", l.Close(ctx))
		}
	}
	if s.issuer != nil {
		s.issuer.Close()
	}
	if s.directory != nil {
		s.directory.Close()
	}
	for _, h := range s.matrix {
		end("homeserver", h.Close())
	}
	if s.relay != nil {
		end("relay", s.relay.close())
	}
	if s.engine != nil {
		end("media", s.engine.Close())
	}
	if s.leaves != nil {
		end("delayed leaves", s.leaves.Close())
	}
	if s.ledger != nil {
		end("revocations", s.ledger.Close())
	}
	if s.roster != nil {
		end("roster", s.roster.Close())
	}
	if s.data != nil {
		end("data", s.data.Close())
	}
	return errors.Join(errs...)
}

// A listener is one line of the start.
type listener struct{ what, at string }

func (s *server) listeners() []listener {
	ls := []listener{{"clients", s.scheme + "://" + s.public.Addr().String()}}
	if p := s.engine.UDPPort(); p > 0 {
		ls = append(ls, listener{"media", "udp " + net.JoinHostPort("", strconv.Itoa(p))})
	}
	if p := s.engine.TCPPort(); p > 0 {
		ls = append(ls, listener{"media", "tcp " + net.JoinHostPort("", strconv.Itoa(p))})
	}
	if s.relay != nil {
		ls = append(ls, s.relay.listeners()...)
	}
	if s.admin != nil {
		ls = append(ls, listener{"admin", "http://" + s.admin.Addr().String()})
	}
	return ls
}
