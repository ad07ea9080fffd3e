package udp

import (
	"errors"
	"net"
	"testing"
	"time"
)

// TestPace: datagrams gather while they come thick, until a batch is full at most, and for as long as the loop that works on them is short of time.
func TestPace(t *testing.T) {
	const longest = 2 * time.Millisecond
	for _, c := range []struct {
		name      string
		before    time.Duration // for which they gathered so far
		datagrams int           // of each batch
		every     time.Duration // between batches
		work      float64       // share of that
		want      time.Duration
	}{
		{"a call of two", 0, 3, 4 * time.Millisecond, 0, 0},
		{"one datagram after the other, slowly", 0, 1, 1100 * time.Microsecond, 0, 0},
		{"one datagram after the other", 0, 1, 400 * time.Microsecond, 0, longest / leastGather},
		{"many", 0, 20, 400 * time.Microsecond, 1, 1280 * time.Microsecond},
		{"more than one core takes", 0, BatchSize, 100 * time.Microsecond, 1, 100 * time.Microsecond},
		{"without an end", 0, BatchSize, 0, 1, 0},
		{"on, with time to spare", longest, 5, longest, crowded * 3 / 4, longest * 3 / 4},
		{"on, with hardly anything to do", longest, 5, longest, 0.01, longest / leastGather},
		{"on, without time to spare", longest / 2, 5, longest, crowded, longest},
		{"on, at its end", longest, 5, longest, 1, longest},
		{"fewer", longest, 1, longest, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Now()
			p := pace{longest: longest, gather: c.before, began: now}
			for range paceBatches {
				if p.gather != c.before {
					t.Fatalf("%v after %d batches", p.gather, p.batches)
				}
				now = now.Add(c.every)
				p.worked += time.Duration(c.work * float64(c.every))
				p.batch(c.datagrams, now)
			}
			if p.gather != c.want || p.batches != 0 || p.datagrams != 0 || p.worked != 0 || p.began != now {
				t.Errorf("%v, want %v: %+v", p.gather, c.want, p)
			}
		})
	}
}

// TestGather receives all of what comes thick, in fewer batches than datagrams, and ends with its socket.
func TestGather(t *testing.T) {
	from, to := listen(t, loopback, Options{}), listen(t, loopback, Options{Buffer: 1 << 20, Gather: time.Millisecond})
	if to.gather == nil {
		t.Skip("datagrams cannot gather on this system")
	}
	const many = 40 * paceBatches
	taken := make(chan struct{}, BatchSize/2) // so many are on their way
	go func() {
		for range many {
			if _, err := from.WriteToAddrPort([]byte{1}, addrOf(to)); err != nil {
				t.Error(err)
			}
			taken <- struct{}{}
		}
	}()
	b, got, turns := newInbox(), 0, 0
	gathered := false
	for got < many {
		if err := to.Receive(b, func() { turns++ }); err != nil {
			t.Fatal(err)
		}
		got += b.Len()
		for range b.Len() {
			<-taken
		}
		gathered = gathered || to.gather.pace.gather > 0
	}
	if turns == 0 || turns > many/2 || !gathered {
		t.Errorf("%d turns for %d datagrams; gathered: %t", turns, many, gathered)
	}
	failed := make(chan error)
	go func() { failed <- to.Receive(b, nil) }()
	if err := to.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed socket: %v", err)
	}
}
