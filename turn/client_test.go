package turn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"callserver/turn/path"

	"github.com/pion/stun/v4"
	pion "github.com/pion/turn/v5"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// secret is what the homeserver of the tests shares.
const secret = "the secret that the homeserver of these tests shares"

// A world is a Relay on a loopback address, beside media.
type world struct {
	*Relay
	t     testing.TB
	at    netip.AddrPort // UDP
	tcp   netip.AddrPort
	media *net.UDPConn
}

// usePlain has Relays carry packets by pion's own way.
var usePlain bool

// TestPlain does what needs packets to be carried the other way.
func TestPlain(t *testing.T) {
	usePlain = true
	defer func() { usePlain = false }()
	for name, test := range map[string]func(*testing.T){
		"media": TestReachesMedia, "homeserver": TestHomeserverReachesRelaysAndPeers, "translation": TestMediaBehindTranslation, "bitrate": TestBitrate, "quotas": TestQuotas,
	} {
		t.Run(name, test)
	}
}

// start opens a Relay on an address of this host, for UDP and TCP.
func start(t testing.TB, host string, o Options) *world {
	t.Helper()
	w := &world{t: t, media: socket(t, host)}
	media := addrPort(w.media.LocalAddr())
	if o.Places == nil {
		o.Places = func() []Place { return []Place{{media, media}} }
	}
	if o.Secrets == nil {
		o.Secrets = []string{secret}
	}
	var err error
	if !usePlain {
		if o.Path, err = path.New(path.Options{}); err != nil {
			t.Skipf("no batches on this system: %v", err)
		}
		t.Cleanup(func() {
			if err := o.Path.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if w.Relay, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.Close(), w.Close()); err != nil {
			t.Error(err)
		}
	})
	if w.at, err = w.ListenUDP(netip.AddrPortFrom(netip.MustParseAddr(host), 0)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	w.tcp = addrPort(l.Addr())
	if err := w.Accept(l); err != nil {
		t.Fatal(err)
	}
	return w
}

// socket is a UDP socket of somebody else's.
func socket(t testing.TB, host string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(host)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// shared is a credential of the homeserver's.
func shared(user string, until time.Time) Credential { return sharedBy(secret, user, until) }

func sharedBy(secret, user string, until time.Time) Credential {
	name := fmt.Sprintf("%d:%s", until.Unix(), user)
	return Credential{name, sharedPassword([]byte(secret), name)}
}

// A caller speaks TURN message by message. It signs what it sends once it knows how.
type caller struct {
	t          testing.TB
	conn       net.Conn
	packets    net.PacketConn // of conn, where it is a stream
	credential Credential
	realm      string // "" = as told
	nonce      string
	told       string // realm
}

func (w *world) udp(c Credential) *caller { return w.dial("udp", w.at, c) }

func (w *world) stream(c Credential) *caller { return w.dial("tcp", w.tcp, c) }

func (w *world) dial(network string, at netip.AddrPort, credential Credential) *caller {
	w.t.Helper()
	conn, err := net.Dial(network, at.String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	c := &caller{t: w.t, conn: conn, credential: credential}
	if network == "tcp" {
		c.packets = pion.NewSTUNConn(conn)
	}
	return c
}

// ask sends a request and returns the answer, nil if none comes. It answers a challenge once.
func (c *caller) ask(method stun.Method, attributes ...stun.Setter) *stun.Message {
	c.t.Helper()
	answer := c.once(method, attributes...)
	if code(answer) == stun.CodeUnauthorized && c.nonce == "" || code(answer) == stun.CodeStaleNonce {
		var nonce stun.Nonce
		var realm stun.Realm
		if err := errors.Join(nonce.GetFrom(answer), realm.GetFrom(answer)); err != nil {
			c.t.Fatal(err)
		}
		c.nonce, c.told = nonce.String(), realm.String()
		answer = c.once(method, attributes...)
	}
	return answer
}

func (c *caller) once(method stun.Method, attributes ...stun.Setter) *stun.Message {
	c.t.Helper()
	m := c.request(method, attributes...)
	c.send(m.Raw)
	for {
		b := c.receive(patience)
		if b == nil {
			return nil
		}
		answer := &stun.Message{Raw: b}
		if answer.Decode() == nil && answer.TransactionID == m.TransactionID {
			return answer
		}
	}
}

// request builds one, signed if there is a nonce.
func (c *caller) request(method stun.Method, attributes ...stun.Setter) *stun.Message {
	c.t.Helper()
	all := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attributes...)
	if c.nonce != "" {
		realm := c.realm
		if realm == "" {
			realm = c.told
		}
		all = append(all, stun.NewUsername(c.credential.Username), stun.NewRealm(realm), stun.NewNonce(c.nonce),
			stun.NewLongTermIntegrity(c.credential.Username, realm, c.credential.Password))
	}
	m, err := stun.Build(all...)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *caller) send(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil && !errors.Is(err, net.ErrClosed) {
		c.t.Log("write:", err) // what is read next says more
	}
}

// receive is the next message, nil if none comes in time.
func (c *caller) receive(wait time.Duration) []byte {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, 2000)
	var n int
	var err error
	if c.packets != nil {
		n, _, err = c.packets.ReadFrom(b)
	} else {
		n, err = c.conn.Read(b)
	}
	var late net.Error
	switch {
	case err == nil:
		return b[:n]
	case errors.As(err, &late) && late.Timeout(), errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return nil
	}
	c.t.Log("read:", err)
	return nil
}

// allocate asks for a relay and returns its address.
func (c *caller) allocate(attributes ...stun.Setter) (netip.AddrPort, stun.ErrorCode) {
	c.t.Helper()
	return c.allocateBy(17, attributes...)
}

func (c *caller) allocateBy(protocol byte, attributes ...stun.Setter) (netip.AddrPort, stun.ErrorCode) {
	c.t.Helper()
	answer := c.ask(stun.MethodAllocate, append([]stun.Setter{transport(protocol)}, attributes...)...)
	if answer == nil {
		return netip.AddrPort{}, -1
	}
	var at stun.XORMappedAddress
	if at.GetFromAs(answer, stun.AttrXORRelayedAddress) != nil {
		return netip.AddrPort{}, code(answer)
	}
	addr, _ := netip.AddrFromSlice(at.IP)
	return netip.AddrPortFrom(addr, uint16(at.Port)), 0
}

// mustAllocate fails the test where there is no relay.
func (c *caller) mustAllocate(attributes ...stun.Setter) netip.AddrPort {
	c.t.Helper()
	at, why := c.allocate(attributes...)
	if why != 0 {
		c.t.Fatalf("allocation refused: %d", why)
	}
	return at
}

// permit asks for a permission.
func (c *caller) permit(peer netip.Addr) stun.ErrorCode {
	c.t.Helper()
	return code(c.ask(stun.MethodCreatePermission, peerAddress(netip.AddrPortFrom(peer, 9))))
}

// bind asks for a channel.
func (c *caller) bind(channel uint16, peer netip.AddrPort) stun.ErrorCode {
	c.t.Helper()
	number := attribute(stun.AttrChannelNumber, byte(channel>>8), byte(channel), 0, 0)
	return code(c.ask(stun.MethodChannelBind, number, peerAddress(peer)))
}

// say sends by a Send indication, tell by ChannelData.
func (c *caller) say(peer netip.AddrPort, text string) {
	c.t.Helper()
	m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication), peerAddress(peer), attribute(stun.AttrData, []byte(text)...))
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(m.Raw)
}

func (c *caller) tell(channel uint16, text string) {
	c.t.Helper()
	b := binary.BigEndian.AppendUint16(nil, channel)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	b = append(b, text...)
	for c.packets != nil && len(b)%4 != 0 {
		b = append(b, 0)
	}
	c.send(b)
}

// hears is the next text that comes from a peer, and how it came: from whom, or by which channel.
func (c *caller) hears() (text string, from netip.AddrPort, channel uint16) {
	c.t.Helper()
	b := c.receive(patience)
	if len(b) >= 4 && b[0]>>6 == 1 {
		return string(b[4 : 4+binary.BigEndian.Uint16(b[2:])]), from, binary.BigEndian.Uint16(b)
	}
	m := &stun.Message{Raw: b}
	var at stun.XORMappedAddress
	if m.Decode() != nil || at.GetFromAs(m, stun.AttrXORPeerAddress) != nil {
		return "", from, 0
	}
	data, _ := m.Get(stun.AttrData)
	addr, _ := netip.AddrFromSlice(at.IP)
	return string(data), netip.AddrPortFrom(addr, uint16(at.Port)), 0
}

// code is that of an error response; 0 of a success, -1 of no answer.
func code(m *stun.Message) stun.ErrorCode {
	if m == nil {
		return -1
	}
	var e stun.ErrorCodeAttribute
	if m.Type.Class == stun.ClassSuccessResponse {
		return 0
	}
	if e.GetFrom(m) != nil {
		return -1
	}
	return e.Code
}

type setter func(*stun.Message) error

func (s setter) AddTo(m *stun.Message) error { return s(m) }

func attribute(t stun.AttrType, value ...byte) stun.Setter {
	return setter(func(m *stun.Message) error { m.Add(t, value); return nil })
}

// transport is REQUESTED-TRANSPORT by its protocol number: 17 is UDP, 6 TCP.
func transport(protocol byte) stun.Setter {
	return attribute(stun.AttrRequestedTransport, protocol, 0, 0, 0)
}

// family is REQUESTED-ADDRESS-FAMILY: 1 is IPv4, 2 IPv6.
func family(f byte) stun.Setter { return attribute(stun.AttrRequestedAddressFamily, f, 0, 0, 0) }

// lifetime is LIFETIME.
func lifetime(d time.Duration) stun.Setter {
	return attribute(stun.AttrLifetime, binary.BigEndian.AppendUint32(nil, uint32(d/time.Second))...)
}

// peerAddress is XOR-PEER-ADDRESS, in the family that the address is written in: also of IPv4 addresses mapped into IPv6, which pion's own makes
// IPv4 of.
func peerAddress(at netip.AddrPort) stun.Setter {
	return setter(func(m *stun.Message) error {
		mask := append(binary.BigEndian.AppendUint32(nil, cookie), m.TransactionID[:]...)
		ip := at.Addr().AsSlice()
		value := []byte{0, 1}
		if len(ip) == 16 {
			value[1] = 2
		}
		value = binary.BigEndian.AppendUint16(value, at.Port()^cookie>>16)
		for i, b := range ip {
			value = append(value, b^mask[i])
		}
		m.Add(stun.AttrXORPeerAddress, value)
		return nil
	})
}

// reads is the next datagram that a socket gets.
func reads(t testing.TB, c *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 2000)
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// quiet reports whether a socket has got nothing. Loopback delivers while it is being sent.
func quiet(t testing.TB, c *net.UDPConn) bool {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	b := make([]byte, 2000)
	n, _, err := c.ReadFromUDPAddrPort(b)
	if err == nil {
		t.Logf("%s got %q", c.LocalAddr(), b[:n])
	}
	return err != nil
}
