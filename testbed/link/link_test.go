package link

import (
	"context"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// device is one end of a link in memory: what the test sends into it the link reads, what the link writes the test receives.
type device struct {
	in, out chan []byte
	closed  chan struct{}
	once    sync.Once
}

func newDevice() *device {
	return &device{in: make(chan []byte), out: make(chan []byte, 100), closed: make(chan struct{})}
}

func (d *device) Read(b []byte) (int, error) {
	select {
	case p := <-d.in:
		return copy(b, p), nil
	case <-d.closed:
		return 0, os.ErrClosed
	}
}

func (d *device) Write(p []byte) (int, error) {
	d.out <- p
	return len(p), nil
}

func (d *device) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

// took sends a packet in at one end and returns how long it took to the other; false when it did not come within a second.
func took(from, to *device) (time.Duration, bool) {
	sent := time.Now()
	from.in <- udp(100, 9)
	select {
	case <-to.out:
		return time.Since(sent), true
	case <-time.After(time.Second):
		return 0, false
	}
}

// The script's times are virtual here: a minute of it takes no time.
func TestLinkPlaysScript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := newDevice(), newDevice()
		l := New(client, server, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		script, err := ParseScript([]byte(`{"steps": [{"delay_ms": 10}, {"at_s": 10, "loss": 1, "direction": "up"}, {"at_s": 20, "delay_ms": 300, "direction": "up"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := l.Play(ctx, script); err != nil {
			t.Fatal(err)
		}
		expect := func(at time.Duration, from, to *device, want time.Duration, wantOK bool) {
			t.Helper()
			time.Sleep(time.Until(began.Add(at)))
			if got, ok := took(from, to); got != want || ok != wantOK {
				t.Errorf("at %v: got %v %v, want %v %v", at, got, ok, want, wantOK)
			}
		}
		expect(time.Second, client, server, 10*time.Millisecond, true)
		expect(3*time.Second, server, client, 10*time.Millisecond, true)
		expect(11*time.Second, client, server, 0, false)
		expect(13*time.Second, server, client, 10*time.Millisecond, true)
		expect(21*time.Second, client, server, 300*time.Millisecond, true)

		if err := l.Play(ctx, Script{Steps: []Step{{}}}); err != nil { // a new script takes the place of the old one at once
			t.Fatal(err)
		}
		expect(30*time.Second, client, server, 0, true)
		if s := l.Stats(); s.Up.Lost != 1 || s.Up.Delivered != 3 || s.Down.Delivered != 2 {
			t.Errorf("counted %+v", s)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

// A device that fails ends the link with its error; one that goes away ends it without.
func TestLinkEndsWithItsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := newDevice(), newDevice()
		done := make(chan error, 1)
		go func() { done <- New(client, server, 1).Run(t.Context()) }()
		client.Close()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		done := make(chan error, 1)
		go func() { done <- New(broken{newDevice()}, newDevice(), 1).Run(t.Context()) }()
		if err := <-done; err == nil {
			t.Error("run returned no error")
		}
	})
}

type broken struct{ *device }

func (broken) Read([]byte) (int, error) { return 0, io.ErrNoProgress }
