package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Only what is about the room waits, and what nobody waits for any more arrives too.
func TestProxy(t *testing.T) {
	arrived := make(chan string, 4)
	behind := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { arrived <- r.URL.Path }))
	defer behind.Close()
	p, err := newProxy(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	before := httptest.NewServer(p)
	defer before.Close()
	const delay = 300 * time.Millisecond
	p.slow("!slow:example.org", delay)
	client := &http.Client{Timeout: delay / 3}
	began := time.Now()
	if _, err := client.Get(before.URL + "/rooms/%21slow:example.org/state"); err == nil {
		t.Error("the slow room answered at once")
	}
	answer, err := client.Get(before.URL + "/rooms/%21other:example.org/state")
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	next := func() string {
		select {
		case path := <-arrived:
			return path
		case <-time.After(20 * delay):
			return "nothing"
		}
	}
	if got := next(); got != "/rooms/!other:example.org/state" {
		t.Errorf("first came %s", got)
	}
	if got := next(); got != "/rooms/!slow:example.org/state" || time.Since(began) < delay {
		t.Errorf("then came %s after %s", got, time.Since(began))
	}
	if got := p.slow("", 0); got != 1 {
		t.Errorf("%d requests were delayed", got)
	}
}
