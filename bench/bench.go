// Package bench is the load generator: simulated participants that join a LiveKit-compatible server as clients do,
// publish and receive media, and measure what becomes of it. It owns the signalling client, the WebRTC transport of each
// participant, and a media path below Pion (ICE, DTLS and SCTP are Pion's; SRTP, RTCP and sockets are its own, batched),
// so that one core generates and receives several hundred thousand packets a second. It never decodes media and never
// serves anybody: what it sends is valid in form (SRTP, RTP, VP8 and Opus headers) and noise in content.
package bench

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"time"
)

// Options say what load to make and against whom. Zero fields mean the documented defaults.
type Options struct {
	URL    string // of the server, ws, wss, http or https; a path prefix is kept
	Key    string // API key and secret: tokens are minted here
	Secret string
	Force  bool // allow a server that is not on this machine
	PID    int  // of the server, if it runs on this machine; 0 = do not measure it

	Load     Load
	JoinRate float64       // participants a second; 0 = 20
	Warmup   time.Duration // between the last join and the measurement; 0 = 2 s
	Duration time.Duration // of the measurement; 0 = 10 s
	Timeout  time.Duration // for one join; 0 = 20 s
	Return   bool          // participants who lose the server join again, as clients do

	Progress io.Writer // gets a line a second; nil = nothing
}

// Load is the shape of the calls.
type Load struct {
	Rooms       int    `json:"rooms"`
	Publishers  int    `json:"publishers"`  // a room; they receive each other, too
	Subscribers int    `json:"subscribers"` // a room; they publish nothing
	Audio       bool   `json:"audio"`
	Video       bool   `json:"video"`
	Prefix      string `json:"-"` // of the room names; "" = bench
}

// participants is how many of them there are in all rooms.
func (l Load) participants() int { return l.Rooms * (l.Publishers + l.Subscribers) }

// maxParticipants keeps track numbers and file descriptors in bounds.
const maxParticipants = 20_000

// withDefaults fills in what is zero and says what cannot be.
func (o Options) withDefaults() (Options, error) {
	fill := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	fill(&o.Warmup, 2*time.Second)
	fill(&o.Duration, 10*time.Second)
	fill(&o.Timeout, 20*time.Second)
	if o.JoinRate == 0 {
		o.JoinRate = 20
	}
	if o.Load.Prefix == "" {
		o.Load.Prefix = "bench"
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	l := o.Load
	switch {
	case l.Rooms < 1 || l.Publishers < 1 || l.Subscribers < 0:
		return o, errors.New("bench: at least one room with one publisher is needed")
	case !l.Audio && !l.Video:
		return o, errors.New("bench: neither audio nor video is to be published")
	case l.participants() > maxParticipants:
		return o, fmt.Errorf("bench: %d participants, at most %d", l.participants(), maxParticipants)
	case o.JoinRate < 0 || o.Duration < 0 || o.Warmup < 0 || o.Timeout < 0:
		return o, errors.New("bench: a rate or time is negative")
	case o.Key == "" || o.Secret == "":
		return o, errors.New("bench: the server's API key and secret are needed")
	}
	return o, nil
}

// target resolves the server: the base URL of the websocket and the local IPv4 address from which it is reached.
func (o Options) target() (*url.URL, netip.Addr, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, netip.Addr{}, fmt.Errorf("bench: url: %w", err)
	}
	port := u.Port()
	switch u.Scheme {
	case "ws", "http":
		u.Scheme = "ws"
		if port == "" {
			port = "80"
		}
	case "wss", "https":
		u.Scheme = "wss"
		if port == "" {
			port = "443"
		}
	default:
		return nil, netip.Addr{}, fmt.Errorf("bench: url %q: want ws://, wss://, http:// or https://", o.URL)
	}
	// Nothing is sent: connecting a datagram socket only looks the route up.
	probe, err := net.Dial("udp4", net.JoinHostPort(u.Hostname(), port)) //nolint:noctx // does not block once the name is known
	if err != nil {
		return nil, netip.Addr{}, fmt.Errorf("bench: find the way to %s: %w", u.Host, err)
	}
	defer probe.Close() //nolint:errcheck // nothing was written
	local, _ := netip.AddrFromSlice(probe.LocalAddr().(*net.UDPAddr).IP.To4())
	remote, _ := netip.AddrFromSlice(probe.RemoteAddr().(*net.UDPAddr).IP.To4())
	if !remote.IsLoopback() && !o.Force {
		return nil, netip.Addr{}, fmt.Errorf("bench: %s is not on this machine; load on the server of others is an attack: say --i-own-this-server if it is yours", u.Host)
	}
	return u, local, nil
}
