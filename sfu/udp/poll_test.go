package udp

import (
	"errors"
	"net"
	"slices"
	"testing"
	"time"
)

// bareSockets are so many of a Poll's.
func bareSockets(t testing.TB, p *Poll[int], n int) []*Socket {
	t.Helper()
	var out []*Socket
	for i := range n {
		all, err := ListenBare(loopback, Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = all[0].Close() })
		if err := p.Add(all[0], i); err != nil {
			t.Fatal(err)
		}
		out = append(out, all[0])
	}
	return out
}

func newPoll(t testing.TB) *Poll[int] {
	t.Helper()
	p, err := NewPoll[int]()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no Poll on this system")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// TestPoll tells of each socket that has something once, though it came before the socket was added or while nobody waited.
func TestPoll(t *testing.T) {
	p := newPoll(t)
	sockets := bareSockets(t, p, 3)
	from := listen(t, loopback, Options{})
	b := newInbox()
	if err := sockets[0].Receive(b, nil); !errors.Is(err, ErrEmpty) {
		t.Errorf("an empty socket: %v, want %v", err, ErrEmpty)
	}
	for range 3 {
		for _, i := range []int{0, 2} {
			if _, err := from.WriteToAddrPort([]byte("x"), addrOf(sockets[i])); err != nil {
				t.Fatal(err)
			}
		}
	}
	ready, err := p.Wait(nil, func() { t.Error("idle while there is something") })
	if slices.Sort(ready); err != nil || !slices.Equal(ready, []int{0, 2}) {
		t.Fatalf("ready: %v, %v; want 0 and 2", ready, err)
	}
	if err := sockets[0].Receive(b, nil); err != nil || b.Len() != 3 {
		t.Errorf("%d datagrams, %v; want 3", b.Len(), err)
	}
	if d, at := b.Datagram(1); string(d) != "x" || at != addrOf(from) {
		t.Errorf("%q from %s", d, at)
	}
	p.Again(2)
	if ready, err = p.Look(nil); err != nil || !slices.Equal(ready, []int{2}) {
		t.Errorf("ready: %v, %v; want what was asked for again", ready, err)
	}
	if ready, err = p.Look(nil); err != nil || len(ready) != 0 {
		t.Errorf("ready: %v, %v; want nothing", ready, err)
	}
	ready, err = p.Wait(nil, func() { _, _ = from.WriteToAddrPort([]byte("x"), addrOf(sockets[1])) }) // what idle sends ends the wait
	if err != nil || !slices.Equal(ready, []int{1}) {
		t.Errorf("ready: %v, %v; want 1", ready, err)
	}
	if err := sockets[1].Close(); err != nil {
		t.Fatal(err)
	}
	if err := sockets[1].Receive(b, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed socket: %v", err)
	}
	if _, err := sockets[1].WriteToAddrPort([]byte("x"), addrOf(from)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed socket: %v", err)
	}
}

// TestPollClose ends a wait.
func TestPollClose(t *testing.T) {
	p := newPoll(t)
	ended := make(chan error)
	go func() {
		_, err := p.Wait(nil, nil)
		ended <- err
	}()
	_ = p.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want %v", err, net.ErrClosed)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("waits on")
	}
}

// TestBareShare has sockets of one port, and IPv6 where there is any.
func TestBareShare(t *testing.T) {
	newPoll(t)
	all, err := ListenBare(loopback, Options{Share: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		defer func() { _ = s.Close() }()
	}
	if len(all) != 2 || addrOf(all[0]) != addrOf(all[1]) {
		t.Errorf("%d sockets", len(all))
	}
	if other, err := ListenBare(addrOf(all[0]), Options{}); err == nil {
		t.Error("the port is somebody else's, too")
		_ = other[0].Close()
	}
}

// framer frames with a mark, and refuses datagrams of one byte.
type framer struct{}

func (framer) Frame(head *[MaxHead]byte, size int) (before, after int, ok bool) {
	copy(head[:], "mark")
	return 4, size % 2, size != 1
}

// TestFramed sends a frame around each datagram, in runs or not.
func TestFramed(t *testing.T) {
	for _, o := range []Options{{}, {Single: true}} {
		from, to := listen(t, loopback, o), listen(t, loopback, Options{})
		d := NewDestination(addrOf(to)).Framed(framer{})
		box := from.NewOutbox()
		for _, s := range []string{"abcd", "efgh", "i", "klm"} {
			box.Add(d, []byte(s))
		}
		box.Flush()
		from.Send(d, []byte("n"))
		from.Send(d, []byte("opq"))
		got, _ := receive(t, to, 4)
		for i, want := range []string{"markabcd", "markefgh", "markklm\x00", "markopq\x00"} {
			if string(got[i]) != want {
				t.Errorf("%q, want %q", got[i], want)
			}
		}
		if calls := from.Stats().Calls; from.Segments() && calls != 2 {
			t.Errorf("%d system calls, want 2: %+v", calls, o)
		}
	}
}
