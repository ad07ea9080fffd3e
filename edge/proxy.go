package edge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
)

// The PROXY protocol, version 2, by HAProxy: what a proxy that passes TCP on says first about the client.

// proxySignature begins every header.
const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

// maxProxyHeader bounds what follows the fixed part, in bytes: addresses, and extensions that we skip.
const maxProxyHeader = 4096

// Errors of readProxyHeader.
var (
	errNoProxyHeader = errors.New("no PROXY protocol header, version 2")
	errProxyHeader   = errors.New("bad PROXY protocol header")
)

// readProxyHeader reads the header, and nothing behind it. The address is that of the client; it is the zero one where the proxy speaks for
// itself (a health check) or knows none of TCP.
func readProxyHeader(r io.Reader) (netip.AddrPort, error) {
	var fixed [16]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", errNoProxyHeader, err)
	}
	if string(fixed[:12]) != proxySignature || fixed[12]>>4 != 2 {
		return netip.AddrPort{}, errNoProxyHeader
	}
	size := int(binary.BigEndian.Uint16(fixed[14:]))
	if size > maxProxyHeader {
		return netip.AddrPort{}, fmt.Errorf("%w: %d bytes", errProxyHeader, size)
	}
	rest := make([]byte, size)
	if _, err := io.ReadFull(r, rest); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	switch command := fixed[12] & 0xf; command {
	case 0: // LOCAL
		return netip.AddrPort{}, nil
	case 1: // PROXY
		return proxySource(fixed[13], rest)
	default:
		return netip.AddrPort{}, fmt.Errorf("%w: command %d", errProxyHeader, command)
	}
}

// proxySource is the address of the client. Each family has source and destination address, source and destination port.
func proxySource(family byte, b []byte) (netip.AddrPort, error) {
	var length int
	switch family {
	case 0x11: // TCP over IPv4
		length = 4
	case 0x21: // TCP over IPv6
		length = 16
	default:
		return netip.AddrPort{}, nil
	}
	if len(b) < 2*length+4 {
		return netip.AddrPort{}, fmt.Errorf("%w: %d bytes of addresses", errProxyHeader, len(b))
	}
	addr, _ := netip.AddrFromSlice(b[:length])
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(b[2*length:])), nil
}

// proxied is a connection of which a proxy said where it comes from.
type proxied struct {
	net.Conn
	remote net.Addr
}

// RemoteAddr implements net.Conn.
func (p *proxied) RemoteAddr() net.Addr { return p.remote }
