// Package testnet is a network world in memory with clients of the LiveKit kind in it, for tests.
// It owns the simulated network and Pion connections that behave like a publishing and subscribing client.
// It never imports the server and never opens a socket.
package testnet

import (
	"sync/atomic"
	"testing"

	"github.com/pion/logging"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/vnet"
)

// World is one flat network. Use it inside a synctest bubble: its hosts then live in virtual time.
type World struct {
	t      testing.TB
	router *vnet.Router
	drop   atomic.Pointer[func(b []byte, from, to string) bool]
}

// NewWorld starts an empty network, which the test's end stops.
func NewWorld(t testing.TB) *World {
	t.Helper()
	router, err := vnet.NewRouter(&vnet.RouterConfig{
		CIDR: "10.0.0.0/16", QueueSize: 4096, LoggerFactory: logging.NewDefaultLoggerFactory(),
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &World{t: t, router: router}
	router.AddChunkFilter(func(c vnet.Chunk) bool {
		if f := w.drop.Load(); f != nil {
			return !(*f)(c.UserData(), c.SourceAddr().String(), c.DestinationAddr().String())
		}
		return true
	})
	if err := router.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// Host adds a host with the address, such as 10.0.0.1. The router must know it before packets flow.
func (w *World) Host(ip string) transport.Net {
	w.t.Helper()
	n, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{ip}})
	if err == nil {
		err = w.router.AddNet(n)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// Drop loses every packet for which f returns true; nil loses none. From and to are "ip:port".
func (w *World) Drop(f func(b []byte, from, to string) bool) {
	if f == nil {
		w.drop.Store(nil)
		return
	}
	w.drop.Store(&f)
}

// Stop ends the network. Hosts must be closed before.
func (w *World) Stop() {
	w.t.Helper()
	if err := w.router.Stop(); err != nil {
		w.t.Error(err)
	}
}
