package sfu

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// channel keeps what was written to it.
type channel struct {
	mu  sync.Mutex
	got []string
}

func (c *channel) WriteData(reliable bool, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := "lossy "
	if reliable {
		kind = "reliable "
	}
	c.got = append(c.got, kind+string(b))
	return nil
}

func (c *channel) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got = nil
	return got
}

func TestDataRouting(t *testing.T) {
	st := newStage(t, Options{})
	var channels [3]channel
	people := []*client{st.join("alice"), st.join("bob"), st.join("carol")}
	for i, p := range people {
		p.SetDataWriter(&channels[i])
	}
	tests := []struct {
		name     string
		reliable bool
		to       []Identity
		want     [3][]string
	}{
		{"to all", true, nil, [3][]string{nil, {"reliable x"}, {"reliable x"}}},
		{"lossy", false, nil, [3][]string{nil, {"lossy x"}, {"lossy x"}}},
		{"to one", true, []Identity{"carol"}, [3][]string{nil, nil, {"reliable x"}}},
		{"named twice", true, []Identity{"bob", "bob"}, [3][]string{nil, {"reliable x"}, nil}},
		{"to oneself and strangers", true, []Identity{"alice", "dave"}, [3][]string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := people[0].SendData([]byte("x"), tt.reliable, tt.to); err != nil {
				t.Fatal(err)
			}
			for i := range channels {
				if diff := cmp.Diff(tt.want[i], channels[i].take()); diff != "" {
					t.Errorf("%s got (-want +got):\n%s", people[i].Identity(), diff)
				}
			}
		})
	}
	quiet := st.join("quiet", func(m *Member) { m.Permission.CanPublishData = false })
	if err := quiet.SendData([]byte("x"), true, nil); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("without permission: %v", err)
	}
	people[1].Leave(ClientInitiated, st.now)
	channels[1].take()
	if err := people[1].SendData([]byte("x"), true, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after leaving: %v", err)
	}
	if err := people[0].SendData([]byte("x"), true, nil); err != nil || len(channels[1].take()) != 0 {
		t.Errorf("to who left: %v", err)
	}
}

func TestReliableDataWaitsForTheChannel(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob := st.join("alice"), st.join("bob")
	var c channel
	send := func(reliable bool, text string) {
		t.Helper()
		if err := alice.SendData([]byte(text), reliable, nil); err != nil {
			t.Fatal(err)
		}
	}
	send(true, "1")
	send(false, "dropped")
	send(true, "2")
	bob.SetDataWriter(&c)
	send(true, "3")
	if diff := cmp.Diff([]string{"reliable 1", "reliable 2", "reliable 3"}, c.take()); diff != "" {
		t.Errorf("got (-want +got):\n%s", diff)
	}
	bob.SetDataWriter(nil)
	big := string(bytes.Repeat([]byte("x"), 60<<10))
	send(true, "first")
	send(true, big)
	send(true, "last")
	send(true, big[:45<<10])
	bob.SetDataWriter(&c)
	got := c.take()
	if len(got) != 2 || got[0] != "reliable last" {
		t.Errorf("kept %d messages, want the last two, which fit", len(got))
	}
}

func TestReliableDataStaysInOrder(t *testing.T) {
	st := newStage(t, Options{})
	alice, bob := st.join("alice"), st.join("bob")
	var c channel
	const n = 2000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			_ = alice.SendData(fmt.Appendf(nil, "%d", i), true, nil)
		}
	})
	for range 50 {
		bob.SetDataWriter(nil)
		bob.SetDataWriter(&c)
	}
	wg.Wait()
	bob.SetDataWriter(&c)
	got := c.take()
	if len(got) != n {
		t.Fatalf("%d of %d messages arrived", len(got), n)
	}
	for i, m := range got {
		if want := fmt.Sprintf("reliable %d", i); m != want {
			t.Fatalf("message %d is %q, want %q", i, m, want)
		}
	}
}
