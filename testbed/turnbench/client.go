package main

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // of TURN's REST credentials
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"callserver/sfu/udp"

	"github.com/pion/stun/v4"
)

// channel is the one that every client binds.
const channel = 0x4000

// A client has one allocation.
type client struct {
	socket  *udp.Socket
	server  *udp.Destination
	relayed netip.AddrPort

	user, realm string
	nonce, key  []byte
}

// credentials are good for an hour (draft-uberti-behave-turn-rest-00).
func credentials(name string) (user, password string) {
	user = strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10) + ":" + name
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(user))
	return user, base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// newClient opens a socket.
func newClient(server netip.AddrPort, user string) (*client, error) {
	socket, err := listenBare("127.0.0.1", 1<<20)
	if err != nil {
		return nil, err
	}
	return &client{socket: socket, server: udp.NewDestination(server), user: user}, nil
}

// allocate opens a socket, and an allocation with a channel.
func allocate(server netip.AddrPort, user, password string, peer netip.AddrPort) (*client, error) {
	c, err := newClient(server, user)
	if err != nil {
		return nil, err
	}
	answer, err := c.ask(stun.MethodAllocate, attribute(stun.AttrRequestedTransport, 17, 0, 0, 0))
	if err != nil {
		return nil, err
	}
	var nonce stun.Nonce
	var realm stun.Realm
	if err := errors.Join(nonce.GetFrom(answer), realm.GetFrom(answer)); err != nil {
		return nil, fmt.Errorf("first answer: %w", err)
	}
	c.nonce, c.realm = nonce, realm.String()
	c.key = stun.NewLongTermIntegrity(user, c.realm, password)
	answer, err = c.ask(stun.MethodAllocate, attribute(stun.AttrRequestedTransport, 17, 0, 0, 0))
	if err != nil {
		return nil, err
	}
	var relayed stun.XORMappedAddress
	if err := relayed.GetFromAs(answer, stun.AttrXORRelayedAddress); err != nil || answer.Type.Class != stun.ClassSuccessResponse {
		return nil, fmt.Errorf("allocate: %v", answer)
	}
	addr, _ := netip.AddrFromSlice(relayed.IP)
	c.relayed = netip.AddrPortFrom(addr.Unmap(), uint16(relayed.Port))
	answer, err = c.ask(stun.MethodChannelBind, attribute(stun.AttrChannelNumber, channel>>8, channel&0xff, 0, 0), address(peer))
	if err != nil {
		return nil, err
	}
	if answer.Type.Class != stun.ClassSuccessResponse {
		return nil, fmt.Errorf("bind to %s: %v", peer, answer)
	}
	return c, nil
}

func attribute(kind stun.AttrType, value ...byte) stun.Setter {
	return stun.RawAttribute{Type: kind, Value: value}
}

// address is an XOR-PEER-ADDRESS.
func address(a netip.AddrPort) stun.Setter {
	return setter(func(m *stun.Message) error {
		return stun.XORMappedAddress{IP: a.Addr().AsSlice(), Port: int(a.Port())}.AddToAs(m, stun.AttrXORPeerAddress)
	})
}

type setter func(*stun.Message) error

func (f setter) AddTo(m *stun.Message) error { return f(m) }

// ask sends a request until it is answered.
func (c *client) ask(method stun.Method, with ...stun.Setter) (*stun.Message, error) {
	all := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, with...)
	if c.key != nil {
		all = append(all, stun.NewUsername(c.user), stun.NewRealm(c.realm), stun.Nonce(c.nonce), stun.MessageIntegrity(c.key))
	}
	m, err := stun.Build(all...)
	if err != nil {
		return nil, err
	}
	inbox := newInbox()
	for range 20 {
		if _, err := c.socket.WriteToAddrPort(m.Raw, c.server.Addr()); err != nil {
			return nil, err
		}
		for until := time.Now().Add(250 * time.Millisecond); time.Now().Before(until); {
			if c.socket.Receive(inbox, nil) != nil {
				continue
			}
			for i := range inbox.Len() {
				b, _ := inbox.Datagram(i)
				answer := &stun.Message{Raw: append([]byte(nil), b...)}
				if answer.Decode() == nil && answer.TransactionID == m.TransactionID {
					return answer, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("%s: no answer from %s", method, c.server.Addr())
}

func newInbox() *udp.Inbox {
	b := &udp.Inbox{}
	for i := range b.Buffers {
		b.Buffers[i] = make([]byte, 1600)
	}
	return b
}

// stamp writes the time into a packet that looks like RTP, at its end: it needs no more than 20 bytes.
func stamp(b []byte, now time.Time) {
	b[0] = 0x80
	binary.BigEndian.PutUint64(b[12:], uint64(now.UnixNano()))
}

// age is how old a packet is, if it is one of ours.
func age(b []byte, now time.Time) (time.Duration, bool) {
	if len(b) < 20 || b[0] != 0x80 {
		return 0, false
	}
	return time.Duration(now.UnixNano() - int64(binary.BigEndian.Uint64(b[12:]))), true
}

func addrOf(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(u.AddrPort().Addr().Unmap(), u.AddrPort().Port())
}
