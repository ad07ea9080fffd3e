// Package port is the media ports of a node: the sockets that ICE runs over, UDP and TCP, on every address in use.
// It owns choosing the addresses, opening the sockets, sharing them among all connections, and telling media, which goes to a Receiver by the
// address that it came from, from the rest, which is Pion's.
// It never looks into media, and knows neither peers nor descriptions.
package port

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"callserver/sfu/udp"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/transport/v5"
)

// socketBuffer is asked of the kernel for every media socket, so that a burst of key frames is not lost in it. The kernel
// may grant less.
const socketBuffer = 4 << 20 // bytes

// gather is how long datagrams may wait for others where they come thick. ADR 0026 says what it gains and costs.
const gather = 2 * time.Millisecond

// tcpWriteBuffer bounds what waits for one slow ICE-TCP client; more is dropped.
const tcpWriteBuffer = 4 << 20 // bytes

// tcpReadPackets is how many packets of one ICE-TCP client wait to be read.
const tcpReadPackets = 64

// Options say which sockets to open.
type Options struct {
	UDP, TCP   int                    // port numbers; 0 = any free one, -1 = none
	Listen     []netip.Addr           // local addresses to use; empty = all
	Named      []netip.Addr           // addresses that the operator names: those of this host among them are used, whatever they are and on whatever interface
	Loopback   bool                   // use loopback addresses
	Interfaces func(name string) bool // network interfaces to use; nil = all
	Net        transport.Net          // nil = the system's; with one of its own TCP is off
	Log        logging.LoggerFactory
	Share      int            // how many UDP sockets share each address, so that as many cores receive; 0 = 1
	After      func(home int) // called when a socket has nothing more, by the goroutine of the socket with that index, or after a packet of a TCP connection (-1); nil = nothing

	// Told reports whether clients are told of a local address, for each connection anew: none waits for datagrams at others. Nil = of all.
	Told func(local netip.Addr) bool
}

// Ports are the media sockets: a UDP socket for every local address, all on one port, because replies must leave from the
// address that was asked, and one TCP socket. The exported fields are fixed once it is open. Safe for concurrent use.
type Ports struct {
	UDPPort, TCPPort int     // 0 = none
	UDP              *udpMux // nil = none
	TCP              *tcpMux // nil = none
	Net              transport.Net

	options Options
	gate    *gate // of TCP, nil = none

	mu        sync.RWMutex
	addresses []netip.Addr           // local ones in use, IPv4 first
	intakes   map[netip.Addr]*Intake // also of addresses that are gone
}

// Open opens the sockets that o asks for. The caller closes them.
func Open(o Options) (*Ports, error) {
	p := &Ports{Net: o.Net, intakes: map[netip.Addr]*Intake{}}
	if o.After == nil {
		o.After = func(int) {}
	}
	if o.Told == nil {
		o.Told = func(netip.Addr) bool { return true }
	}
	p.options = o
	if p.Net == nil {
		n, err := newSystem()
		if err != nil {
			return nil, err
		}
		p.Net = n
	}
	addresses, err := localAddresses(p.Net, o)
	if err != nil {
		return nil, err
	}
	if len(addresses) == 0 {
		return nil, errors.New("no local address to receive media on: allow loopback, name one that exists, or choose other interfaces (media.interfaces)")
	}
	p.addresses = addresses
	if o.UDP >= 0 {
		if err := p.listenUDP(o, addresses); err != nil {
			return nil, err
		}
	}
	if o.TCP >= 0 && o.Net == nil {
		if err := p.listenTCP(o, addresses); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// ShareTCP has ICE over TCP accept from l too, which Close closes. It reports whether there is ICE over TCP.
func (p *Ports) ShareTCP(l net.Listener) bool {
	if p.gate == nil {
		return false
	}
	p.gate.share(l)
	return true
}

// Close closes every socket; the read loops below them end with it.
func (p *Ports) Close() error {
	var errs []error
	if p.UDP != nil {
		errs = append(errs, p.UDP.Close())
	}
	if p.TCP != nil {
		errs = append(errs, p.TCP.Close())
	}
	return errors.Join(errs...)
}

// localAddresses lists the addresses of this host that o wants used, IPv4 first.
func localAddresses(n transport.Net, o Options) ([]netip.Addr, error) {
	interfaces, err := n.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var out []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		wanted := o.Interfaces == nil || o.Interfaces(i.Name)
		addrs, err := i.Addrs()
		if err != nil {
			continue // an interface without addresses is none of ours
		}
		for _, a := range addrs {
			ip, ok := addressOf(a)
			if ok && !slices.Contains(out, ip) && (wanted && usable(ip, o) || slices.Contains(o.Named, ip)) {
				out = append(out, ip)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	return out, nil
}

func addressOf(a net.Addr) (netip.Addr, bool) {
	var ip net.IP
	switch a := a.(type) {
	case *net.IPNet:
		ip = a.IP
	case *net.IPAddr:
		ip = a.IP
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

func usable(ip netip.Addr, o Options) bool {
	switch {
	case len(o.Listen) > 0:
		return slices.Contains(o.Listen, ip) || slices.Contains(o.Listen, netip.IPv4Unspecified()) && ip.Is4() ||
			slices.Contains(o.Listen, netip.IPv6Unspecified()) && ip.Is6()
	case ip.IsLoopback():
		return o.Loopback
	}
	return ip.IsGlobalUnicast()
}

// sameTries is how often a free port is looked for that every address still has free.
const sameTries = 16

func (p *Ports) listenUDP(o Options, addresses []netip.Addr) error {
	var all [][]*udp.Socket
	var err error
	for range sameTries {
		if all, p.UDPPort, err = sameUDPPort(p.Net, o, addresses); err == nil || o.UDP != 0 {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("media.udp_port: %w", err)
	}
	p.UDP = &udpMux{ports: p, muxes: map[netip.Addr]*ice.UDPMuxDefault{}}
	for i, sockets := range all {
		p.take(addresses[i], sockets)
	}
	return nil
}

// sameUDPPort listens on one port on all addresses. All of them must have it free.
func sameUDPPort(n transport.Net, o Options, addresses []netip.Addr) ([][]*udp.Socket, int, error) {
	var all [][]*udp.Socket
	port := o.UDP
	for _, a := range addresses {
		sockets, err := listenOn(n, o, netip.AddrPortFrom(a, uint16(port)))
		if err != nil {
			for _, sockets := range all {
				for _, s := range sockets {
					_ = s.Close()
				}
			}
			return nil, 0, err
		}
		if local, ok := sockets[0].LocalAddr().(*net.UDPAddr); ok {
			port = local.Port
		}
		all = append(all, sockets)
	}
	return all, port, nil
}

// listenOn opens the sockets of one address. On a network that is not the system's there is one.
func listenOn(n transport.Net, o Options, at netip.AddrPort) ([]*udp.Socket, error) {
	if o.Net == nil {
		return udp.Listen(at, udp.Options{Buffer: socketBuffer, Share: o.Share, Gather: gather, Runs: true})
	}
	c, err := n.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	return []*udp.Socket{udp.Wrap(c, udp.Options{Buffer: socketBuffer})}, nil
}

// listenTCP opens one socket for all addresses: unlike a datagram, a TCP connection always answers from the address that
// was asked. Connections to an address that is not ours to use are closed.
func (p *Ports) listenTCP(o Options, addresses []netip.Addr) error {
	local := &net.TCPAddr{Port: o.TCP}
	if len(addresses) == 1 && (len(o.Listen) > 0 || addresses[0].IsLoopback()) { // else others may come
		local.IP = addresses[0].AsSlice()
	}
	l, err := net.ListenTCP("tcp", local)
	if err != nil {
		return fmt.Errorf("media.tcp_port: %w", err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		p.TCPPort = a.Port
	}
	p.gate = newGate(l, p.Local)
	p.TCP = &tcpMux{after: o.After, conns: map[*tcpConn]struct{}{}, TCPMuxDefault: ice.NewTCPMuxDefault(ice.TCPMuxParams{
		Listener: p.gate, Logger: o.Log.NewLogger("ice"),
		ReadBufferSize: tcpReadPackets, WriteBufferSize: tcpWriteBuffer,
	})}
	return nil
}
