package path

import (
	"bytes"
	"net/netip"
	"testing"

	"callserver/sfu/udp"

	"github.com/pion/stun/v4"
)

var (
	peer4 = netip.MustParseAddrPort("192.0.2.7:4242")
	peer6 = netip.MustParseAddrPort("[2001:db8::7]:4242")
)

// indication is what a client sends.
func indication(t testing.TB, peer netip.AddrPort, data []byte, more ...stun.Setter) []byte {
	t.Helper()
	all := []stun.Setter{stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication)}
	if peer.IsValid() {
		all = append(all, peerAddress(peer))
	}
	if data != nil {
		all = append(all, stun.RawAttribute{Type: stun.AttrData, Value: data})
	}
	m, err := stun.Build(append(all, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

type peerAddress netip.AddrPort

// AddTo implements stun.Setter.
func (p peerAddress) AddTo(m *stun.Message) error {
	a := netip.AddrPort(p)
	return stun.XORMappedAddress{IP: a.Addr().AsSlice(), Port: int(a.Port())}.AddToAs(m, stun.AttrXORPeerAddress)
}

// TestSend reads Send indications that Pion wrote.
func TestSend(t *testing.T) {
	good := indication(t, peer4, []byte("hello"))
	long := bytes.Clone(good)
	long[3] += 4
	for _, c := range []struct {
		name string
		in   []byte
		peer netip.AddrPort
		data string
		ok   bool
	}{
		{"IPv4", good, peer4, "hello", true},
		{"IPv6", indication(t, peer6, []byte("hello you")), peer6, "hello you", true},
		{"no data in it", indication(t, peer4, []byte{}), peer4, "", true},
		{"what may be passed over", indication(t, peer4, []byte("x"), stun.NewSoftware("test"), stun.Fingerprint), peer4, "x", true},
		{"no peer", indication(t, netip.AddrPort{}, []byte("x")), netip.AddrPort{}, "", false},
		{"no data", indication(t, peer4, nil), netip.AddrPort{}, "", false},
		{"two peers", indication(t, peer4, []byte("x"), peerAddress(peer6)), netip.AddrPort{}, "", false},
		{"something for the server", indication(t, peer4, []byte("x"), stun.RawAttribute{Type: stun.AttrDontFragment}), netip.AddrPort{}, "", false},
		{"longer than it is", long, netip.AddrPort{}, "", false},
		{"cut short", good[:len(good)-4], netip.AddrPort{}, "", false},
		{"an address of no family", indication(t, netip.AddrPort{}, []byte("x"), stun.RawAttribute{Type: stun.AttrXORPeerAddress, Value: make([]byte, 8)}), netip.AddrPort{}, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !isSend(c.in) {
				t.Fatal("not taken for a Send indication")
			}
			peer, data, ok := send(c.in)
			if ok != c.ok {
				t.Fatalf("ok is %v, want %v", ok, c.ok)
			}
			if ok && (peer != c.peer || string(data) != c.data) {
				t.Errorf("%q to %s, want %q to %s", data, peer, c.data, c.peer)
			}
		})
	}
	if request, err := stun.Build(stun.TransactionID, stun.BindingRequest); err != nil || isSend(request.Raw) {
		t.Error("a request is taken for a Send indication", err)
	}
}

// TestFrameData writes Data indications for Pion to read.
func TestFrameData(t *testing.T) {
	for _, peer := range []netip.AddrPort{peer4, peer6} {
		for _, data := range []string{"", "a", "ab", "abc", "abcd"} {
			var head [udp.MaxHead]byte
			before, after := frameData(&head, peer, len(data))
			m := &stun.Message{Raw: append(append(bytes.Clone(head[:before]), data...), make([]byte, after)...)}
			if err := m.Decode(); err != nil {
				t.Fatalf("%q from %s: %v", data, peer, err)
			}
			var from stun.XORMappedAddress
			if err := from.GetFromAs(m, stun.AttrXORPeerAddress); err != nil {
				t.Fatal(err)
			}
			got, err := m.Get(stun.AttrData)
			if addr, _ := netip.AddrFromSlice(from.IP); err != nil || string(got) != data || netip.AddrPortFrom(addr.Unmap(), uint16(from.Port)) != peer {
				t.Errorf("%q from %v, %v; want %q from %s", got, from, err, data, peer)
			}
			if m.Type != stun.NewType(stun.MethodData, stun.ClassIndication) {
				t.Errorf("type %s", m.Type)
			}
		}
	}
}

func TestChannelData(t *testing.T) {
	for _, c := range []struct {
		name   string
		in     string
		number uint16
		data   string
		ok     bool
	}{
		{"whole", "\x40\x01\x00\x02ab", 0x4001, "ab", true},
		{"padded", "\x4f\xff\x00\x02ab\x00\x00", 0x4fff, "ab", true},
		{"of RFC 5766", "\x7f\xfe\x00\x02ab", 0x7ffe, "ab", true},
		{"empty", "\x40\x00\x00\x00", 0x4000, "", true},
		{"cut short", "\x40\x00\x00\x03ab", 0, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			number, data, ok := channelData([]byte(c.in))
			if !isChannelData([]byte(c.in)) || number != c.number || string(data) != c.data || ok != c.ok {
				t.Errorf("%q on %#x, %v; want %q on %#x, %v", data, number, ok, c.data, c.number, c.ok)
			}
		})
	}
	for _, in := range []string{"", "\x40\x00\x00", "\x3f\x00\x00\x00", "\x00\x01\x00\x00", "\x80\x00\x00\x00"} {
		if isChannelData([]byte(in)) {
			t.Errorf("%q is taken for ChannelData", in)
		}
	}
}

// FuzzMessages reads what strangers send: whatever is found lies within, and what Pion reads too is the same.
func FuzzMessages(f *testing.F) {
	f.Add(indication(f, peer4, []byte("hello")))
	f.Add(indication(f, peer6, []byte("hello you"), stun.Fingerprint))
	odd := indication(f, peer6, []byte("hello you"))
	odd[headerSize+attributeSize] = 3 // the byte before the family
	f.Add(odd)
	f.Add([]byte("\x40\x01\x00\x02ab"))
	f.Add([]byte("\x00\x01\x00\x00\x21\x12\xa4\x42............"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := messageSize(b); err == nil && (n < 0 || n > 65535+headerSize+3) {
			t.Errorf("message of %d bytes", n)
		}
		if isChannelData(b) {
			if _, data, ok := channelData(b); ok && len(data)+channelSize > len(b) {
				t.Errorf("%d bytes of data in %d", len(data), len(b))
			}
		}
		if !isSend(b) {
			return
		}
		peer, data, ok := send(b)
		if !ok {
			return
		}
		m := &stun.Message{Raw: bytes.Clone(b)}
		if err := m.Decode(); err != nil {
			t.Fatalf("Pion does not read it: %v", err)
		}
		want, err := m.Get(stun.AttrData)
		var from stun.XORMappedAddress
		if err2 := from.GetFromAs(m, stun.AttrXORPeerAddress); err != nil || err2 != nil || !bytes.Equal(want, data) || from.Port != int(peer.Port()) {
			t.Errorf("%q to %s, Pion reads %q to %v (%v, %v)", data, peer, want, from, err, err2)
		}
	})
}
