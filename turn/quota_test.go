package turn

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

func TestQuotas(t *testing.T) {
	later := time.Now().Add(time.Hour)
	for name, tc := range map[string]struct {
		options Options
		user    func(i int) string
		from    func(i int) string // host of the client
		most    int
		want    stun.ErrorCode
		counted string
	}{
		"of a user":     {Options{UserAllocations: 3}, func(int) string { return "@alice:example.org" }, nil, 3, stun.CodeAllocQuotaReached, "user_quota"},
		"of an address": {Options{AddressAllocations: 4}, func(i int) string { return fmt.Sprintf("@user%d:example.org", i) }, nil, 4, stun.CodeAllocQuotaReached, "address_quota"},
		"of the server": {Options{Allocations: 2}, func(i int) string { return fmt.Sprintf("@user%d:example.org", i) }, nil, 2, stun.CodeAllocQuotaReached, "server_quota"},
		"of ports":      {Options{FirstPort: 61000, LastPort: 61001}, func(i int) string { return fmt.Sprintf("@user%d:example.org", i) }, nil, 2, stun.CodeInsufficientCapacity, "no_socket"},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, host, tc.options)
			var all []*caller
			for i := range tc.most + 1 {
				c := w.udp(shared(tc.user(i), later))
				if i%2 == 1 {
					c = w.stream(c.credential)
				}
				all = append(all, c)
				if _, got := c.allocate(); i < tc.most && got != 0 || i == tc.most && got != tc.want {
					t.Fatalf("allocation %d: %d", i, got)
				}
			}
			if got := w.Stats().Refused[tc.counted]; got != 1 {
				t.Errorf("%d counted as %s, want 1", got, tc.counted)
			}
			if got := code(all[0].ask(stun.MethodRefresh, lifetime(0))); got != 0 {
				t.Fatalf("giving one back: %d", got)
			}
			if _, got := all[tc.most].allocate(); got != 0 {
				t.Errorf("after one was given back: %d", got)
			}
		})
	}
}

// A connection that ends gives back what it had, and so does one that was never read.
func TestConnectionsGiveBack(t *testing.T) {
	w := start(t, host, Options{UserAllocations: 1})
	later := time.Now().Add(time.Hour)
	for range 3 {
		c := w.stream(shared("@alice:example.org", later))
		for deadline := time.Now().Add(patience); ; {
			if _, got := c.allocate(); got == 0 {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("no allocation once the other connection was closed: %d", got)
			}
		}
		c.conn.Close()
	}
}

// A client of its own user cannot touch the allocation of another, though it sends from the same address.
func TestForeignAllocation(t *testing.T) {
	w := start(t, host, Options{})
	later := time.Now().Add(time.Hour)
	c := w.udp(shared("@alice:example.org", later))
	c.mustAllocate()
	alice := c.credential
	c.credential = shared("@mallory:example.org", later)
	for name, m := range map[string]*stun.Message{
		"refresh": c.request(stun.MethodRefresh, lifetime(0)), "permission": c.request(stun.MethodCreatePermission, peerAddress(netip.MustParseAddrPort("8.8.8.8:9"))),
		"channel": c.request(stun.MethodChannelBind, attribute(stun.AttrChannelNumber, 0x40, 0, 0, 0), peerAddress(netip.MustParseAddrPort("8.8.8.8:9999"))),
	} {
		c.send(m.Raw)
		c.credential = alice
		answer := c.ask(stun.MethodRefresh) // comes after the answer to what was sent before, if there is any
		c.credential = shared("@mallory:example.org", later)
		if code(answer) != 0 || answer.TransactionID == m.TransactionID {
			t.Errorf("%s: mallory was answered, or alice lost her allocation: %d", name, code(answer))
		}
	}
	if a := w.ledger.of(client{w.listeners[0], addrPort(c.conn.LocalAddr())}); a == nil || a.user != "@alice:example.org" {
		t.Errorf("the allocation is %+v", a)
	}
}

// The same credential again is the same user: what is too much for one is too much, wherever it is asked for. Another credential of the user refreshes
// what the first one allocated.
func TestReusedCredential(t *testing.T) {
	w := start(t, host, Options{UserAllocations: 2})
	now := time.Now()
	first, second := w.Credential("PA_one", now), w.Credential("PA_one", now.Add(10*time.Minute))
	if first.Username == second.Username {
		t.Fatal("both credentials are the same")
	}
	one, two := w.udp(first), w.stream(first)
	one.mustAllocate()
	two.mustAllocate()
	for _, c := range []Credential{first, second} {
		if _, got := w.udp(c).allocate(); got != stun.CodeAllocQuotaReached {
			t.Errorf("a third allocation of the user: %d", got)
		}
	}
	one.credential = second
	if got := code(one.ask(stun.MethodRefresh)); got != 0 {
		t.Errorf("refresh by the next credential: %d", got)
	}
}

// What is beyond the bit rate is dropped, in each direction on its own.
func TestBitrate(t *testing.T) {
	for name, o := range map[string]Options{
		"of an allocation": {AllocationBitrate: 80_000}, "of the server": {Bitrate: 80_000},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, host, o)
			c := w.udp(w.Credential("PA_one", time.Now()))
			relay := c.mustAllocate()
			media := addrPort(w.media.LocalAddr())
			if got := c.bind(0x4000, media); got != 0 {
				t.Fatalf("channel: %d", got)
			}
			begun := time.Now()
			for range 20 { // 20 kB where 2,500 are let through at once
				c.tell(0x4000, strings.Repeat("x", 1000))
				_, _ = w.media.WriteToUDPAddrPort([]byte(strings.Repeat("y", 1000)), relay)
				if got := code(c.ask(stun.MethodRefresh)); got != 0 { // what comes in one batch would pass together
					t.Fatalf("refresh: %d", got)
				}
			}
			most := 5 + uint64(time.Since(begun)/(100*time.Millisecond)) // packets in the bucket and a little, then one a tenth of a second
			s := w.Stats()
			if got := s.Kinds["join"]; got.Up.Packets < 2 || got.Up.Packets > most || got.Down.Packets > most {
				t.Errorf("carried %+v, want %d packets at most", got, most)
			}
			if got := s.Refused["bitrate"]; got+most < 20 {
				t.Errorf("%d counted as dropped", got)
			}
		})
	}
}

func TestMeter(t *testing.T) {
	var m meter
	at := time.Unix(1_800_000_000, 0)
	if !m.pass(1<<30, at) {
		t.Error("a meter without a rate does not let everything pass")
	}
	m.set(1000, time.Second)
	passed := 0
	for range 5000 {
		if m.pass(1, at) {
			passed++
		}
	}
	if passed < 1000 || passed > 1002 {
		t.Errorf("%d at once, want 1000", passed)
	}
	for range 5000 {
		if at = at.Add(100 * time.Microsecond); m.pass(1, at) {
			passed++
		}
	}
	if passed < 1495 || passed > 1505 {
		t.Errorf("%d after half a second, want 1500", passed)
	}
}

// Who has no allocation gets so many answers and no more, and never more than five bytes for one.
func TestStrangers(t *testing.T) {
	w := start(t, host, Options{})
	for _, method := range []stun.Method{
		stun.MethodBinding, stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind, stun.MethodConnect, stun.MethodConnectionBind,
	} {
		for name, attributes := range map[string][]stun.Setter{
			"bare": nil, "unknown attribute": {attribute(0x0777)}, "many unknown": {attribute(0x0777), attribute(0x0778), attribute(0x0779)},
			"signed with nothing":  {attribute(stun.AttrMessageIntegrity, make([]byte, 20)...)},
			"a nonce that is none": {attribute(stun.AttrNonce, 'x'), attribute(stun.AttrMessageIntegrity, make([]byte, 20)...)},
		} {
			c := w.udp(Credential{})
			m := c.request(method, attributes...)
			c.send(m.Raw)
			c.send(c.request(stun.MethodBinding).Raw) // is always answered
			for b := c.receive(patience); b != nil; b = c.receive(patience) {
				if answer := (&stun.Message{Raw: b}); answer.Decode() != nil || answer.TransactionID != m.TransactionID {
					break
				}
				if len(b) > 5*len(m.Raw) {
					t.Errorf("%s, %s: %d bytes for %d", method, name, len(b), len(m.Raw))
				}
			}
			c.conn.Close()
		}
	}
	from := netip.MustParseAddr("198.51.100.7")
	passed, at := 0, time.Now()
	for range 20_000 {
		if w.called(from, at) {
			passed++
		}
	}
	if want := callerRate * int(callerBurst/time.Second); passed < want || passed > want+2 {
		t.Errorf("%d answers at once, want %d", passed, want)
	}
	if !w.called(netip.MustParseAddr("198.51.100.8"), at) {
		t.Error("another address gets no answer")
	}
	if charged(netip.MustParseAddr("2001:db8::1")) != charged(netip.MustParseAddr("2001:db8::ffff:1")) {
		t.Error("two addresses of a household are counted apart")
	}
}

// A connection of somebody who says nothing ends; one with an allocation goes on.
func TestSilentConnection(t *testing.T) {
	w := start(t, host, Options{hello: 200 * time.Millisecond})
	c := w.stream(w.Credential("PA_one", time.Now()))
	c.mustAllocate()
	for _, said := range []string{"", "\x00\x03"} {
		silent, err := net.Dial("tcp", w.tcp.String())
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		_, _ = io.WriteString(silent, said)
		_ = silent.SetReadDeadline(time.Now().Add(patience))
		if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after %q: %v, want the end", said, err)
		}
	}
	if got := code(c.ask(stun.MethodRefresh)); got != 0 {
		t.Errorf("refresh: %d", got)
	}
}
