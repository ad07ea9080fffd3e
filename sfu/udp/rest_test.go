package udp

import (
	"errors"
	"net"
	"slices"
	"testing"
	"time"
)

// TestRest looks no sooner than it is to, hears the sockets again afterwards, and does not rest where there is more than was taken.
func TestRest(t *testing.T) {
	p := newPoll(t)
	sockets := bareSockets(t, p, 2)
	from := listen(t, loopback, Options{})
	send := func(i int) {
		if _, err := from.WriteToAddrPort([]byte("x"), addrOf(sockets[i])); err != nil {
			t.Error(err)
		}
	}
	wait := func(want int, idle func()) {
		t.Helper()
		if ready, err := p.Wait(nil, idle); err != nil || !slices.Equal(ready, []int{want}) {
			t.Fatalf("ready: %v, %v; want %d", ready, err, want)
		}
	}
	const rest = 10 * time.Millisecond
	for range 3 {
		send(0)
		wait(0, nil) // what ended a wait before does not end a rest
		begin := time.Now()
		p.Rest(rest)
		send(1)
		wait(1, func() { t.Error("idle while there is something") })
		if took := time.Since(begin); took < rest {
			t.Errorf("it rested for %s, want %s", took, rest)
		}
		p.Rest(time.Microsecond)
		wait(0, func() { send(0) }) // after a rest that brought nothing
		wait(1, func() { send(1) }) // without one
	}
	p.Rest(time.Hour)
	p.Again(1)
	wait(1, nil)
	p.Rest(time.Hour)
	if ready, err := p.Look(nil); err != nil || len(ready) != 0 {
		t.Errorf("ready: %v, %v; want nothing", ready, err)
	}
	wait(0, func() { send(0) }) // looking has ended the rest

	p.Rest(time.Hour)
	ended := make(chan error)
	go func() {
		_, err := p.Wait(nil, nil)
		ended <- err
	}()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed while it rests: %v", err)
	}
}
