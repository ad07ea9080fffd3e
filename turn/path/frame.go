// Hot path: see ARCHITECTURE.md#relay

package path

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"callserver/sfu/udp"
)

// Of STUN messages (RFC 8489 §5, §14) and those of TURN among them (RFC 8656 §17, §18).
const (
	headerSize    = 20
	attributeSize = 4 // of an attribute's header
	cookie        = 0x2112A442

	sendIndication = 0x0016
	dataIndication = 0x0017

	attrXORPeerAddress = 0x0012
	attrData           = 0x0013
	attrOptional       = 0x8000 // from here on an attribute that is not known is passed over

	familyIPv4, familyIPv6 = 1, 2

	channelSize = 4 // of a ChannelData message's header
)

// isChannelData looks at the channel number. Those of RFC 8656 §12 end at 0x4FFF, those of RFC 5766 §11 at 0x7FFF: coturn's client takes them at random
// from all of these, and pion binds them.
func isChannelData(b []byte) bool { return len(b) >= channelSize && b[0]>>6 == 1 }

// channelData returns the channel and the data of a ChannelData message; no ok if it is cut short.
func channelData(b []byte) (number uint16, data []byte, ok bool) {
	number, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
	if channelSize+n > len(b) {
		return 0, nil, false
	}
	return number, b[channelSize : channelSize+n], true
}

// isSend reports whether a datagram begins as a Send indication does.
func isSend(b []byte) bool {
	return len(b) >= headerSize && binary.BigEndian.Uint16(b) == sendIndication && binary.BigEndian.Uint32(b[4:]) == cookie
}

// send returns the peer and the data of a Send indication. Whatever has anything besides that is not ok, and left to the server.
func send(b []byte) (peer netip.AddrPort, data []byte, ok bool) {
	if int(binary.BigEndian.Uint16(b[2:])) != len(b)-headerSize {
		return peer, nil, false
	}
	for rest := b[headerSize:]; len(rest) > 0; {
		if len(rest) < attributeSize {
			return peer, nil, false
		}
		kind, n := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		padded := (n + 3) &^ 3
		if attributeSize+padded > len(rest) {
			return peer, nil, false
		}
		value := rest[attributeSize : attributeSize+n]
		switch {
		case kind == attrXORPeerAddress && !peer.IsValid():
			if peer = xorAddress(value, b[4:headerSize]); !peer.IsValid() {
				return peer, nil, false
			}
		case kind == attrData && data == nil:
			data = value
		case kind < attrOptional:
			return peer, nil, false
		}
		rest = rest[attributeSize+padded:]
	}
	return peer, data, peer.IsValid() && data != nil
}

// xorAddress reads an XOR-PEER-ADDRESS; mask is the message's cookie and transaction id. The byte before the family is 0 (RFC 8489 §14.1): what
// to make of another is left to the server.
func xorAddress(value, mask []byte) netip.AddrPort {
	var addr netip.Addr
	switch {
	case len(value) == 8 && binary.BigEndian.Uint16(value) == familyIPv4:
		var a [4]byte
		for i := range a {
			a[i] = value[4+i] ^ mask[i]
		}
		addr = netip.AddrFrom4(a)
	case len(value) == 20 && binary.BigEndian.Uint16(value) == familyIPv6:
		var a [16]byte
		for i := range a {
			a[i] = value[4+i] ^ mask[i]
		}
		addr = netip.AddrFrom16(a)
	default:
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(value[2:])^binary.BigEndian.Uint16(mask))
}

// frameChannel writes what goes before data on a channel. Over UDP it is not padded (RFC 8656 §12.5).
func frameChannel(head *[udp.MaxHead]byte, number uint16, size int) int {
	binary.BigEndian.PutUint16(head[:], number)
	binary.BigEndian.PutUint16(head[2:], uint16(size))
	return channelSize
}

// frameData writes what goes before data in a Data indication, and returns how long that is and how much padding follows the data.
func frameData(head *[udp.MaxHead]byte, peer netip.AddrPort, size int) (before, after int) {
	addr := peer.Addr()
	family, addrSize := byte(familyIPv4), 4
	if addr.Is6() {
		family, addrSize = familyIPv6, 16
	}
	after = -size & 3
	before = headerSize + attributeSize + 4 + addrSize + attributeSize
	binary.BigEndian.PutUint16(head[:], dataIndication)
	binary.BigEndian.PutUint16(head[2:], uint16(before-headerSize+size+after))
	binary.BigEndian.PutUint32(head[4:], cookie)
	binary.NativeEndian.PutUint64(head[8:], rand.Uint64())
	binary.NativeEndian.PutUint32(head[16:], rand.Uint32())
	a := head[headerSize:]
	binary.BigEndian.PutUint16(a, attrXORPeerAddress)
	binary.BigEndian.PutUint16(a[2:], uint16(4+addrSize))
	a[4], a[5] = 0, family
	binary.BigEndian.PutUint16(a[6:], peer.Port()^cookie>>16)
	raw := addr.As16()
	copy(a[8:], raw[16-addrSize:])
	for i := range addrSize {
		a[8+i] ^= head[4+i]
	}
	d := a[8+addrSize:]
	binary.BigEndian.PutUint16(d, attrData)
	binary.BigEndian.PutUint16(d[2:], uint16(size))
	return before, after
}
