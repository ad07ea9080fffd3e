package main

import (
	"net/http"
	"net/netip"
	"strings"

	"callserver/edge"
	"callserver/signalling/homeserver"
	"callserver/web"
)

// Where the parts answer besides the root of the site. Matrix clients are told these, and operators' proxies know them
// from other servers.
const (
	sfuPath        = "/livekit/sfu"
	authoriserPath = "/livekit/jwt"
)

// routes says which part answers which path.
func (s *server) routes() http.Handler {
	return edge.Mux(
		edge.Mount{Handler: s.page, Root: web.Root()},
		edge.Mount{Handler: homeserver.Handler(s.matrix...), Root: []string{"/_matrix/app/"}},
		edge.Mount{Handler: http.HandlerFunc(s.healthz), Root: []string{"/healthz"}},
		edge.Mount{Handler: s.client, Root: []string{"/rtc", "/rtc/", "/twirp/"}, Prefixes: []string{sfuPath}},
		edge.Mount{
			Handler:  s.authoriser.Handler(),
			Root:     []string{"/sfu/get", "/get_token", "/delegate_delayed_leave", "/.well-known/matrix/client", "/_matrix/"},
			Prefixes: []string{authoriserPath},
		},
	)
}

// healthz is the operator's health check without its reasons, which are not for everybody.
func (s *server) healthz(w http.ResponseWriter, r *http.Request) {
	if !s.telemetry.Healthy() {
		http.Error(w, "not healthy", http.StatusServiceUnavailable)
		return
	}
	edge.OK(w, r)
}

// clientAddr is the address that a request counts for: the peer's, or, where the peer is a proxy on this machine or in
// its network, what that proxy put last into X-Forwarded-For.
func clientAddr(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr := peer.Addr().Unmap()
	if !addr.IsLoopback() && !addr.IsPrivate() {
		return addr
	}
	values := r.Header.Values("X-Forwarded-For")
	if len(values) == 0 {
		return addr
	}
	last := values[len(values)-1]
	if forwarded, err := netip.ParseAddr(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])); err == nil {
		return forwarded.Unmap()
	}
	return addr
}
