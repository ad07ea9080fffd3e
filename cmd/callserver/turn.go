package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"callserver/edge"
	"callserver/internal/config"
	"callserver/internal/telemetry"
	"callserver/sfu"
	"callserver/sfu/rtc"
	"callserver/signalling"
	"callserver/turn"
	"callserver/turn/path"
)

// A relayService is the relay with its listeners.
type relayService struct {
	*turn.Relay
	path    *path.Path // nil = none
	engine  *rtc.Engine
	log     *slog.Logger
	udp     []netip.AddrPort // at the start, and then followLoop's
	streams []relayStream
	urls    relayURLs
}

// A relayStream is a listener for connections.
type relayStream struct {
	*edge.Stream
	protocol string // tcp or tls
}

// relayURLs is what clients are told besides addresses.
type relayURLs struct {
	domain        string // for every transport; "" = the addresses of the media
	secure        string // the name for TLS; "" = not told
	udp, tcp, tls int    // ports; 0 = none
}

// openRelay opens the relay and its sockets but the one that it shares with HTTPS.
func (s *server) openRelay(c *config.Config, log *slog.Logger) error {
	t := c.TURN
	if !t.Enabled {
		return nil
	}
	way, err := openPath(s.engine, log)
	if err != nil {
		return err
	}
	relay, err := turn.New(relayOptions(c, s.engine, way, log))
	if err != nil {
		return errors.Join(err, closePath(way))
	}
	r := &relayService{Relay: relay, path: way, engine: s.engine, log: log, urls: relayURLs{domain: t.Domain}}
	s.relay = r
	if r.urls.udp, err = r.listenUDP(t.UDPPort); err != nil {
		return fmt.Errorf("turn.udp_port: %w", err)
	}
	if r.urls.tcp, err = r.listenTCP(t.TCPPort, edge.Options{ProxyProtocol: c.HTTP.ProxyProtocol, Logger: log}); err != nil {
		return fmt.Errorf("turn.tcp_port: %w", err)
	}
	if s.certificates == nil {
		return nil
	}
	r.urls.secure = t.Domain
	if c.HTTP.PublicURL != nil {
		r.urls.secure = cmp.Or(t.Domain, c.HTTP.PublicURL.Hostname())
	}
	if r.urls.tls, err = r.listenTCP(t.TLSPort, edge.Options{Certificates: s.certificates, ProxyProtocol: c.HTTP.ProxyProtocol, Logger: log}); err != nil {
		return fmt.Errorf("turn.tls_port: %w", err)
	}
	return nil
}

// openPath opens what carries relayed packets, past pion and into the media ports; nil where the system has no batches.
func openPath(engine *rtc.Engine, log *slog.Logger) (*path.Path, error) {
	way, err := path.New(path.Options{
		Media: func(to netip.AddrPort) path.Intake {
			if in := engine.Intake(to); in != nil {
				return in
			}
			return nil
		},
		Panicked: func(value any) {
			log.Error("panic in what is relayed", "panic", value, "stack", string(debug.Stack()))
		},
	})
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, nil
	}
	return way, err
}

func closePath(way *path.Path) error {
	if way == nil {
		return nil
	}
	return way.Close()
}

func relayOptions(c *config.Config, engine *rtc.Engine, way *path.Path, log *slog.Logger) turn.Options {
	return turn.Options{
		Places: func() []turn.Place {
			var out []turn.Place
			for _, p := range engine.Places() {
				out = append(out, turn.Place(p))
			}
			return out
		},
		Secrets: c.TURN.Secrets, Peers: c.TURN.Peers, TCP: c.TURN.TCPRelay,
		FirstPort: c.TURN.FirstPort, LastPort: c.TURN.LastPort,
		UserAllocations: c.Limits.Relay.User, AddressAllocations: c.Limits.Relay.Address, Allocations: c.Limits.Relay.Server,
		AllocationBitrate: c.Limits.Relay.AllocationBitrate, Bitrate: c.Limits.Relay.Bitrate,
		Path: way, Logger: log,
	}
}

// listenUDP opens one port on each address that media is received on and that has none yet, so that answers come from the address that was asked. It
// returns the port; 0 if there is none.
func (r *relayService) listenUDP(port int) (int, error) {
	if port == config.Off {
		return 0, nil
	}
	for _, p := range r.engine.Places() {
		local := p.Local.Addr()
		if slices.ContainsFunc(r.udp, func(at netip.AddrPort) bool { return at.Addr() == local }) {
			continue
		}
		at, err := r.ListenUDP(netip.AddrPortFrom(local, uint16(port)))
		if err != nil {
			return 0, err
		}
		port = int(at.Port())
		r.udp = append(r.udp, at)
	}
	return port, nil
}

// followInterval is how soon a new address of this host gets a socket.
const followInterval = 5 * time.Second

// followLoop opens a socket on each address that media is received on from now on, until ctx ends. Those of addresses that are gone stay: they may
// come back.
func (r *relayService) followLoop(ctx context.Context) error {
	ticker := time.NewTicker(followInterval)
	defer ticker.Stop()
	for failed := ""; ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		text := ""
		if _, err := r.listenUDP(r.urls.udp); err != nil && ctx.Err() == nil {
			text = err.Error()
		}
		if text != "" && text != failed { // once, not at every look
			r.log.Warn("turn.udp_port: an address is not in use", "error", text)
		}
		failed = text
	}
}

// listenTCP opens one port for all addresses, and returns it; 0 if there is none.
func (r *relayService) listenTCP(port int, o edge.Options) (int, error) {
	if port == config.Off {
		return 0, nil
	}
	o.Listen = net.JoinHostPort("", strconv.Itoa(port))
	stream, err := edge.ListenTURN(o)
	if err != nil {
		return 0, err
	}
	protocol := "tcp"
	if o.Certificates != nil {
		protocol = "tls"
	}
	r.streams = append(r.streams, relayStream{stream, protocol})
	at, _ := stream.Addr().(*net.TCPAddr)
	return at.Port, r.Accept(stream.TURN())
}

// shareHTTPS has the relay answer on the port of HTTPS too, which clients reach under the public one.
func (r *relayService) shareHTTPS(l net.Listener, public int) error {
	if public == 443 { // what gets to any other port gets there
		r.urls.tls = public
	}
	return r.Accept(l)
}

// servers are for the client of a session, with credentials of its own. There are four URLs at most, since clients try all of them, and browsers
// complain of five.
func (r *relayService) servers(session sfu.SID) []signalling.ICEServer {
	urls := r.urls.of(r.engine.Places())
	if len(urls) == 0 {
		return nil
	}
	c := r.Credential(string(session), time.Now())
	return []signalling.ICEServer{{URLs: urls, Username: c.Username, Credential: c.Password}}
}

// of lists the URLs: over UDP to an address of each family, over TCP to one, and over TLS to a name that a certificate holds for.
func (u relayURLs) of(places []rtc.Place) (urls []string) {
	hosts := []string{u.domain}
	if u.domain == "" {
		hosts = nil
		for _, four := range []bool{true, false} {
			if i := slices.IndexFunc(places, func(p rtc.Place) bool {
				return p.Public.Port() != 0 && p.Local.Port() != 0 && p.Public.Addr().Is4() == four
			}); i >= 0 {
				hosts = append(hosts, places[i].Public.Addr().String())
			}
		}
	}
	for i, host := range hosts {
		if u.udp != 0 {
			urls = append(urls, fmt.Sprintf("turn:%s?transport=udp", net.JoinHostPort(host, strconv.Itoa(u.udp))))
		}
		if u.tcp != 0 && i == 0 {
			urls = append(urls, fmt.Sprintf("turn:%s?transport=tcp", net.JoinHostPort(host, strconv.Itoa(u.tcp))))
		}
	}
	if u.tls != 0 && u.secure != "" && len(hosts) > 0 {
		urls = append(urls, fmt.Sprintf("turns:%s?transport=tcp", net.JoinHostPort(u.secure, strconv.Itoa(u.tls))))
	}
	return urls
}

// work lists what runs until the server ends.
func (r *relayService) work() (work []func(context.Context) error) {
	for _, s := range r.streams {
		work = append(work, func(context.Context) error { return s.Run() })
	}
	if r.urls.udp != 0 {
		work = append(work, r.followLoop)
	}
	return work
}

// close ends the relay and its sockets.
func (r *relayService) close() error {
	errs := []error{r.Close(), closePath(r.path)}
	for _, s := range r.streams {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

func (r *relayService) listeners() (lines []listener) {
	for _, at := range r.udp {
		lines = append(lines, listener{"relay", "udp " + at.String()})
	}
	for _, s := range r.streams {
		lines = append(lines, listener{"relay", s.protocol + " " + s.Addr().String()})
	}
	return lines
}

// observe gives telemetry the snapshots of the relay.
func (r *relayService) observe(t *telemetry.Telemetry) {
	var metrics []telemetry.Metric[turn.Stats]
	for _, kind := range turn.Kinds() {
		of := func(v turn.Stats) turn.KindStats { return v.Kinds[kind] }
		each := map[string]string{"kind": kind}
		metrics = append(metrics,
			labelled(gauge("relay_allocations", "Relays of clients.", func(v turn.Stats) int { return of(v).Allocations }), each),
			labelled(counter("relay_allocations_total", "Relays opened.", func(v turn.Stats) uint64 { return of(v).Opened }), each),
		)
		for direction, carried := range map[string]func(turn.Stats) turn.Carried{
			"up": func(v turn.Stats) turn.Carried { return of(v).Up }, "down": func(v turn.Stats) turn.Carried { return of(v).Down },
		} {
			each := map[string]string{"kind": kind, "direction": direction}
			metrics = append(metrics,
				labelled(counter("relay_packets_total", "Packets relayed: up from the client, down to it.", func(v turn.Stats) uint64 { return carried(v).Packets }), each),
				labelled(counter("relay_bytes_total", "Bytes in them.", func(v turn.Stats) uint64 { return carried(v).Bytes }), each),
			)
		}
	}
	for _, reason := range turn.Reasons() {
		metrics = append(metrics, labelled(
			counter("relay_refused_total", "What the relay did not do for clients, by reason: requests, and packets that were dropped.", func(v turn.Stats) uint64 { return v.Refused[reason] }),
			map[string]string{"reason": reason}))
	}
	telemetry.Poll(t, r.Stats, metrics...)
	if r.path != nil {
		telemetry.Poll(t, r.path.Stats, pathMetrics()...)
	}
	telemetry.PollEach(t, "relay_user_bytes", "What the relays that a user has now carried, of the ten with most; users are pseudonyms.", "user", func() map[string]float64 {
		out := map[string]float64{}
		for _, u := range r.Stats().Users {
			out[u.User] = float64(u.Bytes)
		}
		return out
	})
}

// pathMetrics are what is dropped below the TURN server.
func pathMetrics() (all []telemetry.Metric[path.Stats]) {
	for reason, count := range map[string]func(path.Stats) uint64{
		"stranger": func(s path.Stats) uint64 { return s.Strangers }, "no_permission": func(s path.Stats) uint64 { return s.Unbound },
		"forbidden": func(s path.Stats) uint64 { return s.Forbidden }, "bitrate": func(s path.Stats) uint64 { return s.Capped },
		"slow_client": func(s path.Stats) uint64 { return s.Slow }, "requests": func(s path.Stats) uint64 { return s.Control },
	} {
		all = append(all, labelled(counter("relay_dropped_total", "Datagrams that the relay did not carry, by reason.", count), map[string]string{"reason": reason}))
	}
	return all
}
