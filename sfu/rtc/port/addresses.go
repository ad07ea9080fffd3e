package port

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"

	"callserver/sfu/udp"

	"github.com/pion/ice/v4"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
)

// maxAddresses bounds the addresses that sockets are open on. Those that are gone count too: a host whose addresses change that often keeps
// to the newest that fit.
const maxAddresses = 64

// system is the system's network, with the interfaces as Refresh saw them last.
type system struct {
	transport.Net
	now atomic.Pointer[stdnet.Net]
}

func newSystem() (*system, error) {
	n, err := stdnet.NewNet()
	if err != nil {
		return nil, fmt.Errorf("look at network interfaces: %w", err)
	}
	s := &system{Net: n}
	s.now.Store(n)
	return s, nil
}

// look sees the interfaces as they are.
func (s *system) look() error {
	n, err := stdnet.NewNet()
	if err != nil {
		return fmt.Errorf("look at network interfaces: %w", err)
	}
	s.now.Store(n)
	return nil
}

// Interfaces implements transport.Net.
func (s *system) Interfaces() ([]*transport.Interface, error) { return s.now.Load().Interfaces() }

// InterfaceByIndex implements transport.Net.
func (s *system) InterfaceByIndex(index int) (*transport.Interface, error) {
	return s.now.Load().InterfaceByIndex(index)
}

// InterfaceByName implements transport.Net.
func (s *system) InterfaceByName(name string) (*transport.Interface, error) {
	return s.now.Load().InterfaceByName(name)
}

// Local lists the local addresses in use, IPv4 first.
func (p *Ports) Local() []netip.Addr {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Clone(p.addresses)
}

// Has reports whether a is one of them.
func (p *Ports) Has(a netip.Addr) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Contains(p.addresses, a)
}

// intake is the sockets of a local address, nil if there are none.
func (p *Ports) intake(a netip.Addr) *Intake {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.intakes[a]
}

// Dropped is how many datagrams the kernel has thrown away at the UDP sockets together, modulo 2^32, mostly since they were not read in time.
func (p *Ports) Dropped() (total uint32) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, in := range p.intakes {
		for _, s := range in.sockets {
			total += s.Dropped()
		}
	}
	return total
}

// Refresh looks whether this host has other addresses by now, and reports whether it has. New ones get sockets on the port of the others. Those that are gone are told
// no more, but keep their sockets: they may come back. One goroutine calls it, and none while the ports are closed.
func (p *Ports) Refresh() (changed bool, err error) {
	if s, ok := p.Net.(*system); ok {
		if err := s.look(); err != nil {
			return false, err
		}
	}
	found, err := localAddresses(p.Net, p.options)
	if err != nil || len(found) == 0 || slices.Equal(found, p.Local()) {
		return false, err
	}
	var errs []error
	usable := found[:0:0]
	for _, a := range found {
		if p.options.UDP >= 0 && p.intake(a) == nil {
			if err := p.add(a); err != nil {
				errs = append(errs, fmt.Errorf("listen on the new address %s: %w", a, err))
				continue // the next look tries again
			}
		}
		usable = append(usable, a)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = !slices.Equal(usable, p.addresses)
	p.addresses = usable
	return changed, errors.Join(errs...)
}

// add opens the sockets of one more address.
func (p *Ports) add(a netip.Addr) error {
	p.mu.RLock()
	open := len(p.intakes)
	p.mu.RUnlock()
	if open >= maxAddresses {
		return fmt.Errorf("%d addresses have sockets already: restart to forget those that are gone", open)
	}
	sockets, err := listenOn(p.Net, p.options, netip.AddrPortFrom(a, uint16(p.UDPPort)))
	if err != nil {
		return err
	}
	p.take(a, sockets)
	return nil
}

// take reads the sockets of an address from now on.
func (p *Ports) take(a netip.Addr, sockets []*udp.Socket) {
	in := newIntake(sockets, p.options.After)
	mux := ice.NewUDPMuxDefault(ice.UDPMuxParams{Logger: p.options.Log.NewLogger("ice"), UDPConn: in, Net: p.Net})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.intakes[a] = in
	p.UDP.muxes[a] = mux
}

// udpMux is an ice.UDPMux over one for every address that has sockets.
type udpMux struct {
	ports *Ports
	muxes map[netip.Addr]*ice.UDPMuxDefault // guarded by Ports.mu
}

// GetListenAddresses implements ice.UDPMux: the addresses in use of which clients are told. Each costs a connection two goroutines.
func (m *udpMux) GetListenAddresses() []net.Addr {
	addresses := slices.DeleteFunc(m.ports.Local(), func(a netip.Addr) bool { return !m.ports.options.Told(a) })
	m.ports.mu.RLock()
	defer m.ports.mu.RUnlock()
	var out []net.Addr
	for _, a := range addresses {
		if mux := m.muxes[a]; mux != nil {
			out = append(out, mux.GetListenAddresses()...)
		}
	}
	return out
}

// GetConn implements ice.UDPMux.
func (m *udpMux) GetConn(ufrag string, at net.Addr) (net.PacketConn, error) {
	a, ok := at.(*net.UDPAddr)
	if !ok {
		return nil, fmt.Errorf("receive on %v: no UDP address", at)
	}
	m.ports.mu.RLock()
	mux := m.muxes[unmapped(a.AddrPort()).Addr()]
	m.ports.mu.RUnlock()
	if mux == nil {
		return nil, fmt.Errorf("receive on %v: no socket there", at)
	}
	return mux.GetConn(ufrag, at)
}

// RemoveConnByUfrag implements ice.UDPMux.
func (m *udpMux) RemoveConnByUfrag(ufrag string) {
	for _, mux := range m.all() {
		mux.RemoveConnByUfrag(ufrag)
	}
}

// Close implements ice.UDPMux.
func (m *udpMux) Close() error {
	var errs []error
	for _, mux := range m.all() {
		errs = append(errs, mux.Close())
	}
	return errors.Join(errs...)
}

func (m *udpMux) all() []*ice.UDPMuxDefault {
	m.ports.mu.RLock()
	defer m.ports.mu.RUnlock()
	out := make([]*ice.UDPMuxDefault, 0, len(m.muxes))
	for _, mux := range m.muxes {
		out = append(out, mux)
	}
	return out
}
