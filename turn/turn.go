// A Relay is a TURN server: it carries what clients send it to peers that they cannot reach themselves, and back.
// Package turn owns who may use it and for what: credentials, the addresses and ports that each kind of them reaches, quotas and caps, and the
// counters of it all; pion/turn keeps the protocol. It never opens a TCP listener, reads configuration or knows who takes part in a call.
package turn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	pion "github.com/pion/turn/v5"

	"callserver/internal/expiring"
	"callserver/internal/pionlog"
	"callserver/turn/path"
)

// realm is told to every client. Nobody has a password in it that lasts, so its name means nothing; it is short because it is part of answers to
// strangers, which are to be at most five times as long as what they sent.
const realm = "callserver"

// Defaults of Options.
const (
	DefaultUserAllocations    = 32
	DefaultAddressAllocations = 4000
	DefaultAllocations        = 10_000
	DefaultAllocationBitrate  = 50_000_000
	DefaultFirstPort          = 49152 // RFC 8656 §7.2
	DefaultLastPort           = 65535
)

// allocationLife is how long an allocation lives unless its client refreshes it, and maxAge how long it lives at most, however often that is.
const (
	allocationLife = 10 * time.Minute
	maxAge         = 24 * time.Hour
)

// Options configure a Relay. Places is required.
type Options struct {
	// Places are where our media is, at this moment. Relays are opened on their local addresses; one without a port has no media.
	Places func() []Place
	// Addresses are all those of this host, at this moment: nothing there but Places and relays is ever reached. nil = those of its interfaces.
	Addresses func() ([]netip.Addr, error)

	Secrets []string       // shared with homeservers, which make credentials with any of them; none: homeservers have no part in it
	Peers   []netip.Prefix // networks that their users reach besides the public internet
	TCP     bool           // their users may reach peers over TCP, too (RFC 6062)

	FirstPort, LastPort int // of relays; 0 = the defaults

	UserAllocations    int   // of one user at once; 0 = the default, and so below
	AddressAllocations int   // of the clients of one address (IPv6: one /64)
	Allocations        int   // of all
	AllocationBitrate  int64 // bits/s in each direction
	Bitrate            int64 // of all together, in each direction; 0 = no limit

	Path   *path.Path   // carries packets; nil = pion/turn does, with one system call each
	Logger *slog.Logger // nil = none

	clock func() time.Time // for what is not about packets; nil = time.Now
	hello time.Duration    // 0 = helloTime
}

// A Place is one where our media is reached: under an address that clients are told, and at the socket behind it.
type Place struct{ Public, Local netip.AddrPort }

// A Relay serves any number of listeners. Safe for concurrent use. Close ends it.
type Relay struct {
	options Options
	log     *slog.Logger
	clock   func() time.Time
	way     way
	policy  policy
	keys    keys
	ledger  ledger
	counts  counts
	meters  [2]meter // of all, by direction
	callers *expiring.Map[netip.Prefix, *meter]

	context context.Context //nolint:containedctx // pion asks for connections without one; it ends with the Relay
	stop    context.CancelFunc
	ended   sync.WaitGroup // allocations, connections and loops

	mu        sync.Mutex
	listeners []*listener
	closed    bool
}

// New returns a Relay without listeners.
func New(o Options) (*Relay, error) {
	if o.Places == nil {
		return nil, errors.New("turn: no places")
	}
	o.setDefaults()
	r := &Relay{options: o, log: o.Logger, clock: o.clock, way: plain{}, callers: expiring.New[netip.Prefix, *meter](maxCallers)}
	if o.Path != nil {
		r.way = fast{o.Path}
	}
	r.keys = newKeys(o.Secrets)
	r.policy = policy{places: o.Places, addresses: o.Addresses, peers: o.Peers}
	r.ledger = ledger{users: map[string]int{}, addresses: map[netip.Prefix]int{}, relays: map[endpoint]*Allocation{}, clients: map[client]*Allocation{}, options: &r.options}
	_, _ = rand.Read(r.counts.veil[:]) // never fails (crypto/rand)
	for i := range r.meters {
		r.meters[i].set(o.Bitrate/8, byteBurst)
	}
	if err := r.policy.refresh(r.clock()); err != nil {
		return nil, err
	}
	r.context, r.stop = context.WithCancel(context.Background())
	r.ended.Go(r.ageLoop)
	return r, nil
}

func (o *Options) setDefaults() {
	for _, d := range []struct {
		field *int
		value int
	}{
		{&o.UserAllocations, DefaultUserAllocations}, {&o.AddressAllocations, DefaultAddressAllocations}, {&o.Allocations, DefaultAllocations},
		{&o.FirstPort, DefaultFirstPort}, {&o.LastPort, DefaultLastPort},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.AllocationBitrate == 0 {
		o.AllocationBitrate = DefaultAllocationBitrate
	}
	if o.Addresses == nil {
		o.Addresses = interfaceAddresses
	}
	if o.hello == 0 {
		o.hello = helloTime
	}
	if o.clock == nil {
		o.clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func interfaceAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this host: %w", err)
	}
	var out []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, addr.Unmap())
			}
		}
	}
	return out, nil
}

// A listener is one way that clients come in. Each has a server of pion's own, whose callbacks thus know where a client came from.
type listener struct {
	relay  *Relay
	socket net.PacketConn // of UDP; nil = connections
	doors  *door          // of connections; nil = UDP
	local  netip.Addr     // of UDP
	server *pion.Server
}

// ListenUDP serves clients that send to a local address, which answers come from as well. It returns the address; port 0 is any free one.
func (r *Relay) ListenUDP(at netip.AddrPort) (netip.AddrPort, error) {
	socket, err := r.way.listen(at)
	if err != nil {
		return netip.AddrPort{}, err
	}
	at = addrPort(socket.LocalAddr())
	l := &listener{relay: r, socket: socket, local: at.Addr()}
	return at, r.serve(l, &pion.ServerConfig{
		PacketConnConfigs: []pion.PacketConnConfig{{
			PacketConn: &guard{PacketConn: socket, relay: r, listener: l}, RelayAddressGenerator: l, PermissionHandler: l.permits,
		}},
	}, socket)
}

// Accept serves the clients that connect to a listener, which has dealt with TLS already. Close closes it.
func (r *Relay) Accept(from net.Listener) error {
	doors := &door{Listener: from, relay: r, open: map[*connection]struct{}{}, clients: map[netip.AddrPort]*connection{}}
	l := &listener{relay: r, doors: doors}
	return r.serve(l, &pion.ServerConfig{
		ListenerConfigs: []pion.ListenerConfig{{Listener: doors, RelayAddressGenerator: l, PermissionHandler: l.permits}},
	}, from)
}

// serve has pion serve a listener. The socket is closed if that fails.
func (r *Relay) serve(l *listener, c *pion.ServerConfig, socket interface{ Close() error }) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errors.Join(net.ErrClosed, socket.Close())
	}
	c.Realm = realm
	c.LoggerFactory = pionlog.Factory{Log: r.log}
	c.AuthHandler = l.authenticate
	c.QuotaHandler = l.quota
	c.AllocationLifetime = allocationLife
	c.EventHandler = pion.EventHandler{
		OnAuth: l.authenticated, OnAllocationCreated: l.allocated, OnChannelCreated: l.bound, OnChannelDeleted: l.unbound,
		OnPermissionCreated: l.permitted, OnPermissionDeleted: l.forbidden,
	}
	server, err := pion.NewServer(*c)
	if err != nil {
		return errors.Join(fmt.Errorf("serve TURN: %w", err), socket.Close())
	}
	l.server = server
	r.listeners = append(r.listeners, l)
	return nil
}

// enter makes an allocation known, unless the Relay is being closed.
func (r *Relay) enter(a *Allocation, tcp bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return net.ErrClosed
	}
	if err := r.ledger.enter(a, tcp); err != nil {
		return err
	}
	r.ended.Add(1)
	return nil
}

// release returns what an allocation took, once.
func (r *Relay) release(a *Allocation) {
	if !r.ledger.release(a) {
		return
	}
	r.told(a)
	r.ended.Done()
}

// Close ends every listener, connection and allocation, and waits for them. Closing twice is fine.
func (r *Relay) Close() error {
	r.mu.Lock()
	listeners := r.listeners
	r.listeners, r.closed = nil, true
	r.mu.Unlock()
	r.stop()
	var errs []error
	for _, l := range listeners {
		if err := l.server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("close TURN: %w", err))
		}
	}
	for _, a := range r.ledger.live() {
		a.end()
	}
	r.ended.Wait()
	return errors.Join(errs...)
}

// ageInterval is how far allocations may outlive maxAge.
const ageInterval = time.Minute

// ageLoop ends allocations that have lived long enough.
func (r *Relay) ageLoop() {
	ticker := time.NewTicker(ageInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.age()
		case <-r.context.Done():
			return
		}
	}
}

func (r *Relay) age() {
	now := r.clock()
	for _, a := range r.ledger.live() {
		if now.Sub(a.begun) > maxAge {
			a.end()
		}
	}
}

// addrPort is an address as pion passes them, unmapped.
func addrPort(a net.Addr) netip.AddrPort {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		at = a.AddrPort()
	case *net.TCPAddr:
		at = a.AddrPort()
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
