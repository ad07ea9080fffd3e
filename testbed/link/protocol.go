package link

import "fmt"

// Protocol tells the packets of an IP link apart as far as a script may ask for.
type Protocol uint8

// The protocols a script knows.
const (
	AnyProtocol Protocol = iota
	UDP
	TCP
	otherProtocol
)

var protocolNames = map[string]Protocol{"": AnyProtocol, "any": AnyProtocol, "udp": UDP, "tcp": TCP}

// UnmarshalText reads "udp", "tcp" or "any".
func (p *Protocol) UnmarshalText(text []byte) error {
	found, ok := protocolNames[string(text)]
	if !ok {
		return fmt.Errorf("protocol %q: want udp, tcp or any", text)
	}
	*p = found
	return nil
}

// ProtocolOf reads the transport protocol out of an IPv4 or IPv6 header. Extension headers of IPv6 are not followed.
func ProtocolOf(packet []byte) Protocol {
	var number byte
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		number = packet[9]
	case len(packet) >= 40 && packet[0]>>4 == 6:
		number = packet[6]
	}
	switch number {
	case 17:
		return UDP
	case 6:
		return TCP
	}
	return otherProtocol
}
