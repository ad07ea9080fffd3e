//go:build linux && (amd64 || arm64)

package udp

import (
	"runtime"
	"testing"
	"time"
)

// TestPollRest: what comes while a Poll rests wakes nobody, and is told of when the time has come; what comes afterwards is told of at once.
func TestPollRest(t *testing.T) {
	p := newPoll(t)
	s, from := bareSockets(t, p, 1)[0], listen(t, loopback, Options{})
	send := func() {
		if _, err := from.WriteToAddrPort([]byte("x"), addrOf(s)); err != nil {
			t.Error(err)
		}
	}
	looks, look := 0, p.look
	p.look = func(fd uintptr) bool { looks++; return look(fd) }
	const rest, many = 100 * time.Millisecond, 50
	p.Rest(rest)
	began := time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range many {
			send()
			runtime.Gosched() // each might be a wake-up of its own
		}
	}()
	ready, err := p.Wait(nil, nil)
	if passed := time.Since(began); err != nil || len(ready) != 1 || passed < rest/2 {
		t.Errorf("told of %d sockets after %v, %v", len(ready), passed, err)
	}
	<-ended
	if looks > 2 {
		t.Errorf("looked %d times", looks)
	}
	b := newInbox()
	if err := s.Receive(b, nil); err != nil || b.Len() != many {
		t.Errorf("%d datagrams, %v; want %d", b.Len(), err, many)
	}
	began = time.Now()
	for range 2 { // once it has rested, and then again
		if ready, err = p.Wait(nil, send); err != nil || len(ready) != 1 {
			t.Errorf("told of %d sockets, %v", len(ready), err)
		}
	}
	if passed := time.Since(began); passed > rest/2 {
		t.Errorf("told after %v", passed)
	}
}
