package rtc

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/pion/ice/v4"
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

// ports are the media sockets: a UDP socket for every local address, all on one port, because replies must leave from the
// address that was asked, and one TCP socket.
type ports struct {
	udpPort, tcpPort int
	udp              *ice.MultiUDPMuxDefault
	tcp              *ice.TCPMuxDefault
	addresses        []netip.Addr
	net              transport.Net
}

// listen opens the sockets that o asks for.
func listen(o Options) (*ports, error) {
	p := &ports{net: o.Net}
	if p.net == nil {
		n, err := stdnet.NewNet()
		if err != nil {
			return nil, fmt.Errorf("look at network interfaces: %w", err)
		}
		p.net = n
	}
	addresses, err := localAddresses(p.net, o)
	if err != nil {
		return nil, err
	}
	if len(addresses) == 0 {
		return nil, errors.New("no local address to receive media on: allow loopback or name one that exists")
	}
	p.addresses = addresses
	if o.UDPPort >= 0 {
		if err := p.listenUDP(o, addresses); err != nil {
			return nil, err
		}
	}
	if o.TCPPort >= 0 && o.Net == nil {
		if err := p.listenTCP(o, addresses); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return p, nil
}

// has reports whether a is one of the local addresses that are used.
func (p *ports) has(a netip.Addr) bool { return slices.Contains(p.addresses, a) }

// close closes every socket; the read loops below them end with it.
func (p *ports) close() error {
	var errs []error
	if p.udp != nil {
		errs = append(errs, p.udp.Close())
	}
	if p.tcp != nil {
		errs = append(errs, p.tcp.Close())
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

func (p *ports) listenUDP(o Options, addresses []netip.Addr) error {
	var conns []net.PacketConn
	var err error
	for range sameTries {
		if conns, p.udpPort, err = sameUDPPort(p.net, o.UDPPort, addresses); err == nil || o.UDPPort != 0 {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("media.udp_port: %w", err)
	}
	log := (&logFactory{o.Logger}).NewLogger("ice")
	muxes := make([]ice.UDPMux, 0, len(conns))
	for _, c := range conns {
		muxes = append(muxes, ice.NewUDPMuxDefault(ice.UDPMuxParams{Logger: log, UDPConn: c, Net: p.net}))
	}
	p.udp = ice.NewMultiUDPMuxDefault(muxes...)
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
func (p *ports) listenTCP(o Options, addresses []netip.Addr) error {
	local := &net.TCPAddr{Port: o.TCPPort}
	if len(addresses) == 1 {
		local.IP = addresses[0].AsSlice()
	}
	l, err := net.ListenTCP("tcp", local)
	if err != nil {
		return fmt.Errorf("media.tcp_port: %w", err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		p.tcpPort = a.Port
	}
	p.tcp = ice.NewTCPMuxDefault(ice.TCPMuxParams{
		Listener: chosenListener{l, addresses}, Logger: (&logFactory{o.Logger}).NewLogger("ice"),
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
