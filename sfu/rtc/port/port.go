// Package port is the media ports of a node: the sockets that ICE runs over, UDP and TCP, on every address in use.
// It owns choosing the addresses, opening the sockets and sharing them among all connections.
// It never reads media, and knows neither peers nor descriptions.
package port

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
)

// socketBuffer is asked of the kernel for every media socket, so that a burst of key frames is not lost in it. The kernel
// may grant less.
const socketBuffer = 4 << 20 // bytes

// tcpWriteBuffer bounds what waits for one slow ICE-TCP client; more is dropped.
const tcpWriteBuffer = 4 << 20 // bytes

// tcpReadPackets is how many packets of one ICE-TCP client wait to be read.
const tcpReadPackets = 64

// Options say which sockets to open.
type Options struct {
	UDP, TCP   int                    // port numbers; 0 = any free one, -1 = none
	Listen     []netip.Addr           // local addresses to use; empty = all
	Advertise  []netip.Addr           // addresses told to clients: a loopback address among them is used too
	Loopback   bool                   // use loopback addresses
	Interfaces func(name string) bool // network interfaces to use; nil = all
	Net        transport.Net          // nil = the system's; with one of its own TCP is off
	Log        logging.LoggerFactory
}

// Ports are the media sockets: a UDP socket for every local address, all on one port, because replies must leave from the
// address that was asked, and one TCP socket. The fields are fixed once it is open.
type Ports struct {
	UDPPort, TCPPort int                     // 0 = none
	UDP              *ice.MultiUDPMuxDefault // nil = none
	TCP              *ice.TCPMuxDefault      // nil = none
	Addresses        []netip.Addr            // local ones in use, IPv4 first
	Net              transport.Net
}

// Open opens the sockets that o asks for. The caller closes them.
func Open(o Options) (*Ports, error) {
	p := &Ports{Net: o.Net}
	if p.Net == nil {
		n, err := stdnet.NewNet()
		if err != nil {
			return nil, fmt.Errorf("look at network interfaces: %w", err)
		}
		p.Net = n
	}
	addresses, err := localAddresses(p.Net, o)
	if err != nil {
		return nil, err
	}
	if len(addresses) == 0 {
		return nil, errors.New("no local address to receive media on: allow loopback or name one that exists")
	}
	p.Addresses = addresses
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

// Has reports whether a is one of the local addresses that are used.
func (p *Ports) Has(a netip.Addr) bool { return slices.Contains(p.Addresses, a) }

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
		if i.Flags&net.FlagUp == 0 || o.Interfaces != nil && !o.Interfaces(i.Name) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // an interface without addresses is none of ours
		}
		for _, a := range addrs {
			if ip, ok := addressOf(a); ok && usable(ip, o) && !slices.Contains(out, ip) {
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
		return o.Loopback || slices.Contains(o.Advertise, ip)
	}
	return ip.IsGlobalUnicast()
}

// sameTries is how often a free port is looked for that every address still has free.
const sameTries = 16

func (p *Ports) listenUDP(o Options, addresses []netip.Addr) error {
	var conns []net.PacketConn
	var err error
	for range sameTries {
		if conns, p.UDPPort, err = sameUDPPort(p.Net, o.UDP, addresses); err == nil || o.UDP != 0 {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("media.udp_port: %w", err)
	}
	log := o.Log.NewLogger("ice")
	muxes := make([]ice.UDPMux, 0, len(conns))
	for _, c := range conns {
		muxes = append(muxes, ice.NewUDPMuxDefault(ice.UDPMuxParams{Logger: log, UDPConn: c, Net: p.Net}))
	}
	p.UDP = ice.NewMultiUDPMuxDefault(muxes...)
	return nil
}

// sameUDPPort listens on one port on all addresses. All of them must have it free.
func sameUDPPort(n transport.Net, port int, addresses []netip.Addr) ([]net.PacketConn, int, error) {
	var conns []net.PacketConn
	for _, a := range addresses {
		c, err := n.ListenUDP("udp", &net.UDPAddr{IP: a.AsSlice(), Port: port, Zone: a.Zone()})
		if err != nil {
			for _, c := range conns {
				_ = c.Close()
			}
			return nil, 0, err
		}
		_ = c.SetReadBuffer(socketBuffer) // best effort: the kernel's limit wins
		_ = c.SetWriteBuffer(socketBuffer)
		if local, ok := c.LocalAddr().(*net.UDPAddr); ok {
			port = local.Port
		}
		conns = append(conns, c)
	}
	return conns, port, nil
}

// listenTCP opens one socket for all addresses: unlike a datagram, a TCP connection always answers from the address that
// was asked. Connections to an address that is not ours to use are closed.
func (p *Ports) listenTCP(o Options, addresses []netip.Addr) error {
	local := &net.TCPAddr{Port: o.TCP}
	if len(addresses) == 1 {
		local.IP = addresses[0].AsSlice()
	}
	l, err := net.ListenTCP("tcp", local)
	if err != nil {
		return fmt.Errorf("media.tcp_port: %w", err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		p.TCPPort = a.Port
	}
	p.TCP = ice.NewTCPMuxDefault(ice.TCPMuxParams{
		Listener: chosenListener{l, addresses}, Logger: o.Log.NewLogger("ice"),
		ReadBufferSize: tcpReadPackets, WriteBufferSize: tcpWriteBuffer,
	})
	return nil
}

// chosenListener accepts connections to the chosen local addresses only.
type chosenListener struct {
	*net.TCPListener
	addresses []netip.Addr
}

// Accept waits for the next connection to a chosen address.
func (l chosenListener) Accept() (net.Conn, error) {
	for {
		c, err := l.TCPListener.Accept()
		if err != nil {
			return nil, err
		}
		if a, ok := c.LocalAddr().(*net.TCPAddr); ok && slices.Contains(l.addresses, a.AddrPort().Addr().Unmap()) {
			return c, nil
		}
		_ = c.Close() // nothing was promised on that address
	}
}
