package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// A proxy hands requests on to a homeserver, those that name one room later. What it has taken it hands on, even if whoever
// sent it has given up or is gone: it was on its way. Safe for concurrent use.
type proxy struct {
	next *httputil.ReverseProxy

	mu      sync.Mutex
	room    string
	by      time.Duration
	delayed int64 // requests since slow
}

func newProxy(to string) (*proxy, error) {
	target, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	if target.Host == "" {
		return nil, errors.New("-to is no base URL")
	}
	return &proxy{next: &httputil.ReverseProxy{
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
	}}, nil
}

// slow delays the requests about a room from now on, and no others. It returns how many were delayed since the last call.
func (p *proxy) slow(room string, by time.Duration) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	delayed := p.delayed
	p.room, p.by, p.delayed = room, by, 0
	return delayed
}

// delayOf is how long a request is kept back.
func (p *proxy) delayOf(path string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == 0 || !strings.Contains(path, "/"+p.room+"/") {
		return 0
	}
	p.delayed++
	return p.by
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if by := p.delayOf(r.URL.Path); by > 0 {
		time.Sleep(by)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context())) // with an end: else ReverseProxy looks after the sender itself
	defer cancel()
	r = r.WithContext(ctx)
	r.Body = io.NopCloser(bytes.NewReader(body))
	p.next.ServeHTTP(w, r)
}
